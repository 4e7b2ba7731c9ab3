"""The worker that measures: greedy episodes of one fixed version of the params."""

from __future__ import annotations

from collections.abc import Callable
import time

import numpy as np

from distacme import core
from distacme import counting
from distacme import params as params_lib
from distacme import policy as policy_lib
from distacme import types

_MAX_ROWS = 20
_REPORT_EVERY = 64  # steps of the vector
_POLL_S = 0.05
_LAST_PARAMS_S = 5.0  # how long to wait for the learner's last publication


def num_rows(episodes: int) -> int:
  """Returns how many environments evaluate side by side.

  Every one plays equally many episodes: taking the first to finish would favour
  short ones.
  """
  rows = min(episodes, _MAX_ROWS)
  while episodes % rows:
    rows -= 1
  return rows


class Evaluator:
  """Plays episodes every so many environment steps of the run; one thread.

  The params are fixed while it plays, so that a score belongs to one version.
  """

  def __init__(
    self,
    environment: core.VectorEnvironment,
    agent: core.Agent,
    source: core.ParamsSource,
    reporter: core.Reporter,
    *,
    key: types.Key,
    episodes: int,
    period: int,
    env_steps: int = 0,
    solved_return: float | None = None,
    keep: Callable[[core.VersionedParams, float], None] | None = None,
  ):
    """Prepares to evaluate.

    Args:
      environment: of `num_rows(episodes)` rows.
      agent: whose policy to evaluate.
      source: of params.
      reporter: line to the run.
      key: consumed; decides what is random about the evaluated policy.
      episodes: in one evaluation.
      period: environment steps of the run between evaluations.
      env_steps: that the run had made before it was resumed.
      solved_return: mean return that ends the run.
      keep: is given the params and their score after every evaluation.
    """
    if episodes % environment.num_envs:
      raise ValueError(
        f'episodes={episodes} is not a multiple of the {environment.num_envs} '
        'environments; make num_rows(episodes) of them.'
      )
    self._environment = environment
    self._source = source
    self._reporter = reporter
    self._episodes = episodes
    self._period = period
    self._solved_return = solved_return
    self._keep = keep
    self._fixed = params_lib.LocalParams()
    self._policy = policy_lib.Policy(
      agent, self._fixed, environment.num_envs, key
    )
    self._evaluated: int | None = None  # the params' version
    self._schedule(env_steps)
    self.directive = core.Directive(None, {})

  def start_anew(
    self, environment: core.VectorEnvironment, key: types.Key, env_steps: int
  ) -> None:
    """Goes on as one that was made of these; consumes `key`."""
    self._environment = environment
    self._policy.start_anew(key)
    self._evaluated = None
    self._schedule(env_steps)

  def _schedule(self, env_steps: int) -> None:
    self._next = (env_steps // self._period + 1) * self._period

  def run(self) -> None:
    """Evaluates until the run stops; once more if it used up its steps."""
    while self.directive.stop is None:
      if not self.evaluate_if_due():
        self.directive = self._reporter.report(state='waiting')
        time.sleep(_POLL_S)
    self.finish()

  def evaluate_if_due(self) -> bool:
    """Evaluates if enough steps have passed since the last time."""
    if (
      self.directive.counts.get('env_steps', 0) < self._next
      or self._source.newest() is None
    ):
      return False
    self.evaluate()
    self._schedule(self.directive.counts.get('env_steps', 0))
    return True

  def finish(self) -> None:
    """Evaluates the last params of a run that used up its steps."""
    if self.directive.stop != counting.StopReason.STEP_LIMIT:
      return
    deadline = time.monotonic() + _LAST_PARAMS_S
    while not self._has_last_params() and time.monotonic() < deadline:
      time.sleep(_POLL_S)
    self.evaluate()

  def _has_last_params(self) -> bool:
    """Whether the newest params are of the last learner step that we know of."""
    newest = self._source.newest()
    counts = self._reporter.report(state='waiting for the last params').counts
    return newest is not None and newest.version >= counts.get(
      'learner_steps', 0
    )

  def evaluate(self) -> float | None:
    """Plays the episodes and reports; returns the mean return.

    Returns:
      None if the run stopped meanwhile for a reason that leaves no time.
    """
    newest = self._source.newest()
    if newest is None or newest.version == self._evaluated:
      return None
    self._fixed.publish(*newest)
    self._evaluated = newest.version
    start = time.monotonic()
    returns, length = self._play()
    if returns is None:
      return None
    mean = float(returns.mean())
    solved = self._solved_return is not None and mean >= self._solved_return
    metrics = {
      'mean_return': mean,
      'min_return': float(returns.min()),
      'max_return': float(returns.max()),
      'mean_length': length,
      'params_version': float(newest.version),
      'seconds': time.monotonic() - start,
    }
    self.directive = self._reporter.report(
      {'evaluations': 1}, metrics, state=f'return {mean:.4g}'
    )
    if self._keep is not None:
      self._keep(newest, mean)
    if solved:
      self._reporter.request_stop(
        counting.StopReason.SOLVED,
        f'mean return {mean:.4g} over {self._episodes} episodes, at params '
        f'version {newest.version}',
      )
    return mean

  def _play(self) -> tuple[np.ndarray | None, float]:
    """Returns the episodes' returns, in any order, and their mean length."""
    rows = self._environment.num_envs
    left = np.full(rows, self._episodes // rows)
    running = np.zeros(rows)
    returns: list[float] = []
    steps = calls = 0
    timestep = self._environment.reset()
    while left.any():
      output = self._policy.act(
        timestep.observation, timestep.step_type == types.FIRST
      )
      timestep = self._environment.step(output.action)
      playing = left > 0
      running += timestep.reward
      steps += int((playing & (timestep.step_type != types.FIRST)).sum())
      ended = playing & (timestep.step_type == types.LAST)
      if ended.any():
        returns += running[ended].tolist()
        running[ended] = 0.0
        left -= ended
      calls += 1
      if calls % _REPORT_EVERY == 0:
        self.directive = self._reporter.report(state='evaluating')
        if self.directive.stop not in (None, counting.StopReason.STEP_LIMIT):
          return None, 0.0
    return np.array(returns), steps / len(returns)
