"""What workers, launchers and displays use to talk to the variable server."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
import itertools
import logging
import threading
import time
from typing import Any, NamedTuple

import grpc
import numpy as np

from distacme.run import status as status_lib
from distacme.variables import keys
from distacme.variables import reporter as reporter_lib
from distacme.variables import wire

_OPTIONS = (
  # The server is on this host or in the cluster: never behind $http_proxy.
  ('grpc.enable_http_proxy', 0),
  ('grpc.initial_reconnect_backoff_ms', 100),
  ('grpc.max_reconnect_backoff_ms', 1000),
)


_RETRY_S = 0.2
_AGAIN_S = (
  10.0  # for params that a restarted server lacks; reports wait meanwhile
)


class Newest(NamedTuple):
  """The newest params: leaves in the order of `publish`, read-only."""

  version: int
  names: list[str]
  arrays: list[np.ndarray]


class VariableClient:
  """A worker's connection to the variable server.

  `newest` may be called from any thread at any rate; a thread of this client
  replaces what it returns.
  """

  def __init__(
    self,
    address: str,
    worker: str,
    credentials: grpc.ChannelCredentials | None = None,
    connect_timeout_s: float = 60.0,
  ) -> None:
    """Connects; waits for a server that is not there yet.

    Args:
      address: host:port of the server.
      worker: who this is, e.g. 'actor/0'.
      credentials: of the run's key (`keys`), if the server has them.
      connect_timeout_s: how long to wait for the server.

    Raises:
      TimeoutError: if the server did not come.
    """
    self._address = address
    self._worker = worker
    self._channel = _channel(address, credentials)
    # A server with another key looks like none.
    self._and_key = ', and this the key of its run' if credentials else ''
    self._newest: Newest | None = None
    self._arrived = threading.Condition()
    self._broken = 0  # streams of params since some arrived
    self._closed = threading.Event()
    self._thread: threading.Thread | None = None
    self._reporters: list[reporter_lib.Reporter] = []
    self._published: Newest | None = None
    self._sending = threading.Lock()  # the server takes params of one at a time
    self._wait_for_server(connect_timeout_s)

  def publish(
    self,
    version: int,
    names: Sequence[str],
    arrays: Sequence[np.ndarray],
    timeout_s: float = 60.0,
  ) -> bool:
    """Sends params; waits until the server has them.

    Args:
      version: larger than those before; 0 or more.
      names: of the leaves, which `newest` returns; no two alike.
      arrays: the leaves, which must not change: a server that is restarted gets
        them again.
      timeout_s: for the whole, in which it is tried again and again.

    Returns:
      Whether these are now the newest; False if the server had this version or
      a newer one, and ignored it.

    Raises:
      ValueError: if the params cannot be sent, or the server refuses them.
      ConnectionError: if the server does not answer.
    """
    accepted = self._send(Newest(version, list(names), list(arrays)), timeout_s)
    self._published = Newest(version, list(names), list(arrays))
    return accepted

  def _send(self, params: Newest, timeout_s: float) -> bool:
    """Sends params, again and again to a server that is not there."""
    deadline = time.monotonic() + timeout_s
    tries = 0
    while True:
      header, chunks = wire.encode(*params)
      tries += 1
      try:
        with self._sending:
          answer = reporter_lib.call(
            self._channel.stream_unary(wire.method('Publish')),
            itertools.chain([header], chunks),
            self._address,
            max(0.0, deadline - time.monotonic()),
            wait_for_server=False,  # or nobody would know how often it is tried
          )
        break
      except ConnectionRefusedError:  # it is there
        raise
      except ConnectionError as error:
        if self._closed.wait(_RETRY_S) or time.monotonic() >= deadline:
          raise ConnectionError(
            f'{error}; params were to be sent in {timeout_s:g} s, and that was'
            f' try {tries}'
          ) from None
    if tries > 1:
      logging.getLogger(__name__).warning(
        'Params were published to %s after %d tries.', self._address, tries
      )
    return bool(answer['accepted'])

  def _publish_again(self, answer: dict[str, Any]) -> None:
    """Gives a server that was restarted the params that it had."""
    published = self._published
    if published is None or answer['params_version'] >= published.version:
      return
    try:
      self._send(published, timeout_s=_AGAIN_S)
    except ConnectionError:
      pass  # the next answer to a report asks again

  def subscribe(self) -> None:
    """Starts to receive params; must precede `newest`."""
    if self._thread is None:
      self._thread = threading.Thread(
        target=self._receive, name=f'params of {self._worker}', daemon=True
      )
      self._thread.start()

  def newest(self) -> Newest | None:
    """Returns the newest params that have arrived; None before the first."""
    return self._newest

  def wait_newer(self, version: int, timeout_s: float) -> Newest | None:
    """Waits for params newer than `version`; None if none came in time."""

    def newer() -> Newest | None:
      newest = self._newest
      return newest if newest and newest.version > version else None

    with self._arrived:
      return self._arrived.wait_for(newer, timeout_s)

  def reporter(
    self, period_s: float = 0.5, lost_after_s: float = 120.0
  ) -> reporter_lib.Reporter:
    """Returns a `core.Reporter`, closed with this client."""
    reporter = reporter_lib.Reporter(
      self._channel,
      self._address,
      self._worker,
      period_s,
      lost_after_s,
      on_answer=self._publish_again,
    )
    self._reporters.append(reporter)
    return reporter

  def close(self) -> None:
    """Sends the reporters' last reports and ends all threads."""
    self._closed.set()
    for reporter in self._reporters:
      reporter.close()
    self._channel.close()  # Ends the stream.
    if self._thread:
      self._thread.join()

  def _wait_for_server(self, timeout_s: float) -> None:
    ready = grpc.channel_ready_future(self._channel)
    notice_s = min(2.0, timeout_s)
    try:
      ready.result(notice_s)
      return
    except grpc.FutureTimeoutError:
      logging.getLogger(__name__).info(
        '%s waits for the variable server at %s.', self._worker, self._address
      )
    try:
      ready.result(timeout_s - notice_s)
    except grpc.FutureTimeoutError:
      ready.cancel()
      self._channel.close()
      raise TimeoutError(
        f'{self._worker} waited {timeout_s:g} s for the variable server at'
        f' {self._address}, and it did not come; is its process running, and'
        f' is this the address it printed{self._and_key}?'
      ) from None

  def _receive(self) -> None:
    subscribe = self._channel.unary_stream(wire.method('Subscribe'))
    while not self._closed.is_set():
      have = self._newest.version if self._newest else -1
      try:
        self._read(subscribe(wire.pack({'version': have})))
      except (grpc.RpcError, ValueError) as error:
        if self._closed.is_set():
          return
        self._broken += 1
        # Reports tell whether the server is gone; here it is only tried again.
        if self._broken == 1:
          logging.getLogger(__name__).warning(
            'The stream of params from %s broke and is opened again: %s',
            self._address,
            error.details() if isinstance(error, grpc.RpcError) else error,
          )
      self._closed.wait(_RETRY_S)

  def _read(self, messages: Iterator[bytes]) -> None:
    for message in messages:
      header = wire.decode_header(message)
      newest = Newest(
        header.version,
        [leaf.name for leaf in header.leaves],
        wire.receive(header, messages),
      )
      with self._arrived:
        self._newest = newest
        self._arrived.notify_all()
      if self._broken:
        logging.getLogger(__name__).warning(
          'Params come from %s to %s again, whose stream broke or was not opened'
          ' %d times.',
          self._address,
          self._worker,
          self._broken,
        )
        self._broken = 0


