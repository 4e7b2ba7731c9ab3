"""Turns an actor's steps into n-step transitions; shared by all backends."""

from __future__ import annotations

from typing import Any, NamedTuple

import dm_env
import numpy as np
import tree

from distacme import replay_spec
from distacme import types
from distacme.replay.items import rows as rows_lib
from distacme.replay.writers import frame_history
from distacme.replay.writers import inserter as inserter_lib

_UNSCALED = (np.float32(1.0), np.float32(np.inf))


class NStepWriter:
  """A `core.Writer` that makes n-step transitions of `num_envs` environments.

  The last n steps of every environment lie in `slots` [n, num_envs]. Each is a
  row in the making: its reward and discount grow with every step until its
  window is full or its episode ends. Of several lengths n is the longest, and
  the reward and discount of a shorter one stop growing at its own end. Used by
  one thread.
  """

  def __init__(
    self,
    window: replay_spec.NStep,
    block_size: int,
    layout: rows_lib.RowLayout,
    num_envs: int,
    inserter: inserter_lib.Inserter,
    first_priority: inserter_lib.FirstPriority | None,
  ):
    self._lengths = window.lengths
    self._n = window.lengths[-1]
    self._gamma = np.float32(window.discount)
    # float32, or rewards would become float64.
    self._reward_scale = np.float32(window.reward_scale)
    self._max_abs_reward = np.float32(window.max_abs_reward)
    self._scales = (self._reward_scale, self._max_abs_reward) != _UNSCALED
    self._first_priority = first_priority
    self._inserter = inserter
    self._blocks = _Blocks(block_size, inserter)
    self._frames = frame_history.make_history(layout.frames, num_envs, inserter)
    self._layout = layout
    self._slots = np.zeros((self._n, num_envs), layout.dtype)
    self._row = [layout.views(slot) for slot in self._slots]
    whole = layout.views(self._slots)
    self._reward, self._discount = whole.reward, whole.discount
    self._grows = None if not window.ends else _growing(window.lengths)
    # By end: next observations [n, num_envs, ...], and the same by slot.
    self._ends = [
      _at_end(whole.next_observation, window, end)
      for end in range(len(self._lengths))
    ]
    self._slot_ends = [
      [_slot(nest, slot) for slot in range(self._n)] for nest in self._ends
    ]
    self._lengths_and_ends = list(
      zip(self._lengths, self._slot_ends, strict=True)
    )
    self._params_version = self._slots[rows_lib.PARAMS_VERSION]
    self._values: list[Any] = [None] * self._n  # of `act`, by slot
    self._within = (0, *self._lengths[:-1])  # steps to a window's observations
    self._age = np.zeros(num_envs, np.int64)  # steps of the current episode
    self._least_age = 0  # of all environments
    self._cursor = 0  # the slot of the newest step
    self._waiting: _Waiting | None = None

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
    self._insert_waiting(output.values)
    self._start_windows(timestep, output, params_version)
    self._grow(next_timestep)
    self._age += 1
    self._least_age += 1
    amid = not np.count_nonzero(next_timestep.step_type != types.MID)
    if amid and self._least_age >= self._n:  # most steps
      self._emit_full(None)
    else:
      self._emit(timestep, next_timestep)

  def close(self) -> None:
    """Inserts what is complete and ends the connection to replay."""
    if self._waiting is not None:
      self._insert_waiting(self._values[self._cursor])
    self._blocks.close()

  def _start_windows(
    self,
    timestep: dm_env.TimeStep,
    output: types.ActorOutput,
    params_version: int,
  ) -> None:
    self._cursor = slot = (self._cursor + 1) % self._n
    row = self._row[slot]
    inserter_lib.copy(row.observation, timestep.observation)
    inserter_lib.copy(row.action, output.action)
    inserter_lib.copy(row.extras, output.extras)
    row.reward[...] = 0.0
    row.discount[...] = 1.0
    self._params_version[slot] = params_version
    self._values[slot] = output.values

  def _grow(self, next_timestep: dm_env.TimeStep) -> None:
    """Adds a step to all windows; slots without a window hold leftovers."""
    reward = next_timestep.reward
    if self._scales:
      reward = replay_spec.learnt_reward(
        reward, self._reward_scale, self._max_abs_reward
      )
    discount = self._gamma * next_timestep.discount
    if self._grows is None:
      self._reward += self._discount * reward
      self._discount *= discount
    else:
      grows = self._grows[self._cursor]
      self._reward += grows * self._discount * reward[:, None]
      self._discount *= np.where(grows, discount[:, None], np.float32(1.0))
    for length, slots in self._lengths_and_ends:
      target = slots[(self._cursor + 1 - length) % self._n]
      inserter_lib.copy(target, next_timestep.observation)

  def _emit(
    self, timestep: dm_env.TimeStep, next_timestep: dm_env.TimeStep
  ) -> None:
    """Emits the windows that this step filled or cut short."""
    stepped = timestep.step_type != types.LAST
    self._age *= stepped
    self._least_age = int(self._age.min())
    ended = (next_timestep.step_type == types.LAST) & stepped
    full = (self._age >= self._n) & ~ended
    if full.any():
      self._emit_full(full)
    for env in np.flatnonzero(ended):
      self._emit_ended(env, next_timestep.observation)

  def _emit_full(self, envs: np.ndarray | None) -> None:
    """Emits the oldest window of every environment in the mask `envs`, or all."""
    slot = (self._cursor + 1) % self._n
    rows = self._slots[slot].copy() if envs is None else self._slots[slot][envs]
    frames = None
    if self._frames is not None:
      numbers = range(len(rows)) if envs is None else np.flatnonzero(envs)
      frames = self._frames.name(rows, numbers, [self._n + 1] * len(rows))
    if self._first_priority is None:
      self._blocks.insert(rows, np.ones(len(rows)), frames)
      return
    # The values at the window's last observation come with the next action.
    values = [
      _take(self._values[(slot + steps) % self._n], envs)
      for steps in self._within
    ]
    self._waiting = _Waiting(rows, values, envs, frames)

  def _insert_waiting(self, values: Any) -> None:
    waiting, self._waiting = self._waiting, None
    if waiting is not None:
      last = _take(values, waiting.envs)
      self._insert(waiting.rows, [*waiting.values, last], waiting.frames)

  def _emit_ended(self, env: int, observation: types.NestedArray) -> None:
    """Emits all windows of an environment whose episode has just ended."""
    count = min(int(self._age[env]), self._n)
    slots = (self._cursor - np.arange(count)[::-1]) % self._n  # oldest first
    steps = np.arange(count, 0, -1)
    for length, nest in zip(self._lengths, self._ends, strict=True):
      cut = slots[steps < length]
      for target, source in zip(
        tree.flatten(nest), tree.flatten(observation), strict=True
      ):
        target[cut, env] = source[env]
    rows = self._slots[slots, env]
    frames = None
    if self._frames is not None:
      frames = self._frames.name(rows, [env] * count, steps + 1)
    if self._first_priority is None:
      self._blocks.insert(rows, np.ones(count), frames)
      return
    # Nobody acts on the last observation. After termination its values do not
    # count; after truncation those of the step before stand in for them, until
    # the learner sets the priority.
    values = []
    for length in (0, *self._lengths):
      acted_on = np.where(
        length < steps, (slots + length) % self._n, self._cursor
      )
      values.append(_of_env(self._values, env, acted_on))
    self._insert(rows, values, frames)

  def _insert(
    self,
    rows: np.ndarray,
    values: list[Any],
    frames: list[list[Any]] | None,
  ) -> None:
    """Inserts windows, given the values at their start and at each end."""
    assert self._first_priority is not None
    priorities = self._first_priority(self._layout.views(rows), values)
    self._blocks.insert(rows, priorities, frames)


