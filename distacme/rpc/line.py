"""A line to a service, which follows the server to a new endpoint."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
import logging
import threading
import time
from typing import TypeAlias

import grpc

from distacme.rpc import keys
from distacme.rpc import service as service_lib
from distacme.rpc import token
from distacme.run import endpoints

_OPTIONS = (
  # The server is on this host or in the cluster: never behind $http_proxy.
  ('grpc.enable_http_proxy', 0),
  # A status of a thousand workers with many metrics passes gRPC's 4 MiB.
  ('grpc.max_receive_message_length', 64 << 20),
  ('grpc.initial_reconnect_backoff_ms', 100),
  ('grpc.max_reconnect_backoff_ms', 1000),
)
# For a line whose calls may last for ever, so that a host that is lost is noticed in
# 20 s. Other lines notice by calls that time out.
WATCHED = (
  ('grpc.keepalive_time_ms', 10_000),
  ('grpc.keepalive_timeout_ms', 10_000),
  ('grpc.http2.max_pings_without_data', 0),
)
_NOTICE_S = 2.0  # of waiting for a server, before a log entry
# Between two searches for another server: a thousand workers may search at once, in a
# directory of a network file system.
_FIND_PERIOD_S = 1.0

Find: TypeAlias = Callable[[], endpoints.Endpoint | None]
Metadata: TypeAlias = tuple[tuple[str, str], ...]


class Line:
  """Calls a server; moves to its new endpoint if it does not answer.

  Thread-safe. A move closes the channel to the former server, which ends all calls
  that wait for that server.
  """

  def __init__(
    self,
    service: service_lib.Service,
    endpoint: endpoints.Endpoint,
    find: Find | None = None,
    options: Sequence[tuple[str, int]] = (),
  ) -> None:
    """Opens a channel; the server need not be there yet.

    Args:
      service: the kind of service.
      endpoint: of the server.
      find: returns the server's newest endpoint, or None if it is not known.
      options: of the channel, besides those of every line.

    Raises:
      ConnectionError: if the key or the token of `endpoint` cannot be used.
    """
    self._service = service
    self._endpoint = endpoint
    self._options = (*_OPTIONS, *options)
    self._channel, self._metadata = self._open(endpoint)
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
          f'{worker} waited {timeout_s:g} s for the {self._service.title} at'
          f' {self.address}, and it did not come; is its process running, and'
          f' is this the address it printed{key}?'
        )
      if waited_s >= _NOTICE_S and not told:
        told = True
        logging.getLogger(__name__).info(
          '%s waits for the %s at %s.',
          worker,
          self._service.title,
          self.address,
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
  ) -> bytes:
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
      ConnectionError: if the server does not answer, or asks for another token.
    """
    while True:
      channel, address = self._channel, self.address
      once = isinstance(request, bytes)
      kind = channel.unary_unary if once else channel.stream_unary
      try:
        answer: bytes = kind(self._service.method(method))(
          request,
          timeout=timeout_s,
          metadata=self._metadata,
          wait_for_ready=wait_for_server,
        )
        return answer
      except ValueError as error:
        failure = self._closed_meanwhile(channel, error)
      except grpc.RpcError as error:
        code, details = error.code(), error.details()
        if code == grpc.StatusCode.INVALID_ARGUMENT:
          raise ValueError(self._refusal(address, details)) from None
        if code == grpc.StatusCode.ABORTED:
          raise ConnectionRefusedError(
            self._refusal(address, details)
          ) from None
        failure = ConnectionError(
          self._refusal(address, details)
          if code == grpc.StatusCode.UNAUTHENTICATED
          else f'The {self._service.title} at {address} did not answer within'
          f' {timeout_s:g} s: {code.name}: {details}'
        )
      if not self._move_from(channel) or not once:
        raise failure

  def stream(
    self,
    method: str,
    request: bytes | Iterator[bytes],
    timeout_s: float | None = None,
  ) -> Iterator[bytes]:
    """Yields the messages of the server's answer.

    Args:
      method: name of the method.
      request: one message, or an iterator of messages that a thread of gRPC reads.
      timeout_s: after which the stream breaks; None for never.

    Raises:
      ValueError: if the server refuses the request.
      ConnectionError: if the stream breaks, or the server asks for another token.
    """
    channel, address = self._channel, self.address
    once = isinstance(request, bytes)
    kind = channel.unary_stream if once else channel.stream_stream
    try:
      call = kind(self._service.method(method))(
        request, timeout=timeout_s, metadata=self._metadata
      )
    except ValueError as error:
      raise self._closed_meanwhile(channel, error) from None
    try:
      yield from call
    except grpc.RpcError as error:
      code, details = error.code(), error.details()
      if code == grpc.StatusCode.INVALID_ARGUMENT:
        raise ValueError(self._refusal(address, details)) from None
      self._move_from(channel)
      raise ConnectionError(f'{code.name}: {details}') from None
    finally:
      call.cancel()

  def start(self, method: str, request: bytes) -> grpc.Future:
    """Starts a call that may take for ever; a move cancels the call.

    Raises:
      ConnectionError: if the line moved or was closed meanwhile.
    """
    channel = self._channel
    try:
      return channel.unary_unary(self._service.method(method)).future(
        request, metadata=self._metadata
      )
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
        opened = self._open(found)
      except (OSError, ValueError) as error:
        logging.getLogger(__name__).warning(
          'Where the %s is now cannot be read: %s', self._service.title, error
        )
        return False
      self._channel, self._metadata = opened
      self._endpoint = found
      channel.close()
    logging.getLogger(__name__).warning(
      'The %s is at %s now, and was at %s.',
      self._service.title,
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
      f'The line to the {self._service.title} at {self.address} was closed.'
    )

  def _refusal(self, address: str, details: str | None) -> str:
    return f'The {self._service.title} at {address} refused: {details}'

  def _open(
    self, endpoint: endpoints.Endpoint
  ) -> tuple[grpc.Channel, Metadata]:
    """Returns a channel to a server, and the metadata of every call.

    Raises:
      ConnectionError: if the server's key or token cannot be read, or is none.
    """
    what = 'token'
    try:
      metadata: Metadata = ()
      if endpoint.token is not None:
        metadata = ((token.METADATA, token.read(endpoint.token)),)
      if endpoint.key is None:
        plain = grpc.insecure_channel(endpoint.address, self._options)
        return plain, metadata
      what = 'key'
      credentials = keys.channel_credentials(endpoint.key)
    except (OSError, ValueError) as error:
      raise ConnectionError(
        f'The {self._service.title} at {endpoint.address} asks for the {what} of '
        f'its run, which cannot be used: {error}'
      ) from error
    # A key says which run a server belongs to, not on which host.
    override = ('grpc.ssl_target_name_override', keys.NAME)
    encrypted = grpc.secure_channel(
      endpoint.address, credentials, (*self._options, override)
    )
    return encrypted, metadata
