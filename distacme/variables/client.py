"""Lets workers, launchers and displays talk to the variable server."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
import contextlib
import itertools
import logging
import threading
import time
from typing import Any

import numpy as np

from distacme import core
from distacme import status as status_lib
from distacme import types
from distacme.rpc import line as line_lib
from distacme.rpc import messages
from distacme.run import endpoints
from distacme.run import notices
from distacme.variables import nests
from distacme.variables import reporter as reporter_lib
from distacme.variables import subscriber as subscriber_lib
from distacme.variables import wire

_RETRY_S = 0.2
_TRY_S = 60.0  # to send params once
# To send params to a server that lacks them; reports wait meanwhile.
_AGAIN_S = 10.0


class VariableClient:
  """A worker's connection to the variable server; a source and sink of params.

  `newest` may be called from any thread at any rate; a thread of this client
  receives the params.
  """

  def __init__(
    self,
    endpoint: endpoints.Endpoint,
    worker: str,
    *,
    find: line_lib.Find | None = None,
    connect_timeout_s: float = 60.0,
    lost_after_s: float = 120.0,
  ) -> None:
    """Connects; waits for a server that is not there yet.

    Args:
      endpoint: of the server.
      worker: the name of this worker, e.g. 'actor/0'.
      find: returns where the server listens now, or None if that is not known.
        It is asked when the server does not answer.
      connect_timeout_s: how long to wait for the server.
      lost_after_s: seconds without an answer after which the server is given up, by
        reports and by publications; inf for a server that may be away for long, and
        whose loss others notice.

    Raises:
      TimeoutError: if the server did not come.
    """
    self._line = line_lib.Line(wire.SERVICE, endpoint, find)
    self._worker = worker
    self._lost_after_s = lost_after_s
    self._newest: core.VersionedParams | None = None
    self._arrived = threading.Condition()
    self._subscriber: subscriber_lib.Subscriber | None = None
    self._closed = threading.Event()
    self._reporters: list[reporter_lib.Reporter] = []
    self._published: wire.VersionedArrays | None = None
    self._sending = threading.Lock()  # the server takes params of one at a time
    try:
      self._line.wait_for_server(worker, connect_timeout_s)
    except TimeoutError:
      self._line.close()
      raise

  def publish(
    self,
    version: int,
    params: types.Params,
    timeout_s: float | None = None,
  ) -> bool:
    """Sends params; waits until the server has them.

    Args:
      version: larger than earlier versions; 0 or more.
      params: arrays nested in dicts with string keys. The arrays must not change
        later: a restarted server gets the same arrays again.
      timeout_s: for all tries together; by default half of `lost_after_s`.

    Returns:
      Whether these are now the newest; False if the server had this version or
      a newer one, and ignored these.

    Raises:
      TypeError: if `params` is another nest.
      ValueError: if the params cannot be sent, or the server refuses them.
      ConnectionError: if the server does not answer.
    """
    flat = nests.flatten(params)
    arrays = [np.asarray(leaf) for leaf in flat.values()]
    sent = wire.VersionedArrays(version, list(flat), arrays)
    if timeout_s is None:
      timeout_s = self._lost_after_s / 2
    accepted = self._send(sent, timeout_s)
    self._published = sent
    return accepted

  def _send(self, params: wire.VersionedArrays, timeout_s: float) -> bool:
    """Sends params; tries again while no server answers."""
    deadline = time.monotonic() + timeout_s
    tries = 0
    while True:
      header, chunks = wire.encode(*params)
      tries += 1
      try:
        with self._sending:
          answer = self._line.call(
            'Publish',
            itertools.chain([header], chunks),
            max(0.0, min(_TRY_S, deadline - time.monotonic())),
          )
        break
      except ConnectionRefusedError:  # the server is there
        raise
      except ConnectionError as error:
        if self._closed.wait(_RETRY_S) or time.monotonic() >= deadline:
          raise ConnectionError(
            f'{error}; params were to be sent in {timeout_s:g} s, and that was'
            f' try {tries}'
          ) from None
    if tries > 1:
      logging.getLogger(__name__).warning(
        'Params were published to %s after %d tries.', self._line.address, tries
      )
    return bool(messages.unpack(answer)['accepted'])

  def _publish_again(self, answer: dict[str, Any]) -> None:
    """Sends the params to a server that lacks them, since it was restarted."""
    published = self._published
    if published is None or answer['params_version'] >= published.version:
      return
    try:
      self._send(published, timeout_s=_AGAIN_S)
    except (ConnectionError, ValueError) as error:
      # The next answer to a report asks again.
      logging.getLogger(__name__).info(
        'Params were not sent again to %s: %s', self._line.address, error
      )

  def subscribe(
    self, period_s: float = 0.0, find_relay: line_lib.Find | None = None
  ) -> None:
    """Starts to receive params, which `newest` returns.

    Args:
      period_s: seconds between two versions, at least.
      find_relay: returns where the relay listens from which params are to come; see
        `subscriber.Subscriber`. None for the server itself.
    """
    if self._subscriber is None:
      self._subscriber = subscriber_lib.Subscriber(
        self._worker,
        self._line,
        self._receive,
        version=lambda: self._newest.version if self._newest else -1,
        period_s=period_s,
        find_relay=find_relay,
      )

  def newest(self) -> core.VersionedParams | None:
    """Returns the newest params that have arrived; None before the first."""
    return self._newest

  def wait_newer(
    self, version: int, timeout_s: float
  ) -> core.VersionedParams | None:
    """Waits for params newer than `version`; returns None if none came in time."""

    def newer() -> core.VersionedParams | None:
      newest = self._newest
      return newest if newest and newest.version > version else None

    with self._arrived:
      return self._arrived.wait_for(newer, timeout_s)

  def reporter(
    self, period_s: float = 0.5, lost_after_s: float | None = None
  ) -> reporter_lib.Reporter:
    """Returns a `core.Reporter`, closed with this client.

    Args:
      period_s: seconds between reports.
      lost_after_s: as of this client, by default the same.
    """
    if lost_after_s is None:
      lost_after_s = self._lost_after_s
    reporter = reporter_lib.Reporter(
      self._line,
      self._worker,
      period_s,
      lost_after_s,
      on_answer=self._publish_again,
    )
    self._reporters.append(reporter)
    return reporter

  def status(self, timeout_s: float = 5.0) -> status_lib.Status:
    """Returns the run's status; see `status` below, which opens a line for it."""
    answer = self._line.call(
      'Status', messages.pack({}), timeout_s, wait_for_server=True
    )
    return _read_status(messages.unpack(answer), self._line.address)

  def close(self) -> None:
    """Sends the reporters' last reports and ends all threads."""
    self._closed.set()
    for reporter in self._reporters:
      reporter.close()
    if self._subscriber:
      self._subscriber.close()
    self._line.close()

  def _receive(
    self, data: bytes, header: wire.Header, chunks: Iterator[bytes]
  ) -> None:
    version, names, arrays = wire.receive(header, chunks)
    params = nests.unflatten(dict(zip(names, arrays, strict=True)))
    with self._arrived:
      self._newest = core.VersionedParams(version, params)
      self._arrived.notify_all()


