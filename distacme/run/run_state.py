"""Sums the reports of a run's workers, and decides when the run ends."""

from __future__ import annotations

import collections
from collections.abc import Callable, Collection, Mapping
import dataclasses
import threading
import time
from typing import Protocol

from distacme import core
from distacme import status as status_lib
from distacme.run import files
from distacme.run import notices

# Rates are means over the last RATE_WINDOW_S to RATE_WINDOW_S + 1 seconds.
RATE_WINDOW_S = 10.0

# A run's memory, and the message that holds its status, may not grow without bound
# with what workers send.
_MAX_METRICS = 500_000  # characters of all workers' names of metrics
# Failures whose details are kept; those of others stand in the workers' logs.
_MAX_FAILURES = 20
_MAX_COUNT = 2**63 - 1  # what a file of events, and an array, can hold

# The limit of `scale`: a variable server was tested with 1,000 actors, and a typing
# error must not make a launcher start processes without end.
MAX_ACTORS = 1000


NO_LIMITS = status_lib.Limits()


class Sink(Protocol):
  """Takes metrics; `run.metrics.MetricsSink` in every mode."""

  def write(
    self,
    worker: str,
    seconds: float,
    counts: Mapping[str, int],
    metrics: Mapping[str, float],
  ) -> None:
    """Keeps one report's metrics, with the run's counters at that moment."""


class RunState:
  """Sums the workers' reports and decides when the workers stop.

  Thread-safe. Workers of this process use `reporter`; `variables.server` puts the
  same object behind gRPC. Every report and every `status` checks the clock, so that
  a time limit needs no thread of its own.
  """

  def __init__(
    self,
    limits: status_lib.Limits = NO_LIMITS,
    sink: Sink | None = None,
    counts: Mapping[str, int] | None = None,
    clock: Callable[[], float] = time.monotonic,
    elapsed_s: float = 0.0,
    is_worker: Callable[[str], bool] = lambda name: True,
  ) -> None:
    """Starts the run's clock.

    Args:
      limits: of the run.
      sink: takes the metrics, if given.
      counts: a resumed run's counters before.
      clock: returns seconds.
      elapsed_s: seconds on the clock at the start, above 0 for a restarted server.
      is_worker: returns whether the run may have a worker of that name.
    """
    self.limits = limits
    self._sink = sink
    self._clock = clock
    self._start = clock() - elapsed_s
    self._lock = threading.Lock()
    self._total = _Tally(counts or {}, clock())
    self._is_worker = is_worker
    self._workers: dict[str, _Worker] = {}
    self._metrics = 0  # characters of the names that `_workers` hold
    self._stop: status_lib.Stop | None = None
    self._on_stop: list[Callable[[], None]] = []
    self._params_version: int | None = None
    self._num_actors: int | None = None

  def reporter(self, worker: str) -> core.Reporter:
    """Returns the line of a worker in this process."""
    return _Reporter(self, worker)

  def report(
    self,
    worker: str,
    counts: Mapping[str, int] | None = None,
    metrics: Mapping[str, float] | None = None,
    state: status_lib.WorkerState | None = None,
  ) -> core.Directive:
    """Takes a worker's report; see `core.Reporter.report`.

    Raises:
      ValueError: if the run has no such worker.
    """
    now = self._clock()
    with self._lock:
      entry = self._worker(worker, now)
      entry.heartbeat = now
      if state is not None:
        entry.state = state
      if state == status_lib.WorkerState.STARTING:
        entry.failure = ''  # of the process before
        entry.has_worked = False
      entry.has_worked |= bool(metrics) or any((counts or {}).values())
      if counts:
        entry.tally.add(counts, now)
        self._total.add(counts, now)
      if metrics:
        self._keep_newest(entry.metrics, metrics)
      directive = self._directive(now)
    if metrics and self._sink is not None:
      try:
        self._sink.write(worker, now - self._start, directive.counts, metrics)
      except OSError as error:
        # The report itself has been counted: raising would make a caller repeat the
        # report. A run must not train on without a record either.
        unwritten = files.NotWrittenError(
          error.filename or 'the metrics', error.strerror or error
        )
        self.request_stop(status_lib.StopReason.FAILED, str(unwritten), worker)
    if directive.stop:
      self._call_back()
    return directive

  def directive(self) -> core.Directive:
    """Returns the answer to a report, without being a heartbeat."""
    with self._lock:
      directive = self._directive(self._clock())
    if directive.stop:
      self._call_back()
    return directive

  def request_stop(
    self, reason: status_lib.StopReason, detail: str = '', worker: str = ''
  ) -> None:
    """Ends the run unless the run ends already: the first reason given stands.

    Args:
      reason: of the end.
      detail: for people; the traceback of a worker that failed.
      worker: the worker that asks, if a worker does.
    """
    with self._lock:
      now = self._clock()
      self._check_limits(now)
      self._set_stop(reason, detail, worker, now)
    self._call_back()

  def on_stop(self, callback: Callable[[], None]) -> None:
    """Calls `callback` once when the run is to stop; now if it stops already."""
    with self._lock:
      self._on_stop.append(callback)
    if self.directive().stop:
      self._call_back()

  def fail(self, worker: str, detail: str) -> None:
    """Notes that a worker failed; see `core.Reporter.fail`."""
    with self._lock:
      entry = self._worker(worker, self._clock())
      failed = sum(bool(other.failure) for other in self._workers.values())
      if failed < _MAX_FAILURES or entry.failure:
        entry.failure = detail

  def scale(self, num_actors: int) -> None:
    """Asks the run's launcher for so many actors, by `status`.

    Raises:
      ValueError: if `num_actors` is less than one, or more than MAX_ACTORS.
    """
    check_num_actors(num_actors)
    with self._lock:
      self._num_actors = num_actors

  def set_params_version(self, version: int) -> None:
    """Notes the version of the newest params, for `status`."""
    with self._lock:
      self._params_version = version

  def status(self, only: Collection[str] | None = None) -> status_lib.Status:
    """Returns the run's status.

    Args:
      only: names of the workers to tell of; all if None.
    """
    now = self._clock()
    with self._lock:
      self._check_limits(now)
      status = status_lib.Status(
        seconds=now - self._start,
        counts=dict(self._total.counts),
        rates=self._total.rates(now),
        workers={
          name: worker.status(now)
          for name, worker in self._workers.items()
          if only is None or name in only
        },
        stop=self._stop,
        limits=self.limits,
        params_version=self._params_version,
        num_actors=self._num_actors,
      )
    if status.stop:
      self._call_back()
    return status

  def _worker(self, name: str, now: float) -> _Worker:
    """Returns the record of a worker, which is made at the first report."""
    if name not in self._workers:
      if not self._is_worker(name):
        raise ValueError(f'{name!r:.80} is no worker of this run.')
      self._workers[name] = _Worker(_Tally({}, now), now)
    return self._workers[name]

  def _keep_newest(
    self, kept: dict[str, float], metrics: Mapping[str, float]
  ) -> None:
    """Keeps a worker's metrics for `status`, new names only while there is room."""
    for name, value in metrics.items():
      if name not in kept:
        if self._metrics + len(name) > _MAX_METRICS:
          notices.warn_once(
            'Workers report more metrics than a status holds. Those beyond stand '
            'in metrics.jsonl and in no display.'
          )
          continue
        self._metrics += len(name)
      kept[name] = value

  def _directive(self, now: float) -> core.Directive:
    self._check_limits(now)
    stop = self._stop.reason if self._stop else None
    return core.Directive(stop, dict(self._total.counts))

  def _check_limits(self, now: float) -> None:
    for clock, most in (
      ('env_steps', self.limits.max_env_steps),
      ('learner_steps', self.limits.max_learner_steps),
    ):
      if most is not None and self._total.counts.get(clock, 0) >= most:
        detail = f'{most} {clock}'
        self._set_stop(status_lib.StopReason.STEP_LIMIT, detail, '', now)
    max_seconds = self.limits.max_seconds
    if max_seconds is not None and now - self._start >= max_seconds:
      detail = f'{max_seconds} s'
      self._set_stop(status_lib.StopReason.TIME_LIMIT, detail, '', now)

  def _set_stop(
    self, reason: status_lib.StopReason, detail: str, worker: str, now: float
  ) -> None:
    if self._stop is None:
      self._stop = status_lib.Stop(reason, detail, worker, now - self._start)

  def _call_back(self) -> None:
    with self._lock:
      callbacks, self._on_stop = self._on_stop, []
    for callback in callbacks:
      callback()


