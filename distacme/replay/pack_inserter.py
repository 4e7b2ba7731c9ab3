"""Sends an actor's items to replay in packs, over any of the ways there."""

from __future__ import annotations

from collections.abc import Callable, Sequence
import logging
import math
import time
from typing import Any, Protocol

import numpy as np

from distacme import replay_spec
from distacme.replay import packs
from distacme.replay.items import rows as rows_lib
from distacme.run import patience as patience_lib

# A pack is sent when it holds so many items, or so many bytes, or when the first
# has waited so long.
_ITEMS = 32
_BYTES = 1 << 20
_SEND_AFTER_S = 0.05
# Packs that may be on their way while the actor goes on.
_ON_THE_WAY = 2
_NO_ITEMS, _NO_PRIORITIES = np.empty((0, 1), np.uint8), np.empty(0)
_POLL_S = 0.1  # time in which a blocked actor notices a stop
EXPLAIN_AFTER_S = 5.0  # of being blocked, before a warning gives the reason


class Way(Protocol):
  """A way for packs from one actor to replay, in their order."""

  def send(self, pack: bytes) -> None:
    """Starts to send a pack; does not wait."""

  def wait(self, on_the_way: int, timeout_s: float) -> bool:
    """Waits until at most so many packs are not inserted yet.

    Returns:
      Whether that is so; False after `timeout_s`.

    Raises:
      ValueError: if replay refuses a pack.
    """

  def describe(self) -> str:
    """Returns a sentence on what the packs wait for."""

  def close(self) -> None:
    """Ends the way; packs that are still on it may be lost."""


