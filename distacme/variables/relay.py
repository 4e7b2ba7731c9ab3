"""Hands params on from the variable server to the actors of a large run.

A relay knows params as bytes only, like the server. Relays may stand in a tree: a relay
subscribes to the server, or to a relay above.
"""

from __future__ import annotations

from collections.abc import Iterator
import pathlib

import grpc

from distacme.rpc import event_loop
from distacme.rpc import line as line_lib
from distacme.rpc import server as server_lib
from distacme.rpc import service as service_lib
from distacme.run import endpoints
from distacme.variables import newest
from distacme.variables import subscriber as subscriber_lib
from distacme.variables import wire


class Relay:
  """Subscribes to params, and serves the newest ones to subscribers of its own.

  A version is handed on once it is there as a whole. The methods are for any thread
  but the event loop's.
  """

  def __init__(
    self,
    worker: str,
    source: endpoints.Endpoint,
    find: line_lib.Find | None = None,
    *,
    find_relay: line_lib.Find | None = None,
    host: str = '127.0.0.1',
    port: int = 0,
    advertised: str = '',
    key: pathlib.Path | None = None,
    incarnation: int = 0,
    token: pathlib.Path | None = None,
  ) -> None:
    """Starts serving, and receiving; see `rpc.server.Server` for errors.

    Args:
      worker: the name of the relay, e.g. 'relay/0'.
      source: where the variable server listens.
      find: returns where the variable server listens now.
      find_relay: returns where the relay above listens; None if there is none above.
      host: the interface to listen on.
      port: TCP port; 0 chooses a free one.
      advertised: the address of this host for clients, by default `host`.
      key: file of the run's key; needed beyond loopback.
      incarnation: number of earlier starts of this relay.
      token: file of the run's token, without which no call is answered.
    """
    self._newest = newest.NewestParams()
    self._received = -1  # the newest version that was received
    subscribe = service_lib.Method(
      grpc.unary_stream_rpc_method_handler, self._newest.subscribe
    )
    self._server = server_lib.Server(
      service_lib.handlers(wire.RELAY, {'Subscribe': subscribe}),
      host,
      port,
      advertised=advertised,
      key=key,
      token=token,
      incarnation=incarnation,
    )
    try:
      line = line_lib.Line(wire.SERVICE, source, find, line_lib.WATCHED)
    except ConnectionError:
      self._server.stop(0)
      raise
    self._subscriber = subscriber_lib.Subscriber(
      worker,
      line,
      self._receive,
      version=lambda: self._received,
      find_relay=find_relay,
    )

  @property
  def endpoint(self) -> endpoints.Endpoint:
    """The relay's endpoint, for clients."""
    return self._server.endpoint

  @property
  def version(self) -> int:
    """The newest version that subscribers are sent, -1 before the first."""
    return self._newest.version

  @property
  def subscribers(self) -> int:
    """The number of subscribers."""
    return self._newest.subscribers

  def stop(self, grace_s: float = 0.5) -> None:
    """Stops receiving, ends all streams and stops serving."""
    self._subscriber.close()
    event_loop.shared().call_soon_threadsafe(self._newest.end)
    self._server.stop(grace_s)

  def _receive(
    self, data: bytes, header: wire.Header, chunks: Iterator[bytes]
  ) -> None:
    params = wire.receive_bytes(data, header, chunks)
    self._received = max(self._received, header.version)
    event_loop.shared().call_soon_threadsafe(self._newest.take, params)