class StatusClient:
  """Asks for a run's status again and again, over one line; for one thread."""

  def __init__(self, find: line_lib.Find):
    """Opens the line at the first question.

    Args:
      find: returns where the server listens, or None if that is not known.
    """
    self._find = find
    self._line: line_lib.Line | None = None

  def status(
    self, timeout_s: float = 5.0, only: Sequence[str] | None = None
  ) -> status_lib.Status:
    """Returns the run's status.

    Args:
      timeout_s: to wait for the answer.
      only: names of the workers to be told of; all if None.

    Raises:
      ConnectionError: if the server does not answer, or does not listen yet.
    """
    if self._line is None:
      endpoint = self._find()
      if endpoint is None:
        raise ConnectionError('the variable server does not listen yet')
      self._line = line_lib.Line(wire.SERVICE, endpoint, self._find)
    request = {} if only is None else {'workers': list(only)}
    answer = self._line.call(
      'Status', messages.pack(request), timeout_s, wait_for_server=True
    )
    return _read_status(messages.unpack(answer), self._line.address)

  def close(self) -> None:
    """Closes the line."""
    if self._line is not None:
      self._line.close()


def status(
  endpoint: endpoints.Endpoint, timeout_s: float = 5.0
) -> status_lib.Status:
  """Returns the status of the run whose server is there.

  Raises:
    ConnectionError: if the server does not answer, or with something else.
  """
  answer = _call_once(endpoint, 'Status', {}, timeout_s)
  return _read_status(answer, endpoint.address)


def _read_status(answer: dict[str, Any], address: str) -> status_lib.Status:
  """Returns the status that a server answered.

  Raises:
    ConnectionError: if this version cannot read it.
  """
  try:
    return status_lib.Status.from_dict(answer)
  except ValueError as error:
    unread = f'The variable server at {address} answered no status: {error}'
    notices.warn_once(unread)
    raise ConnectionError(unread) from error


def scale(
  endpoint: endpoints.Endpoint, num_actors: int, timeout_s: float = 5.0
) -> None:
  """Asks a run for so many actors."""
  _call_once(endpoint, 'Scale', {'num_actors': num_actors}, timeout_s)


def request_stop(
  endpoint: endpoints.Endpoint,
  reason: status_lib.StopReason,
  detail: str = '',
  worker: str = '',
  timeout_s: float = 5.0,
) -> None:
  """Asks a run to end; see `core.Reporter.request_stop`."""
  request = {'reason': reason.value, 'detail': detail, 'worker': worker}
  _call_once(endpoint, 'RequestStop', request, timeout_s)


def _call_once(
  endpoint: endpoints.Endpoint,
  method: str,
  request: dict[str, Any],
  timeout_s: float,
) -> dict[str, Any]:
  with contextlib.closing(line_lib.Line(wire.SERVICE, endpoint)) as line:
    answer = line.call(
      method, messages.pack(request), timeout_s, wait_for_server=True
    )
    return messages.unpack(answer)
