"""Opponents that evaluations of games for two are played against."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, get_args

if TYPE_CHECKING:
  from distacme import core
  from distacme import specs
  from distacme import types
  from distacme.programs import experiment as experiment_lib

Opponent = Literal['random', 'perfect', 'untrained']
OPPONENTS: tuple[Opponent, ...] = get_args(Opponent)
DEFAULT: Opponent = 'random'


def check(
  experiment: experiment_lib.Experiment, spec: specs.EnvironmentSpec
) -> None:
  """Checks that evaluations can be played against the run's opponent.

  Raises:
    ValueError: if an opponent is given and the environment is not for two, or the
      opponent cannot play the game.
  """
  from distacme import specs as specs_lib
  from distacme.environments import opponents
  from distacme.environments import perfect_play
  from distacme.run import seeding

  run = experiment.run
  if not specs_lib.has_two_players(spec):
    if run.opponent is not None:
      raise ValueError(
        f'opponent={run.opponent!r} is for games for two, and {run.env!r} has one '
        'player. Leave it out.'
      )
    return
  try:
    if run.opponent == 'perfect':
      environment = experiment.make_vector(1, stream=0)
      perfect_play.solve(environment)
      environment.close()
    elif run.opponent != 'untrained':
      opponents.RandomOpponent(spec.actions, seeding.actor_key(0))
  except ValueError as error:
    raise ValueError(
      f'{run.env!r} cannot be evaluated against the opponent '
      f'{run.opponent or DEFAULT!r}: {error} Known: {", ".join(OPPONENTS)} '
      '(--opponent).'
    ) from error


def evaluated(
  experiment: experiment_lib.Experiment,
  agent: core.Agent,
  environment: core.VectorEnvironment,
  stream: int,
  untrained_seed: int | None = None,
) -> core.VectorEnvironment:
  """Returns environments for evaluations of `agent`; every evaluator calls this.

  In games for two the agent plays against the run's opponent. Others stay as they
  are.

  Args:
    experiment: of the run.
    agent: to be evaluated.
    environment: in which an agent plays itself.
    stream: of the environments, as in `Experiment.make_vector`.
    untrained_seed: of the params of an untrained opponent; by default the run's.
  """
  from distacme import specs as specs_lib
  from distacme.environments import opponents

  spec = specs_lib.make_environment_spec(environment)
  if not specs_lib.has_two_players(spec):
    return environment
  seed = experiment.run.seed if untrained_seed is None else untrained_seed
  opponent = _make(experiment, agent, environment, stream, seed)
  opening = None
  if experiment.run.opponent == 'untrained':  # it draws nothing by chance
    opening = opponents.RandomOpponent(
      environment.action_spec(), _key(experiment, stream, 2)
    )
  return opponents.AgainstOpponent(environment, opponent, opening)


def _make(
  experiment: experiment_lib.Experiment,
  agent: core.Agent,
  environment: core.VectorEnvironment,
  stream: int,
  untrained_seed: int,
) -> core.Policy:
  """Returns the run's opponent in games of `environment`."""
  import jax

  from distacme import core
  from distacme import wiring
  from distacme.acting import params as params_lib
  from distacme.environments import opponents
  from distacme.environments import perfect_play
  from distacme.run import seeding

  key = _key(experiment, stream, 1)
  name = experiment.run.opponent or DEFAULT
  if name == 'random':
    return opponents.RandomOpponent(environment.action_spec(), key)
  if name == 'perfect':
    return perfect_play.PerfectOpponent(perfect_play.solve(environment), key)
  state = jax.jit(agent.initial_learner_state)(
    seeding.learner_key(untrained_seed)
  )
  params = core.VersionedParams(0, agent.actor_params(state))
  return wiring.make_policy(
    agent, params_lib.LocalParams(params), environment, key, streams=None
  )


def _key(
  experiment: experiment_lib.Experiment, stream: int, number: int
) -> types.Key:
  """Returns a key of an opponent; the key of the stream is the agent's."""
  import jax

  from distacme.run import seeding

  key = seeding.actor_key(experiment.seed, stream)
  return jax.random.fold_in(key, number)
