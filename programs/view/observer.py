"""Looks at a run from outside, by its directory alone.

An observer asks the program's variable server. If there is no server (local
mode) or the server cannot be reached (a run on another host), the observer
reads most of a status from the metrics that the run writes.
"""

from __future__ import annotations

import collections
from collections.abc import Mapping
import os
import pathlib
import time
from typing import Any, Literal, NamedTuple

from distacme import status as status_lib
from distacme.programs import modes
from distacme.programs import program
from distacme.run import curves
from distacme.run import endpoints
from distacme.run import metrics
from distacme.run import run_directory
from distacme.run import run_state

_TIMEOUT_S = 1.0
_OF_ROWS = {'time', 'seconds', 'worker'}  # of each row that a run has written
_JOBS_PERIOD_S = 15.0  # between questions for the states of jobs
_START_S = 60.0  # workers wait so long for the server
# The run's counters, which metrics.jsonl repeats in every row.
_NOT_METRICS = {*status_lib.COUNTERS, 'time', 'seconds', 'worker'}


class View(NamedTuple):
  """A run at one moment.

  Attributes:
    phase: 'silent' if the run should answer and does not, 'lost' if the run
      neither goes on nor has written a summary of its end.
    status: of the run, the last that came if the run is silent; None if no
      status is known.
    note: a sentence for the user, or ''.
    jobs: states of the workers' jobs, where the run is on a cluster and does not
      answer.
  """

  phase: Literal['starting', 'running', 'silent', 'ended', 'lost']
  status: status_lib.Status | None
  note: str = ''
  jobs: Mapping[str, str] = {}


_STARTING = View('starting', None, 'The run starts: no worker is there yet.')


class Observer:
  """Looks at a run that goes on or has ended; for one thread."""

  def __init__(self, run_dir: str | os.PathLike[str]):
    """Takes a run's directory.

    Raises:
      ValueError: if the directory is not that of a run.
    """
    path = pathlib.Path(run_dir).resolve()
    self._directory = run_directory.RunDirectory(path)
    self._run: dict[str, Any] = self._directory.read_config()['run']
    self._logged = _Logged(path)
    self._silent_since: float | None = None
    self._last: status_lib.Status | None = None  # the server's last answer
    self._known_jobs: Mapping[str, str] = {}
    self._ask_jobs_at = 0.0

  def curve(self) -> curves.Curve:
    """Returns the evaluated returns up to the last look."""
    return curves.curve_of(self._logged.evaluations, curves.clock_of(self._run))

  def look(self) -> View:
    """Returns a view of the run now; waits for the server, about a second."""
    running = self._directory.read_running()
    self._logged.update(running.since if running else 0.0)
    if running is None or running.gone:
      return self._afterwards(running)
    local = not modes.find(self._run['mode']).has_services
    server = endpoints.find(self._directory.endpoints, program.VARIABLES)
    if server is None and running.cluster:
      return self._of_jobs(running)
    reachable = server and (running.here or not server.loopback)
    if server and reachable and server.allowed:
      return self._ask(running, server)
    if local or not running.here:
      where = 'in local mode' if local else f'on {running.host}'
      note = f'The run is {where}: this is what its metrics say.'
      if local:
        note += ' Its workers take turns; none waits for another.'
      if not self._logged.workers:
        return _STARTING
      return View('running', self._logged.status(self._limits()), note)
    return _STARTING

  def _limits(self) -> status_lib.Limits:
    return status_lib.Limits(
      self._run.get('max_env_steps'),
      self._run.get('max_learner_steps'),
      self._run.get('max_seconds'),
    )

  def _ask(
    self, running: run_directory.Running, server: endpoints.Endpoint
  ) -> View:
    from distacme.variables import client

    try:
      status = client.status(server, timeout_s=_TIMEOUT_S)
    except ConnectionError:
      # Perhaps the run has just ended.
      if self._directory.read_running() != running or running.gone:
        return self.look()
      if running.cluster:
        return self._of_jobs(running)
      if self._is_young(running):
        return _STARTING
      now = time.monotonic()
      self._silent_since = self._silent_since or now - _TIMEOUT_S
      note = (
        f'The variable server at {server.address} has not answered for '
        f'{now - self._silent_since:.0f} s; {self._logged.when()}.'
      )
      return View('silent', self._last, note)
    self._silent_since = None
    self._last = status
    return View('running', status)

  def _of_jobs(self, running: run_directory.Running) -> View:
    """Returns the view of a run on a cluster whose server does not answer."""
    try:
      jobs = self._jobs(running.cluster)
    except ValueError as error:
      return View('silent', self._last, f'{error}; {self._logged.when()}.')
    if not jobs:
      return self._afterwards(running)
    job = jobs.get(program.VARIABLES, 'gone')
    note = (
      f'The variable server does not answer, and its job is {job}; '
      f'{self._logged.when()}.'
    )
    phase: Literal['running', 'starting'] = (
      'running' if self._logged.workers else 'starting'
    )
    return View(phase, self._last, note, jobs)

  def _jobs(self, mode: str) -> Mapping[str, str]:
    """Returns the states of the jobs, as of some seconds ago: clusters are shared.

    Raises:
      ValueError: if the cluster's engine does not answer.
    """
    now = time.monotonic()
    if now >= self._ask_jobs_at:
      self._known_jobs = modes.find(mode).job_states(self._directory)
      self._ask_jobs_at = now + _JOBS_PERIOD_S
    return self._known_jobs

  def _is_young(self, running: run_directory.Running) -> bool:
    """Returns whether the run is so young that it may have no server yet."""
    seconds = time.time() - running.since
    return not self._logged.workers and seconds < _START_S

  def _afterwards(self, running: run_directory.Running | None) -> View:
    """Returns the view of a run that does not go on."""
    directory = self._directory
    if (summary := directory.read_summary()) is not None:
      return View('ended', summary)
    if running is None:
      ended = 'has not begun, or ended before it could'
    elif running.cluster:
      ended = 'has no jobs in the cluster any more, and did not'
      if not directory.endpoints.exists():
        ended = (
          'has no jobs in the cluster any more, and none of them could begin: is it '
          "on a disk that all nodes share ('distacme doctor --cluster')? It did not"
        )
    else:
      ended = f'was killed: its process {running.pid} is gone, and did not'
    return View(
      'lost',
      None,
      f'{directory.path} {ended} say how it ended; {self._logged.when()}. '
      "'distacme train' with its settings and --run-dir goes on with it.",
    )


