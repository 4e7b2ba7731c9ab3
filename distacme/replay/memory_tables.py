"""Tables in the memory of one process: drawn by priority, or once in order."""

from __future__ import annotations

import collections
from collections.abc import Mapping, Sequence
import itertools
from typing import Any

import numpy as np

from distacme import replay_spec
from distacme.replay import mixture
from distacme.replay import sum_tree
from distacme.replay import table_metrics
from distacme.replay.items import frames as frames_lib
from distacme.replay.items import rows as rows_lib

Frames = Sequence[Sequence[np.ndarray]]
Arrays = Mapping[str, np.ndarray]

_NO_KEY = np.iinfo(np.uint64).max


def make(
  spec: replay_spec.Table,
  layout: rows_lib.RowLayout,
  random: np.random.Generator,
) -> Table:
  """Returns the table of a spec.

  Args:
    spec: of the table.
    layout: of its rows.
    random: decides what is drawn.
  """
  if spec.used_once:
    return QueueTable(spec, layout)
  return PriorityTable(spec, layout, random)


class Table:
  """One table, used by one thread; rate limits are its owner's business."""

  def __init__(self, spec: replay_spec.Table, layout: rows_lib.RowLayout):
    self._spec = spec
    self._layout = layout
    self._block = spec.block_size
    self._inserted = 0  # items
    self._sampled = 0  # items

  def __len__(self) -> int:
    """Items held."""
    raise NotImplementedError

  @property
  def counts(self) -> table_metrics.Counts:
    """Windows held, inserted and sampled."""
    return table_metrics.Counts(
      len(self) * self._block,
      self._inserted * self._block,
      self._sampled * self._block,
    )

  def insert(
    self, rows: np.ndarray, priorities: np.ndarray, frames: Frames | None
  ) -> None:
    """Inserts items; see `replay.writers.inserter.Inserter`."""
    self._spec.check_room(len(self), len(rows))
    self._insert(rows, priorities, frames)
    self._inserted += len(rows)

  def draw(self, count: int) -> mixture.Drawn:
    """Returns so many items; the caller has checked the rate limits."""
    items, keys, probability, frames = self._draw(count)
    self._sampled += count
    if frames is not None:
      frames = [np.concatenate(window) for window in frames]
    return mixture.Drawn(items, keys, probability, frames)

  def update_priorities(self, key: np.ndarray, priority: np.ndarray) -> None:
    """Sets priorities of items; see `core.Sampler`."""
    raise NotImplementedError

  def contents(self) -> dict[str, np.ndarray]:
    """Returns all that the table holds, as arrays to be saved."""
    counts = np.array([self._inserted, self._sampled])
    return {'counts': counts, **self._contents()}

  def load(self, arrays: Arrays) -> None:
    """Takes over what `contents` returned; only into a table that is new.

    Raises:
      ValueError: if the rows were written with another layout.
    """
    self._inserted, self._sampled = arrays['counts'].tolist()
    rows = self._layout.from_bytes(arrays['items'], self._block)
    frames = None
    if self._layout.frames is not None:
      frames = frames_lib.unpack(arrays, self._layout.frames.dtype)
    self._take(arrays, rows.reshape(-1, self._block), frames)

  def _insert(
    self, rows: np.ndarray, priorities: np.ndarray, frames: Frames | None
  ) -> None:
    raise NotImplementedError

  def _draw(self, count: int) -> tuple[Any, ...]:
    """Returns what `mixture.Drawn` holds, but lists of frames."""
    raise NotImplementedError

  def _contents(self) -> dict[str, np.ndarray]:
    """Returns the items as bytes, and all else but the counts."""
    raise NotImplementedError

  def _take(
    self, arrays: Arrays, rows: np.ndarray, frames: Frames | None
  ) -> None:
    """Takes over what `_contents` returned."""
    raise NotImplementedError


