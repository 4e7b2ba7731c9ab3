"""Serves a store's tables over gRPC: takes packs, and hands out batches."""

from __future__ import annotations

import pathlib

import grpc

from distacme.replay import store as store_lib
from distacme.replay.service import batches
from distacme.replay.service import exchange
from distacme.replay.service import inserts
from distacme.replay.service import wire
from distacme.rpc import server as server_lib
from distacme.rpc import service
from distacme.run import endpoints


class ReplayServer:
  """Serves a `Store`, in the event loop's thread.

  An actor that waits for room is a coroutine, and costs no thread. A learner has one.
  The methods are for any other thread.
  """

  def __init__(
    self,
    store: store_lib.Store,
    host: str = '127.0.0.1',
    port: int = 0,
    *,
    advertised: str = '',
    key: pathlib.Path | None = None,
    token: pathlib.Path | None = None,
    incarnation: int = 0,
  ) -> None:
    """Starts serving; see `rpc.server.Server` for errors.

    Args:
      store: has the tables.
      host: the interface to listen on.
      port: TCP port; 0 chooses a free one.
      advertised: the address of this host for clients, by default `host`.
      key: file of the run's key; needed beyond loopback.
      token: file of the run's token, without which no call is answered.
      incarnation: number of earlier starts of the run's server.
    """
    self._store = store
    self._batches = batches.BatchService(store)
    stream = grpc.stream_stream_rpc_method_handler
    handlers = service.handlers(
      wire.SERVICE,
      {
        'Insert': service.Method(stream, inserts.Inserts(store).serve),
        'Batches': service.Method(stream, self._batches.serve),
        'Exchange': service.Method(
          stream, exchange.ExchangeService(store).serve
        ),
        'Describe': service.Method(
          grpc.unary_unary_rpc_method_handler, self._describe
        ),
      },
    )
    self._server = server_lib.Server(
      handlers,
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
    """Ends all calls and stops serving."""
    self._server.stop(grace_s)
    self._batches.close()

  async def _describe(
    self, request: bytes, context: grpc.aio.ServicerContext
  ) -> bytes:
    return self._store.describe().encode()
