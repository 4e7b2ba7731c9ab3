"""What can be seen of a run from outside, by its directory alone.

A program's variable server is asked. Where there is none (local mode), or it
cannot be reached (a run on another host), the metrics that the run writes say
most of it.
"""

from __future__ import annotations

import collections
import os
import pathlib
import time
from typing import Any, Literal, NamedTuple

from distacme.programs import program
from distacme.programs.launchers import table
from distacme.run import curves
from distacme.run import endpoints
from distacme.run import metrics
from distacme.run import run_directory
from distacme.run import run_state

_TIMEOUT_S = 1.0
_START_S = 60.0  # what workers wait for the server
# The run's counters, which metrics.jsonl repeats in every row.
_COUNTERS = ('env_steps', 'learner_steps', 'episodes', 'evaluations')


class Sight(NamedTuple):
  """What is seen of a run at one moment.

  Attributes:
    phase: 'silent' if it should answer and does not, 'lost' if it neither goes
      on nor has said how it ended.
    status: as of `counting.RunState.status`, the last one if it is silent; None
      if nothing is known.
    note: what else there is to say, a sentence or ''.
  """

  phase: Literal['starting', 'running', 'silent', 'ended', 'lost']
  status: dict[str, Any] | None
  note: str = ''


_STARTING = Sight('starting', None, 'The run starts: no worker is there yet.')


class Attachment:
  """Looks at a run, at one that goes on or has ended; one thread."""

  def __init__(self, run_dir: str | os.PathLike[str]):
    """Takes a run's directory.

    Raises:
      ValueError: if it is none.
    """
    path = pathlib.Path(run_dir).resolve()
    self._directory = run_directory.RunDirectory(path)
    self._run: dict[str, Any] = self._directory.read_config()['run']
    self._logged = _Logged(path, self._run)
    self._silent_since: float | None = None
    self._last: dict[str, Any] | None = None  # that the server answered

  def curve(self) -> curves.Curve:
    """Returns the evaluated returns up to the last look."""
    return curves.curve_of(self._logged.evaluations)

  def look(self) -> Sight:
    """Returns what is to be seen now; waits for the server, about a second."""
    running = self._directory.read_running()
    self._logged.update(running.since if running else 0.0)
    if running is None or running.gone:
      return self._afterwards(running)
    local = not table.find(self._run['mode']).has_services
    server = endpoints.find(self._directory.endpoints, program.VARIABLES)
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
      return Sight('running', self._logged.status(), note)
    return _STARTING

  def _ask(
    self, running: run_directory.Running, server: endpoints.Endpoint
  ) -> Sight:
    from distacme.variables import client

    try:
      status = client.status(server, timeout_s=_TIMEOUT_S)
    except ConnectionError:
      # Perhaps it has just ended.
      if self._directory.read_running() != running or running.gone:
        return self.look()
      if self._is_young(running):
        return _STARTING
      now = time.monotonic()
      self._silent_since = self._silent_since or now - _TIMEOUT_S
      note = (
        f'The variable server at {server.address} has not answered for '
        f'{now - self._silent_since:.0f} s; {self._logged.when()}.'
      )
      return Sight('silent', self._last, note)
    self._silent_since = None
    self._last = status
    return Sight('running', status)

  def _is_young(self, running: run_directory.Running) -> bool:
    """Whether the run may not have a server yet."""
    seconds = time.time() - running.since
    return not self._logged.workers and seconds < _START_S

  def _afterwards(self, running: run_directory.Running | None) -> Sight:
    """Returns what is left of a run that does not go on."""
    directory = self._directory
    if (summary := directory.read_summary()) is not None:
      return Sight('ended', summary)
    if running is None:
      what = 'has not begun, or ended before it could'
    else:
      what = f'was killed: its process {running.pid} is gone, and did not'
    return Sight(
      'lost',
      None,
      f'{directory.path} {what} say how it ended; {self._logged.when()}. '
      "'distacme train' with its settings and --run-dir goes on with it.",
    )


class _Logged:
  """What `metrics.jsonl` says of the run, as it grows."""

  def __init__(self, path: pathlib.Path, run: dict[str, Any]):
    self.evaluations: list[dict[str, Any]] = []
    self._reader = metrics.MetricsReader(path / metrics.METRICS_FILE)
    self._run = run
    self.workers: dict[str, dict[str, Any]] = {}
    self._recent: collections.deque[dict[str, Any]] = collections.deque()

  def update(self, since: float) -> None:
    """Reads what is new; of workers, what they said after `since`."""
    try:
      rows = self._reader.read()
    except FileNotFoundError:
      return
    self.evaluations += [row for row in rows if 'mean_return' in row]
    for row in rows:
      if self._recent and row['seconds'] < self._recent[-1]['seconds']:
        self._recent.clear()  # it was resumed, perhaps with fewer steps
      if row['time'] >= since:
        self.workers[row['worker']] = self.workers.get(row['worker'], {}) | row
      self._recent.append(row)
      while row['time'] - self._recent[0]['time'] > run_state.RATE_WINDOW_S:
        self._recent.popleft()

  def when(self) -> str:
    """Says how old the last metrics are."""
    if not self._recent:
      return 'it has logged nothing'
    last = self._recent[-1]['time']
    clock = time.strftime('%H:%M:%S', time.localtime(last))
    return f'its last metrics are of {clock}, {time.time() - last:.0f} s ago'

  def status(self) -> dict[str, Any]:
    """Returns the status of the run, as far as metrics tell."""
    now = time.time()
    last = self._recent[-1] if self._recent else {'seconds': 0.0, 'time': now}
    return {
      'seconds': last['seconds'] + now - last['time'],
      'counts': {name: last[name] for name in _COUNTERS if name in last},
      'rates': {name: self._rate(name) for name in _COUNTERS},
      'stop': None,
      'limits': {
        name: self._run[name] for name in ('max_env_steps', 'max_seconds')
      },
      'workers': {
        name: {
          'state': '',
          'seconds_since_report': now - row['time'],
          'rates': {
            counter: row[f'{counter}_per_second']
            for counter in _COUNTERS
            if f'{counter}_per_second' in row
          },
          'metrics': row,
        }
        for name, row in self.workers.items()
      },
    }

  def _rate(self, name: str) -> float:
    rows = [row for row in self._recent if name in row]
    seconds = rows[-1]['time'] - rows[0]['time'] if rows else 0.0
    return (rows[-1][name] - rows[0][name]) / seconds if seconds > 0 else 0.0
