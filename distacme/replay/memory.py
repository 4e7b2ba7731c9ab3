"""Replay in the memory of one process: no server, no thread, deterministic."""

from __future__ import annotations

import collections
from collections.abc import Mapping, Sequence
import itertools
import json
import pathlib
from typing import Any, NamedTuple

import numpy as np

from distacme import core
from distacme import replay_spec
from distacme import types
from distacme.replay import frames as frames_lib
from distacme.replay import rows as rows_lib
from distacme.replay import sum_tree
from distacme.replay.writers import factory

Frames = Sequence[Sequence[np.ndarray]]
Arrays = Mapping[str, np.ndarray]

_FILE = 'table.npz'

_NO_KEY = np.iinfo(np.uint64).max


def make(
  spec: replay_spec.ReplaySpec, layout: rows_lib.RowLayout, seed: int
) -> Memory:
  """Returns the table that a `ReplaySpec` asks for."""
  if spec.used_once:
    return MemoryQueue(spec, layout)
  return MemoryReplay(spec, layout, seed)


class Memory:
  """A table as `ReplaySpec` asks for, its way in and its way out.

  It serves one thread, which must not ask for a sample before `can_sample`:
  there is nobody else who could insert meanwhile. For the same reason inserts
  do not block; the thread that acts also learns, whenever it may.
  """

  blocked_s = 0.0

  def __init__(self, spec: replay_spec.ReplaySpec, layout: rows_lib.RowLayout):
    self._spec = spec
    self._layout = layout
    self._limits = spec.rate_limits
    self._block = spec.block_size
    self._items_per_batch = spec.batch_size // self._block
    self._inserted = 0  # items
    self._sampled = 0  # items

  def __len__(self) -> int:
    """Windows held."""
    raise NotImplementedError

  def metrics(self) -> dict[str, float]:
    """Returns size, inserts and samples so far, and the ratio reached."""
    return replay_spec.table_metrics(
      self._limits,
      len(self),
      self._inserted * self._block,
      self._sampled * self._block,
    )

  def describe(self) -> str:
    """Says in a sentence what the table holds, for messages."""
    return f'replay holds {self.metrics()}, limits {self._limits}.'

  def writer(self, num_envs: int) -> core.Writer:
    """Returns the way in for one actor."""
    return factory.make_writer(self._spec, self._layout, num_envs, self)

  def insert_frames(self, frames: np.ndarray) -> list[np.ndarray]:
    """Returns each by itself: windows share them by keeping them."""
    return [frames[row : row + 1] for row in range(len(frames))]

  def insert(
    self,
    rows: np.ndarray,
    priorities: np.ndarray,
    frames: Frames | None = None,
  ) -> None:
    """Inserts items; see `replay.writers.inserter.Inserter`."""
    raise NotImplementedError

  def can_sample(self, batches: int = 1) -> bool:
    """Whether the rate limits let so many batches be drawn now."""
    return self._limits.can_sample(
      self._inserted * self._block,
      self._sampled * self._block,
      batches * self._spec.batch_size,
    )

  def sample(self) -> tuple[Any, types.SampleInfo]:
    """Draws a batch; see `core.Sampler`.

    Raises:
      RuntimeError: if the rate limits forbid it now.
    """
    if not self.can_sample():
      raise RuntimeError(
        'replay cannot be sampled yet and nothing else runs that could '
        f'insert: {self._inserted * self._block} windows inserted, '
        f'{self._sampled * self._block} sampled, limits {self._limits}. Ask '
        'can_sample() first.'
      )
    items, keys, probability, frames = self._draw()
    self._sampled += len(keys)
    rows = items.reshape(-1)
    info = types.SampleInfo(
      key=np.repeat(keys, self._block),
      probability=np.repeat(probability, self._block),
      params_version=rows[rows_lib.PARAMS_VERSION],
    )
    if frames is not None:
      frames = [np.concatenate(window) for window in frames]
    return self._layout.read(rows, frames), info

  def update_priorities(self, key: np.ndarray, priority: np.ndarray) -> None:
    """Sets priorities; see `core.Sampler`."""
    raise NotImplementedError

  def save(self, folder: pathlib.Path) -> None:
    """Writes all that decides what is sampled from now on, below `folder`."""
    counts = np.array([self._inserted, self._sampled])
    np.savez(folder / _FILE, counts=counts, **self._contents())

  def load(self, arrays: Arrays) -> None:
    """Takes over what `read` returned; only into a table that is new.

    Raises:
      ValueError: if the rows were written with another layout.
    """
    self._inserted, self._sampled = arrays['counts'].tolist()
    rows = self._layout.from_bytes(arrays['items'], self._block)
    frames = None
    if self._layout.frames is not None:
      frames = frames_lib.unpack(arrays, self._layout.frames.dtype)
    self._take(arrays, rows.reshape(-1, self._block), frames)

  def close(self) -> None:
    """Nothing to end; see `replay.writers.inserter.Inserter`."""

  def _contents(self) -> dict[str, np.ndarray]:
    """Returns the items as bytes, and what else there is of a table."""
    raise NotImplementedError

  def _take(
    self, arrays: Arrays, rows: np.ndarray, frames: Frames | None
  ) -> None:
    """Takes over what `_contents` returned."""
    raise NotImplementedError

  def _draw(self) -> _Drawn:
    """Returns a batch of items."""
    raise NotImplementedError