class PriorityTable(Table):
  """Items that are drawn by their priorities, again and again."""

  def __init__(
    self,
    spec: replay_spec.Table,
    layout: rows_lib.RowLayout,
    random: np.random.Generator,
  ):
    super().__init__(spec, layout)
    self._capacity = spec.max_items
    self._items = np.empty((self._capacity, self._block), layout.dtype)
    self._frames: list[Any] | None = None
    if layout.frames is not None:
      self._frames = [None] * self._capacity
    self._keys = np.full(self._capacity, _NO_KEY, np.uint64)
    self._tree = sum_tree.SumTree(self._capacity)
    self._random = random

  def __len__(self) -> int:
    """Items held."""
    return min(self._inserted, self._capacity)

  def update_priorities(self, key: np.ndarray, priority: np.ndarray) -> None:
    """Sets priorities of items; see `core.Sampler`."""
    slots = (key % np.uint64(self._capacity)).astype(np.int64)
    held = self._keys[slots] == key
    self._set_priorities(slots[held], priority[held])

  def _insert(
    self, rows: np.ndarray, priorities: np.ndarray, frames: Frames | None
  ) -> None:
    keys = np.arange(self._inserted, self._inserted + len(rows))
    slots = keys % self._capacity  # where one repeats, the last row stands
    self._set_priorities(slots, priorities)
    self._items[slots] = rows
    self._keys[slots] = keys
    if self._frames is not None and frames is not None:
      for slot, window in zip(slots.tolist(), frames, strict=True):
        self._frames[slot] = window

  def _draw(self, count: int) -> tuple[Any, ...]:
    slots, probability = self._draw_slots(count)
    frames = None
    if self._frames is not None:
      frames = [self._frames[slot] for slot in slots.tolist()]
    return self._items[slots], self._keys[slots], probability, frames

  def _draw_slots(self, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns slots and the chances with which they were drawn."""
    uniform = self._random.random(count)
    if self._tree.total > 0:
      slots = self._tree.draw(uniform)
      return slots, self._tree.get(slots) / self._tree.total
    # All priorities are zero: all are alike, as in Reverb.
    slots = (uniform * len(self)).astype(np.int64)
    return slots, np.full(count, 1 / len(self))

  def _set_priorities(self, slots: np.ndarray, priority: np.ndarray) -> None:
    replay_spec.check_priorities(priority)
    priority = np.asarray(priority, np.float64)
    self._tree.set(slots, priority**self._spec.priority_exponent)

  def _contents(self) -> dict[str, np.ndarray]:
    held = np.arange(len(self))
    contents = {
      'items': self._layout.to_bytes(self._items[: len(held)]),
      'keys': self._keys[: len(held)],
      'weights': self._tree.get(held),
    }
    if self._frames is None:
      return contents
    return contents | frames_lib.pack(self._frames[: len(held)])

  def _take(
    self, arrays: Arrays, rows: np.ndarray, frames: Frames | None
  ) -> None:
    held = np.arange(len(rows))
    self._items[held] = rows
    self._keys[held] = arrays['keys']
    self._tree.set(held, arrays['weights'])
    if frames is not None:
      assert self._frames is not None
      self._frames[: len(rows)] = frames


class QueueTable(Table):
  """Items that are drawn once, in the order of their insertion."""

  def __init__(self, spec: replay_spec.Table, layout: rows_lib.RowLayout):
    super().__init__(spec, layout)
    self._items: collections.deque[Any] = collections.deque()

  def __len__(self) -> int:
    """Items held."""
    return len(self._items)

  def update_priorities(self, key: np.ndarray, priority: np.ndarray) -> None:
    """Does nothing: every item is drawn."""

  def _insert(
    self, rows: np.ndarray, priorities: np.ndarray, frames: Frames | None
  ) -> None:
    self._take({}, rows, frames)

  def _draw(self, count: int) -> tuple[Any, ...]:
    items, frames = zip(
      *[self._items.popleft() for _ in range(count)], strict=True
    )
    return (
      np.stack(items),
      np.arange(self._sampled, self._sampled + count, dtype=np.uint64),
      np.ones(count),
      frames if self._layout.frames is not None else None,
    )

  def _contents(self) -> dict[str, np.ndarray]:
    rows = np.empty((len(self._items), self._block), self._layout.dtype)
    for place, (row, _) in enumerate(self._items):
      rows[place] = row
    items = self._layout.to_bytes(rows)
    if self._layout.frames is None:
      return {'items': items}
    return {'items': items, **frames_lib.pack([f for _, f in self._items])}

  def _take(
    self, arrays: Arrays, rows: np.ndarray, frames: Frames | None
  ) -> None:
    named = itertools.repeat(None) if frames is None else frames
    self._items.extend(zip(rows, named, strict=False))
