"""Replay in the memory of one process: no server, no thread, deterministic."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
import json
import pathlib
from typing import Any

import numpy as np

from distacme import replay_spec
from distacme import types
from distacme.replay import demonstrations
from distacme.replay import memory_tables
from distacme.replay import mixture
from distacme.replay import table_metrics
from distacme.replay.items import rows as rows_lib

Arrays = Mapping[str, np.ndarray]

_FILE = 'tables.npz'
_RANDOM = 'random'
_BATCHES = 'batches'


class Memory:
  """The tables of a `ReplaySpec` in memory; a `core.Sampler`, with inserters.

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
    self._limits = spec.rate_limits
    self._random = np.random.default_rng(seed)
    self._mixture = mixture.Mixture(spec, layout, seed)
    self._tables = [
      memory_tables.make(table, layout, self._random) for table in spec.tables
    ]
    self._batches = 0  # sampled

  def metrics(self) -> dict[str, float]:
    """Returns size, inserts and samples so far, and the ratio reached."""
    return table_metrics.of_tables(
      self._spec, [table.counts for table in self._tables]
    )

  def describe(self) -> str:
    """Returns a sentence on the contents of the tables, for messages."""
    return f'replay holds {self.metrics()}, limits {self._limits}.'

  def inserter(self, tables: Sequence[replay_spec.Table]) -> MemoryInserter:
    """Returns an inserter for some of the tables."""
    return MemoryInserter(
      [self._tables[self._spec.tables.index(table)] for table in tables]
    )

  def write_demonstrations(
    self, episodes: Iterable[demonstrations.Episode]
  ) -> int:
    """Fills the tables of demonstrations; see `demonstrations.write`.

    Raises:
      ValueError: also if a table then holds too little to be sampled.
    """
    tables = self._spec.tables_of_demonstrations
    inserter = self.inserter(tables)
    steps = demonstrations.write(episodes, self._spec, self._layout, inserter)
    for table in tables:
      index = self._spec.tables.index(table)
      inserted = self._tables[index].counts.inserted
      least = self._limits[index].min_size
      if inserted < least:
        raise ValueError(
          f'the demonstrations have {steps} steps, which make {inserted} windows '
          f'of table {table.name!r}; no batch is drawn before it holds '
          f'min_size={least}. Give more demonstrations, or lower min_size.'
        )
    return steps

  def can_sample(self, batches: int = 1) -> bool:
    """Returns whether the rate limits allow to draw so many batches now."""
    return self._blocking(batches) is None

  def _blocking(self, batches: int) -> int | None:
    """Returns the index of the first table that blocks the next batches, or None."""
    numbers = range(self._batches, self._batches + batches)
    wanted = sum(self._mixture.counts(number) for number in numbers)
    for index, count in enumerate(np.asarray(wanted).tolist()):
      held = self._tables[index].counts
      if count and not self._limits[index].can_sample(
        held.inserted, held.sampled, count
      ):
        return index
    return None

  def sample(self) -> tuple[Any, types.SampleInfo]:
    """Draws a batch; see `core.Sampler`.

    Raises:
      RuntimeError: if the rate limits forbid to sample now.
    """
    blocking = self._blocking(1)
    if blocking is not None:
      held = self._tables[blocking].counts
      raise RuntimeError(
        f'the table {self._spec.tables[blocking].name!r} cannot be sampled yet '
        'and nothing else runs that could insert: '
        f'{held.inserted} windows inserted, {held.sampled} sampled, limits '
        f'{self._limits[blocking]}. Ask can_sample() first.'
      )
    sampled = self._mixture.sample(
      self._batches, [table.draw for table in self._tables]
    )
    self._batches += 1
    return sampled

  def update_priorities(
    self, info: types.SampleInfo, priority: np.ndarray
  ) -> None:
    """Sets priorities; see `core.Sampler`."""
    for index, table in enumerate(self._tables):
      if self._spec.tables[index].prioritized:
        of_table = info.table == index
        table.update_priorities(info.key[of_table], priority[of_table])

  def save(self, folder: pathlib.Path) -> None:
    """Writes all state that decides later samples, below `folder`."""
    state = json.dumps(self._random.bit_generator.state)
    arrays = {_RANDOM: np.array(state), _BATCHES: np.array(self._batches)}
    for spec, table in zip(self._spec.tables, self._tables, strict=True):
      for name, array in table.contents().items():
        arrays[f'{spec.name}/{name}'] = array
    np.savez(folder / _FILE, **arrays)

  def load(self, arrays: Arrays) -> None:
    """Loads the arrays of `read`; call this before any insert.

    Raises:
      ValueError: if the rows were written with another layout.
    """
    self._random.bit_generator.state = json.loads(str(arrays[_RANDOM]))
    self._batches = int(arrays[_BATCHES])
    for spec, table in zip(self._spec.tables, self._tables, strict=True):
      prefix = f'{spec.name}/'
      table.load(
        {
          name.removeprefix(prefix): array
          for name, array in arrays.items()
          if name.startswith(prefix)
        }
      )


class MemoryInserter:
  """A `replay.writers.inserter.Inserter` of tables in memory."""

  blocked_s = 0.0

  def __init__(self, tables: Sequence[memory_tables.Table]):
    self._tables = tables

  def insert_frames(self, frames: np.ndarray) -> list[np.ndarray]:
    """Returns the frames one by one: windows share frames by reference."""
    return [frames[row : row + 1] for row in range(len(frames))]

  def insert(
    self,
    rows: np.ndarray,
    priorities: np.ndarray,
    frames: Sequence[Sequence[np.ndarray]] | None = None,
  ) -> None:
    """Inserts items; see `replay.writers.inserter.Inserter`."""
    for table in self._tables:
      table.insert(rows, priorities, frames)

  def close(self) -> None:
    """Does nothing: all items are inserted."""


def read(folder: pathlib.Path) -> Arrays:
  """Reads the files of `Memory.save`, for `Memory.load`.

  Raises:
    zipfile.BadZipFile: if a byte of the files changed; or the error of reading.
  """
  with np.load(folder / _FILE) as file:
    return dict(file.items())  # compares checksums
