"""The tables of a `ReplaySpec` in the memory of one process."""

from __future__ import annotations

from collections.abc import Sequence
import json
import math
import pathlib
from typing import NamedTuple

import numpy as np

from distacme import replay_spec
from distacme.replay import archive
from distacme.replay import balance
from distacme.replay import mixture
from distacme.replay import table_metrics
from distacme.replay import tables as tables_lib
from distacme.replay.items import frames as frames_lib

# What `Checkpoints` calls the files of `write`.
FORMAT = 'tables'
_FILE = 'tables.npz'


class Memory:
  """Tables of items as bytes, their rate limits and their mixture.

  One thread uses it. It never blocks: who inserts and draws asks first.
  """

  def __init__(self, spec: replay_spec.ReplaySpec, seed: int | None = None):
    """Makes empty tables.

    Args:
      spec: of the tables.
      seed: of the drawing of items; None for another one in every process.
    """
    self.spec = spec
    self._limits = spec.rate_limits
    self._random = np.random.default_rng(seed)
    self._mixture = mixture.Mixture(spec, seed)
    self._tables = [
      tables_lib.make(table, index, self._random)
      for index, table in enumerate(spec.tables)
    ]
    self._batches = 0  # drawn
    self._let_in: float = math.inf  # windows; see `let_in`

  def metrics(self) -> dict[str, float]:
    """Returns size, inserts and samples so far, and the ratio reached."""
    return table_metrics.of_tables(
      self.spec,
      [table.counts for table in self._tables],
      [self._counts(index).sampled for index in range(len(self._tables))],
    )

  def describe(self) -> str:
    """Returns a sentence on the contents of the tables, for messages."""
    held = '; '.join(
      f'table {table.name!r} {counts.size} windows, of {counts.inserted} inserted, '
      f'with {counts.sampled} sampled so far and limits {limits}'
      for table, counts, limits in zip(
        self.spec.tables,
        map(self._counts, range(len(self._tables))),
        self._limits,
        strict=True,
      )
    )
    first = ''
    if self.is_pretraining:
      left = self.spec.pretraining_batches - self._batches
      first = f'the next {left} batches are of demonstrations alone, and '
    return f'{first}replay holds in {held}.'

  def room(self, tables: Sequence[int]) -> int:
    """Returns the number of items that may be inserted into all of the tables."""
    if self.is_pretraining and any(
      self.spec.tables[index].filled_by == 'actors' for index in tables
    ):
      return 0
    return min(self._room(index) // self.spec.block_size for index in tables)

  def _room(self, index: int) -> int:
    """Returns the number of windows that may be inserted into a table."""
    counts = self._counts(index)
    room = self._limits[index].room(counts.inserted, counts.sampled)
    return max(0, int(min(room, self._let_in - counts.inserted)))

  def let_in(self, windows: int) -> None:
    """Bounds the windows that are inserted in all, beside the tables' own limits.

    Of a shard of replay, whose rate limits are those of all shards together.
    """
    self._let_in = windows

  @property
  def holdings(self) -> balance.Holdings:
    """The content of the only table, as a shard of replay."""
    (table,) = self._tables
    counts = table.counts
    return balance.Holdings(
      counts.inserted, counts.sampled, counts.size, table.total_priority
    )

  def _counts(self, index: int) -> table_metrics.Counts:
    """Returns a table's counts; the samples are those that its limits count.

    Of several tables, the one with a replay ratio counts the windows of all, since
    the learner learns from all: else it would learn on and on from demonstrations
    where few windows of a batch are the agent's own.
    """
    counts = self._tables[index].counts
    if self._is_limited_by_all(index):
      counts = counts._replace(sampled=self._learnt(self._batches))
    return counts

  def _is_limited_by_all(self, index: int) -> bool:
    several = len(self.spec.tables) > 1
    return several and self.spec.tables[index].samples_per_insert is not None

  def _learnt(self, batches: int) -> int:
    """Returns the windows of so many batches, but for those of the pre-training."""
    learnt = max(0, batches - self.spec.pretraining_batches)
    return learnt * self.spec.batch_size

  def insert(
    self,
    tables: Sequence[int],
    items: np.ndarray,
    priorities: np.ndarray,
    frames: tables_lib.Frames | None = None,
  ) -> None:
    """Inserts items into some of the tables; see `tables.Table.insert`."""
    for index in tables:
      self._tables[index].insert(items, priorities, frames)

  def blocking(self, batches: int = 1) -> int | None:
    """Returns the index of the first table that forbids to draw, None if none."""
    drawn = self._mixture.counts(self._batches, batches, self._totals())
    after = self._learnt(self._batches + batches) - self._learnt(self._batches)
    for index, count in enumerate(drawn):
      counts = self._counts(index)
      wanted = after if self._is_limited_by_all(index) else count
      if wanted and not self._limits[index].can_sample(
        counts.inserted, counts.sampled, wanted
      ):
        return index
    return None

  def draw(self) -> tables_lib.DrawnItems:
    """Draws a batch.

    Raises:
      RuntimeError: if the rate limits forbid to sample now.
    """
    blocking = self.blocking()
    if blocking is not None:
      raise RuntimeError(
        f'the table {self.spec.tables[blocking].name!r} cannot be sampled yet: '
        f'{self.describe()} Ask can_sample() first.'
      )
    drawn = self._mixture.draw(
      self._batches, self._totals(), [table.draw for table in self._tables]
    )
    self._batches += 1
    return drawn

  def _totals(self) -> list[float]:
    """Returns the sum of priorities in each table, if the mixture asks for it."""
    if self.spec.mixture != 'priorities':
      return []
    return [table.total_priority for table in self._tables]

  @property
  def is_pretraining(self) -> bool:
    """True while batches are drawn from tables of demonstrations alone."""
    return self._batches < self.spec.pretraining_batches

  def update_priorities(
    self, tables: np.ndarray, keys: np.ndarray, priorities: np.ndarray
  ) -> None:
    """Sets the priorities [N] of items; skips those that are gone."""
    for index, table in enumerate(self.spec.tables):
      if table.prioritized:
        of_table = tables == index
        self._tables[index].update_priorities(
          keys[of_table], priorities[of_table]
        )

  def keep_ratio_from_now(self, index: int) -> None:
    """Lets a table's replay ratio be held for what is inserted from now on.

    Else the learner would make up for all that the table holds, at once.
    """
    beyond = self.inserted(index) - self._limits[index].min_size
    ratio = self._limits[index].samples_per_insert
    self._tables[index].count_as_sampled(max(0, int(beyond * ratio)))

  def inserted(self, index: int) -> int:
    """Returns the number of windows that a table was given so far."""
    return self._tables[index].counts.inserted

  def spare(self) -> list[tables_lib.Arrays]:
    """Returns memory for the copy that `held` makes; any thread may call it."""
    return [table.spare() for table in self._tables]

  def held(
    self, spare: Sequence[tables_lib.Arrays] | None = None
  ) -> HeldMemory:
    """Returns a copy of all state that decides later batches.

    Args:
      spare: what `spare` returned, so that the copying is done sooner.
    """
    if spare is None:
      spare = [{}] * len(self._tables)
    return HeldMemory(
      json.dumps(self._random.bit_generator.state),
      json.dumps(self._mixture.entropy),
      self._batches,
      {
        spec.name: table.held(of_table)
        for spec, table, of_table in zip(
          self.spec.tables, self._tables, spare, strict=True
        )
      },
    )

  def load(self, held: HeldMemory) -> None:
    """Loads the state of another `Memory`; call this before any insert."""
    self._random.bit_generator.state = json.loads(held.random)
    if held.entropy:
      self._mixture.entropy = json.loads(held.entropy)
    self._batches = held.batches
    for spec, table in zip(self.spec.tables, self._tables, strict=True):
      table.load(held.tables[spec.name])


class HeldMemory(NamedTuple):
  """A copy of a `Memory` at one moment.

  Attributes:
    random: state of the random numbers, as JSON.
    entropy: of the choice of tables, as JSON; '' in files of before it was kept.
    batches: that were drawn.
    tables: contents of each table, by name.
  """

  random: str
  entropy: str
  batches: int
  tables: dict[str, tables_lib.HeldTable]

  def write(self, folder: pathlib.Path) -> None:
    """Writes the copy below `folder`, for `read`."""
    arrays = {
      'random': np.array(self.random),
      'entropy': np.array(self.entropy),
      'batches': np.array(self.batches),
    }
    frames = {}
    for name, held in self.tables.items():
      parts = dict(held.arrays)
      if held.frames:
        frames[name], parts['lengths'], parts['named'] = frames_lib.pack(
          held.frames
        )
      arrays |= {f'{name}/{part}': array for part, array in parts.items()}
    archive.write(folder / _FILE, arrays, frames)


def read(folder: pathlib.Path) -> HeldMemory:
  """Reads the files of `HeldMemory.write`, for `Memory.load`.

  Raises:
    zipfile.BadZipFile: if a byte of the files changed; or the error of reading.
  """
  arrays, frames = archive.read(folder / _FILE)
  tables: dict[str, dict[str, np.ndarray]] = {}
  for path, array in arrays.items():
    name, _, part = path.rpartition('/')
    tables.setdefault(name, {})[part] = array
  of_all = tables.pop('')
  return HeldMemory(
    str(of_all['random']),
    str(of_all.get('entropy', '')),
    int(of_all['batches']),
    {
      name: tables_lib.HeldTable(
        parts,
        frames_lib.unpack(
          frames[name], parts.pop('lengths'), parts.pop('named')
        )
        if name in frames
        else None,
      )
      for name, parts in tables.items()
    },
  )
