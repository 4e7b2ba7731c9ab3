"""Replay in the memory of one process: no server, no thread, deterministic."""

from __future__ import annotations

import numpy as np

from distacme import types
from distacme.replay import assembly
from distacme.replay import records
from distacme.replay import spec as replay_spec
from distacme.replay import sum_tree

_NO_KEY = np.iinfo(np.uint64).max


class MemoryReplay:
  """A table as `ReplaySpec` asks for, its way in and its way out.

  It serves one thread, which must not ask for a sample before `can_sample`:
  there is nobody else who could insert meanwhile. For the same reason inserts
  do not block; the thread that acts also learns, whenever it may.
  """

  blocked_s = 0.0

  def __init__(
    self,
    spec: replay_spec.ReplaySpec,
    layout: records.RowLayout,
    seed: int,
  ):
    self._spec = spec
    self._layout = layout
    self._limits = spec.rate_limits
    self._block = spec.block_size
    self._capacity = spec.max_items
    self._items_per_batch = spec.batch_size // self._block
    self._items = np.empty((self._capacity, self._block), layout.dtype)
    self._keys = np.full(self._capacity, _NO_KEY, np.uint64)
    self._tree = sum_tree.SumTree(self._capacity)
    self._random = np.random.default_rng(seed)
    self._inserted = 0  # items
    self._sampled = 0  # items

  def __len__(self) -> int:
    """Transitions held."""
    return min(self._inserted, self._capacity) * self._block

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

  def writer(self, num_envs: int) -> assembly.NStepWriter:
    """Returns the way in for one actor."""
    return assembly.NStepWriter(self._spec, self._layout, num_envs, self)

  def insert(self, rows: np.ndarray, priorities: np.ndarray) -> None:
    """Inserts items; see `assembly.Inserter`."""
    keys = np.arange(self._inserted, self._inserted + len(rows))
    slots = keys % self._capacity  # where one repeats, the last row stands
    self._set_priorities(slots, priorities)
    self._items[slots] = rows
    self._keys[slots] = keys
    self._inserted += len(rows)

  def can_sample(self, batches: int = 1) -> bool:
    """Whether the rate limits let so many batches be drawn now."""
    return self._limits.can_sample(
      self._inserted * self._block,
      self._sampled * self._block,
      batches * self._spec.batch_size,
    )

  def sample(self) -> tuple[types.Transition, types.SampleInfo]:
    """Draws a batch; see `core.Sampler`.

    Raises:
      RuntimeError: if the rate limits forbid it now.
    """
    if not self.can_sample():
      raise RuntimeError(
        'replay cannot be sampled yet and nothing else runs that could '
        f'insert: {self._inserted * self._block} transitions inserted, '
        f'{self._sampled * self._block} sampled, limits {self._limits}. Ask '
        'can_sample() first.'
      )
    slots, probability = self._draw()
    self._sampled += len(slots)
    rows = self._items[slots].reshape(-1)
    info = types.SampleInfo(
      key=np.repeat(self._keys[slots], self._block),
      probability=np.repeat(probability, self._block),
      params_version=rows[records.PARAMS_VERSION],
    )
    return self._layout.views(rows), info

  def update_priorities(self, key: np.ndarray, priority: np.ndarray) -> None:
    """Sets priorities; see `core.Sampler`."""
    slots = (key % np.uint64(self._capacity)).astype(np.int64)
    held = self._keys[slots] == key
    self._set_priorities(slots[held], priority[held])

  def close(self) -> None:
    """Nothing to end; see `assembly.Inserter`."""

  def _draw(self) -> tuple[np.ndarray, np.ndarray]:
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
