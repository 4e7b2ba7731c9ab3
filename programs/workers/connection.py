"""Connects a worker of a program to the worker's run."""

from __future__ import annotations

from collections.abc import Mapping
import functools
import math
import pathlib
import threading
import time
from typing import TYPE_CHECKING

from distacme import core
from distacme import status as status_lib
from distacme.programs import program
from distacme.run import endpoints

if TYPE_CHECKING:  # gRPC is imported once there is somebody to call
  from distacme.rpc import line as line_lib

_CONNECT_S = 60.0
_LOST_S = 120.0

_GOODBYE_S = 1.0

_STATUS_S = 5.0

_POLL_S = 0.1


class Connection:
  """A worker's line to its run: a `core.Reporter` and a source of params."""

  def __init__(
    self,
    name: str,
    folder: pathlib.Path,
    timeout_s: float = _CONNECT_S,
    terminated: threading.Event | None = None,
    lost_after_s: float = _LOST_S,
  ):
    """Waits for the variable server and connects to the server.

    Args:
      name: of the worker.
      folder: of the run's endpoints.
      timeout_s: seconds to wait for the server.
      terminated: set once the worker is to stop whatever the run says.
      lost_after_s: seconds without an answer of the server after which this worker
        gives the run up.

    Raises:
      TimeoutError: if the server does not listen in time.
      ConnectionError: if the worker is to stop before the server listens.
    """
    from distacme.variables import client

    self.name = name
    self._timeout_s = timeout_s
    self._folder = folder
    self._terminated = terminated or threading.Event()
    deadline = time.monotonic() + timeout_s
    endpoint = endpoints.wait(
      folder, program.VARIABLES, self._terminated.is_set, timeout_s
    )
    if endpoint is None:
      raise ConnectionError(
        f'{name} was to end before {program.VARIABLES} listened.'
      )
    self._client = client.VariableClient(
      endpoint,
      name,
      find=self._finder(program.VARIABLES),
      connect_timeout_s=max(0.0, deadline - time.monotonic()),
      lost_after_s=lost_after_s,
    )
    self._reporter = self._client.reporter()
    self.params = self._client

  def _finder(self, service: str) -> line_lib.Find:
    return functools.partial(endpoints.find, self._folder, service)

  def report(
    self,
    counts: Mapping[str, int] | None = None,
    metrics: Mapping[str, float] | None = None,
    state: status_lib.WorkerState | None = None,
  ) -> core.Directive:
    """See `core.Reporter`; a terminated process stops in any case."""
    directive = self._reporter.report(counts, metrics, state)
    if self.terminated and directive.stop is None:
      return directive._replace(stop=status_lib.StopReason.TERMINATED)
    return directive

  def request_stop(
    self, reason: status_lib.StopReason, detail: str = ''
  ) -> None:
    """See `core.Reporter`."""
    self._reporter.request_stop(reason, detail)

  def fail(self, detail: str) -> None:
    """See `core.Reporter`; sends the last counts, too."""
    self._reporter.fail(detail)
    self._reporter.flush(_GOODBYE_S)

  def status(self) -> status_lib.Status:
    """Returns the run's status.

    Raises:
      ConnectionError: if the variable server does not answer.
    """
    return self._client.status(_STATUS_S)

  def first_status(self) -> status_lib.Status:
    """Returns the status, also of a server that is just being started again.

    Raises:
      ConnectionError: if the server does not answer in time.
    """
    give_up_at = time.monotonic() + self._timeout_s
    while True:
      try:
        return self.status()
      except ConnectionError:
        if self.terminated or time.monotonic() >= give_up_at:
          raise
        time.sleep(0.1)  # a refusal comes at once

  @property
  def terminated(self) -> bool:
    """True if this worker was ended from outside, as by SIGTERM."""
    return self._terminated.is_set()

  def terminate(self) -> None:
    """Makes this worker stop; may be called from a signal handler."""
    self._terminated.set()

  def stopped(self) -> bool:
    """Returns whether this worker is to end."""
    return self.report().stop is not None

  def wait_for_params(
    self,
    last_s: float = 0.0,
    period_s: float = 0.0,
    relay: str | None = None,
  ) -> bool:
    """Subscribes and waits for params.

    Args:
      last_s: seconds to wait on in a run that has used up its steps.
      period_s: seconds between two versions of params, at least.
      relay: the name of the relay that sends them; None for the variable server.

    Returns:
      Whether there are params; False if the run stopped before.
    """
    find_relay = self._finder(relay) if relay else None
    self._client.subscribe(period_s, find_relay)
    self.report(state=status_lib.WorkerState.WAITING_FOR_PARAMS)
    ends_at = math.inf
    while self._client.wait_newer(-1, timeout_s=_POLL_S) is None:
      stop = self.report().stop
      if stop is not None:
        ends_at = min(ends_at, time.monotonic() + last_s)
        if not status_lib.leaves_time(stop) or time.monotonic() >= ends_at:
          return False
    return True

  def wait_for_learning(self) -> bool:
    """Waits for the first learner step, which a resumed run has already made.

    Returns:
      Whether there are params to evaluate; False if the run stopped, unless the
      run used up its steps and is evaluated once more.
    """
    while True:
      directive = self.report(state=status_lib.WorkerState.WAITING_FOR_LEARNER)
      if directive.counts.get('learner_steps', 0):
        return True
      if directive.stop is not None:
        return status_lib.leaves_time(directive.stop)
      time.sleep(_POLL_S)

  def done(self) -> None:
    """Says goodbye, if the variable server still answers."""
    self.report(state=status_lib.WorkerState.DONE)
    self._reporter.flush(_GOODBYE_S)

  def close(self) -> None:
    """Ends the threads of the connection."""
    self._client.close()
