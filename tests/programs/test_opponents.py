"""Opponents of evaluations, by the run's settings."""

import dataclasses
import json

import numpy as np
import pytest

from distacme import core
from distacme import types
from distacme.environments import opponents as players
from distacme.environments import perfect_play
from distacme.programs import checks
from distacme.programs import experiment as experiment_lib
from distacme.programs import opponents
from distacme.programs import run_config
from distacme.run import metrics
from distacme.testing import environments
from distacme.testing import legal_agent
from tests.environments import nim

AGENT = legal_agent.__name__
TIC_TAC_TOE = 'pgx:tic_tac_toe'


def make(env, **settings):
  run = run_config.RunConfig(agent=AGENT, env=env, mode='local', **settings)
  return experiment_lib.Experiment(run, legal_agent.Config())


def evaluated(experiment, agent=None, **others):
  agent = agent or experiment.make_agent(experiment.environment_spec())
  vector = experiment.make_vector(2, stream=1)
  return opponents.evaluated(experiment, agent, vector, 1, **others)


@pytest.mark.parametrize(
  ('name', 'kind'),
  [
    (None, players.RandomOpponent),
    ('random', players.RandomOpponent),
    ('perfect', perfect_play.PerfectOpponent),
  ],
)
def test_the_setting_names_the_opponent(name, kind):
  pytest.importorskip('pgx')
  experiment = make(TIC_TAC_TOE, opponent=name)
  checks.check_agent(experiment)
  environment = evaluated(experiment)
  assert isinstance(environment, players.AgainstOpponent)
  assert isinstance(environment, core.ModelEnvironment)
  assert isinstance(environment._opponent, kind)


class Untrained(legal_agent.LegalAgent):
  """Plays the cell that its first params name, which are of their key."""

  def __init__(self):
    super().__init__(legal_agent.Config())
    self.keys = []

  def initial_learner_state(self, key):
    return legal_agent.LearnerState(key[-1] % 9)

  def act(self, params, key, observation, state):
    output = super().act(params, key, observation, state)
    action = output.action * 0 + params['steps'].astype(output.action.dtype)
    return output._replace(action=action)


def first_move(experiment, **others):
  """Returns the first move of the opponent, who begins in row 1."""
  environment = evaluated(experiment, Untrained(), **others)
  environment.reset()
  environment._opening = None  # a random move
  timestep = environment.step(np.zeros(2, np.int32))
  return int(timestep.observation['board'][1, ..., 1].argmax())


def test_an_untrained_opponent_has_the_first_params_of_the_runs_seed():
  pytest.importorskip('pgx')
  runs = {
    seed: make(TIC_TAC_TOE, opponent='untrained', seed=seed)
    for seed in range(6)
  }
  moves = {seed: first_move(run) for seed, run in runs.items()}
  assert len(set(moves.values())) > 1
  resumed = dataclasses.replace(runs[3], resumed_from={'env_steps': 500})
  assert first_move(resumed) == moves[3]
  assert first_move(runs[0], untrained_seed=4) == moves[4]


def test_environments_for_one_stay_as_they_are():
  experiment = make('distacme.testing.environments:catch')
  environment = experiment.make_vector(2, stream=1)
  agent: core.Agent = Untrained()
  assert opponents.evaluated(experiment, agent, environment, 1) is environment


def nim_by_hand(seed):
  return nim.make_by_hand(seed)


@pytest.mark.parametrize(
  ('env', 'name', 'message'),
  [
    (
      environments.catch,
      'random',
      "opponent='random' is for games for two, and 'own' has one player. Leave "
      'it out.',
    ),
    (
      nim_by_hand,
      'perfect',
      "'own' cannot be evaluated against the opponent 'perfect': perfect play is "
      'computed from a model of the game, and this environment has none '
      '(core.ModelEnvironment). Choose another opponent. Known: random, perfect, '
      'untrained (--opponent).',
    ),
  ],
)
def test_opponents_that_cannot_play_are_refused(env, name, message):
  experiment = dataclasses.replace(make('own', opponent=name), environment=env)
  with pytest.raises(ValueError) as refused:
    opponents.check(experiment, experiment.environment_spec())
  assert str(refused.value) == message


def test_perfect_play_of_a_large_game_is_refused_before_the_run(monkeypatch):
  pytest.importorskip('pgx')
  monkeypatch.setattr(perfect_play, 'MAX_STATES', 50)
  with pytest.raises(ValueError, match='of at most 50 states'):
    checks.check_agent(make('pgx:connect_four', opponent='perfect'))


def test_unknown_opponents_are_refused():
  with pytest.raises(ValueError, match='random, perfect, untrained, got .best'):
    make(TIC_TAC_TOE, opponent='best')


def test_a_run_says_what_it_plays_against():
  run = run_config.RunConfig(opponent='perfect')
  assert "evaluation: 20 episodes against 'perfect' every" in run.evaluation


def test_evaluations_count_games(game_run_dir):
  rows = [
    row
    for row in metrics.read_metrics(game_run_dir / metrics.METRICS_FILE)
    if row['worker'].startswith('evaluator')
  ]
  assert len(rows) >= 3
  for row in rows:
    assert row['wins'] == 0  # against perfect play
    assert row['draws'] + row['losses'] == 4
    assert row['mean_return'] == -row['losses'] / 4
  config = json.loads((game_run_dir / 'config.json').read_text())
  assert config['run']['opponent'] == 'perfect'


def test_a_search_by_saved_states_meets_an_untrained_one():
  pytest.importorskip('mctx')
  from distacme import wiring
  from distacme.acting import params
  from distacme.agents import mcts

  config = mcts.Config(num_simulations=3, hidden_sizes=(8,), n_step=1)
  run = run_config.RunConfig('mcts', 'own', mode='local', opponent='untrained')
  experiment = experiment_lib.Experiment(
    run, config, environment=nim.make_by_hand
  )
  agent = experiment.make_agent(experiment.environment_spec())
  environment = evaluated(experiment, agent)
  key = np.array([0, 1], np.uint32)
  state = agent.initial_learner_state(key)
  source = params.LocalParams(
    core.VersionedParams(1, agent.actor_params(state))
  )
  streams = types.Streams(np.arange(2), 2)
  policy = wiring.make_policy(agent, source, environment, key, streams)
  timestep = environment.reset()
  for _ in range(20):
    left = timestep.observation['stones']
    output = policy.act(timestep.observation, timestep.step_type == 0)
    # Also where the game is over, and no action is legal.
    assert all(np.isfinite(m).all() for m in output.metrics.values())
    assert (output.action < left)[left > 0].all()
    timestep = environment.step(output.action)
    assert (timestep.observation['stones'] >= 0).all()
