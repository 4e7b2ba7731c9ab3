"""Fills replay with recorded episodes, as an actor writes its steps."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
import pathlib
import shutil
from typing import NamedTuple

import dm_env
import numpy as np
import tree

from distacme import replay_spec
from distacme import types
from distacme.demonstrations import episodes as episodes_lib
from distacme.replay import in_process
from distacme.replay import memory
from distacme.replay.items import rows as rows_lib
from distacme.replay.writers import factory
from distacme.replay.writers import inserter as inserter_lib
from distacme.run import files
from distacme.run import notices


def tables_to_fill(
  spec: replay_spec.ReplaySpec, layout: rows_lib.RowLayout
) -> tuple[replay_spec.Table, ...]:
  """Returns the tables that recorded episodes go to, in all modes.

  These are the tables of demonstrations. Of an agent without, it is the only table
  of its actors, which the episodes are in before the actors' first steps.

  Raises:
    ValueError: if an agent without learns from more than the steps themselves.
  """
  if spec.tables_of_demonstrations:
    return spec.tables_of_demonstrations
  moments = layout.nest
  acted = tree.flatten((moments.extras, getattr(moments, 'start_state', ())))
  if acted or spec.tables[0].used_once or len(spec.tables) > 1:
    raise ValueError(
      'the agent learns from what its own policy computed at each step, which '
      'demonstrations have not. Leave them out, or use an agent that learns from '
      'them, like r2d3 in the place of r2d2 (distacme agents).'
    )
  return spec.tables


def held(
  episodes: Iterable[episodes_lib.Episode],
  spec: replay_spec.ReplaySpec,
  layout: rows_lib.RowLayout,
  seed: int,
) -> memory.HeldMemory:
  """Returns replay as it is before a run's first step, with the episodes in it.

  Args:
    episodes: that were checked; read once, in their order.
    spec: of the tables.
    layout: of the rows.
    seed: of the run.

  Raises:
    ValueError: if a table has no room, or holds too little to be sampled.
  """
  replay = in_process.InProcessReplay(spec, layout, seed)
  fill(episodes, spec, layout, replay)
  return replay.held()


def fill(
  episodes: Iterable[episodes_lib.Episode],
  spec: replay_spec.ReplaySpec,
  layout: rows_lib.RowLayout,
  replay: in_process.InProcessReplay,
) -> None:
  """Fills the tables in memory that demonstrations are for; see `held`."""
  tables = tables_to_fill(spec, layout)
  written = write(
    episodes, spec, layout, tables, lambda table: replay.inserter((table,))
  )
  for table in tables:
    _check_filled(spec, table, written, replay.inserted(table))
    if table.filled_by == 'actors':
      replay.keep_ratio_from_now(table)


def _check_filled(
  spec: replay_spec.ReplaySpec,
  table: replay_spec.Table,
  all_written: Mapping[str, Written],
  inserted: int,
) -> None:
  """Refuses demonstrations that are too few or too many for a table.

  Args:
    spec: of all tables.
    table: that was filled.
    all_written: steps and episodes that each table was given, by its name.
    inserted: windows that these made in this one.

  Raises:
    ValueError: if they are.
  """
  written = all_written[table.name]
  if not written.episodes:
    total = sum(each.episodes for each in all_written.values())
    low, high = table.part
    raise ValueError(
      f'of {total} episodes none is left for table {table.name!r}, which is to '
      f'have the share {high - low:.6g} of them. Give more, or let the agent do '
      'without the table (bc: --validation-share 0).'
    )
  least = 1
  if table.filled_by == 'demonstrations':
    least = spec.rate_limits[spec.tables.index(table)].min_size
  if inserted < least:
    raise ValueError(
      f'the demonstrations have {written.steps} steps, which make {inserted} '
      f'windows of table {table.name!r}; no batch is drawn before it holds '
      f'min_size={least}. Give more demonstrations, or lower min_size.'
    )
  if inserted > table.max_size:  # of a table that evicts
    raise ValueError(
      f'the demonstrations make {inserted} windows, and replay holds '
      f'max_size={table.max_size}: the first ones would be dropped. Raise it '
      '(max_replay_size), or give fewer.'
    )
  if spec.block_size > 1 and inserted < written.steps:
    notices.warn_once(
      f'The last {written.steps - inserted} of {written.steps} steps of the '
      f'demonstrations fill no block of block_size={spec.block_size} and are '
      'left out.'
    )


class Written(NamedTuple):
  """Numbers of what was written to a table."""

  steps: int
  episodes: int


def write(
  episodes: Iterable[episodes_lib.Episode],
  spec: replay_spec.ReplaySpec,
  layout: rows_lib.RowLayout,
  tables: Sequence[replay_spec.Table],
  make_inserter: Callable[[replay_spec.Table], inserter_lib.Inserter],
) -> dict[str, Written]:
  """Writes episodes; returns how much of them went to each table, by its name.

  The outputs of the agent's `act` that are stored beside the steps (`extras` and
  `start_state`) are 0, and so is the version of the params.

  Args:
    episodes: to write, in this order.
    spec: has the windows.
    layout: of the rows.
    tables: to fill; each takes the episodes of its `part`.
    make_inserter: returns an inserter into one table; closed at the end.

  Raises:
    ValueError: if a table that evicts nothing is full.
  """
  writers = {
    table.name: _EpisodeWriter(spec, layout, make_inserter(table))
    for table in tables
  }
  for number, episode in enumerate(episodes):
    for table in tables:
      if table.takes(number):
        writers[table.name].write(episode)
  for writer in writers.values():
    writer.close()
  return {name: writer.written for name, writer in writers.items()}


class _EpisodeWriter:
  """Writes whole episodes, one after the other, as of one environment."""

  def __init__(
    self,
    spec: replay_spec.ReplaySpec,
    layout: rows_lib.RowLayout,
    inserter: inserter_lib.Inserter,
  ):
    self._writer = factory.make_demonstration_writer(spec, layout, inserter)
    self.close = self._writer.close
    self._output = _nothing(layout)
    self._last: dm_env.TimeStep | None = None
    self.written = Written(0, 0)

  def write(self, episode: episodes_lib.Episode) -> None:
    steps, episodes = self.written
    self.written = Written(steps + episode.num_steps, episodes + 1)
    timesteps = episode.timesteps()
    before = next(timesteps)
    if self._last is not None:
      # As with environments, the action at an episode's end is ignored.
      self._writer.append(self._last, self._output, before, 0)
    for step, after in enumerate(timesteps):
      self._output = self._output._replace(action=episode.action(step))
      self._writer.append(before, self._output, after, 0)
      before = after
    self._last = before


def _nothing(layout: rows_lib.RowLayout) -> types.ActorOutput:
  """Returns zeros for the stored outputs of `act`."""
  moments = layout.nest

  def zeros(leaf: np.ndarray) -> np.ndarray:
    return np.zeros((1, *leaf.shape), leaf.dtype)

  extras = tree.map_structure(zeros, moments.extras)
  if isinstance(moments, types.Transition):
    return types.ActorOutput(action=(), extras=extras)
  return types.ActorOutput(
    action=(),
    # In the layout of a sequence these have an axis of rows.
    extras=tree.map_structure(lambda leaf: leaf[:, 0], extras),
    start_state=tree.map_structure(zeros, moments.start_state),
  )


def save(held_: memory.HeldMemory, folder: pathlib.Path) -> None:
  """Writes what `held` returned; the folder is whole or absent.

  Raises:
    NotWrittenError: if the folder cannot be written.
  """
  unfinished = folder.with_name(f'{folder.name}.unfinished')
  with files.writing_to(folder):
    for path in (unfinished, folder):
      shutil.rmtree(path, ignore_errors=True)
    unfinished.mkdir(parents=True)
    held_.write(unfinished)
    unfinished.rename(folder)


def load(folder: pathlib.Path, learnt: int = 0) -> memory.HeldMemory | None:
  """Returns the replay that `save` was given; None if there is none.

  Args:
    folder: of `save`.
    learnt: steps that the learner has made, as many batches as were drawn: a
      pre-training is not begun again where replay alone was lost.

  Raises:
    ValueError: if the files are damaged.
  """
  if not folder.exists():
    return None
  try:
    held_ = memory.read(folder)
  except Exception as error:  # of zip files, of numpy, of the file system
    raise ValueError(
      f'{folder} is damaged ({error}). It holds the demonstrations of the run: '
      'remove it and start the run again, which writes it anew.'
    ) from error
  return held_._replace(batches=max(held_.batches, learnt))
