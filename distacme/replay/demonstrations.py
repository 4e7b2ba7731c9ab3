"""Writes recorded episodes into replay as an actor writes its steps."""

from __future__ import annotations

from collections.abc import Callable, Iterable
import pathlib
import shutil

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
      'the agent learns from steps of its own policy alone. Leave demonstrations '
      'out, or use an agent that learns from them (distacme agents).'
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
  recorded = bool(spec.tables_of_demonstrations)
  steps = write(
    episodes, spec, layout, tables, lambda table: replay.inserter((table,))
  )
  for table in tables:
    inserted = replay.inserted(table)
    least = spec.rate_limits[spec.tables.index(table)].min_size
    if recorded and inserted < least:
      raise ValueError(
        f'the demonstrations have {steps} steps, which make {inserted} windows '
        f'of table {table.name!r}; no batch is drawn before it holds '
        f'min_size={least}. Give more demonstrations, or lower min_size.'
      )
    if inserted > table.max_size:  # of a table that evicts
      raise ValueError(
        f'the demonstrations make {inserted} windows, and replay holds '
        f'max_size={table.max_size}: the first ones would be dropped. Raise it '
        '(max_replay_size), or give fewer.'
      )
    if not recorded:
      replay.keep_ratio_from_now(table)


def write(
  episodes: Iterable[episodes_lib.Episode],
  spec: replay_spec.ReplaySpec,
  layout: rows_lib.RowLayout,
  tables: Iterable[replay_spec.Table],
  make_inserter: Callable[[replay_spec.Table], inserter_lib.Inserter],
) -> int:
  """Writes episodes and returns the number of their steps.

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
  writers = [
    (table, _EpisodeWriter(spec, layout, make_inserter(table)))
    for table in tables
  ]
  steps = 0
  for number, episode in enumerate(episodes):
    for table, writer in writers:
      if table.takes(number):
        writer.write(episode)
    steps += episode.num_steps
  for _, writer in writers:
    writer.close()
  return steps


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

  def write(self, episode: episodes_lib.Episode) -> None:
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


def load(folder: pathlib.Path) -> memory.HeldMemory | None:
  """Returns what `save` was given; None if nothing was saved there.

  Raises:
    ValueError: if the files are damaged.
  """
  if not folder.exists():
    return None
  try:
    return memory.read(folder)
  except Exception as error:  # of zip files, of numpy, of the file system
    raise ValueError(
      f'{folder} is damaged ({error}). It holds the demonstrations of the run: '
      'remove it and start the run again, which writes it anew.'
    ) from error
