"""Tables of items, as bytes: drawn by priority, or once in order."""

from __future__ import annotations

import collections
from collections.abc import Mapping
import math
from typing import Any, NamedTuple, TypeAlias

import numpy as np

from distacme import replay_spec
from distacme.replay import sum_tree
from distacme.replay import table_metrics
from distacme.replay.items import frames as frames_lib

Frames: TypeAlias = frames_lib.Frames
Arrays: TypeAlias = Mapping[str, np.ndarray]


class DrawnItems(NamedTuple):
  """Items drawn from tables.

  Attributes:
    items: [N, item_bytes] uint8.
    keys: [N] uint64; with the table, each names an item.
    probability: [N] float64, the chance of each in its table.
    tables: [N] int32, the index of the table of each.
    frames: of each item; None if the rows have none.
  """

  items: np.ndarray
  keys: np.ndarray
  probability: np.ndarray
  tables: np.ndarray
  frames: Frames | None


class HeldTable(NamedTuple):
  """A copy of a table's contents at one moment, to be saved.

  Attributes:
    arrays: the counts, the items, and all that decides what is drawn.
    frames: of each item; None if the rows have none.
  """

  arrays: Arrays
  frames: Frames | None


def make(
  spec: replay_spec.Table, index: int, random: np.random.Generator
) -> Table:
  """Returns the table of a spec.

  Args:
    spec: of the table.
    index: of the table in its `ReplaySpec`.
    random: source of the draws.
  """
  if spec.used_once:
    return QueueTable(spec, index)
  return PriorityTable(spec, index, random)


class Table:
  """One table, used by one thread; its owner checks the rate limits."""

  def __init__(self, spec: replay_spec.Table, index: int):
    self._spec = spec
    self._index = index
    self._inserted = 0  # items
    self._sampled = 0  # items
    self._item_bytes = 0  # unknown before the first item

  def __len__(self) -> int:
    """Returns the number of items held."""
    raise NotImplementedError

  @property
  def counts(self) -> table_metrics.Counts:
    """Windows held, inserted and sampled."""
    block = self._spec.block_size
    return table_metrics.Counts(
      len(self) * block, self._inserted * block, self._sampled * block
    )

  @property
  def total_priority(self) -> float:
    """Sum of what the chances of items are shares of; 0 if all are alike."""
    return 0.0

  def insert(
    self, items: np.ndarray, priorities: np.ndarray, frames: Frames | None
  ) -> None:
    """Inserts items.

    Args:
      items: [N, item_bytes] uint8.
      priorities: [N].
      frames: of each item, if the rows have frames.

    Raises:
      ValueError: if the table keeps all it holds and is full, the items are of
        another size than those held, or a priority makes no sense.
    """
    replay_spec.check_priorities(priorities)
    self._spec.check_room(len(self), len(items))
    self._check_size(items.shape[1])
    self._insert(items, priorities, frames)
    self._inserted += len(items)

  def _check_size(self, item_bytes: int) -> None:
    if not self._item_bytes:
      self._item_bytes = item_bytes
      self._allocate()
    if item_bytes != self._item_bytes:
      raise ValueError(
        f'table {self._spec.name!r} holds items of {self._item_bytes} bytes, and '
        f'one of {item_bytes} came: actors do not agree about the environment '
        'spec, what `act` stores, or the block_size. Give all of them the same.'
      )

  def draw(self, count: int) -> DrawnItems:
    """Draws items; the caller has checked the rate limits."""
    drawn = self._draw(count)
    self._sampled += count
    return drawn

  def count_as_sampled(self, windows: int) -> None:
    """Lets the rate limits take so many windows as drawn, without any draw."""
    self._sampled += windows // self._spec.block_size

  def update_priorities(self, key: np.ndarray, priority: np.ndarray) -> None:
    """Sets priorities [N] of items; skips those that are gone."""
    raise NotImplementedError

  def spare(self) -> Arrays:
    """Returns memory for the copy that `held` makes; any thread may call it.

    The system takes many times as long to hand out memory as to copy into it.
    """
    return {}

  def held(self, spare: Arrays) -> HeldTable:
    """Returns a copy of the contents.

    Args:
      spare: what `spare` returned a while ago, if anything; used up.
    """
    arrays, frames = self._held(spare)
    arrays['counts'] = np.array([self._inserted, self._sampled])
    return HeldTable(arrays, frames)

  def load(self, held: HeldTable) -> None:
    """Loads the contents of another table into this new one."""
    self._inserted, self._sampled = held.arrays['counts'].tolist()
    items = held.arrays['items']
    if len(items):
      self._check_size(items.shape[1])
      self._load(held)

  def _allocate(self) -> None:
    """Makes room for items, whose size is known now."""

  def _insert(
    self, items: np.ndarray, priorities: np.ndarray, frames: Frames | None
  ) -> None:
    raise NotImplementedError

  def _draw(self, count: int) -> DrawnItems:
    raise NotImplementedError

  def _held(self, spare: Arrays) -> tuple[dict[str, np.ndarray], Frames | None]:
    """Returns copies of the items and all other state, but the counts."""
    raise NotImplementedError

  def _load(self, held: HeldTable) -> None:
    """Loads at least one item, and the other state of `_held`."""
    raise NotImplementedError


