"""A Reverb server that is a queue of packs, and the thread that empties it."""

from __future__ import annotations

import contextlib
import socket
import threading
from typing import Any

import numpy as np

from distacme.replay import packs
from distacme.replay import store as store_lib
from distacme.replay.reverb import connection
from distacme.replay.reverb import extension
from distacme.replay.reverb import loopback

TABLE = 'packs'
_MOST = 8  # packs that wait
_AHEAD = 4  # packs that are fetched ahead of their insertion
_STOP_S = 1.0
# Servers of one process start one after the other: one that waits within gRPC for
# another holds the GIL, for which the other's `bind` waits (`loopback`).
_starting = threading.Lock()


class PackQueue:
  """Takes packs by Reverb and inserts them into a store, in their order.

  While the store has no room for a pack, packs wait here, and then their actors.
  """

  def __init__(self, store: store_lib.Store, port: int):
    """Starts the server and the thread.

    The server listens on loopback if `loopback` can confine it, else on all
    interfaces. It serves every user of the host: Reverb asks for no credentials.

    Args:
      store: has the tables.
      port: to listen on.

    Raises:
      OSError: if the port is taken.
    """
    _check_free(port)
    self._store = store
    # Actors of a queue act with params that are older for every pack that waits.
    self._used_once = store.spec.used_once
    reverb = extension.load()
    most = 1 if self._used_once else _MOST
    table = reverb.Table(
      name=TABLE,
      sampler=reverb.FifoSelector(),
      remover=reverb.FifoSelector(),
      max_size=most,
      max_times_sampled=1,
      # Of a queue: what goes in comes out once.
      rate_limiter=reverb.RateLimiter(1.0, 1, 0.0, float(most)),
      extensions=[],
      signature=None,
    )
    with _starting:
      loopback.confine(extension.library())
      self._server = reverb.Server([table], port, None)
    self._client = connection.connect(f'127.0.0.1:{port}')
    self._stopped = threading.Event()
    self._error: Exception | None = None
    # Dropping one that waits holds the GIL for 3 s, unless its server has stopped.
    self._sampler: Any = None
    self._thread = threading.Thread(
      target=self._take, name='replay packs', daemon=True
    )
    self._thread.start()

  def check(self) -> None:
    """Raises what ended the thread, if anything did."""
    if self._error is not None:
      raise self._error

  def stop(self) -> None:
    """Ends the thread and the server; waits some seconds for connected clients."""
    self._stopped.set()
    # Nothing but an item ends the thread's wait for one.
    writer = self._client.NewTrajectoryWriter(
      extension.load().ConstantChunkerOptions(1, 1), False
    )
    last = writer.Append([np.zeros(_SMALL_CELL, np.uint8)])
    writer.CreateItem(TABLE, 1.0, [last], [False])
    with contextlib.suppress(RuntimeError):  # no room, and so nobody waits
      writer.Flush(0, int(1000 * _STOP_S))
    writer.Close()
    self._thread.join(_STOP_S)
    self._server.Stop()
    self._sampler = None

  def _take(self) -> None:
    try:
      self._take_all()
    except Exception as error:  # for the worker, which ends by it
      if not self._stopped.is_set():
        self._error = error

  def _take_all(self) -> None:
    """Takes packs until it is stopped."""
    while not self._stopped.is_set():
      if self._used_once:
        if not self._store.wait_for_room(self._stopped.is_set):
          return
        self._sampler = None  # With another one nothing is fetched ahead.
      if self._sampler is None:
        most = 1 if self._used_once else -1
        self._sampler = self._client.NewSampler(TABLE, most, _AHEAD)
      data = self._sampler.GetNextTrajectory()[5]
      if self._stopped.is_set():
        return
      self._insert(data.reshape(-1).data)

  def _insert(self, data: memoryview) -> None:
    """Inserts a pack, padded to whole cells, as soon as there is room."""
    try:
      pack = packs.decode(data[: packs.size_of(data)])
      self._store.insert(pack, self._stopped.is_set)
    except ValueError as error:
      self._store.note_refused(error)


def _check_free(port: int) -> None:
  """Raises OSError if the port is taken.

  Reverb does not refuse the port of another Reverb server: each would get half of
  the clients.
  """
  with socket.socket() as probe:
    # Closing connections of an earlier server do not count.
    probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
      probe.bind(('127.0.0.1', port))
    except OSError as error:
      raise OSError(
        f'the replay server cannot listen on 127.0.0.1:{port}: {error}. End what '
        f'listens there (ss -ltnp sport = :{port} says who), or start the run '
        'anew, which chooses other ports.'
      ) from None


def to_cells(pack: bytes) -> tuple[int, np.ndarray]:
  """Returns a pack in equal cells [N, bytes], and the column for those.

  A column of Reverb has arrays of one shape, and packs are of any length.
  """
  column = int(len(pack) > _SMALL_CELL * 8)
  size = (_SMALL_CELL, _LARGE_CELL)[column]
  cells = np.zeros((-(-len(pack) // size), size), np.uint8)
  cells.reshape(-1)[: len(pack)] = np.frombuffer(pack, np.uint8)
  return column, cells


_SMALL_CELL, _LARGE_CELL = 1 << 11, 1 << 16
COLUMNS: Any = range(2)
MAX_CELLS = packs.MAX_BYTES // _LARGE_CELL
