"""Recorded episodes as arrays, held against the specs of an environment."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
import dataclasses
import functools
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


@dataclasses.dataclass(frozen=True)
class Demonstrations:
  """Recorded episodes and where they are from.

  Attributes:
    source: the place, for messages.
    read: returns an iterator of the episodes, from the first one on.
    observations: spec of an observation, if the source has one.
    actions: spec of an action, if the source has one.
  """

  source: str
  read: Callable[[], Iterator[Episode]]
  observations: types.NestedSpec = None
  actions: types.NestedSpec = None

  def checked(self, spec: specs.EnvironmentSpec) -> Iterator[Episode]:
    """Yields the episodes; each is held against the specs of an environment.

    Raises:
      ValueError: if the source's specs are not those of the environment, there is
        no episode, or an episode does not fit; the message names the field, both
        values and the source.
    """
    for field, theirs, ours in (
      ('observation', self.observations, spec.observations),
      ('action', self.actions, spec.actions),
    ):
      if theirs is not None:
        _check_specs(field, theirs, ours, self.source)
    number = -1
    for number, episode in enumerate(self.read()):
      yield checked(episode, spec, f'episode {number} of {self.source}')
    if number < 0:
      raise ValueError(f'{self.source} has no episodes. Record some.')


def from_episodes(
  episodes: Iterable[Mapping[str, Any]],
) -> Demonstrations:
  """Returns demonstrations made of a user's arrays.

  Args:
    episodes: of each episode of T steps a mapping with 'observations', a nest of
      arrays [T + 1, ...], 'actions', a nest of arrays [T, ...], 'rewards' [T], and
      'terminated', True if the episode reached a terminal state and False if it
      was cut off. 'discounts' [T] may stand in the place of 'terminated'.

  Raises:
    ValueError: if a mapping lacks a key or has one too many, or an array has
      another length.
  """
  made = [as_episode(each, number) for number, each in enumerate(episodes)]
  return Demonstrations('the given episodes', functools.partial(iter, made))


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
  _check_lengths(episode, f'episode {number}')
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


def _check_lengths(episode: Episode, name: str) -> None:
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


def checked(
  episode: Episode, spec: specs.EnvironmentSpec, name: str
) -> Episode:
  """Returns an episode in the dtypes of the specs, or raises ValueError."""
  _check_lengths(episode, name)
  discounts = _narrowed('discounts', episode.discounts, np.float32, name)
  if isinstance(spec.discounts, specs.BoundedArray):
    _check_bounds('discounts', discounts, spec.discounts, name)
  return Episode(
    _checked_nest(
      'observations', episode.observations, spec.observations, name
    ),
    _checked_nest('actions', episode.actions, spec.actions, name),
    _narrowed('rewards', episode.rewards, np.float32, name),
    discounts,
  )


def _checked_nest(
  field: str, nest: types.NestedArray, spec: types.NestedSpec, name: str
) -> types.NestedArray:
  _check_structure(f'{field} of {name}', nest, spec)
  leaves = [
    _checked_leaf(leaf_name, leaf, leaf_spec, name)
    for (leaf_name, leaf), leaf_spec in zip(
      specs.named_leaves(field, nest), tree.flatten(spec), strict=True
    )
  ]
  return tree.unflatten_as(spec, leaves)


def _checked_leaf(
  leaf_name: str, leaf: np.ndarray, spec: specs.Array, name: str
) -> np.ndarray:
  if leaf.shape[1:] != spec.shape or not _is_convertible(
    leaf.dtype, spec.dtype
  ):
    raise ValueError(
      f'{leaf_name} of {name} are {leaf.dtype}{list(leaf.shape[1:])}, and the '
      f"environment's are {spec.dtype}{list(spec.shape)}. {_SAME_ENVIRONMENT}"
    )
  if isinstance(spec, specs.BoundedArray):
    _check_bounds(leaf_name, leaf, spec, name)
  return _narrowed(leaf_name, leaf, spec.dtype, name)


def _narrowed(
  leaf_name: str, leaf: np.ndarray, dtype: Any, name: str
) -> np.ndarray:
  """Returns numbers in a dtype that can hold them, or raises ValueError."""
  with np.errstate(over='ignore', invalid='ignore'):
    made: np.ndarray = np.asarray(leaf).astype(dtype, copy=False)
  if made.dtype.kind == 'f':
    wrong = ~np.isfinite(made)
  else:
    wrong = made != leaf  # an integer that wrapped
  if wrong.any():
    # Observations may be infinite where their spec says so, but never learnt from.
    raise ValueError(
      f'{leaf_name} of {name} hold {leaf[wrong][0]}, from which nothing can be '
      f'learnt in {made.dtype}. Leave the episode out.'
    )
  return made


def _is_convertible(dtype: np.dtype[Any], to: np.dtype[Any]) -> bool:
  """Returns whether numbers of one kind may become those of another.

  Integers of any sign and size may: their values are looked at.
  """
  integers = dtype.kind in 'iu' and to.kind in 'iu'
  return integers or np.can_cast(dtype, to, 'same_kind')


# Actions at a bound, recorded in another precision, are beyond it by this much.
_ROUNDING = 1e-5


def _check_bounds(
  leaf_name: str, leaf: np.ndarray, spec: specs.BoundedArray, name: str
) -> None:
  low, high = np.asarray(spec.minimum), np.asarray(spec.maximum)
  slack = np.zeros(())
  if leaf.dtype.kind == 'f':
    with np.errstate(over='ignore', invalid='ignore'):
      size = np.where(np.isfinite(high - low), high - low, 0.0)
    slack = _ROUNDING * size
  beyond = (leaf < low - slack) | (leaf > high + slack)
  if beyond.any():
    least, most = (
      np.broadcast_to(b, leaf.shape)[beyond][0] for b in (low, high)
    )
    raise ValueError(
      f'{leaf_name} of {name} hold {leaf[beyond][0]}, and there those of the '
      f'environment are from {least} to {most}. '
      f'{_SAME_ENVIRONMENT}'
    )


def _check_structure(name: str, found: Any, want: Any) -> None:
  try:
    tree.assert_same_structure(want, found, check_types=False)
    tree.flatten_up_to(want, found, check_types=False)  # compares keys
  except (TypeError, ValueError) as error:
    raise ValueError(
      f'{name} are {_form(found)}, and those of the environment are '
      f'{_form(want)}. {_SAME_ENVIRONMENT}'
    ) from error


def _form(nest: Any) -> str:
  """Returns a nest's form in short: names in place of leaves."""
  if isinstance(nest, Mapping):
    inner = ', '.join(f'{key!r}: {_form(each)}' for key, each in nest.items())
    return f'{{{inner}}}'
  if isinstance(nest, (tuple, list)):
    return f'({", ".join(map(_form, nest))})'
  return 'an array'


