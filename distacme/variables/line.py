"""A line to the variable server, which follows the server to a new endpoint."""

from __future__ import annotations

from collections.abc import Callable, Iterator
import logging
import threading
import time
from typing import Any

import grpc

from distacme.run import endpoints
from distacme.variables import keys
from distacme.variables import wire

_OPTIONS = (
  # The server is on this host or in the cluster: never behind $http_proxy.
  ('grpc.enable_http_proxy', 0),
  ('grpc.initial_reconnect_backoff_ms', 100),
  ('grpc.max_reconnect_backoff_ms', 1000),
)
_NOTICE_S = 2.0  # of waiting for a server, before a log entry
# Between two searches for another server: a thousand workers may search at once, in a
# directory of a network file system.
_FIND_PERIOD_S = 1.0

Find = Callable[[], endpoints.Endpoint | None]


class Line:
  """Calls the variable server; moves to its new endpoint if it does not answer.

  Thread-safe. A move closes the channel to the former server, which ends all calls
  that wait for that server.
  """

  def __init__(
    self, endpoint: endpoints.Endpoint, find: Find | None = None
  ) -> None:
    """Opens a channel; the server need not be there yet.

    Args:
      endpoint: of the server.
      find: returns the server's newest endpoint, or None if it is not known.

    Raises:
      ConnectionError: if the key of `endpoint` cannot be used.
    """
    self._endpoint = endpoint
    self._channel = _open(endpoint)
    self._find = find
    self._moving = threading.Lock()
    self._looked = float('-inf')
    self._closed = False

  @property
  def endpoint(self) -> endpoints.Endpoint:
    """The server's endpoint, as found last."""
    return self._endpoint

  @property
  def address(self) -> str:
    """host:port of the server, for messages."""
    return self._endpoint.address

  def wait_for_server(self, worker: str, timeout_s: float) -> None:
    """Waits until the server is there.

    Args:
      worker: name of the waiting worker, for messages.
      timeout_s: seconds to wait.

    Raises:
      TimeoutError: if the server is not there in time.
    """
    start = time.monotonic()
    told = False
    while True:
      waited_s = time.monotonic() - start
      if waited_s >= timeout_s:
        # A server with another key seems absent.
        key = ', and this the key of its run' if self._endpoint.key else ''
        raise TimeoutError(
          f'{worker} waited {timeout_s:g} s for the variable server at'
          f' {self.address}, and it did not come; is its process running, and'
          f' is this the address it printed{key}?'
        )
      if waited_s >= _NOTICE_S and not told:
        told = True
        logging.getLogger(__name__).info(
          '%s waits for the variable server at %s.', worker, self.address
        )
      channel = self._channel
      ready = grpc.channel_ready_future(channel)
      try:
        ready.result(min(_FIND_PERIOD_S, timeout_s - waited_s))
        return
      except grpc.FutureTimeoutError:
        ready.cancel()
        self._move_from(channel)

  def call(
    self,
    method: str,
    request: bytes | Iterator[bytes],
    timeout_s: float,
    wait_for_server: bool = False,
  ) -> dict[str, Any]:
    """Calls the server, and its new endpoint if the server has moved.

    Args:
      method: name of the method.
      request: one message; or an iterator of messages, which cannot be sent twice
        and so goes to the known server only.
      timeout_s: for each server that is tried.
      wait_for_server: whether to wait for a server that is not there yet.

    Returns:
      The answer.

    Raises:
      ValueError: if the server refuses the request.
      ConnectionRefusedError: if the server is busy with another such request.
      ConnectionError: if the server does not answer.
    """
    while True:
      channel, address = self._channel, self.address
      once = isinstance(request, bytes)
      kind = channel.unary_unary if once else channel.stream_unary
      try:
        data = kind(wire.method(method))(
          request, timeout=timeout_s, wait_for_ready=wait_for_server
        )
        break
      except ValueError as error:
        failure = self._closed_meanwhile(channel, error)
      except grpc.RpcError as error:
        code, details = error.code(), error.details()
        if code == grpc.StatusCode.INVALID_ARGUMENT:
          raise ValueError(
            f'The variable server at {address} refused: {details}'
          ) from None
        if code == grpc.StatusCode.ABORTED:
          raise ConnectionRefusedError(
            f'The variable server at {address} refused: {details}'
          ) from None
        failure = ConnectionError(
          f'The variable server at {address} did not answer within'
          f' {timeout_s:g} s: {code.name}: {details}'
        )
      if not self._move_from(channel) or not once:
        raise failure
    return wire.unpack(data)

  def stream(self, method: str, request: bytes) -> Iterator[bytes]:
    """Yields the messages of the server's answer.

    Raises:
      ConnectionError: if the stream breaks, or the server refuses the request.
    """
    channel = self._channel
    try:
      yield from channel.unary_stream(wire.method(method))(request)
    except ValueError as error:
      raise self._closed_meanwhile(channel, error) from None
    except grpc.RpcError as error:
      self._move_from(channel)
      raise ConnectionError(f'{error.code().name}: {error.details()}') from None

  def start(self, method: str, request: bytes) -> grpc.Future:
    """Starts a call that may take for ever; a move cancels the call.

    Raises:
      ConnectionError: if the line moved or was closed meanwhile.
    """
    channel = self._channel
    try:
      return channel.unary_unary(wire.method(method)).future(request)
    except ValueError as error:
      raise self._closed_meanwhile(channel, error) from None

  def close(self) -> None:
    """Ends all calls."""
    with self._moving:
      self._closed = True
      self._channel.close()

  def _move_from(self, channel: grpc.Channel) -> bool:
    """Leaves a server that does not answer, if `find` returns another one.

    Args:
      channel: to the server that did not answer.

    Returns:
      Whether the line goes to another server now.
    """
    with self._moving:
      if self._closed:
        return False
      if channel is not self._channel:
        return True  # another thread has moved
      now = time.monotonic()
      if self._find is None or now < self._looked + _FIND_PERIOD_S:
        return False
      self._looked = now
      former = self._endpoint
      try:
        found = self._find()
        if found is None or found == former:
          return False
        self._channel = _open(found)
      except (OSError, ValueError) as error:
        logging.getLogger(__name__).warning(
          'Where the variable server is now cannot be read: %s', error
        )
        return False
      self._endpoint = found
      channel.close()
    logging.getLogger(__name__).warning(
      'The variable server is at %s now, and was at %s.',
      found.address,
      former.address,
    )
    return True

  def _closed_meanwhile(
    self, channel: grpc.Channel, error: ValueError
  ) -> ConnectionError:
    """Returns an error for a call on a closed channel; else raises `error`."""
    if channel is self._channel and not self._closed:
      raise error
    return ConnectionError(
      f'The line to the variable server at {self.address} was closed.'
    )


def _open(endpoint: endpoints.Endpoint) -> grpc.Channel:
  """Returns a channel to a server.

  Raises:
    ConnectionError: if the server's key cannot be read, or is none.
  """
  if endpoint.key is None:
    return grpc.insecure_channel(endpoint.address, _OPTIONS)
  try:
    credentials = keys.channel_credentials(endpoint.key)
  except (OSError, ValueError) as error:
    raise ConnectionError(
      f'The variable server at {endpoint.address} asks for the key of its run, '
      f'which cannot be used: {error}'
    ) from error
  # A key says which run a server belongs to, not on which host.
  override = ('grpc.ssl_target_name_override', keys.NAME)
  return grpc.secure_channel(
    endpoint.address, credentials, (*_OPTIONS, override)
  )
