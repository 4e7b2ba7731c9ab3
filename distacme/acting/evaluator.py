"""The worker that evaluates: greedy episodes of one fixed version of the params."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
import dataclasses
import math
import time
from typing import NamedTuple

import numpy as np

from distacme import core
from distacme import specs
from distacme import status
from distacme import types
from distacme.acting import params as params_lib
from distacme.run import notices

_MAX_ROWS = 20
_POLL_S = 0.05
# To wait for the learner's last publication.
LAST_PARAMS_S = 5.0


def num_rows(episodes: int) -> int:
  """Returns the number of environments that evaluate side by side.

  Every environment plays equally many episodes: taking the first episodes to finish
  would favour short ones.
  """
  rows = min(episodes, _MAX_ROWS)
  while episodes % rows:
    rows -= 1
  return rows


@dataclasses.dataclass(frozen=True)
class Settings:
  """Settings of the amount and the times of evaluations.

  Attributes:
    episodes: in one evaluation.
    max_episode_steps: steps after which an episode is cut off.
    clock: the counter of the run on which evaluations are due.
    period: steps of the clock between evaluations.
    max_share: of the time since the evaluator was made; an evaluation that is
      due is skipped while evaluations have taken more than this share.
    solved_return: mean return that ends the run; None for no such end.
  """

  episodes: int
  max_episode_steps: int
  clock: status.Clock = 'env_steps'
  period: int = 1
  max_share: float = 1.0
  solved_return: float | None = None


class Evaluator:
  """Plays episodes every so many steps of the run; one thread.

  The params are fixed during an evaluation, so that a score belongs to one version.
  The evaluator reports after every step of the vector, and ends then if the run
  ends.
  """

  def __init__(
    self,
    environment: core.VectorEnvironment,
    make_policy: Callable[[core.ParamsSource], core.Policy],
    source: core.ParamsSource,
    reporter: core.Reporter,
    settings: Settings,
    *,
    steps: int = 0,
    keep: Callable[[core.VersionedParams, float], None] | None = None,
    is_hurried: Callable[[], bool] = lambda: False,
    last_s: float = math.inf,
    now: Callable[[], float] = time.monotonic,
  ):
    """Prepares to evaluate.

    Args:
      environment: of `num_rows(settings.episodes)` rows.
      make_policy: returns the policy to evaluate, given its source of params.
      source: of params.
      reporter: line to the run.
      settings: amount and times of evaluations.
      steps: of the settings' clock before the run was resumed.
      keep: takes the params and their score after every evaluation.
      is_hurried: returns whether to end at once, also in the last evaluation of a
        run that used up its steps.
      last_s: seconds that this last evaluation may take; a longer one is given up
        with a warning.
      now: returns seconds.
    """
    if settings.episodes % environment.num_envs:
      raise ValueError(
        f'episodes={settings.episodes} is not a multiple of the {environment.num_envs} '
        'environments; make num_rows(episodes) of them.'
      )
    self._environment = environment
    self._has_two_players = specs.has_two_players(
      specs.make_environment_spec(environment)
    )
    self._source = source
    self._reporter = reporter
    self._settings = settings
    self._keep = keep
    self._is_hurried = is_hurried
    self._last_s = last_s
    self._now = now
    self._start = now()
    self._spent_s = 0.0
    self._ends_at = math.inf
    self._fixed = params_lib.LocalParams()
    self._policy = make_policy(self._fixed)
    self._evaluated: int | None = None  # the params' version
    self._schedule(steps)
    self.directive = core.Directive(None, {})

  def start_anew(
    self, environment: core.VectorEnvironment, key: types.Key, steps: int
  ) -> None:
    """Starts anew, as an evaluator made of these arguments; consumes `key`."""
    self._environment = environment
    self._policy.start_anew(environment, key)
    self._evaluated = None
    self._schedule(steps)

  def _schedule(self, steps: int) -> None:
    period = self._settings.period
    self._next = (steps // period + 1) * period

  def _steps(self) -> int:
    """Returns the run's steps, by the clock of the settings."""
    return self.directive.counts.get(self._settings.clock, 0)

  def run(self) -> None:
    """Evaluates until the run stops; once more if the run used up its steps."""
    while self.directive.stop is None:
      if not self.evaluate_if_due():
        self._report(state=status.WorkerState.IDLE)
        time.sleep(_POLL_S)
    self.finish()

  def evaluate_if_due(self) -> bool:
    """Evaluates if enough steps have passed since the last evaluation.

    Returns:
      Whether it evaluated; False also if evaluations have taken too large a share
      of the time.
    """
    if self._steps() < self._next or self._source.newest() is None:
      return False
    elapsed_s = self._now() - self._start
    affordable = self._spent_s <= self._settings.max_share * elapsed_s
    if affordable:
      self.evaluate()
    self._schedule(self._steps())
    return affordable

  def finish(self) -> None:
    """Evaluates the last params of a run whose end leaves time for that."""
    stop = self.directive.stop
    if stop is None or not status.leaves_time(stop):
      return
    deadline = time.monotonic() + LAST_PARAMS_S
    while not self._has_last_params() and time.monotonic() < deadline:
      if self._must_end():
        break
      time.sleep(_POLL_S)
    if self.evaluate() is not None and not self._has_evaluated_all():
      self.evaluate()  # the counter was behind: those were not the last params
    newest = self._source.newest()
    if newest is not None and newest.version != self._evaluated:
      notices.warn_once(
        'The last evaluation was given up, since there was no time for it. To '
        "play its episodes, run 'distacme evaluate --newest' on the run's "
        'directory.'
      )

  def _has_evaluated_all(self) -> bool:
    """Returns whether no learner step was counted after the evaluated params."""
    steps = self.directive.counts.get('learner_steps', 0)
    return self._evaluated is not None and self._evaluated >= steps

  def _has_last_params(self) -> bool:
    """Returns whether the newest params are of the last learner step counted."""
    newest = self._source.newest()
    self._report(state=status.WorkerState.WAITING_FOR_LAST_PARAMS)
    return newest is not None and newest.version >= self.directive.counts.get(
      'learner_steps', 0
    )

  def evaluate(self) -> float | None:
    """Plays the episodes and reports; returns the mean return.

    Returns:
      None if these params have been evaluated already, or there was no time.
    """
    newest = self._source.newest()
    if newest is None or newest.version == self._evaluated:
      return None
    self._fixed.publish(*newest)
    start = self._now()
    played = self._play()
    seconds = self._now() - start
    self._spent_s += seconds
    if played is None:
      return None
    self._evaluated = newest.version
    mean = float(np.mean(played.returns))
    solved = (
      self._settings.solved_return is not None
      and mean >= self._settings.solved_return
    )
    metrics = {
      'mean_return': mean,
      'min_return': float(np.min(played.returns)),
      'max_return': float(np.max(played.returns)),
      'mean_length': float(np.mean(played.lengths)),
      'episodes_cut_off': float(played.cut_off),
      'params_version': float(newest.version),
      'seconds': seconds,
      **(_outcomes(played.returns) if self._has_two_players else {}),
    }
    if played.cut_off:
      notices.warn_once(
        'An evaluated episode did not end within max_eval_episode_steps='
        f'{self._settings.max_episode_steps} steps and was cut off there: it counts with '
        'the return until then. The metric episodes_cut_off counts such ones.'
      )
    self._report({'evaluations': 1}, metrics, status.WorkerState.IDLE)
    if self._keep is not None:
      self._keep(newest, mean)
    if solved:
      self._reporter.request_stop(
        status.StopReason.SOLVED,
        f'mean return {mean:.4g} over {self._settings.episodes} episodes, at params '
        f'version {newest.version}',
      )
    return mean

  def _play(self) -> _Played | None:
    """Returns the episodes' results, in any order; None if it must end."""
    rows = self._environment.num_envs
    left = np.full(rows, self._settings.episodes // rows)
    running, lengths = np.zeros(rows), np.zeros(rows, np.int64)
    # A row cannot start anew by itself, so a cut off row waits for the others.
    waiting = np.zeros(rows, bool)
    played = _Played([], [], 0)
    timestep = self._environment.reset()
    while left.any():
      playing = (left > 0) & ~waiting
      if not playing.any():
        timestep = self._environment.reset()
        running[:], lengths[:], waiting[:] = 0.0, 0, False
        continue
      output = self._policy.act(
        timestep.observation, timestep.step_type == types.FIRST
      )
      timestep = self._environment.step(output.action)
      running += timestep.reward
      lengths += timestep.step_type != types.FIRST
      ended = timestep.step_type == types.LAST
      cut = playing & ~ended & (lengths >= self._settings.max_episode_steps)
      over = (playing & ended) | cut
      if over.any():
        played.returns.extend(running[over].tolist())
        played.lengths.extend(lengths[over].tolist())
        played = played._replace(cut_off=played.cut_off + int(cut.sum()))
        left -= over
        waiting |= cut
        running[ended], lengths[ended] = 0.0, 0
      self._report(state=status.WorkerState.EVALUATING)
      if left.any() and self._must_end():
        return None
    return played

  def _report(
    self,
    counts: Mapping[str, int] | None = None,
    metrics: Mapping[str, float] | None = None,
    state: status.WorkerState | None = None,
  ) -> None:
    self.directive = self._reporter.report(counts, metrics, state)
    if self.directive.stop is not None:
      self._ends_at = min(self._ends_at, self._now() + self._last_s)

  def _must_end(self) -> bool:
    """Returns whether there is no time left for the current episodes."""
    return (
      not status.leaves_time(self.directive.stop)
      or self._is_hurried()
      or self._now() >= self._ends_at
    )


def _outcomes(returns: Sequence[float]) -> dict[str, float]:
  """Returns the numbers of games won, drawn and lost."""
  signs = np.sign(returns)
  return {
    'wins': float((signs > 0).sum()),
    'draws': float((signs == 0).sum()),
    'losses': float((signs < 0).sum()),
  }


class _Played(NamedTuple):
  """The results of an evaluation's episodes."""

  returns: list[float]
  lengths: list[int]
  cut_off: int  # that did not end by themselves
