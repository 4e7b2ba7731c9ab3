"""Follows a launched run by asking its variable server."""

from __future__ import annotations

import collections
from collections.abc import Callable, Mapping
import dataclasses
import math
import platform
import time

from distacme import status as status_lib
from distacme.programs import program as program_lib
from distacme.programs.launchers import open_ports
from distacme.programs.workers import connection
from distacme.run import endpoints
from distacme.run import files
from distacme.run import notices
from distacme.run import run_directory
from distacme.runtime import supervision
from distacme.runtime import topology
from distacme.variables import client

_STATUS_PERIOD_S = 0.5
_HEARD_S = 5.0  # without a status after which heartbeats are not to be judged
# For workers to save and end before they are killed. After SIGTERM a cluster gives
# 10 s or more.
_GRACE_S = 60.0
_TERMINATED_GRACE_S = 8.0
_TRACEBACK = 'Traceback (most recent call last)'
_MAX_TRACEBACK = 20_000  # characters
# The end of a run of which neither its summary nor its last status says.
_UNKNOWN = status_lib.Stop(
  status_lib.StopReason.FAILED,
  'the variable server ended without saying why; see its log.',
  program_lib.VARIABLES,
)


class SupervisedRun:
  """Answers supervision's questions (a `supervision.Run`); for one thread."""

  def __init__(
    self,
    program: topology.Program,
    directory: run_directory.RunDirectory,
    show: Callable[[status_lib.Status], None],
  ):
    """Waits for the workers, which `attach` brings.

    Args:
      program: of the run.
      directory: of the run.
      show: called with every status.
    """
    self._members: list[supervision.Worker] = []
    self._program = program
    self._directory = directory
    self._show = show
    self._status: status_lib.Status | None = None
    self._stop: status_lib.Stop | None = None  # asked for by the launcher
    self._terminated = self._hurried = False  # by the launcher's signals
    self._next = 0.0
    # Makes actors as many as asked for; threads stay as many as they are.
    self.scale: Callable[[int], None] | None = None
    self._open_ports = open_ports.OpenPorts(directory)
    self._heard = -math.inf  # when the last status came
    self._heard_s = _HEARD_S
    self._heartbeats: dict[str, float] = {}
    # Workers that have counted or measured something. A variable server that was
    # restarted does not know of them.
    self._worked: set[str] = set()
    self._failures: dict[str, str] = {}
    # How a worker ended before it was started again, every time.
    self._restarts = collections.defaultdict[str, list[str]](list)
    self._shown: list[str] = []  # what is said of failures above all else
    self._tracebacks: list[str] = []  # among them

  def attach(self, members: list[supervision.Worker]) -> None:
    """Takes over the workers, and passes on an earlier request to stop."""
    self._members = members
    if self._stop is not None:
      self._send(self._stop)

  def stopping(self) -> bool:
    """Returns whether the run is to end."""
    return self._stop is not None or self._given() is not None

  def grace_s(self) -> float:
    """Returns the seconds that workers may take to save and end."""
    given = self._given()
    terminated = self._terminated or (
      given and given.reason == status_lib.StopReason.TERMINATED
    )
    return _TERMINATED_GRACE_S if terminated else _GRACE_S

  def hurry(self) -> None:
    """Makes the supervisor kill the workers; called by a signal's handler."""
    self._hurried = True

  def hurried(self) -> bool:
    """Returns whether the run is to end now."""
    return self._hurried

  def _given(self) -> status_lib.Stop | None:
    """Returns the stop of the last status, None if the run goes on."""
    return self._status.stop if self._status else None

  def request_stop(
    self, reason: status_lib.StopReason, detail: str = '', worker: str = ''
  ) -> None:
    """Ends the run; after Ctrl-C, SIGTERM leaves less time for that."""
    stop = status_lib.Stop(reason, detail, worker)
    self._terminated |= reason == status_lib.StopReason.TERMINATED
    self._stop = self._stop or stop
    self._send(stop)

  def _send(self, stop: status_lib.Stop) -> None:
    """Asks the workers to end, if the workers have been launched."""
    if not self._members:
      return
    try:
      client.request_stop(
        self._server(), stop.reason, stop.detail, stop.worker, timeout_s=1.0
      )
    except ConnectionError:
      # The variable server is not there yet or not any more.
      for member in self._members:
        if member.exit_code() is None:
          member.terminate()

  def _server(self) -> endpoints.Endpoint:
    """Returns the endpoint of the variable server.

    Raises:
      ConnectionError: if the server has not listened yet.
    """
    found = endpoints.find(self._directory.endpoints, program_lib.VARIABLES)
    if found is None:
      raise ConnectionError(f'{program_lib.VARIABLES} does not listen yet')
    return found

  def silent_s(self, worker: str) -> float:
    """Returns the seconds since a worker's last heartbeat; inf before the first.

    Of workers in one process the one counts that was silent for longest. While the
    variable server does not answer, only the server counts as silent.
    """
    unheard_s = time.monotonic() - self._heard
    if worker == program_lib.VARIABLES:
      return unheard_s
    if unheard_s > self._heard_s:
      return 0.0
    heard = (
      self._heartbeats.get(name, -math.inf) for name in self._all(worker)
    )
    return time.monotonic() - min(heard)

  def is_starting(self, worker: str) -> bool:
    """Returns whether a worker has reported, but no work since it started."""
    workers = self._status.workers if self._status else {}
    return any(
      name in workers and not workers[name].has_worked
      for name in self._all(worker)
    )

  def may_restart(self, worker: str, code: int) -> bool:
    """Returns whether the worker was killed or has worked.

    Any other worker would fail again.
    """
    if self.stopping():
      return False
    if code <= 0 or worker == program_lib.VARIABLES:
      return True
    return worker in self._worked

  def on_restart(
    self, worker: supervision.Worker, how: str, delay_s: float
  ) -> None:
    """Keeps the description of the worker's end; shows the first failure."""
    self._restarts[worker.name].append(how)
    self._note(worker, how, f'; it is restarted in {delay_s:g} s')

  def on_failure(self, worker: supervision.Worker, how: str) -> None:
    """Ends the run because a worker failed, unless the run ends already."""
    detail = self._note(worker, how, '', final=True)
    self._failures[worker.name] = detail
    if not self.stopping():
      self.request_stop(status_lib.StopReason.FAILED, detail, worker.name)
    self.on_absence(worker)

  def on_absence(self, worker: supervision.Worker) -> None:
    """Reports an absent worker as done, since services wait for the report."""
    if not self._is_served():
      return
    for name in self._all(worker.name):
      try:
        last_words = connection.Connection(
          name, self._directory.endpoints, timeout_s=1.0
        )
        last_words.done()
        last_words.close()
      except (TimeoutError, ConnectionError):
        pass

  def _all(self, worker: str) -> tuple[str, ...]:
    """Returns the names of the workers in the process of a worker."""
    return (worker, *self._program.lodgers(worker))

  def _is_served(self) -> bool:
    """Returns whether the variable server still runs."""
    return any(
      member.name == program_lib.VARIABLES and member.exit_code() is None
      for member in self._members
    )

  def _note(
    self, worker: supervision.Worker, how: str, more: str, final: bool = False
  ) -> str:
    """Returns a failure in words; shows the first failure and traceback.

    Args:
      worker: that failed.
      how: a description of the worker's end.
      more: a description of the next step.
      final: whether the run ends because of the failure, so that the failure's
        traceback is shown even if another one was shown before.
    """
    log = f'; its log is {worker.log}' if worker.log else ''
    detail = f'{worker.name} on {platform.node()} {how}{log}{more}'
    traceback = self._traceback(worker).rstrip()
    if traceback and (final or not self._tracebacks):
      if traceback not in self._tracebacks:
        self._tracebacks.append(traceback)
        detail = f'{detail}\n{traceback}'
        self._shown.append(detail)
    elif not self._shown:
      self._shown.append(detail)
    return detail

  def _traceback(self, worker: supervision.Worker) -> str:
    """Returns a worker's traceback, as reported or else as in the worker's log.

    The traceback is '' for a worker that did not fail by itself.
    """
    if (worker.exit_code() or 0) <= 0:
      return ''
    workers = self._status.workers if self._status else {}
    for name in self._all(worker.name):
      if name in workers and workers[name].failure:
        return workers[name].failure
    if worker.log is None:
      return ''
    # The variable server, or one that failed before it could reach it.
    _, begin, rest = files.tail(worker.log).rpartition(_TRACEBACK)
    return begin + rest[-_MAX_TRACEBACK:] if begin else ''

  def refresh(self) -> None:
    """Asks the variable server for the status now."""
    self._next = 0.0
    self.poll()

  def poll(self) -> None:
    """Asks for the status and shows the status, not too often."""
    now = time.monotonic()
    if now < self._next:
      return
    self._next = now + _STATUS_PERIOD_S
    self._open_ports.look()
    self._pass_on_warnings()
    try:
      self._status = self._ask()
    except ConnectionError:
      # A summary is what the server ends with.
      self._status = self._read_summary() or self._status
      return
    self._remember(self._status.workers)
    self._show(self._with_failures(self._status))
    wanted = self._status.num_actors
    if self.scale and wanted is not None and not self.stopping():
      self.scale(wanted)

  def _ask(self) -> status_lib.Status:
    """Asks the variable server for the status.

    Raises:
      ConnectionError: if the server does not answer.
    """
    return client.status(self._server(), timeout_s=0.4)

  def _read_summary(self) -> status_lib.Status | None:
    """Returns the last status of a run that has ended."""
    return self._directory.read_summary()

  def _remember(self, workers: Mapping[str, status_lib.WorkerStatus]) -> None:
    """Keeps the facts that a restarted variable server does not know.

    These facts are the time of each worker's last report, and whether each
    worker has worked.
    """
    now = time.monotonic()
    if now - self._heard > self._heard_s:
      # The server was away, and nobody could be heard of meanwhile.
      self._heartbeats = dict.fromkeys(self._heartbeats, now)
    self._heard = now
    for name, worker in workers.items():
      if worker.has_worked:
        self._worked.add(name)
      heartbeat = now - worker.seconds_since_report
      known = self._heartbeats.get(name, -math.inf)
      self._heartbeats[name] = max(heartbeat, known)

  def _with_failures(self, status: status_lib.Status) -> status_lib.Status:
    """Returns the status with the failures that only the launcher knows."""
    return dataclasses.replace(
      status,
      failures=dict(self._failures),
      restarts={name: list(hows) for name, hows in self._restarts.items()},
      shown_failures=list(self._shown),
    )

  def _pass_on_warnings(self) -> None:
    """Repeats the workers' warnings, which only the workers' logs have."""
    for warning in files.tail(self._directory.warnings).splitlines():
      notices.warn_once(warning)

  def finish(self) -> status_lib.Status:
    """Returns the run's last status."""
    self._pass_on_warnings()
    status = self._read_summary()
    if status is None:  # the variable server itself was lost, or the disk full
      status = self._status or status_lib.Status(seconds=0.0, counts={})
    stop = status.stop
    if stop and stop.reason == status_lib.StopReason.TERMINATED:
      stop = self._stop or stop  # the launcher ended it by SIGTERM
    stop = stop or self._stop or _UNKNOWN
    status = self._with_failures(dataclasses.replace(status, stop=stop))
    self._directory.write_summary(status)
    self._show(status)
    return status
