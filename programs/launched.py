"""A launched run, as its launcher sees it: by asking its variable server."""

from __future__ import annotations

import collections
from collections.abc import Callable, Mapping, Sequence
import contextlib
import math
import platform
import time
from typing import Any

from distacme import counting
from distacme import run_directory
from distacme.programs import connection
from distacme.programs import doors
from distacme.runtime import supervision
from distacme.variables import client

_STATUS_PERIOD_S = 0.5
_HEARD_S = 5.0  # without a status after which heartbeats are not to be judged
# Why a run ended of which neither its summary nor its last status says.
_UNKNOWN = {
  'reason': counting.StopReason.FAILED.value,
  'detail': 'the variable server ended without saying why; see its log.',
  'worker': 'variables/0',
}


class LaunchedRun:
  """What supervision asks and tells: a `supervision.Run`; one thread."""

  def __init__(
    self,
    lodgers: Mapping[str, Sequence[str]],
    directory: run_directory.RunDirectory,
    show: Callable[[dict[str, Any]], None],
  ):
    """Knows of no worker until `attach`.

    Args:
      lodgers: of workers, the others that live in their processes.
      directory: of the run.
      show: called with every status.
    """
    self._address = ''  # until it is launched
    self._members: list[supervision.Worker] = []
    self._lodgers = lodgers
    self._directory = directory
    self._show = show
    self._status: dict[str, Any] | None = None
    self._stop: dict[str, Any] | None = None  # asked for by the launcher
    self._next = 0.0
    # Makes actors as many as asked for; threads stay as many as they are.
    self.scale: Callable[[int], None] | None = None
    self._doors = doors.Doors({})
    self._heard = -math.inf  # when the last status came
    self._heartbeats: dict[str, float] = {}
    self._failures: dict[str, str] = {}
    # How a worker ended before it was started again, every time.
    self._restarts = collections.defaultdict[str, list[str]](list)
    self._first_failure = ''

  def attach(
    self, members: list[supervision.Worker], services: Mapping[str, str]
  ) -> None:
    """Takes over what was launched, and passes on what was asked meanwhile.

    Args:
      members: the workers.
      services: addresses by group, of which 'variables' is asked.
    """
    self._address, self._members = services['variables'], members
    self._doors = doors.Doors(services)
    if self._stop is not None:
      self.request_stop(**self._stop)

  def stopping(self) -> bool:
    """Whether the run is to end."""
    return bool(self._stop or (self._status and self._status['stop']))

  def request_stop(
    self, reason: str, detail: str = '', worker: str = ''
  ) -> None:
    """Ends the run."""
    if self._stop is None:
      self._stop = {'reason': reason, 'detail': detail, 'worker': worker}
    if not self._address:
      return
    try:
      client.request_stop(self._address, reason, detail, worker, timeout_s=1.0)
    except ConnectionError:
      # The variable server is not there yet or not any more.
      for member in self._members:
        if member.exit_code() is None:
          member.terminate()

  def silent_s(self, worker: str) -> float:
    """Returns the seconds since a worker's last heartbeat; inf before the first.

    While the variable server does not answer, it is the one that is silent.
    """
    unheard_s = time.monotonic() - self._heard
    if worker.startswith('variables/'):
      return unheard_s
    if unheard_s > _HEARD_S:
      return 0.0
    return time.monotonic() - self._heartbeats.get(worker, -math.inf)

  def may_restart(self, worker: str, code: int) -> bool:
    """Whether it was killed, or has worked: else it would fail again at once.

    Nor if the run has come to its end meanwhile.
    """
    known = self._ask()
    if self.stopping():
      return False
    if code < 0 or worker.startswith('variables/'):
      return True
    reported = known.get(worker, {})
    return bool(reported.get('counts') or reported.get('metrics'))

  def on_restart(
    self, worker: supervision.Worker, how: str, delay_s: float
  ) -> None:
    """Remembers how the worker ended; the first one is shown."""
    self._restarts[worker.name].append(how)
    self._note(worker, how, f'; it is restarted in {delay_s:g} s')

  def on_failure(self, worker: supervision.Worker, how: str) -> None:
    """Ends the run, if it does not end already, because a worker failed."""
    detail = self._note(worker, how, '')
    self._failures[worker.name] = detail
    self.request_stop(counting.StopReason.FAILED.value, detail, worker.name)
    self.on_absence(worker)

  def on_absence(self, worker: supervision.Worker) -> None:
    """Says goodbye for a worker that cannot, and that the services wait for."""
    for name in (worker.name, *self._lodgers.get(worker.name, ())):
      try:
        last_words = connection.Connection(name, self._address, 1.0)
        last_words.done()
        last_words.close()
      except (TimeoutError, ConnectionError):
        pass

  def _note(self, worker: supervision.Worker, how: str, more: str) -> str:
    """Returns how a worker failed, the first time with its traceback."""
    log = f'; its log is {worker.log}' if worker.log else ''
    detail = f'{worker.name} on {platform.node()} ended with {how}{log}{more}'
    if not self._first_failure:
      traceback = self._ask().get(worker.name, {}).get('failure', '')
      detail = self._first_failure = f'{detail}\n{traceback}'.rstrip()
    return detail

  def _ask(self) -> dict[str, Any]:
    """Returns what is known of the workers, as new as can be."""
    self._next = 0.0
    self.poll()
    return self._status['workers'] if self._status else {}

  def poll(self) -> None:
    """Asks for the status and shows it, not too often."""
    now = time.monotonic()
    if now < self._next:
      return
    self._next = now + _STATUS_PERIOD_S
    self._doors.look()
    self._pass_on_warnings()
    try:
      self._status = client.status(self._address, timeout_s=0.4)
    except ConnectionError:
      return
    self._note_heartbeats(self._status['workers'])
    self._show(self._with_failures(self._status))
    wanted = self._status['num_actors']
    if self.scale and wanted is not None and not self.stopping():
      self.scale(wanted)

  def _note_heartbeats(self, workers: Mapping[str, Any]) -> None:
    """Remembers when each worker was heard of, which a new server does not know."""
    now = time.monotonic()
    if now - self._heard > _HEARD_S:
      # The server was away, and nobody could be heard of meanwhile.
      self._heartbeats = dict.fromkeys(self._heartbeats, now)
    self._heard = now
    for name, worker in workers.items():
      heartbeat = now - worker['seconds_since_report']
      known = self._heartbeats.get(name, -math.inf)
      self._heartbeats[name] = max(heartbeat, known)

  def _with_failures(self, status: dict[str, Any]) -> dict[str, Any]:
    """Adds what the launcher knows to the status of a run."""
    return status | {
      'failures': self._failures,
      'restarts': dict(self._restarts),
      'first_failure': self._first_failure,
    }

  def _pass_on_warnings(self) -> None:
    """Says what else only the logs of workers would."""
    with contextlib.suppress(OSError):  # as if there is no such file
      for warning in self._directory.warnings.read_text().splitlines():
        run_directory.warn_once(warning)

  def finish(self) -> dict[str, Any]:
    """Returns how the run ended."""
    self._pass_on_warnings()
    status = self._directory.read_summary()
    if status is None:  # the variable server itself was lost, or the disk full
      status = self._status or counting.RunState().status()
    if self._stop and (status['stop'] or {}).get('reason') == 'terminated':
      status['stop'] = self._stop  # which it did by SIGTERM
    status['stop'] = status['stop'] or self._stop or _UNKNOWN
    status = self._with_failures(status)
    self._directory.write_summary(status)
    self._show(status)
    return status
