"""Starts and stops a service's server in the event loop."""

from __future__ import annotations

import ipaddress
import pathlib

import grpc

from distacme.rpc import event_loop
from distacme.rpc import keys
from distacme.rpc import service as service_lib
from distacme.run import endpoints

# Calls beyond that are refused, so that the memory of calls is bounded.
MAX_CALLS = 4096

_OPTIONS = (
  # Two servers on one port would each get half of the workers.
  ('grpc.so_reuseport', 0),
  # Calls that no handler has begun. All workers call a restarted server at once, and
  # by default gRPC refuses some of a thousand such calls at random.
  ('grpc.server.max_pending_requests', MAX_CALLS),
  ('grpc.server.max_pending_requests_hard_limit', MAX_CALLS),
  # Clients may ask so often whether the server's host is there.
  ('grpc.http2.min_ping_interval_without_data_ms', 5000),
)


class Server:
  """A gRPC server, whose handlers run in the event loop's thread.

  The methods are for any other thread.

  Attributes:
    endpoint: of the server, for clients.
  """

  def __init__(
    self,
    handlers: grpc.GenericRpcHandler,
    host: str = '127.0.0.1',
    port: int = 0,
    *,
    advertised: str = '',
    key: pathlib.Path | None = None,
    token: pathlib.Path | None = None,
    incarnation: int = 0,
  ) -> None:
    """Starts serving.

    Args:
      handlers: of `service.handlers`.
      host: the interface to listen on; 'localhost' is 127.0.0.1.
      port: TCP port; 0 chooses a free one.
      advertised: the address or name at which clients reach this host, where `host`
        is all interfaces; by default `host`.
      key: file of the run's key (`keys`), which clients then need too; without a
        key the server listens on loopback only.
      token: file of the run's token (`token`), which every call then has to
        carry; without, every user of this host can call the server.
      incarnation: number of earlier starts of this server in the run.

    Raises:
      ValueError: if `host` is not loopback and there is no key, or a file is no
        key or no token.
      OSError: if the server cannot listen on `host` and `port`, or a file cannot
        be read.
    """
    interface = _interface(host, encrypted=key is not None)
    credentials = None if key is None else keys.server_credentials(key)
    guards = [] if token is None else [service_lib.Guard(token)]
    listening = endpoints.Endpoint(interface, port, key, incarnation, token)
    port = event_loop.run(
      self._start(listening.address, handlers, guards, credentials)
    )
    self.endpoint = listening._replace(host=advertised or interface, port=port)

  async def _start(
    self,
    address: str,
    handlers: grpc.GenericRpcHandler,
    guards: list[service_lib.Guard],
    credentials: grpc.ServerCredentials | None,
  ) -> int:
    """Starts gRPC's server; returns the port."""
    self._server = grpc.aio.server(
      handlers=[handlers],
      interceptors=guards,
      options=_OPTIONS,
      maximum_concurrent_rpcs=MAX_CALLS,
    )
    try:
      if credentials is None:
        port = self._server.add_insecure_port(address)
      else:
        port = self._server.add_secure_port(address, credentials)
    except RuntimeError as error:
      raise OSError(
        f'Cannot listen on {address}: {error}. Is the port taken? Port 0'
        ' chooses a free one.'
      ) from None
    await self._server.start()
    return port

  def stop(self, grace_s: float = 0.5) -> None:
    """Ends all calls, those that last longer by force, and stops serving."""
    event_loop.run(self._server.stop(grace_s))


def _interface(host: str, encrypted: bool) -> str:
  """Returns the interface to listen on; refuses an open server without key."""
  if host == 'localhost':
    return '127.0.0.1'  # one interface; localhost may resolve to several
  try:
    loopback = ipaddress.ip_address(host).is_loopback
  except ValueError:
    loopback = False  # a name may resolve to any interface
  if not loopback and not encrypted:
    raise ValueError(
      f'{host} can be reached from other hosts, and without a key anyone there'
      ' could read and change the run: pass the key of the run'
      ' (distacme.rpc.keys.make), or listen on 127.0.0.1.'
    )
  return host
