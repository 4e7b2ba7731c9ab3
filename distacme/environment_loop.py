"""The two-line loop: an environment, an agent, one process, one thread."""

from __future__ import annotations

from typing import Any

import numpy as np

from distacme import core
from distacme import environments
from distacme import learner_loop
from distacme import specs
from distacme import status
from distacme import types
from distacme import wiring
from distacme.run import run_state as run_state_lib
from distacme.run import seeding


class EnvironmentLoop(learner_loop.LearnerLoop):
  """Acts and learns in turn, deterministically, without server or thread.

  The loop drives the same actor and learner as programs of many processes. Only
  replay and the way of the params are those of one process.

      loop = distacme.EnvironmentLoop(environment, agent)
      loop.run(num_episodes=100)
      action = loop.policy()(observation)
  """

  def __init__(
    self,
    environment: Any,
    agent: core.Agent,
    *,
    seed: int = 0,
    run_state: run_state_lib.RunState | None = None,
    **settings: Any,
  ):
    """Makes actor, replay and learner.

    Args:
      environment: a dm_env or Gymnasium environment, or a vector of them.
      agent: made for its spec.
      seed: of the agent: initial params, exploration, sampling.
      run_state: counts, logs and stops; by default a new one.
      **settings: other arguments of `learner_loop.LearnerLoop`.

    Raises:
      ValueError: see `learner_loop.LearnerLoop`; or if the agent has no table for
        actors to fill.
    """
    if not agent.replay.needs_actors:
      raise ValueError(
        'the agent learns from demonstrations alone and needs no environment to '
        'act in: use distacme.learner_loop.LearnerLoop.'
      )
    vector = environments.wrap(environment)
    run_state = run_state or run_state_lib.RunState()
    super().__init__(
      specs.make_environment_spec(vector),
      agent,
      seed=seed,
      run_state=run_state,
      **settings,
    )
    self.actor = wiring.make_actor(
      agent,
      vector,
      lambda layout: self.replay.inserter(agent.replay.tables_of_actors),
      self.params,
      run_state.reporter('actor/0'),
      key=seeding.actor_key(seed),
      streams=types.Streams(np.arange(vector.num_envs), vector.num_envs),
    )

  def step(self) -> int:
    """Acts once, then learns as often as replay allows; returns env steps.

    Before the first action the agent learns from demonstrations alone, as long as
    its replay says, with one call of the update each time.
    """
    if self.replay.is_pretraining and self.replay.can_sample(
      self.learner.updates_per_call
    ):
      self.learner.step()
      steps = 0
    else:
      steps = self.actor.step()
      self._learn()
    if not self.has_learnt_all:
      self.learner.tend(self._learner_state)
    return steps

  def report(self) -> None:
    """Reports all progress to the run, however recent."""
    self.actor.report()
    super().report()

  @property
  def is_hurried(self) -> bool:
    """True if the run ends for a reason that leaves no time to continue."""
    return super().is_hurried or not status.leaves_time(
      self.actor.directive.stop
    )

  def start_anew(self, vector: core.VectorEnvironment, seed: int) -> None:
    """Goes on in as many other environments, at the start of their episodes.

    The states of learner and replay stay; all other state is dropped. So the loop
    is the same as a new loop made of these two states, `vector` and `seed`.
    """
    self.learner.publish()
    self.actor.start_anew(vector, seeding.actor_key(seed))

  def run(
    self, num_episodes: int | None = None, num_steps: int | None = None
  ) -> int:
    """Runs until either number is reached, or the run stops (`run_state`).

    Args:
      num_episodes: episodes to finish, summed over all environments.
      num_steps: environment steps to make.

    Returns:
      Environment steps made by this call.

    Raises:
      ValueError: if neither or both numbers are given.
      status.NotFiniteError: if the loss is not finite.
    """
    if (num_episodes is None) == (num_steps is None):
      raise ValueError(
        'give exactly one of num_episodes and num_steps, got '
        f'num_episodes={num_episodes} and num_steps={num_steps}.'
      )
    until = self.actor.num_episodes + (num_episodes or 0)
    steps = 0
    while (
      self.actor.num_episodes < until
      if num_steps is None
      else steps < num_steps
    ):
      if self._run_state.directive().stop is not None:
        break
      steps += self.step()
    self.report()
    self.learner.check()
    return steps
