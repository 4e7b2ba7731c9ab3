"""Turns an actor's steps into sequences; shared by all backends."""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import dm_env
import numpy as np
import tree

from distacme import replay_spec
from distacme import types
from distacme.replay.items import rows as rows_lib
from distacme.replay.writers import frame_history
from distacme.replay.writers import inserter as inserter_lib


class SequenceWriter:
  """A `core.Writer` that makes sequences of `num_envs` environments.

  The last L moments of all environments lie in `history` [L, num_envs], and a
  window is cut out of it as soon as the observation that bootstraps it is there.
  Used by one thread.
  """

  def __init__(
    self,
    window: replay_spec.Sequences,
    layout: rows_lib.RowLayout,
    num_envs: int,
    inserter: inserter_lib.Inserter,
    first_priority: inserter_lib.FirstPriority | None,
  ):
    self._window = window
    self._layout = layout
    self._num_envs = num_envs
    self._first_priority = first_priority
    self._inserter = inserter
    self._frames = frame_history.make_history(layout.frames, num_envs, inserter)
    self._history = _make_history(layout.nest, self._window.length, num_envs)
    self._params_version = np.zeros((self._window.length, num_envs), np.int64)
    self._values: Any = None  # of `act`, like the history
    self._cursor = -1  # the moment that comes next; before the first
    self._moments = 0
    self._age = np.zeros(num_envs, np.int64)  # steps of the current episode
    self._waiting: list[_Waiting] = []

  @property
  def blocked_s(self) -> float:
    """See `core.Writer`."""
    return self._inserter.blocked_s

  def append(
    self,
    timestep: dm_env.TimeStep,
    output: types.ActorOutput,
    next_timestep: dm_env.TimeStep,
    params_version: int,
  ) -> None:
    """Adds one step of every environment; see `core.Writer`."""
    if self._frames is not None:
      timestep, next_timestep = self._frames.without_frames(
        timestep, next_timestep
      )
    if self._cursor < 0:
      self._see(timestep)
    stepped = timestep.step_type != types.LAST
    self._add(stepped, output, next_timestep, params_version)
    self._insert_waiting()
    self._see(next_timestep)
    if self._window.across_episodes:
      self._moments += 1
      beyond = self._moments + 1 - self._window.length
      if beyond >= 0 and beyond % self._window.period == 0:
        self._emit(np.arange(self._num_envs), self._window.length)
    else:
      self._emit_of_episodes(stepped, next_timestep.step_type == types.LAST)

  def close(self) -> None:
    """Inserts what is complete and ends the connection to replay."""
    if self._waiting:
      # Nobody acts on the last observations any more: the values of the step
      # before stand in for theirs.
      for leaf in tree.flatten(self._values):
        leaf[self._cursor] = leaf[self._cursor - 1]
      self._insert_waiting()
    self._inserter.close()

  def _see(self, timestep: dm_env.TimeStep) -> None:
    """Notes the next moment's observation."""
    self._cursor = (self._cursor + 1) % self._window.length
    history = self._history
    inserter_lib.copy(
      _at(history.observation, self._cursor), timestep.observation
    )
    history.step_type[self._cursor] = timestep.step_type

  def _add(
    self,
    stepped: np.ndarray,
    output: types.ActorOutput,
    next_timestep: dm_env.TimeStep,
    params_version: int,
  ) -> None:
    """Notes this moment's action, and what followed it."""
    cursor, history = self._cursor, self._history
    inserter_lib.copy(_at(history.action, cursor), output.action)
    inserter_lib.copy(_at(history.extras, cursor), output.extras)
    inserter_lib.copy(_at(history.start_state, cursor), output.start_state)
    history.reward[cursor] = next_timestep.reward * stepped
    history.discount[cursor] = next_timestep.discount * stepped
    self._params_version[cursor] = params_version
    if self._first_priority is not None:
      if self._values is None:
        self._values = tree.map_structure(
          lambda leaf: np.zeros((self._window.length, *leaf.shape), leaf.dtype),
          output.values,
        )
      inserter_lib.copy(_at(self._values, cursor), output.values)

  def _emit_of_episodes(self, stepped: np.ndarray, ended: np.ndarray) -> None:
    """Emits the windows that are full, and those that an episode's end cut."""
    length, period = self._window.length, self._window.period
    self._age = (self._age + 1) * stepped
    rows = self._age + 1  # with the one that bootstraps
    beyond = rows - length
    full = stepped & (beyond >= 0) & (beyond % period == 0)
    for env in np.flatnonzero(full | (stepped & ended)):
      count = length
      if not full[env]:  # From where the next window would have started.
        count = rows[env] - max(0, (beyond[env] // period + 1) * period)
      self._emit(np.array([env]), int(count))

  def _emit(self, envs: np.ndarray, count: int) -> None:
    """Emits windows of the last `count` moments of some environments."""
    rows = np.zeros(len(envs), self._layout.dtype)
    target: types.Sequence = self._layout.views(rows)
    slots = (self._cursor - np.arange(count)[::-1]) % self._window.length
    history = self._history
    inserter_lib.copy(
      target.start_state,
      tree.map_structure(
        lambda leaf: leaf[slots[0], envs], history.start_state
      ),
    )
    nothing = {'start_state': ()}
    for into, source in zip(
      tree.flatten(target._replace(**nothing)),
      tree.flatten(history._replace(**nothing)),
      strict=True,
    ):
      into[:, :count] = source[slots[:, None], envs].swapaxes(0, 1)
    target.step_type[:, count:] = types.LAST
    rows[rows_lib.PARAMS_VERSION] = self._params_version[slots[0], envs]
    frames = None
    if self._frames is not None:
      frames = self._frames.name(rows, envs, [count] * len(envs))
    if self._first_priority is None:
      self._inserter.insert(rows[:, None], np.ones(len(rows)), frames)
    else:
      # The values of the row that bootstraps come with the next action.
      self._waiting.append(_Waiting(rows, envs, slots, frames))

  def _insert_waiting(self) -> None:
    waiting, self._waiting = self._waiting, []
    for window in waiting:
      assert self._first_priority is not None
      values = tree.map_structure(
        functools.partial(_cut, window, self._window.length), self._values
      )
      data = self._layout.views(window.rows)
      priorities = self._first_priority(data, values)
      self._inserter.insert(window.rows[:, None], priorities, window.frames)


class _Waiting(NamedTuple):
  """Windows whose priority needs the values of the next action."""

  rows: np.ndarray  # [K]
  envs: np.ndarray  # [K]
  slots: np.ndarray  # of their moments in the history
  frames: list[list[Any]] | None  # [K]


def _cut(window: _Waiting, length: int, leaf: np.ndarray) -> np.ndarray:
  """Returns a window [K, length, ...] of a leaf of the history, padded."""
  cut = np.zeros((len(window.envs), length, *leaf.shape[2:]), leaf.dtype)
  rows = leaf[window.slots[:, None], window.envs].swapaxes(0, 1)
  cut[:, : len(window.slots)] = rows
  return cut


def _make_history(
  nest: types.Sequence, length: int, num_envs: int
) -> types.Sequence:
  """Returns zeros [length, num_envs, ...] for every leaf of a row.

  A window may start with any row, so start states are kept of all.
  """

  def zeros(spec: Any) -> np.ndarray:
    return np.zeros((length, num_envs, *spec.shape), spec.dtype)

  def zeros_of_rows(spec: Any) -> np.ndarray:
    return np.zeros((length, num_envs, *spec.shape[1:]), spec.dtype)

  rows = tree.map_structure(zeros_of_rows, nest._replace(start_state=()))
  return rows._replace(start_state=tree.map_structure(zeros, nest.start_state))


def _at(nest: types.NestedArray, slot: int) -> types.NestedArray:
  if isinstance(nest, np.ndarray):
    return nest[slot]
  return tree.map_structure(lambda leaf: leaf[slot], nest)
