"""Reports of a worker to a run in another process."""

from __future__ import annotations

import collections
from collections.abc import Callable, Mapping
import logging
import threading
import time
from typing import Any
import uuid

import grpc

from distacme import core
from distacme import status
from distacme.rpc import line as line_lib
from distacme.rpc import messages
from distacme.variables import wire

_RPC_TIMEOUT_S = 5.0
# What an answer raises that is none of ours, or of another version.
_NO_ANSWER = (ValueError, KeyError, TypeError)


class Reporter:
  """A `core.Reporter` over gRPC: `report` only adds, and a thread sends.

  A report is kept until the server has acknowledged it. Until then the report is
  repeated under the same sequence number, so that each report counts once (a report
  may count twice if a server dies before it answers). `report` returns the newest
  known directive: its counts are about `period_s` old and lack the counts that this
  worker has not sent yet. A stop arrives at once, by a call that waits for the stop.

  A server that does not answer is called again, since it may be restarted. After
  `lost_after_s` without an answer the directive says 'failed', `lost` gives the
  reason, and the worker must end itself.

  Attributes:
    lost: the reason for which the server is given up; '' before.
  """

  def __init__(
    self,
    line: line_lib.Line,
    worker: str,
    period_s: float,
    lost_after_s: float,
    on_answer: Callable[[dict[str, Any]], None],
  ) -> None:
    """Starts the sending thread; see `variables.client.VariableClient.reporter`.

    Args:
      line: to the server.
      worker: name of the worker.
      period_s: time between sends. Empty reports are sent, too, to get the directive
        and to notice that the server is gone. A server of many workers asks for a
        longer time.
      lost_after_s: seconds without an answer after which the server is given up.
      on_answer: takes every answer to a report.
    """
    self.lost = ''
    self._line = line
    self._worker = worker
    self._least_period_s = self._period_s = period_s
    self._lost_after_s = lost_after_s
    self._on_answer = on_answer
    self._lock = threading.Lock()  # held only during an addition
    self._alive = False
    self._counts: dict[str, int] = {}
    self._metrics = _recent()
    self._state: status.WorkerState | None = None
    self._directive = core.Directive(None, {})

    self._sending = threading.Lock()
    self._session = uuid.uuid4().hex
    self._sequence = 0
    self._unacknowledged: bytes | None = None
    self._last_answer = time.monotonic()
    self._unanswered = 0  # reports in a row
    self._closed = threading.Event()
    self._stop_call: grpc.Future | None = None
    self._thread = threading.Thread(
      target=self._run, name=f'reporter of {worker}', daemon=True
    )
    self._thread.start()

  def report(
    self,
    counts: Mapping[str, int] | None = None,
    metrics: Mapping[str, float] | None = None,
    state: status.WorkerState | None = None,
  ) -> core.Directive:
    """Adds to the next report, without waiting; see `core.Reporter.report`."""
    with self._lock:
      self._alive = True
      if counts:
        total = self._counts
        for name, increment in counts.items():
          total[name] = total.get(name, 0) + increment
      if metrics:
        if len(metrics) > wire.MAX_METRICS:
          raise ValueError(
            f'{self._worker} reports {len(metrics)} metrics at once, of at most '
            f'{wire.MAX_METRICS}. Let the agent return fewer.'
          )
        self._metrics.append({k: float(v) for k, v in metrics.items()})
      if state is not None:
        self._state = state
    return self._directive

  def request_stop(self, reason: status.StopReason, detail: str = '') -> None:
    """Asks the run to end; waits for the answer.

    Raises:
      ConnectionError: if no answer comes.
    """
    self._call(
      'RequestStop',
      {'worker': self._worker, 'reason': reason.value, 'detail': detail},
    )

  def fail(self, detail: str) -> None:
    """Tells the run that this worker failed; raises like `request_stop`."""
    self._call('Fail', {'worker': self._worker, 'detail': detail})

  def _call(self, method: str, request: dict[str, Any]) -> None:
    answer = self._line.call(method, messages.pack(request), _RPC_TIMEOUT_S)
    self._learn_from(messages.unpack(answer))

  def flush(self, timeout_s: float = 5.0) -> bool:
    """Sends all unsent reports; returns whether the server acknowledged them."""
    deadline = time.monotonic() + timeout_s
    while self._alive or self._unacknowledged:
      left = deadline - time.monotonic()
      if left <= 0:
        return False
      if not self._send(left):
        time.sleep(min(0.05, left))
    return True

  def close(self) -> None:
    """Flushes, then ends the thread."""
    self._closed.set()
    self._thread.join()
    self.flush(timeout_s=0.0 if self.lost else 2.0)
    if self._stop_call:
      self._stop_call.cancel()

  def _run(self) -> None:
    while not self._closed.is_set() and not self.lost:
      self._watch_for_stop()
      self._send(min(_RPC_TIMEOUT_S, self._lost_after_s))
      self._closed.wait(self._period_s)

  def _send(self, timeout_s: float) -> bool:
    """Sends the report without an acknowledgement, or else a new one.

    Returns:
      Whether the server acknowledged the report.
    """
    with self._sending:
      if self._unacknowledged is None:
        self._unacknowledged = messages.pack(self._take())
      try:
        answer = messages.unpack(
          self._line.call('Report', self._unacknowledged, timeout_s)
        )
        self._learn_from(answer)
        period_s = max(self._least_period_s, answer['period_s'])
      except (ConnectionError, *_NO_ANSWER) as error:
        self._note_silence(error)
        return False
      self._unacknowledged = None
      self._note_answer()
    self._period_s = period_s
    self._on_answer(answer)
    return True

  def _take(self) -> dict[str, Any]:
    with self._lock:
      alive, self._alive = self._alive, False
      counts, self._counts = self._counts, {}
      metrics, self._metrics = self._metrics, _recent()
      state, self._state = self._state, None
    while sum(map(len, metrics)) > wire.MAX_VALUES:
      metrics.popleft()
    self._sequence += 1
    return {
      'worker': self._worker,
      'session': self._session,
      'sequence': self._sequence,
      'alive': alive,
      'counts': {name: int(count) for name, count in counts.items()},
      'metrics': list(metrics),
      'state': state and state.value,
    }

  def _watch_for_stop(self) -> None:
    if self._stop_call is None or self._stop_call.done():
      if self._directive.stop is None:
        try:
          self._stop_call = self._line.start('WaitStop', b'{}')
        except ConnectionError:
          return  # the next report tries again
        self._stop_call.add_done_callback(self._on_stop_call)

  def _on_stop_call(self, future: grpc.Future) -> None:
    if not future.cancelled() and future.exception() is None:
      answer = messages.unpack(future.result())
      self._learn_from(answer)

  def _learn_from(self, answer: dict[str, Any]) -> None:
    stop = answer['stop'] and status.StopReason(answer['stop'])
    self._learn(stop, answer['counts'])

  def _learn(
    self, stop: status.StopReason | None, counts: Mapping[str, int]
  ) -> None:
    with self._lock:
      self._directive = core.Directive(self._directive.stop or stop, counts)

  def _note_answer(self) -> None:
    if self._unanswered:
      logging.getLogger(__name__).warning(
        'The variable server at %s answers again, after %d reports of %s that '
        'it did not.',
        self._line.address,
        self._unanswered,
        self._worker,
      )
    self._unanswered = 0
    self._last_answer = time.monotonic()

  def _note_silence(self, error: Exception) -> None:
    self._unanswered += 1
    silent_s = time.monotonic() - self._last_answer
    if silent_s < self._lost_after_s or self._directive.stop:
      return
    self.lost = (
      f'The variable server at {self._line.address} has not answered for'
      f' {silent_s:.1f} s, so that {self._worker} ends; was its process'
      f' killed? Last error: {error}'
    )
    logging.getLogger(__name__).error(self.lost)
    self._learn(status.StopReason.FAILED, self._directive.counts)


def _recent() -> collections.deque[dict[str, float]]:
  return collections.deque(maxlen=wire.MAX_MOMENTS)