class _Logged:
  """Follows the run's metrics.jsonl as the file grows."""

  def __init__(self, path: pathlib.Path):
    self.evaluations: list[dict[str, Any]] = []
    self.workers: dict[
      str, dict[str, Any]
    ] = {}  # all metrics that each has logged
    self._reader = metrics.MetricsReader(path / metrics.METRICS_FILE)
    self._recent: collections.deque[dict[str, Any]] = collections.deque()
    self._since: float | None = None  # the start whose rows are being read

  def update(self, since: float) -> None:
    """Reads the new rows.

    Args:
      since: when the run was started; rows of workers count from then on.
    """
    try:
      rows = [row for row in self._reader.read() if row.keys() >= _OF_ROWS]
    except FileNotFoundError:
      return
    self.evaluations += [row for row in rows if 'mean_return' in row]
    for row in rows:
      if self._recent and row['seconds'] < self._recent[-1]['seconds']:
        self._recent.clear()  # the run was resumed, perhaps with fewer steps
      if row['time'] >= since:
        self._since = since
      if self._since == since:  # the host's clock may have gone back
        self.workers[row['worker']] = self.workers.get(row['worker'], {}) | row
      self._recent.append(row)
      while (
        row['seconds'] - self._recent[0]['seconds'] > run_state.RATE_WINDOW_S
      ):
        self._recent.popleft()

  def when(self) -> str:
    """Returns the age of the last metrics, in words."""
    if not self._recent:
      return 'it has logged nothing'
    last = self._recent[-1]['time']
    clock = time.strftime('%H:%M:%S', time.localtime(last))
    return f'its last metrics are of {clock}, {time.time() - last:.0f} s ago'

  def status(self, limits: status_lib.Limits) -> status_lib.Status:
    """Returns the status of the run, as far as metrics tell the status."""
    last = self._recent[-1] if self._recent else {}
    seconds = self._seconds()
    return status_lib.Status(
      seconds=seconds,
      counts={name: last[name] for name in status_lib.COUNTERS if name in last},
      rates={name: self._rate(name) for name in status_lib.COUNTERS},
      workers={
        name: _worker(row, seconds) for name, row in self.workers.items()
      },
      limits=limits,
    )

  def _seconds(self) -> float:
    """Returns the run's clock now, which goes on where the host's may jump."""
    if not self._recent:
      return 0.0
    last = self._recent[-1]
    return float(last['seconds'] + max(0.0, time.time() - last['time']))

  def _rate(self, name: str) -> float:
    rows = [row for row in self._recent if name in row]
    seconds = rows[-1]['seconds'] - rows[0]['seconds'] if rows else 0.0
    if seconds <= 0:
      return 0.0
    # A learner that is restarted goes back to its checkpoint.
    return max(0.0, (rows[-1][name] - rows[0][name]) / seconds)


def _worker(row: Mapping[str, Any], seconds: float) -> status_lib.WorkerStatus:
  """Returns the status of a worker that has logged `row`, at `seconds`."""
  return status_lib.WorkerStatus(
    seconds_since_report=seconds - row['seconds'],
    rates={
      counter: row[f'{counter}_per_second']
      for counter in status_lib.COUNTERS
      if f'{counter}_per_second' in row
    },
    metrics={k: v for k, v in row.items() if k not in _NOT_METRICS},
  )
