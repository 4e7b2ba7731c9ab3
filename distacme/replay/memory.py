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
  """The tables of a `ReplaySpec`, the ways into them and the way out.

  It serves one thread, which must not ask for a sample before `can_sample`: no
  other could insert meanwhile. For the same reason inserts do not block; the
  thread that acts also learns, whenever it may.
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
      seed: of what is drawn.
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
    """Returns a sentence on what the tables hold, for messages."""
    return f'replay holds {self.metrics()}, limits {self._limits}.'

  def inserter(self, tables: Sequence[replay_spec.Table]) -> MemoryInserter:
    """Returns the way into some of the tables."""
    return MemoryInserter(
      [self._tables[self._spec.tables.index(table)] for table in tables]
    )

  def write_demonstrations(
    self, episodes: Iterable[demonstrations.Episode]
  ) -> int:
    """Fills the tables of demonstrations; see `demonstrations.write`."""
    inserter = self.inserter(self._spec.tables_of_demonstrations)
    return demonstrations.write(episodes, self._spec, self._layout, inserter)

  def can_sample(self, batches: int = 1) -> bool:
    """Returns whether the rate limits let so many batches be drawn now."""
    return self._blocking(batches) is None

  def _blocking(self, batches: int) -> int | None:
    """Returns the first table that the next batches must wait for, if any."""
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
      RuntimeError: if the rate limits forbid it now.
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
    """Writes all that decides what is sampled from now on, below `folder`."""
    state = json.dumps(self._random.bit_generator.state)
    arrays = {_RANDOM: np.array(state), _BATCHES: np.array(self._batches)}
    for spec, table in zip(self._spec.tables, self._tables, strict=True):
      for name, array in table.contents().items():
        arrays[f'{spec.name}/{name}'] = array
    np.savez(folder / _FILE, **arrays)

  def load(self, arrays: Arrays) -> None:
    """Takes over what `read` returned; only where nothing was inserted yet.

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
    """Returns each by itself: windows share them by keeping them."""
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
    """Does nothing: all is inserted."""


def read(folder: pathlib.Path) -> Arrays:
  """Returns what `Memory.save` wrote, for `Memory.load`.

  Raises:
    zipfile.BadZipFile: if a byte of it changed; or the error of reading.
  """
  with np.load(folder / _FILE) as file:
    return dict(file.items())  # which compares their sums
