"""The variable server: hands params to subscribers and keeps the run's state.

The server knows neither JAX nor the run's agent: params are bytes. The server checks
the bytes, keeps them in chunks as received, and sends these to subscribers.
"""

from __future__ import annotations

import ipaddress
import pathlib
import threading

import grpc

from distacme.run import endpoints
from distacme.run import run_state as run_state_lib
from distacme.variables import event_loop
from distacme.variables import keys
from distacme.variables import service

# A worker has a call that waits for the stop, a call that waits for params, and at
# times a report. Calls beyond those of `run_state.MAX_ACTORS` workers are refused, so
# that the memory of calls is bounded.
MAX_CALLS = 4096

_OPTIONS = (
  # Two servers on one port would each get half of the workers.
  ('grpc.so_reuseport', 0),
  # Calls that no handler has begun. All workers call a restarted server at once, and
  # by default gRPC refuses some of a thousand such calls at random.
  ('grpc.server.max_pending_requests', MAX_CALLS),
  ('grpc.server.max_pending_requests_hard_limit', MAX_CALLS),
)


class VariableServer:
  """Serves a `RunState` and the newest params, in the event loop's thread.

  The methods are for any other thread.

  Attributes:
    endpoint: of the server, for clients.
  """

  def __init__(
    self,
    run_state: run_state_lib.RunState,
    host: str = '127.0.0.1',
    port: int = 0,
    key: pathlib.Path | None = None,
    incarnation: int = 0,
  ) -> None:
    """Starts serving.

    Args:
      run_state: takes the reports.
      host: the interface to listen on; 'localhost' is 127.0.0.1.
      port: TCP port; 0 chooses a free one.
      key: file of the run's key (`keys`), which clients then need too; without a
        key the server listens on loopback only.
      incarnation: number of earlier starts of the run's server.

    Raises:
      ValueError: if `host` is not loopback and there is no key, or the file is no
        key.
      OSError: if the server cannot listen on `host` and `port`, or the key cannot
        be read.
    """
    interface = _interface(host, encrypted=key is not None)
    credentials = None if key is None else keys.server_credentials(key)
    self._stopped = threading.Event()
    self._service = service.Service(run_state)
    self.endpoint = endpoints.Endpoint(interface, port, key, incarnation)
    port = event_loop.run(self._start(credentials))
    self.endpoint = self.endpoint._replace(port=port)

  async def _start(self, credentials: grpc.ServerCredentials | None) -> int:
    """Starts gRPC's server; returns the port."""
    self._server = grpc.aio.server(
      handlers=[self._service.handlers()],
      options=_OPTIONS,
      maximum_concurrent_rpcs=MAX_CALLS,
    )
    address = self.endpoint.address
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
    """Ends all streams and stops serving."""
    event_loop.run(self._stop(grace_s))
    self._service.close()
    self._stopped.set()

  async def _stop(self, grace_s: float) -> None:
    self._service.end()
    await self._server.stop(grace_s)

  def wait(self, timeout_s: float | None = None) -> bool:
    """Waits until the server has been stopped; returns whether it was."""
    return self._stopped.wait(timeout_s)


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
      ' could change the params: pass the key of the run'
      ' (distacme.variables.keys.make), or listen on 127.0.0.1.'
    )
  return host
