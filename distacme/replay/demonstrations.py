"""Recorded episodes, written into replay as if they were acted."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import dm_env
import numpy as np
import tree

from distacme import replay_spec
from distacme import types
from distacme.replay.items import rows as rows_lib
from distacme.replay.writers import factory
from distacme.replay.writers import inserter as inserter_lib


class Episode(NamedTuple):
  """A whole episode of one environment.

  Attributes:
    timesteps: T + 1 dm_env timesteps, of which the first is FIRST and the last
      is LAST; without batch axis.
    actions: T actions, each taken at the timestep of its index.
  """

  timesteps: Sequence[dm_env.TimeStep]
  actions: Sequence[types.NestedArray]


def write(
  episodes: Iterable[Episode],
  spec: replay_spec.ReplaySpec,
  layout: rows_lib.RowLayout,
  inserter: inserter_lib.Inserter,
) -> int:
  """Writes episodes and returns how many steps they have.

  What the agent's `act` would have stored beside the steps (`extras` and
  `start_state`) is 0, and so is the version of the params.

  Args:
    episodes: to write, in this order.
    spec: says how steps become windows.
    layout: of the rows.
    inserter: of the tables to fill, `ReplaySpec.tables_of_demonstrations` or some
      of them; closed at the end.

  Raises:
    ValueError: if an episode is not whole, or a table that evicts nothing is
      full.
  """
  writer = factory.make_demonstration_writer(spec, layout, inserter)
  output = _nothing(layout)
  last: dm_env.TimeStep | None = None
  steps = 0
  for number, episode in enumerate(episodes):
    _check(episode, number)
    moments = [_batched(timestep) for timestep in episode.timesteps]
    if last is not None:
      # As environments go on: the action at an episode's end is ignored.
      writer.append(last, output, moments[0], 0)
    for step, action in enumerate(episode.actions):
      output = output._replace(action=_with_batch_axis(action))
      writer.append(moments[step], output, moments[step + 1], 0)
    last = moments[-1]
    steps += len(episode.actions)
  writer.close()
  return steps


def _check(episode: Episode, number: int) -> None:
  kinds = [int(timestep.step_type) for timestep in episode.timesteps]
  if len(kinds) != len(episode.actions) + 1:
    raise ValueError(
      f'episode {number} has {len(kinds)} timesteps and '
      f'{len(episode.actions)} actions. Give one timestep more than actions.'
    )
  want = [types.FIRST, *[types.MID] * (len(kinds) - 2), types.LAST]
  if len(kinds) < 2 or kinds != [int(kind) for kind in want]:
    raise ValueError(
      f'episode {number} has the step types {kinds}. It must start with FIRST '
      '(0), end with LAST (2) and have MID (1) between them: leave out an '
      'episode that was not played to its end.'
    )


def _nothing(layout: rows_lib.RowLayout) -> types.ActorOutput:
  """Returns zeros for all that an agent may store."""
  moments: Any = layout.nest
  extras = tree.map_structure(
    lambda leaf: np.zeros((1, *leaf.shape), leaf.dtype), moments.extras
  )
  if isinstance(moments, types.Transition):
    return types.ActorOutput(action=(), extras=extras)
  return types.ActorOutput(
    action=(),
    # Of a sequence the layout has them with an axis of rows.
    extras=tree.map_structure(lambda leaf: leaf[:, 0], extras),
    start_state=tree.map_structure(
      lambda leaf: np.zeros((1, *leaf.shape), leaf.dtype), moments.start_state
    ),
  )


def _batched(timestep: dm_env.TimeStep) -> dm_env.TimeStep:
  """Returns a timestep of one environment as that of a vector of one."""
  first = int(timestep.step_type) == types.FIRST
  return dm_env.TimeStep(
    step_type=np.array([timestep.step_type], np.int8),
    reward=np.array([0.0 if first else timestep.reward], np.float32),
    discount=np.array([1.0 if first else timestep.discount], np.float32),
    observation=_with_batch_axis(timestep.observation),
  )


def _with_batch_axis(nest: types.NestedArray) -> types.NestedArray:
  return tree.map_structure(lambda leaf: np.asarray(leaf)[None], nest)