class PriorityTable(Table):
  """Items that are drawn by their priorities, any number of times.

  The items' slots are a ring, so that an item's key, the number of items inserted
  before it, tells its slot.
  """

  def __init__(
    self, spec: replay_spec.Table, index: int, random: np.random.Generator
  ):
    super().__init__(spec, index)
    self._capacity = spec.max_items
    # Stays empty if all are alike.
    self._tree = sum_tree.SumTree(self._capacity)
    self._random = random
    self._frames: list[frames_lib.ItemFrames] | None = None

  def __len__(self) -> int:
    """Returns the number of items held."""
    return min(self._inserted, self._capacity)

  @property
  def total_priority(self) -> float:
    """See `Table.total_priority`."""
    return self._tree.total

  def _allocate(self) -> None:
    # What keeps all it is given often has room for much more, and grows.
    rows = self._capacity if self._spec.evicts else 0
    self._items = self._empty(rows)

  def _empty(self, rows: int) -> np.ndarray:
    shape = rows, self._item_bytes
    try:
      # Memory that was never written to takes no room.
      return np.empty(shape, np.uint8)
    except MemoryError:
      fewer = '' if self._spec.evicts else ', or give fewer demonstrations'
      raise MemoryError(
        f'table {self._spec.name!r} of max_size={self._spec.max_size} needs '
        f'{math.prod(shape) / 2**30:.1f} GiB for {rows} items of '
        f'{self._item_bytes} bytes, which this machine does not have. Lower '
        f'max_size{fewer}.'
      ) from None

  def _make_room(self, rows: int) -> None:
    """Lets the array of items hold so many rows."""
    if rows <= len(self._items):
      return
    items = self._empty(min(self._capacity, max(rows, 2 * len(self._items))))
    items[: len(self._items)] = self._items
    self._items = items

  def update_priorities(self, key: np.ndarray, priority: np.ndarray) -> None:
    """Sets priorities [N] of items; skips those that are gone."""
    replay_spec.check_priorities(priority)
    held = (key >= self._inserted - len(self)) & (key < self._inserted)
    slots = key[held] % np.uint64(self._capacity)
    self._set_priorities(slots.astype(np.int64), priority[held])

  def _insert(
    self, items: np.ndarray, priorities: np.ndarray, frames: Frames | None
  ) -> None:
    skipped = max(0, len(items) - self._capacity)  # would be gone at once
    start = (self._inserted + skipped) % self._capacity
    items, priorities = items[skipped:], priorities[skipped:]
    slots = np.arange(start, start + len(items)) % self._capacity
    self._make_room(min(self._capacity, start + len(items)))
    self._set_priorities(slots, priorities)
    _put(self._items, start, items)
    if frames is not None:
      if self._frames is None:
        self._frames = [()] * self._capacity
      _put(self._frames, start, frames[skipped:])

  def _draw(self, count: int) -> DrawnItems:
    slots, probability = self._draw_slots(count)
    last = self._inserted - 1
    keys = last - (last - slots) % self._capacity
    frames = None
    if self._frames is not None:
      frames = [self._frames[slot] for slot in slots.tolist()]
    return DrawnItems(
      self._items.take(slots, axis=0),
      keys.view(np.uint64),
      probability,
      np.full(count, self._index, np.int32),
      frames,
    )

  def _draw_slots(self, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Draws slots; returns these and the chance of each."""
    uniform = self._random.random(count)
    total = self._tree.total
    if total > 0:
      slots = self._tree.draw(uniform)
      return slots, self._tree.get(slots) / total
    # No priorities, or all are zero: all items have the same chance.
    slots = (uniform * len(self)).astype(np.int64)
    return slots, np.full(count, 1 / len(self))

  def _set_priorities(self, slots: np.ndarray, priority: np.ndarray) -> None:
    if self._spec.prioritized:
      weight = np.asarray(priority, np.float64) ** self._spec.priority_exponent
      self._tree.set(slots, weight)

  def spare(self) -> Arrays:
    """Returns memory for the copy that `held` makes; any thread may call it."""
    # Items are inserted between this and the copying.
    count = min(self._capacity, len(self) + len(self) // 16 + 1024)
    spare: dict[str, np.ndarray] = {
      'items': np.empty((count, self._item_bytes), np.uint8)
    }
    if self._spec.prioritized:
      spare['weights'] = np.empty(count)
    for array in spare.values():
      array.fill(0)
    return spare

  def _held(self, spare: Arrays) -> tuple[dict[str, np.ndarray], Frames | None]:
    if not self._item_bytes:
      return {'items': np.empty((0, 0), np.uint8)}, None
    count = len(self)
    arrays = {'items': _copy(self._items[:count], spare.get('items'))}
    if self._spec.prioritized:
      weights = self._tree.first(count)
      arrays['weights'] = _copy(weights, spare.get('weights'))
    return arrays, None if self._frames is None else self._frames[:count]

  def _load(self, held: HeldTable) -> None:
    items = held.arrays['items']
    self._make_room(len(items))
    self._items[: len(items)] = items
    if self._spec.prioritized:
      self._tree.set(np.arange(len(items)), held.arrays['weights'])
    if held.frames is not None:
      self._frames = [*held.frames, *[()] * (self._capacity - len(items))]


def _copy(array: np.ndarray, spare: np.ndarray | None) -> np.ndarray:
  """Returns a copy, in `spare` if there is room."""
  if spare is None or spare[: len(array)].shape != array.shape:
    return array.copy()
  copied = spare[: len(array)]
  np.copyto(copied, array)
  return copied


def _put(ring: Any, start: int, values: Any) -> None:
  """Writes values into a ring: an array or a list that is at least as long."""
  end = min(len(ring), start + len(values))
  ring[start:end] = values[: end - start]
  if end - start < len(values):
    ring[: len(values) - (end - start)] = values[end - start :]


class QueueTable(Table):
  """Items that are drawn once, in the order of their insertion."""

  def __init__(self, spec: replay_spec.Table, index: int):
    super().__init__(spec, index)
    self._items: collections.deque[np.ndarray] = collections.deque()
    self._frames: collections.deque[frames_lib.ItemFrames] | None = None

  def __len__(self) -> int:
    """Returns the number of items held."""
    return len(self._items)

  def update_priorities(self, key: np.ndarray, priority: np.ndarray) -> None:
    """Does nothing: every item is drawn once, with any priority."""

  def _insert(
    self, items: np.ndarray, priorities: np.ndarray, frames: Frames | None
  ) -> None:
    self._items.extend(items.copy())  # a view would keep all of what came
    if frames is not None:
      self._frames = self._frames or collections.deque()
      self._frames.extend(frames)

  def _draw(self, count: int) -> DrawnItems:
    items = np.stack([self._items.popleft() for _ in range(count)])
    frames = None
    if self._frames is not None:
      frames = [self._frames.popleft() for _ in range(count)]
    return DrawnItems(
      items,
      np.arange(self._sampled, self._sampled + count, dtype=np.uint64),
      np.ones(count),
      np.full(count, self._index, np.int32),
      frames,
    )

  def _held(self, spare: Arrays) -> tuple[dict[str, np.ndarray], Frames | None]:
    items = np.empty((len(self._items), self._item_bytes), np.uint8)
    for row, item in zip(items, self._items, strict=True):
      row[:] = item
    frames = None if self._frames is None else list(self._frames)
    return {'items': items}, frames

  def _load(self, held: HeldTable) -> None:
    self._items.extend(held.arrays['items'])
    if held.frames is not None:
      self._frames = collections.deque(held.frames)