class _Waiting(NamedTuple):
  """Full windows whose priority needs the values of the next action."""

  rows: np.ndarray  # [K]
  values: list[Any]  # at the windows' observations but the last, [K, ...]
  envs: np.ndarray | None  # [num_envs] bool, K of them true; None: all
  frames: list[list[Any]] | None  # [K]


class _Blocks:
  """Groups rows into items of `block_size` rows."""

  def __init__(self, block_size: int, inserter: inserter_lib.Inserter):
    self._block_size = block_size
    self._inserter = inserter
    self._rest: list[np.ndarray] = []
    self._num_rest = 0

  def insert(
    self,
    rows: np.ndarray,
    priorities: np.ndarray,
    frames: list[list[Any]] | None,
  ) -> None:
    if self._block_size == 1:
      self._inserter.insert(rows.reshape(-1, 1), priorities, frames)
      return
    self._rest.append(rows)
    self._num_rest += len(rows)
    count = self._num_rest // self._block_size
    if not count:
      return
    rows = np.concatenate(self._rest)
    whole = count * self._block_size
    self._rest, self._num_rest = [rows[whole:]], len(rows) - whole
    items = rows[:whole].reshape(count, self._block_size)
    self._inserter.insert(items, np.ones(count))

  def close(self) -> None:
    self._inserter.close()


def _growing(lengths: tuple[int, ...]) -> np.ndarray:
  """Returns [cursor, slot, 1, end]: whether a step reaches a window before it."""
  slots = np.arange(lengths[-1])
  taken = (slots[:, None] - slots) % lengths[-1]  # before this step
  return np.array(taken[..., None, None] < np.array(lengths))


def _at_end(nest: Any, window: replay_spec.NStep, end: int) -> Any:
  """Returns views on the next observations [n, num_envs, ...] of one end."""
  if not window.ends:
    return nest
  return tree.map_structure(lambda leaf: leaf[:, :, end], nest)


def _slot(nest: Any, slot: int) -> Any:
  return tree.map_structure(lambda leaf: leaf[slot], nest)


def _of_env(values: list[Any], env: int, slots: np.ndarray) -> Any:
  """Returns the values of an environment in some slots, [K, ...]."""
  return tree.map_structure(
    lambda *leaves: np.stack([leaf[env] for leaf in leaves]),
    *[values[slot] for slot in slots],
  )


def _take(nest: Any, rows: np.ndarray | None) -> Any:
  if rows is None:
    return nest
  if isinstance(nest, dict):  # five times as fast as the general way
    return {name: _take(leaf, rows) for name, leaf in nest.items()}
  if isinstance(nest, np.ndarray):
    return nest[rows]
  return tree.map_structure(lambda leaf: leaf[rows], nest)