def check_num_actors(num_actors: int) -> None:
  """Raises ValueError if a run may not have so many actors."""
  if not 1 <= num_actors <= MAX_ACTORS:
    raise ValueError(
      f'num_actors must be at least 1 and at most {MAX_ACTORS} for a run that '
      f'goes on, got {num_actors!r:.80}.'
    )


class _Reporter:
  """`core.Reporter` of a worker in this process."""

  def __init__(self, state: RunState, worker: str) -> None:
    self._state = state
    self._worker = worker

  def report(
    self,
    counts: Mapping[str, int] | None = None,
    metrics: Mapping[str, float] | None = None,
    state: status_lib.WorkerState | None = None,
  ) -> core.Directive:
    return self._state.report(self._worker, counts, metrics, state)

  def request_stop(
    self, reason: status_lib.StopReason, detail: str = ''
  ) -> None:
    self._state.request_stop(reason, detail, self._worker)

  def fail(self, detail: str) -> None:
    self._state.fail(self._worker, detail)


@dataclasses.dataclass
class _Worker:
  tally: _Tally
  heartbeat: float
  state: status_lib.WorkerState | None = None
  metrics: dict[str, float] = dataclasses.field(default_factory=dict)
  failure: str = ''  # the last one's detail
  has_worked: bool = False  # since its last start

  def status(self, now: float) -> status_lib.WorkerStatus:
    return status_lib.WorkerStatus(
      state=self.state,
      seconds_since_report=now - self.heartbeat,
      counts=dict(self.tally.counts),
      rates=self.tally.rates(now),
      metrics=dict(self.metrics),
      failure=self.failure,
      has_worked=self.has_worked,
    )


class _Tally:
  """Counters, and their history over the last seconds."""

  def __init__(self, counts: Mapping[str, int], now: float) -> None:
    self.counts = dict(counts)
    self._past = collections.deque([(now, dict(counts))])

  def add(self, increments: Mapping[str, int], now: float) -> None:
    """Adds increments; rates count positive increments only.

    An increment is negative if a learner that goes back to its checkpoint takes
    back steps.
    """
    counts = self.counts
    for name, increment in increments.items():
      count = counts.get(name, 0) + increment
      counts[name] = max(-_MAX_COUNT, min(_MAX_COUNT, count))
      if increment < 0:
        for _, past in self._past:
          past[name] = past.get(name, 0) + increment
    self._remember(now)

  def rates(self, now: float) -> dict[str, float]:
    self._remember(now)
    then, before = self._past[0]
    if now <= then:
      return dict.fromkeys(self.counts, 0.0)
    return {
      name: (count - before.get(name, 0)) / (now - then)
      for name, count in self.counts.items()
    }

  def _remember(self, now: float) -> None:
    past = self._past
    if now - past[-1][0] >= 1.0:
      past.append((now, dict(self.counts)))
      while len(past) > 1 and past[1][0] <= now - RATE_WINDOW_S:
        past.popleft()