def _check_specs(
  field: str, theirs: types.NestedSpec, ours: types.NestedSpec, source: str
) -> None:
  """Checks that a source's specs are those of the environment.

  Bounds of observations may differ: the values are held against ours. Those of
  actions must not, as they say what an action does.

  Raises:
    ValueError: if they differ; the message names the leaf and both specs.
  """
  _check_structure(f'{field}s of {source}', theirs, ours)
  for (leaf_name, leaf), our_leaf in zip(
    specs.named_leaves(field, theirs), tree.flatten(ours), strict=True
  ):
    if not _alike(leaf, our_leaf, bounds=field == 'action'):
      raise ValueError(
        f"{leaf_name} of {source} is {leaf}, and the environment's is "
        f'{our_leaf}. {_SAME_ENVIRONMENT}'
      )


def _alike(theirs: specs.Array, ours: specs.Array, bounds: bool) -> bool:
  if theirs.shape != ours.shape or not _is_convertible(
    theirs.dtype, ours.dtype
  ):
    return False
  if not bounds or not isinstance(ours, specs.BoundedArray):
    return True
  return (
    isinstance(theirs, specs.BoundedArray)
    and isinstance(theirs, specs.DiscreteArray)
    == isinstance(ours, specs.DiscreteArray)
    and np.allclose(theirs.minimum, ours.minimum, rtol=_ROUNDING)
    and np.allclose(theirs.maximum, ours.maximum, rtol=_ROUNDING)
  )


_SAME_ENVIRONMENT = (
  'Record the episodes in the environment of the run, with its wrappers.'
)
