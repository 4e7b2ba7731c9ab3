"""Recorded episodes as arrays."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import dm_env
import numpy as np
import tree

from distacme import specs
from distacme import types


class Episode(NamedTuple):
  """A whole episode of T steps, at least one.

  Attributes:
    observations: nest of [T + 1, ...], the last one included.
    actions: nest of [T, ...], each taken at the observation of its index.
    rewards: [T].
    discounts: [T], the environment's, without gamma. The last one is 0 if the
      episode reached a terminal state, else the episode was truncated.
  """

  observations: types.NestedArray
  actions: types.NestedArray
  rewards: np.ndarray
  discounts: np.ndarray

  @property
  def num_steps(self) -> int:
    """T."""
    return len(self.rewards)

  def timesteps(self) -> Iterator[dm_env.TimeStep]:
    """Yields the T + 1 timesteps, as those of a vector of one environment."""
    last = self.num_steps
    for step in range(last + 1):
      first = step == 0
      yield dm_env.TimeStep(
        step_type=np.array(
          [types.FIRST if first else types.LAST if step == last else types.MID]
        ),
        reward=np.array([0.0 if first else self.rewards[step - 1]], np.float32),
        discount=np.array(
          [1.0 if first else self.discounts[step - 1]], np.float32
        ),
        observation=_rows(self.observations, step),
      )

  def action(self, step: int) -> types.NestedArray:
    """Returns an action, as that of a vector of one environment."""
    return _rows(self.actions, step)


def _rows(nest: types.NestedArray, step: int) -> types.NestedArray:
  return tree.map_structure(lambda leaf: leaf[step : step + 1], nest)


def as_episode(given: Any, number: int) -> Episode:
  """Returns an `Episode` as it is, or one of a mapping; see `from_episodes`.

  Args:
    given: an episode or a mapping.
    number: of the episode, for messages.

  Raises:
    ValueError: if it is none, or the mapping makes none.
  """
  if isinstance(given, Episode):
    return given
  if isinstance(given, Mapping):
    return _from_mapping(given, number)
  raise ValueError(
    f'episode {number} is {type(given).__name__}. Give a mapping with '
    f'{", ".join(_KEYS)} and either terminated or discounts.'
  )


_KEYS = ('observations', 'actions', 'rewards')
_ENDS = ('terminated', 'discounts')


def _from_mapping(given: Mapping[str, Any], number: int) -> Episode:
  ends = [key for key in _ENDS if key in given]
  unknown = set(given) - {*_KEYS, *_ENDS}
  missing = set(_KEYS) - set(given)
  if unknown or missing or len(ends) != 1:
    raise ValueError(
      f'episode {number} has the keys {sorted(given)}. Give '
      f'{", ".join(_KEYS)} and either terminated or discounts.'
    )
  rewards = np.asarray(given['rewards'], np.float64)
  if ends == ['terminated']:
    discounts = np.ones(rewards.shape, np.float32)
    if discounts.ndim == 1 and len(discounts):
      discounts[-1] = not _one_bool(given['terminated'], number)
  else:
    discounts = np.asarray(given['discounts'], np.float64)
  episode = Episode(
    _as_arrays(given['observations']),
    _as_arrays(given['actions']),
    rewards,
    discounts,
  )
  check_lengths(episode, f'episode {number}')
  return episode


def _as_arrays(nest: Any) -> types.NestedArray:
  """Returns a nest of dicts and tuples with arrays in place of lists."""
  if isinstance(nest, Mapping):
    return {key: _as_arrays(each) for key, each in nest.items()}
  if isinstance(nest, tuple):
    return tuple(map(_as_arrays, nest))
  return np.asarray(nest)


def _one_bool(value: Any, number: int) -> bool:
  array = np.asarray(value)
  if array.shape or array.dtype.kind not in 'biuf' or array not in (0, 1):
    raise ValueError(
      f'terminated of episode {number} is {value!r:.100}. Give one bool, of the '
      'episode as a whole.'
    )
  return bool(array)


def check_lengths(episode: Episode, name: str) -> None:
  """Checks that all arrays have their leading axis.

  Raises:
    ValueError: if not; the message names the array.
  """
  if episode.rewards.ndim != 1 or not len(episode.rewards):
    raise ValueError(
      f'rewards of {name} have shape {list(episode.rewards.shape)}. Give one '
      'number for each step, and one step at least.'
    )
  steps = episode.num_steps
  for field, nest, length in (
    ('observations', episode.observations, steps + 1),
    ('actions', episode.actions, steps),
    ('discounts', episode.discounts, steps),
  ):
    for leaf_name, leaf in specs.named_leaves(field, nest):
      shape = np.shape(leaf)
      if not shape or shape[0] != length:
        raise ValueError(
          f'{leaf_name} of {name} has shape {list(shape)}, and with {steps} '
          f'rewards its first axis must be {length}: one for each step'
          f'{", and the last observation" if field == "observations" else ""}.'
        )
