"""The variable server: hands params to subscribers and keeps the run's state.

The server knows neither JAX nor the run's agent: params are bytes. The server checks
the bytes, keeps them in chunks as received, and sends these to subscribers.
"""

from __future__ import annotations

import pathlib
import threading

from distacme.rpc import event_loop
from distacme.rpc import server as server_lib
from distacme.run import endpoints
from distacme.run import run_state as run_state_lib
from distacme.variables import service


class VariableServer:
  """Serves a `RunState` and the newest params, in the event loop's thread.

  The methods are for any other thread.
  """

  def __init__(
    self,
    run_state: run_state_lib.RunState,
    host: str = '127.0.0.1',
    port: int = 0,
    key: pathlib.Path | None = None,
    incarnation: int = 0,
    *,
    advertised: str = '',
    token: pathlib.Path | None = None,
  ) -> None:
    """Starts serving; see `rpc.server.Server` for errors.

    Args:
      run_state: takes the reports.
      host: the interface to listen on.
      port: TCP port; 0 chooses a free one.
      key: file of the run's key; needed beyond loopback.
      incarnation: number of earlier starts of the run's server.
      advertised: the address of this host for clients, by default `host`.
      token: file of the run's token, without which no call is answered.
    """
    self._stopped = threading.Event()
    self._service = service.VariableService(run_state)
    self._server = server_lib.Server(
      self._service.handlers(),
      host,
      port,
      advertised=advertised,
      key=key,
      token=token,
      incarnation=incarnation,
    )

  @property
  def endpoint(self) -> endpoints.Endpoint:
    """The server's endpoint, for clients."""
    return self._server.endpoint

  def stop(self, grace_s: float = 0.5) -> None:
    """Ends all streams and stops serving."""
    event_loop.shared().call_soon_threadsafe(self._service.end)
    self._server.stop(grace_s)
    self._service.close()
    self._stopped.set()

  def wait(self, timeout_s: float | None = None) -> bool:
    """Waits until the server has been stopped; returns whether it was."""
    return self._stopped.wait(timeout_s)