class _Drawn(NamedTuple):
  items: np.ndarray  # [K, block_size] structured
  keys: np.ndarray  # [K]
  probability: np.ndarray  # [K], the chance that each had
  frames: Any  # [K] lists of frames, or None


class MemoryReplay(Memory):
  """Items that are drawn by their priorities, again and again."""

  def __init__(
    self,
    spec: replay_spec.ReplaySpec,
    layout: rows_lib.RowLayout,
    seed: int,
  ):
    super().__init__(spec, layout)
    self._capacity = spec.max_items
    self._items = np.empty((self._capacity, self._block), layout.dtype)
    self._frames: list[Any] | None = None
    if layout.frames is not None:
      self._frames = [None] * self._capacity
    self._keys = np.full(self._capacity, _NO_KEY, np.uint64)
    self._tree = sum_tree.SumTree(self._capacity)
    self._random = np.random.default_rng(seed)

  def __len__(self) -> int:
    """Windows held."""
    return min(self._inserted, self._capacity) * self._block

  def insert(
    self,
    rows: np.ndarray,
    priorities: np.ndarray,
    frames: Frames | None = None,
  ) -> None:
    """Inserts items; see `replay.writers.inserter.Inserter`."""
    keys = np.arange(self._inserted, self._inserted + len(rows))
    slots = keys % self._capacity  # where one repeats, the last row stands
    self._set_priorities(slots, priorities)
    self._items[slots] = rows
    self._keys[slots] = keys
    if self._frames is not None and frames is not None:
      for slot, window in zip(slots.tolist(), frames, strict=True):
        self._frames[slot] = window
    self._inserted += len(rows)

  def update_priorities(self, key: np.ndarray, priority: np.ndarray) -> None:
    """Sets priorities; see `core.Sampler`."""
    slots = (key % np.uint64(self._capacity)).astype(np.int64)
    held = self._keys[slots] == key
    self._set_priorities(slots[held], priority[held])

  def _draw(self) -> _Drawn:
    slots, probability = self._draw_slots()
    frames = None
    if self._frames is not None:
      frames = [self._frames[slot] for slot in slots.tolist()]
    return _Drawn(self._items[slots], self._keys[slots], probability, frames)

  def _contents(self) -> dict[str, np.ndarray]:
    held = np.arange(min(self._inserted, self._capacity))
    contents = {
      'items': self._layout.to_bytes(self._items[: len(held)]),
      'keys': self._keys[: len(held)],
      'weights': self._tree.get(held),
      'random': np.array(json.dumps(self._random.bit_generator.state)),
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
    self._random.bit_generator.state = json.loads(str(arrays['random']))
    if frames is not None:
      assert self._frames is not None
      self._frames[: len(rows)] = frames

  def _draw_slots(self) -> tuple[np.ndarray, np.ndarray]:
    """Returns slots and the chances with which they were drawn."""
    uniform = self._random.random(self._items_per_batch)
    if self._tree.total > 0:
      slots = self._tree.draw(uniform)
      return slots, self._tree.get(slots) / self._tree.total
    # All priorities are zero: all are alike, as in Reverb.
    count = min(self._inserted, self._capacity)
    slots = (uniform * count).astype(np.int64)
    return slots, np.full(len(slots), 1 / count)

  def _set_priorities(self, slots: np.ndarray, priority: np.ndarray) -> None:
    replay_spec.check_priorities(priority)
    priority = np.asarray(priority, np.float64)
    self._tree.set(slots, priority**self._spec.priority_exponent)


class MemoryQueue(Memory):
  """Items that are drawn once, in the order in which they came."""

  def __init__(self, spec: replay_spec.ReplaySpec, layout: rows_lib.RowLayout):
    super().__init__(spec, layout)
    self._items: collections.deque[Any] = collections.deque()

  def __len__(self) -> int:
    """Windows held."""
    return len(self._items)

  def insert(
    self,
    rows: np.ndarray,
    priorities: np.ndarray,
    frames: Frames | None = None,
  ) -> None:
    """Inserts items; see `replay.writers.inserter.Inserter`."""
    del priorities  # All are drawn.
    named = itertools.repeat(None) if frames is None else frames
    self._items.extend(zip(rows, named, strict=False))
    self._inserted += len(rows)

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

  def _draw(self) -> _Drawn:
    count = self._items_per_batch
    items, frames = zip(
      *[self._items.popleft() for _ in range(count)], strict=True
    )
    return _Drawn(
      np.stack(items),
      np.arange(self._sampled, self._sampled + count, dtype=np.uint64),
      np.ones(count),
      frames if self._layout.frames is not None else None,
    )


def read(folder: pathlib.Path) -> Arrays:
  """Returns what `Memory.save` wrote, for `Memory.load`.

  Raises:
    zipfile.BadZipFile: if it is not as it was; or whatever reading raises.
  """
  with np.load(folder / _FILE) as file:
    return dict(file.items())  # which compares their sums
