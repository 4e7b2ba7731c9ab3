"""The variable server: hands params to subscribers and keeps the run's state.

It knows neither JAX nor the run's agent: params are bytes that it checks,
keeps in the chunks they came in, and sends on.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent import futures
import functools
import ipaddress
import logging
import threading
from typing import Any, NamedTuple

import grpc

from distacme.run import run_state as run_state_lib
from distacme.variables import requests
from distacme.variables import wire

# Every worker holds a thread for WaitStop and perhaps one for Subscribe. They
# are made when needed; a call beyond them is refused rather than left waiting.
MAX_CALLS = 1024

# For a server's process, before it starts: threads that share malloc's arenas
# leave 20 MB less behind (7 MB of params, 8 subscribers).
ENVIRONMENT = {'MALLOC_ARENA_MAX': '2'}

_MAX_DETAIL = 20_000  # characters of a traceback, of which the end tells most
_MAX_SESSIONS = 10_000  # of clients; who was silent for longest is forgotten

_OPTIONS = (
  # Two servers on one port would each get half of the workers.
  ('grpc.so_reuseport', 0),
)


class _Published(NamedTuple):
  """A version as it came; never changed."""

  version: int
  header: bytes
  chunks: list[bytes]


class VariableServer:
  """Serves a `RunState` and the newest params; see `wire` for the protocol.

  A version that is not newer than the newest is ignored, so that a publisher
  may repeat itself, and one that went back to a checkpoint does not take the
  actors with it: they wait until it has caught up.
  """

  def __init__(
    self,
    run_state: run_state_lib.RunState,
    address: str,
    credentials: grpc.ServerCredentials | None = None,
  ) -> None:
    """Starts serving.

    Args:
      run_state: what reports go to.
      address: host:port; port 0 chooses a free one. 'localhost' is 127.0.0.1.
      credentials: of the run's key (`keys`), which clients then need too;
        without, the server listens on loopback only.

    Raises:
      ValueError: if `address` is not loopback and there are no credentials.
      OSError: if `address` cannot be listened on.
    """
    self._state = run_state
    self._changed = threading.Condition()
    self._newest = _Published(-1, b'', [])
    self._stopped = False
    self._publishing = threading.Lock()
    self._acknowledging = threading.Lock()
    self._acknowledged: dict[str, int] = {}  # session: last sequence number

    host = _host(address, credentials is not None)
    self._server = grpc.server(
      futures.ThreadPoolExecutor(MAX_CALLS, 'variables'),
      handlers=[self._handlers()],
      options=_OPTIONS,
      maximum_concurrent_rpcs=MAX_CALLS,
    )
    bind = f'{host}:{address.rpartition(":")[2]}'
    try:
      if credentials is None:
        port = self._server.add_insecure_port(bind)
      else:
        port = self._server.add_secure_port(bind, credentials)
    except RuntimeError as error:
      raise OSError(
        f'Cannot listen on {bind}: {error}. Is the port taken? Port 0 chooses'
        ' a free one.'
      ) from None
    self.address = f'{host}:{port}'
    run_state.on_stop(self._notify)
    self._server.start()

  def stop(self, grace_s: float = 0.5) -> None:
    """Ends all streams and stops serving."""
    self._stopped = True
    self._notify()
    self._server.stop(grace_s).wait()

  def wait(self, timeout_s: float | None = None) -> bool:
    """Waits until the server has been stopped; returns whether it has."""
    return not self._server.wait_for_termination(timeout_s)

  def _handlers(self) -> grpc.GenericRpcHandler:
    unary = grpc.unary_unary_rpc_method_handler
    return grpc.method_handlers_generic_handler(
      wire.SERVICE,
      {
        'Publish': grpc.stream_unary_rpc_method_handler(
          _refusing(self._publish)
        ),
        'Subscribe': grpc.unary_stream_rpc_method_handler(self._subscribe),
        'Report': unary(_refusing(self._report)),
        'WaitStop': unary(_refusing(self._wait_stop)),
        'RequestStop': unary(_refusing(self._request_stop)),
        'Fail': unary(_refusing(self._fail)),
        'Scale': unary(_refusing(self._scale)),
        'Status': unary(_refusing(self._status)),
      },
    )

  def _publish(
    self, messages: Iterator[bytes], context: grpc.ServicerContext
  ) -> dict[str, Any]:
    # One at a time bounds what half-received versions can take of the memory.
    if not self._publishing.acquire(blocking=False):
      context.abort(
        grpc.StatusCode.ABORTED,
        'Another publisher is sending params; a run has one learner.',
      )
    try:
      data = next(messages, b'')
      header = wire.decode_header(data)
      accepted = header.version > self._newest.version
      if accepted:
        chunks = list(wire.checked_chunks(header, messages))
        with self._changed:
          self._newest = _Published(header.version, data, chunks)
          self._changed.notify_all()
        self._state.set_params_version(header.version)
    finally:
      self._publishing.release()
    return {'accepted': accepted, 'newest': self._newest.version}

  def _subscribe(
    self, request: bytes, context: grpc.ServicerContext
  ) -> Iterator[bytes]:
    try:
      version = requests.version(request)
    except ValueError as error:
      _refuse(context, error)
      return

    def newer() -> bool:
      return self._newest.version > version

    context.add_callback(self._notify)
    while self._wait(context, newer):
      # The slower the subscriber, the more versions pass while it is sent one;
      # here it goes on with the newest.
      newest = self._newest
      version = newest.version
      yield newest.header
      yield from newest.chunks

  def _report(
    self, request: bytes, context: grpc.ServicerContext
  ) -> dict[str, Any]:
    message = requests.report(request)
    worker, session = message['worker'], message['session']
    with self._acknowledging:
      # A client repeats a report whose answer it did not get.
      if message['sequence'] <= self._acknowledged.get(session, -1):
        return self._answer()
      self._acknowledged.pop(session, None)  # The one heard of last comes last.
      self._acknowledged[session] = message['sequence']
      if len(self._acknowledged) > _MAX_SESSIONS:
        del self._acknowledged[next(iter(self._acknowledged))]
      if message['alive']:
        self._state.report(worker, message['counts'], state=message['state'])
    for metrics in message['metrics']:
      self._state.report(worker, metrics=metrics)
    return self._answer()

  def _wait_stop(
    self, request: bytes, context: grpc.ServicerContext
  ) -> dict[str, Any]:
    del request
    context.add_callback(self._notify)
    self._wait(context, lambda: self._state.directive().stop)
    return self._answer()

  def _request_stop(
    self, request: bytes, context: grpc.ServicerContext
  ) -> dict[str, Any]:
    stop = requests.stop(request)
    self._state.request_stop(stop.reason, stop.detail, stop.worker)
    return self._answer()

  def _fail(
    self, request: bytes, context: grpc.ServicerContext
  ) -> dict[str, Any]:
    message = wire.unpack(request)
    worker, detail = (str(message.get(key, '')) for key in ('worker', 'detail'))
    self._state.fail(worker[:100], detail[-_MAX_DETAIL:])
    return self._answer()

  def _scale(
    self, request: bytes, context: grpc.ServicerContext
  ) -> dict[str, Any]:
    number = wire.unpack(request).get('num_actors')
    if type(number) is not int:
      raise ValueError(f'num_actors must be an int, got {number!r:.80}.')
    self._state.scale(number)
    return self._answer()

  def _status(
    self, request: bytes, context: grpc.ServicerContext
  ) -> dict[str, Any]:
    return self._state.status().to_dict()

  def _answer(self) -> dict[str, Any]:
    """Returns the directive, and what params there are, if any."""
    directive = self._state.directive()
    return {
      'stop': directive.stop and directive.stop.value,
      'counts': dict(directive.counts),
      'params_version': self._newest.version,
    }

  def _wait(
    self, context: grpc.ServicerContext, condition: Callable[[], Any]
  ) -> bool:
    """Waits for `condition`; False if the call or the server ended first."""
    with self._changed:
      while context.is_active() and not self._stopped:
        if condition():
          return True
        self._changed.wait()
    return False

  def _notify(self) -> None:
    with self._changed:
      self._changed.notify_all()


def _refusing(
  handler: Callable[[Any, grpc.ServicerContext], dict[str, Any]],
) -> Callable[[Any, grpc.ServicerContext], bytes]:
  """Answers a ValueError of `handler` with INVALID_ARGUMENT and its message."""

  @functools.wraps(handler)
  def handle(request: Any, context: grpc.ServicerContext) -> bytes:
    try:
      return wire.pack(handler(request, context))
    except ValueError as error:
      _refuse(context, error)
      return b''

  return handle


def _refuse(context: grpc.ServicerContext, error: ValueError) -> None:
  logging.getLogger(__name__).warning(
    'Refused a call from %s: %s', context.peer(), error
  )
  context.set_code(grpc.StatusCode.INVALID_ARGUMENT)
  context.set_details(str(error))


def _host(address: str, encrypted: bool) -> str:
  """Returns the interface to listen on; refuses to be open to everyone."""
  host, colon, port = address.rpartition(':')
  if not colon or not port.isdigit():
    raise ValueError(f'An address is host:port, got {address!r}.')
  if host == 'localhost':
    return '127.0.0.1'  # One interface, whatever localhost resolves to.
  try:
    loopback = ipaddress.ip_address(host.strip('[]')).is_loopback
  except ValueError:
    loopback = False  # A name; nobody knows where it will resolve to.
  if not loopback and not encrypted:
    raise ValueError(
      f'{address} can be reached from other hosts, and without credentials'
      ' anyone there could change the params: pass those of a key'
      ' (distacme.variables.keys.make, then server_credentials, and'
      ' channel_credentials for clients), or listen on localhost.'
    )
  return host