class PackInserter:
  """A `replay.writers.inserter.Inserter`; blocks while the rate limits ask it to.

  Used by one thread. A blocked inserter calls `stopped`: once the run is over,
  items on their way are given up, and `insert` does nothing any more. An insert
  into a queue lasts until the queue has the items, so that no items are on their
  way while the queue asks actors to wait.
  """

  def __init__(
    self,
    way: Way,
    spec: replay_spec.ReplaySpec,
    tables: Sequence[replay_spec.Table],
    layout: rows_lib.RowLayout,
    stopped: Callable[[], bool],
    *,
    actor: int | None = None,
    explain_after_s: float = EXPLAIN_AFTER_S,
  ):
    """Sends nothing yet.

    Args:
      way: to replay.
      spec: of replay.
      tables: of `spec`, to insert every item into.
      layout: of the rows.
      stopped: returns whether the run is over.
      actor: number of the actor, whose next start replaces this one; None for one
        that is not started again.
      explain_after_s: seconds of being blocked before a warning gives the reason;
        four times as long until the next warning, and so on.

    Raises:
      ValueError: if a single item is too large for replay.
    """
    packs.check_size(spec.block_size * layout.itemsize)
    self._way = way
    self._tables = tuple(spec.tables.index(table) for table in tables)
    self._stopped = stopped
    self._explain_after_s = explain_after_s
    self._at_once = any(table.used_once for table in tables)
    self._items: list[np.ndarray] = []  # [K, item_bytes] each
    self._priorities: list[np.ndarray] = []
    self._named: list[Sequence[int]] = []  # the frames of each item
    self._count = self._bytes = 0  # of all that
    self._send_at = math.inf
    self._frames = None if layout.frames is None else _Frames(layout, actor)
    self._given_up = self._closed = False
    self.blocked_s = 0.0  # total seconds spent waiting for the rate limits

  def insert_frames(self, frames: np.ndarray) -> Sequence[int]:
    """Inserts frames; see `replay.writers.inserter.Inserter`."""
    assert self._frames is not None
    if self._given_up:
      return [0] * len(frames)
    numbers = self._frames.add(frames)
    self._bytes += frames.nbytes
    if self._bytes >= _BYTES:  # a long window would make a pack too large
      self._send()
    return numbers

  def insert(
    self,
    rows: np.ndarray,
    priorities: np.ndarray,
    frames: Sequence[Sequence[Any]] | None = None,
  ) -> None:
    """Inserts items, perhaps a little later; see `replay.writers.inserter`."""
    replay_spec.check_priorities(priorities)
    if self._given_up:
      return
    items = rows.view(np.uint8).reshape(len(rows), -1)
    self._items.append(items)
    self._priorities.append(np.asarray(priorities, np.float64))
    if frames is not None:
      self._named += frames
    now = time.monotonic()
    if not self._count:
      self._send_at = now + _SEND_AFTER_S
    self._count += len(items)
    self._bytes += items.nbytes
    if self._at_once:
      self.flush()
    elif self._count >= _ITEMS or self._bytes >= _BYTES or now >= self._send_at:
      self._send()
      self._wait(_ON_THE_WAY)

  def flush(self) -> None:
    """Waits until all is inserted, unless the run stops."""
    self._send()
    self._wait(0)

  def close(self) -> None:
    """Waits until all is inserted, unless the run has stopped."""
    try:
      if not self._stopped() and not self._closed:
        self.flush()
    finally:
      self._closed = True
      self._way.close()

  def _send(self) -> None:
    """Sends all that is collected, in packs of about `_BYTES` at most."""
    if not self._bytes or self._given_up:
      return
    items, priorities, frames = _NO_ITEMS, _NO_PRIORITIES, self._frames
    if self._items:
      items = np.concatenate(self._items)
      priorities = np.concatenate(self._priorities)
    named = self._named
    oldest = 0 if frames is None else frames.oldest
    self._items, self._priorities, self._named = [], [], []
    self._count = self._bytes = 0
    most = max(1, _BYTES // items.shape[1])
    for start in range(0, max(1, len(items)), most):
      part = slice(start, start + most)
      pack = packs.Pack(
        self._tables,
        items[part],
        priorities[part],
        None if frames is None else frames.take(named[part], oldest),
      )
      self._way.send(packs.encode(pack))

  def _wait(self, on_the_way: int) -> None:
    """Waits until at most `on_the_way` packs are not yet in the tables."""
    if self._given_up or self._way.wait(on_the_way, 0.0):
      return
    patience = patience_lib.Patience(self._explain_after_s)
    while not self._way.wait(on_the_way, _POLL_S):
      if self._stopped():
        self._given_up = True
        break
      if patience.is_over():
        logging.getLogger(__name__).warning(
          'writing to replay has been blocked for %.1f s: %s',
          patience.waited_s,
          self._way.describe(),
        )
    self.blocked_s += patience.waited_s


class _Frames:
  """Frames that are to be sent, and their numbers in the actor's stream."""

  def __init__(self, layout: rows_lib.RowLayout, actor: int | None):
    assert layout.frames is not None
    # How many frames ago one may be that a later item names, with those of items
    # that wait for their priority.
    self._moments = layout.frames.moments + layout.frames.stack + 2
    self._stream = packs.stream(actor)
    self._next = 0  # number
    self._per_step = 0
    self._new: list[np.ndarray] = []

  def add(self, frames: np.ndarray) -> Sequence[int]:
    data = frames.view(np.uint8).reshape(len(frames), -1)
    self._new.append(data)
    self._per_step = len(data)
    first, self._next = self._next, self._next + len(data)
    return range(first, self._next)

  @property
  def oldest(self) -> int:
    """The number of the oldest frame that items of now and later name."""
    count = sum(map(len, self._new))
    return max(0, self._next - count - self._per_step * self._moments)

  def take(self, named: list[Sequence[int]], oldest: int) -> packs.Frames:
    """Returns the frames of a pack, and begins the next."""
    new, self._new = self._new, []
    count = sum(map(len, new))
    return packs.Frames(
      stream=self._stream,
      first=self._next - count,
      oldest=oldest,
      new=np.concatenate(new) if new else np.empty((0, 1), np.uint8),
      lengths=np.array([len(names) for names in named], np.uint32),
      named=np.array([n for names in named for n in names], np.uint64),
    )