def status(
  address: str,
  credentials: grpc.ChannelCredentials | None = None,
  timeout_s: float = 5.0,
) -> status_lib.Status:
  """Returns the status of the run at `address`."""
  answer = _call_once(address, credentials, 'Status', {}, timeout_s)
  return status_lib.Status.from_dict(answer)


def scale(address: str, num_actors: int, timeout_s: float = 5.0) -> None:
  """Asks the run at `address` for so many actors."""
  _call_once(address, None, 'Scale', {'num_actors': num_actors}, timeout_s)


def request_stop(
  address: str,
  reason: status_lib.StopReason,
  detail: str = '',
  worker: str = '',
  credentials: grpc.ChannelCredentials | None = None,
  timeout_s: float = 5.0,
) -> None:
  """Asks the run at `address` to end; see `core.Reporter.request_stop`."""
  request = {'reason': reason.value, 'detail': detail, 'worker': worker}
  _call_once(address, credentials, 'RequestStop', request, timeout_s)


def _call_once(
  address: str,
  credentials: grpc.ChannelCredentials | None,
  method: str,
  request: dict[str, Any],
  timeout_s: float,
) -> dict[str, Any]:
  with _channel(address, credentials) as channel:
    unary = channel.unary_unary(wire.method(method))
    return reporter_lib.call(unary, request, address, timeout_s)


def _channel(
  address: str, credentials: grpc.ChannelCredentials | None
) -> grpc.Channel:
  if credentials is None:
    return grpc.insecure_channel(address, _OPTIONS)
  # A key says which run a server belongs to, not on which host.
  override = ('grpc.ssl_target_name_override', keys.NAME)
  return grpc.secure_channel(address, credentials, (*_OPTIONS, override))
