"""The two-line loop: an environment, an agent, one process, one thread."""

from __future__ import annotations

from typing import Any

import jax
import numpy as np

from distacme import core
from distacme import environments
from distacme import specs
from distacme import types
from distacme import wiring
from distacme.acting import greedy_policy
from distacme.acting import params as params_lib
from distacme.replay import memory
from distacme.replay import rows
from distacme.run import run_state as run_state_lib
from distacme.run import seeding
from distacme.run import status


class EnvironmentLoop:
  """Acts and learns in turn, deterministically, without server or thread.

  It drives the same actor and learner as the programs of many processes; only
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
    params: core.ParamsStore | None = None,
    run_state: run_state_lib.RunState | None = None,
    state: types.LearnerState | None = None,
    **settings: Any,
  ):
    """Makes actor, replay and learner.

    Args:
      environment: a dm_env or Gymnasium environment, or a vector of them.
      agent: made for its spec.
      seed: of the agent: initial params, exploration, sampling.
      params: how they get from the learner to the actor; by default at once.
      run_state: counts, logs and stops; by default one of its own.
      state: learner state to start from; by default a new one.
      **settings: others of `wiring.make_learner`, such as `updates_per_call`,
        `publish_period` and `steps`.

    Raises:
      ValueError: if the rate limits of the agent's replay leave no room for
        `updates_per_call` batches, or a batch cannot be split over the devices.
    """
    vector = environments.wrap(environment)
    self._run_state = run_state = run_state or run_state_lib.RunState()
    self._agent, self._spec = agent, specs.make_environment_spec(vector)
    self.params = params or params_lib.LocalParams()
    if state is None:
      state = jax.jit(agent.initial_learner_state)(seeding.learner_key(seed))

    def make_replay(layout: rows.RowLayout) -> memory.Memory:
      self.replay = memory.Memory(agent.replay, layout, seed)
      return self.replay

    self.learner = wiring.make_learner(
      agent,
      self._spec,
      state,
      make_replay,
      self.params,
      run_state.reporter('learner/0'),
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
    """Acts once, then learns as often as replay lets it; returns env steps."""
    steps = self.actor.step()
    while (
      self.replay.can_sample(self.learner.updates_per_call)
      and not self.is_hurried
    ):
      self.learner.step()
      self.learner.tend()
    state = status.WorkerState
    self.learner.tend(
      state.LEARNING if self.learner.steps else state.WAITING_FOR_DATA
    )
    return steps

  @property
  def is_hurried(self) -> bool:
    """Whether the run ends for a reason that leaves no time to go on."""
    return not (
      status.leaves_time(self.actor.directive.stop)
      and status.leaves_time(self.learner.directive.stop)
    )

  def policy(self) -> greedy_policy.GreedyPolicy:
    """Returns what has been learnt so far, as it is evaluated."""
    params = self.params.newest()
    assert params is not None  # the learner publishes when it is made
    return greedy_policy.GreedyPolicy(self._agent, params, self._spec)

  def start_anew(self, vector: core.VectorEnvironment, seed: int) -> None:
    """Goes on in other environments, as many, where their episodes start.

    What the learner and replay hold stays, all else goes. So from here on the
    loop is one that was made of their states, `vector` and `seed`.
    """
    self.learner.publish()
    self.actor.start_anew(vector, seeding.actor_key(seed))

  def run(
    self, num_episodes: int | None = None, num_steps: int | None = None
  ) -> int:
    """Runs until either number is reached, or the run stops (`run_state`).

    Args:
      num_episodes: episodes to finish, of all environments together.
      num_steps: environment steps to make.

    Returns:
      Environment steps made by this call.

    Raises:
      ValueError: if neither or both numbers are given.
      FloatingPointError: if the loss is not finite any more.
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
    self.actor.report()
    self.learner.check()
    self.learner.report(status.WorkerState.LEARNING)
    return steps
