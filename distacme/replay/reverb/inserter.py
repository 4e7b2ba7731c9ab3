"""The way into tables of a Reverb server."""

from __future__ import annotations

from collections.abc import Callable, Sequence
import itertools
import logging
import math
import time
from typing import Any
import weakref

import numpy as np

from distacme import replay_spec
from distacme import types
from distacme.replay.items import rows as rows_lib
from distacme.replay.reverb import connection
from distacme.replay.reverb import extension

_MAX_IN_FLIGHT = 40  # items; Reverb's writer complains from 50 on

# Items are collected and sent together, since every sending wakes Reverb's
# threads, and those the actor's core; an item inserted so long after the last
# sending goes at once.
_SEND_TOGETHER = 8

_SEND_AFTER_S = 0.05

_FRAMES_PER_CHUNK = 4  # sampled as a whole, and so long a window may wait

_POLL_MS = 100  # how soon a blocked writer notices a stop


class ReverbInserter:
  """A `replay.writers.inserter.Inserter`; blocks while the rate limits ask it to.

  Used by one thread. `stopped` is asked while it is blocked: once the answer is
  yes, items in flight are given up, and `insert` does nothing any more. An insert
  into a queue lasts until its items are there, so that none is under way while
  the queue asks actors to wait.
  """

  def __init__(
    self,
    address: str,
    tables: Sequence[replay_spec.Table],
    layout: rows_lib.RowLayout,
    stopped: Callable[[], bool],
    *,
    explain_after_s: float = connection.EXPLAIN_AFTER_S,
  ):
    """Connects to the server; waits for it as long as the run goes on.

    Args:
      address: of the server.
      tables: that every item goes into.
      layout: of the rows.
      stopped: whether the run is over.
      explain_after_s: how long to be blocked before a warning says why; four
        times as long until the next, and so on.
    """
    reverb = extension.load()
    client = connection.connect(address, stopped)
    self._watch = connection.Watch(
      address,
      client,
      'writing to replay',
      'The actor waits for the learner to sample more.',
    )
    self._writer = client.NewTrajectoryWriter(
      reverb.ConstantChunkerOptions(1, 1), False
    )
    # A writer that is destroyed open flushes, holding Python's lock, perhaps for
    # ever: an actor that fails while it is blocked would freeze its process.
    self._close = weakref.finalize(self, self._writer.Close)
    self._names = [table.name for table in tables]
    self._keeping = [table for table in tables if not table.evicts]
    self._layout = layout
    self._stopped = stopped
    self._held = self._count_held(client) if self._keeping else {}
    self._at_once = any(table.used_once for table in tables)
    self._explain_after_s = explain_after_s
    self._items: list[tuple[np.ndarray, float, Any]] = []  # collected
    self._frame_columns = 0  # one for each environment, after that of the rows
    self._send_at = 0.0
    # Reverb counts an item in each table.
    self._most = max(1, _SEND_TOGETHER // len(tables))
    # A sequence costs little for each of its steps, and the next is far.
    transitions = isinstance(layout.nest, types.Transition)
    self._together = self._most if transitions else 1
    self._given_up = False
    self.blocked_s = 0.0  # time spent waiting for the rate limits, in all

  def insert_frames(self, frames: np.ndarray) -> list[Any]:
    """Inserts frames; see `replay.writers.inserter.Inserter`."""
    if self._given_up:
      return [None] * len(frames)
    if not self._frame_columns:
      self._make_frame_columns(len(frames))
    data = frames.view(np.uint8).reshape(len(frames), -1)
    references: list[Any] = self._writer.Append([None, *data])[1:]
    return references

  def _make_frame_columns(self, count: int) -> None:
    """Gives each environment a column, whose frames come in small chunks."""
    layout = self._layout.frames
    assert layout is not None
    # Some windows are named later: they wait for their priority, or are
    # collected.
    keep = layout.moments + layout.stack + 2 * _SEND_TOGETHER
    options = extension.load().ConstantChunkerOptions(_FRAMES_PER_CHUNK, keep)
    for column in range(1, count + 1):
      self._writer.ConfigureChunker(column, options)
    self._frame_columns = count

  def insert(
    self,
    rows: np.ndarray,
    priorities: np.ndarray,
    frames: Sequence[Sequence[Any]] | None = None,
  ) -> None:
    """Inserts items, perhaps a little later; see `replay.writers.inserter.Inserter`."""
    numbers = priorities.tolist()
    # Four numpy calls would cost half of what Reverb takes for an item.
    if not all([0 <= number < math.inf for number in numbers]):
      replay_spec.check_priorities(priorities)  # says which is wrong
    self._check_room(len(rows))
    data = self._layout.to_bytes(rows)
    named = itertools.repeat(None) if frames is None else frames
    self._items += zip(data, numbers, named, strict=False)
    if self._at_once:
      self.flush()
      return
    now = time.monotonic()
    if len(self._items) >= self._together or now >= self._send_at:
      self._send_at = now + _SEND_AFTER_S
      self._send()

  def _count_held(self, client: Any) -> dict[str, int]:
    """Returns the items that each table holds."""
    infos = [] if self._stopped() else client.ServerInfo(connection.ANSWER_S)
    return {s.name: s.size for s in map(extension.table_stats, infos)}

  def _check_room(self, count: int) -> None:
    for table in self._keeping:
      held = self._held.get(table.name, 0)
      table.check_room(held, count)
      self._held[table.name] = held + count

  def flush(self) -> None:
    """Waits until all is inserted, unless the run stops."""
    self._send()
    self._wait(0)

  def close(self) -> None:
    """Waits until all is inserted, unless the run has stopped."""
    if self._close.alive and not self._stopped():
      self.flush()
    self._close()

  def _send(self) -> None:
    """Hands what was collected to Reverb."""
    items, self._items = self._items, []
    append, create_item = self._writer.Append, self._writer.CreateItem
    for start in range(0, len(items), self._most):
      if self._given_up:
        return
      for item, priority, frames in items[start : start + self._most]:
        row = append([item])[:1]
        for name in self._names:
          if frames is None:
            create_item(name, priority, [row], [True])
          else:
            create_item(name, priority, [row, frames], [True, False])
      self._wait(_MAX_IN_FLIGHT)

  def _wait(self, in_flight: int) -> None:
    """Waits until at most `in_flight` items are not yet in the table."""
    start = time.monotonic()
    explain_after_s = self._explain_after_s
    look_after_s = connection.LOOK_S
    while not self._flushed(in_flight):
      if self._stopped():
        self._given_up = True
        break
      blocked_s = time.monotonic() - start
      if blocked_s > look_after_s:
        look_after_s = blocked_s + connection.LOOK_S
        self._watch.look()
      if blocked_s > explain_after_s:
        explain_after_s *= 4
        logging.warning(
          'writing to replay has been blocked for %.1f s: %s',
          blocked_s,
          self._watch.describe(),
        )
    else:
      self._watch.note_use()
    self.blocked_s += time.monotonic() - start

  def _flushed(self, in_flight: int) -> bool:
    try:
      self._writer.Flush(in_flight, _POLL_MS)
    except RuntimeError as error:
      if 'Timeout' not in str(error):
        raise
      return False
    return True
