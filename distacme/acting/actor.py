"""The worker that acts: steps environments and writes the steps to replay."""

from __future__ import annotations

from collections.abc import Callable
import time

import dm_env
import numpy as np

from distacme import core
from distacme import status
from distacme import types
from distacme.environments import checks

# The sooner of the two counts: a report costs more than a step's other work, and
# tells a slow environment's actor to stop.
_REPORT_EVERY = 16  # steps of the vector
_REPORT_PERIOD_S = 0.25
_METRICS_PERIOD_S = 1.0


class Actor:
  """Steps a vector of environments with one policy call per step; one thread.

  The same class runs in every mode. `step` is bounded, except that the writer
  may block while replay is ahead of the learner.
  """

  def __init__(
    self,
    environment: core.VectorEnvironment,
    policy: core.Policy,
    make_writer: Callable[[], core.Writer],
    reporter: core.Reporter,
  ):
    """Starts episodes in all rows.

    Args:
      environment: to act in.
      policy: acts in the environment.
      make_writer: returns a new writer into replay.
      reporter: the actor's line to the run.
    """
    self._environment = environment
    self._policy = policy
    self._make_writer = make_writer
    self._writer = make_writer()
    self._reporter = reporter
    self._timestep = environment.reset()
    self._episodes = _Episodes(environment.num_envs)
    self._steps_to_report = _REPORT_EVERY
    self._report_at = time.monotonic() + _REPORT_PERIOD_S
    self._unreported_steps = 0
    self._metrics_at = time.monotonic() + _METRICS_PERIOD_S
    self._metrics_steps = 0
    self._acted = _Means()
    self._blocked_s = 0.0
    self.directive = core.Directive(None, {})

  def start_anew(
    self, environment: core.VectorEnvironment, key: types.Key
  ) -> None:
    """Goes on in other environments, of as many rows; consumes `key`.

    The unfinished episodes and the policy's memory are dropped.
    """
    self._environment = environment
    self._policy.start_anew(environment, key)
    self._writer = self._make_writer()
    self._timestep = environment.reset()
    self._episodes.drop_running()
    self._steps_to_report = _REPORT_EVERY

  @property
  def between_episodes(self) -> bool:
    """True if no environment is in the midst of an episode."""
    return bool((self._timestep.step_type == types.LAST).all())

  @property
  def num_episodes(self) -> int:
    """Episodes finished so far."""
    return self._episodes.finished

  def step(self) -> int:
    """Acts once in every environment; returns the environment steps made."""
    timestep = self._timestep
    try:
      output = self._policy.act(
        timestep.observation, timestep.step_type == types.FIRST
      )
    except (TypeError, ValueError) as error:
      self._blame(timestep, error)
      raise
    next_timestep = self._environment.step(output.action)
    try:
      self._writer.append(timestep, output, next_timestep, self._policy.version)
    except (TypeError, ValueError) as error:
      self._blame(next_timestep, error)
      raise
    self._timestep = next_timestep
    if output.metrics:
      self._acted.add(output.metrics)
    steps = self._episodes.add(next_timestep)
    self._unreported_steps += steps
    self._steps_to_report -= 1
    if not self._steps_to_report:
      self._steps_to_report = _REPORT_EVERY
      self.report()
    elif time.monotonic() >= self._report_at:
      self.report()
    return steps

  def _blame(self, timestep: dm_env.TimeStep, error: Exception) -> None:
    """Raises ValueError if an error is due to a timestep that breaks its specs.

    After the first episode nothing else checks the environment.
    """
    if not isinstance(error, status.NotFiniteError):  # a sentence already
      checks.check_vector(self._environment, timestep)

  def run(self) -> None:
    """Steps until the run stops."""
    while self.directive.stop is None:
      self.step()
    self._writer.close()
    self.report()

  def report(self) -> None:
    """Reports progress to the run; the answer tells whether to stop."""
    counts = {
      'env_steps': self._unreported_steps,
      'episodes': self._episodes.take_finished(),
    }
    self._metrics_steps += self._unreported_steps
    self._unreported_steps = 0
    now = time.monotonic()
    self._report_at = now + _REPORT_PERIOD_S
    metrics = self._metrics(now) if now >= self._metrics_at else None
    self.directive = self._reporter.report(
      counts, metrics, status.WorkerState.ACTING
    )

  def _metrics(self, now: float) -> dict[str, float]:
    period = now - self._metrics_at + _METRICS_PERIOD_S
    # The counter is some tenths of a second old; the params may be newer.
    learner_steps = max(
      self.directive.counts.get('learner_steps', 0), self._policy.version
    )
    blocked_s = self._writer.blocked_s
    metrics = {
      'env_steps_per_second': self._metrics_steps / period,
      'params_version': self._policy.version,
      'policy_lag': learner_steps - self._policy.version,  # learner steps
      'share_blocked_by_replay': (blocked_s - self._blocked_s) / period,
      **self._episodes.take_means(),
      **self._acted.take(),
    }
    self._blocked_s = blocked_s
    self._metrics_steps = 0
    self._metrics_at = now + _METRICS_PERIOD_S
    return metrics


class _Means:
  """Means of the policy's metrics since they were taken last."""

  def __init__(self) -> None:
    self._sums: dict[str, float] = {}
    self._count = 0

  def add(self, metrics: dict[str, np.ndarray]) -> None:
    """Adds metrics [B] of one step."""
    self._count += 1
    for name, values in metrics.items():
      self._sums[name] = self._sums.get(name, 0.0) + float(values.mean())

  def take(self) -> dict[str, float]:
    """Returns the means over the steps added since the last call, if any."""
    means = {name: sum_ / self._count for name, sum_ in self._sums.items()}
    self._sums, self._count = {}, 0
    return means


class _Episodes:
  """Returns and lengths of the finished episodes, and of each row's current one."""

  def __init__(self, num_envs: int):
    self.finished = 0
    self._taken = 0
    self._returns = np.zeros(num_envs)
    self._lengths = np.zeros(num_envs, np.int64)
    self._finished_returns: list[float] = []
    self._finished_lengths: list[int] = []

  def add(self, timestep: dm_env.TimeStep) -> int:
    """Counts one step of every row; returns the number that were no resets."""
    self._returns += timestep.reward
    self._lengths += 1
    kind = timestep.step_type
    if not np.count_nonzero(kind != types.MID):  # most steps
      return len(kind)
    last = kind == types.LAST
    if last.any():
      self.finished += int(last.sum())
      self._finished_returns += self._returns[last].tolist()
      self._finished_lengths += self._lengths[last].tolist()
      self._returns[last] = 0.0
    first = kind == types.FIRST
    self._lengths[first] = 0
    return len(kind) - int(np.count_nonzero(first))

  def drop_running(self) -> None:
    """Drops the unfinished episodes."""
    self._returns[:] = 0.0
    self._lengths[:] = 0

  def take_finished(self) -> int:
    """Returns the number of episodes finished since the last call."""
    count, self._taken = self.finished - self._taken, self.finished
    return count

  def take_means(self) -> dict[str, float]:
    """Returns means over the episodes finished since the last call, if any."""
    if not self._finished_returns:
      return {}
    means = {
      'episode_return': float(np.mean(self._finished_returns)),
      'episode_length': float(np.mean(self._finished_lengths)),
    }
    self._finished_returns, self._finished_lengths = [], []
    return means
