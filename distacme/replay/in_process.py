"""Replay in the process of its only user: no server, no thread, deterministic."""

from __future__ import annotations

from collections.abc import Sequence
import pathlib
from typing import Any

import numpy as np

from distacme import replay_spec
from distacme import types
from distacme.replay import batch
from distacme.replay import memory
from distacme.replay.items import rows as rows_lib


class InProcessReplay:
  """A `core.Sampler` with inserters, over tables in memory.

  One thread uses it. This thread must not sample before `can_sample`, since no other
  thread could insert meanwhile. For the same reason inserts do not block; the thread
  that acts also learns, as often as the rate limits allow.
  """

  def __init__(
    self,
    spec: replay_spec.ReplaySpec,
    layout: rows_lib.RowLayout,
    seed: int,
  ):
    """Makes empty tables.

    Args:
      spec: of the tables.
      layout: of their rows.
      seed: of the drawing of items.
    """
    self._spec = spec
    self._layout = layout
    self._memory = memory.Memory(spec, seed)
    self.metrics = self._memory.metrics
    self.describe = self._memory.describe
    self.held = self._memory.held

  def inserter(self, tables: Sequence[replay_spec.Table]) -> InProcessInserter:
    """Returns an inserter for some of the tables."""
    indices = [self._spec.tables.index(table) for table in tables]
    return InProcessInserter(self._memory, indices)

  def inserted(self, table: replay_spec.Table) -> int:
    """Returns the number of windows that a table was given so far."""
    return self._memory.inserted(self._spec.tables.index(table))

  def keep_ratio_from_now(self, table: replay_spec.Table) -> None:
    """Lets a replay ratio be held for what is inserted from now on."""
    self._memory.keep_ratio_from_now(self._spec.tables.index(table))

  @property
  def is_pretraining(self) -> bool:
    """True while batches are drawn from tables of demonstrations alone."""
    return self._memory.is_pretraining

  def can_sample(self, batches: int = 1) -> bool:
    """Returns whether the rate limits allow to draw so many batches now."""
    return self._memory.blocking(batches) is None

  def sample(self) -> tuple[Any, types.SampleInfo]:
    """Draws a batch; see `core.Sampler`.

    Raises:
      RuntimeError: if the rate limits forbid to sample now.
    """
    return batch.read(self._layout, self._memory.draw())

  def update_priorities(
    self, info: types.SampleInfo, priority: np.ndarray
  ) -> None:
    """Sets priorities; see `core.Sampler`."""
    self._memory.update_priorities(info.table, info.key, priority)

  def close(self) -> None:
    """Does nothing: nobody waits."""

  def save(self, folder: pathlib.Path) -> None:
    """Writes all state that decides later samples, below `folder`."""
    self._memory.held().write(folder)

  def load(self, held: memory.HeldMemory) -> None:
    """Loads the result of `memory.read`; call this before any insert."""
    self._memory.load(held)


class InProcessInserter:
  """A `replay.writers.inserter.Inserter` of tables in memory."""

  blocked_s = 0.0

  def __init__(self, memory_: memory.Memory, tables: Sequence[int]):
    self._memory = memory_
    self._tables = tables

  def insert_frames(self, frames: np.ndarray) -> list[np.ndarray]:
    """Returns the frames one by one: windows share frames by reference."""
    return list(frames.view(np.uint8).reshape(len(frames), -1))

  def insert(
    self,
    rows: np.ndarray,
    priorities: np.ndarray,
    frames: Sequence[Sequence[np.ndarray]] | None = None,
  ) -> None:
    """Inserts items; see `replay.writers.inserter.Inserter`."""
    items = rows.view(np.uint8).reshape(len(rows), -1)
    self._memory.insert(self._tables, items, priorities, frames)

  def close(self) -> None:
    """Does nothing: all items are inserted."""
