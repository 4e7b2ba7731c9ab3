"""Learns from replay in memory: one process, one thread, no server."""

from __future__ import annotations

import math
from typing import Any

import jax

from distacme import core
from distacme import demonstrations as demonstrations_lib
from distacme import specs
from distacme import status
from distacme import types
from distacme import wiring
from distacme.acting import greedy_policy
from distacme.acting import params as params_lib
from distacme.replay import filling
from distacme.replay import in_process
from distacme.replay.items import rows
from distacme.run import run_state as run_state_lib
from distacme.run import seeding


class LearnerLoop:
  """A learner and the replay that it samples, deterministic.

  The class by itself serves agents that learn from demonstrations alone.
  """

  def __init__(
    self,
    spec: specs.EnvironmentSpec,
    agent: core.Agent,
    *,
    demonstrations: demonstrations_lib.Demonstrations | None = None,
    seed: int = 0,
    params: core.ParamsStore | None = None,
    run_state: run_state_lib.RunState | None = None,
    state: types.LearnerState | None = None,
    steps: int = 0,
    **settings: Any,
  ):
    """Makes replay and the learner.

    Args:
      spec: of the environment.
      agent: made for that spec.
      demonstrations: fill the tables of demonstrations, or of an agent without
        the table of its actors; None if there are none, or replay is loaded
        afterwards.
      seed: of the agent: initial params, exploration, sampling.
      params: the way of the params out of the learner; by default without delay.
      run_state: counts, logs and stops; by default a new one.
      state: learner state to start from; by default a new one.
      steps: learner steps that made `state`.
      **settings: others of `wiring.make_learner`, such as `updates_per_call` and
        `publish_period`.

    Raises:
      ValueError: if the rate limits of the agent's replay leave no room for
        `updates_per_call` batches, a batch cannot be split over the devices, or
        the demonstrations are not of the environment.
    """
    self._run_state = run_state = run_state or run_state_lib.RunState()
    self._agent, self._spec = agent, spec
    self.params = params or params_lib.LocalParams()
    if state is None:
      state = jax.jit(agent.initial_learner_state)(seeding.learner_key(seed))
    counted = run_state.directive().counts.get('learner_steps', 0)
    most = run_state.limits.max_learner_steps

    def make_replay(layout: rows.RowLayout) -> in_process.InProcessReplay:
      self.replay = in_process.InProcessReplay(agent.replay, layout, seed)
      if demonstrations is not None:
        filling.fill(
          demonstrations.checked(spec), agent.replay, layout, self.replay
        )
      return self.replay

    self.learner = wiring.make_learner(
      agent,
      spec,
      state,
      make_replay,
      self.params,
      run_state.reporter('learner/0'),
      steps=steps,
      last_step=math.inf if most is None else steps + most - counted,
      **settings,
    )

  def step(self) -> int:
    """Learns once; returns the number of environment steps made, 0."""
    if not self.replay.can_sample(self.learner.updates_per_call):
      raise RuntimeError(
        f'there is nothing more to learn from, and no actor: '
        f'{self.replay.describe()} Give more demonstrations, or ask for less '
        '(min_size, max_learner_steps).'
      )
    self._learn()
    return 0

  def _learn(self) -> None:
    """Learns as often as replay allows; without actors, which is always, once."""
    while (
      self.replay.can_sample(self.learner.updates_per_call)
      and not self.is_hurried
      and not self.has_learnt_all
    ):
      self.learner.step()
      self.learner.tend()
      if not self._agent.replay.needs_actors:
        break
    if self.has_learnt_all:
      self.report()  # with which the run ends

  def report(self) -> None:
    """Reports all progress to the run, however recent."""
    self.learner.report(self._learner_state)

  @property
  def _learner_state(self) -> status.WorkerState:
    if self.learner.steps:
      return status.WorkerState.LEARNING
    return status.WorkerState.WAITING_FOR_DATA

  @property
  def has_learnt_all(self) -> bool:
    """Whether the learner has made the steps that the run's limits allow."""
    return self.learner.has_learnt_all

  @property
  def is_hurried(self) -> bool:
    """True if the run ends for a reason that leaves no time to continue."""
    return not status.leaves_time(self.learner.directive.stop)

  def policy(self) -> greedy_policy.GreedyPolicy:
    """Returns the policy learnt so far, as an evaluator would use it."""
    params = self.params.newest()
    assert params is not None  # the learner publishes when it is made
    return greedy_policy.GreedyPolicy(self._agent, params, self._spec)
