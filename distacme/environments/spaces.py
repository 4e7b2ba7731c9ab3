"""Converts gymnasium's spaces to specs, and their values in both directions.

Box and MultiBinary become a BoundedArray, Discrete a DiscreteArray that counts
from 0 whatever the space starts at, MultiDiscrete a BoundedArray from its start
(both int32), Dict a dict and Tuple a tuple. 64-bit numbers become 32-bit.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from distacme import specs
from distacme import types
from distacme.environments import leaves
from distacme.environments import precision


def spec(space: Any, field: str, inwards: bool = False) -> types.NestedSpec:
  """Returns `space` as specs, their names beginning with `field`.

  Args:
    space: any except those of words and graphs.
    field: the role of its values, like 'observation'.
    inwards: as in `specs.in_32_bits`.

  Raises:
    ValueError: if part of the space has no spec; names that part.
  """
  return _map_leaves(
    lambda leaf, name: specs.in_32_bits(_wide_spec(leaf, name), name, inwards),
    space,
    field,
  )


def space(spec: types.NestedSpec) -> Any:
  """Returns the gymnasium space of the values of specs in 32 bits."""
  from gymnasium import spaces

  if isinstance(spec, Mapping):
    return spaces.Dict({key: space(inner) for key, inner in spec.items()})
  if isinstance(spec, (tuple, list)):
    return spaces.Tuple([space(inner) for inner in spec])
  if isinstance(spec, specs.DiscreteArray):
    return spaces.Discrete(spec.num_values)
  low, high = (
    np.broadcast_to(np.asarray(bound, spec.dtype), spec.shape)
    for bound in leaves.bounds_of(spec)
  )
  return spaces.Box(low, high, dtype=spec.dtype.type)


def conversion(
  make_leaf_function: Callable[[Any, str], Callable[[Any], Any]],
  space: Any,
  field: str,
) -> Callable[[types.NestedArray], types.NestedArray]:
  """Returns the conversion of nests in `space` from conversions of leaves.

  Args:
    make_leaf_function: (leaf of space, its name) to its conversion, like
      `reader`.
    space: of the nests.
    field: as in `spec`.
  """
  functions = _map_leaves(make_leaf_function, space, field)
  return precision.nest_function(functions, spec(space, field), field)


def reader(space: Any, name: str) -> Callable[[Any], np.ndarray]:
  """Returns the conversion of an observation in `space` to that of `spec`."""
  from gymnasium import spaces

  leaf_spec = spec(space, name)
  read = precision.reader(leaf_spec, name)
  if not isinstance(space, (spaces.Discrete, spaces.MultiDiscrete)):
    return read
  start = _start(space)

  def read_number(value: Any) -> np.ndarray:
    number = np.asarray(value)
    if number.dtype.kind in 'biu' and number.itemsize < 8:
      number = number.astype(np.int64)  # `read` narrows 64 bits only.
    return read(number - start if start else number)

  return read_number


def writer(space: Any, name: str) -> Callable[[Any], Any]:
  """Returns the conversion of an action to one of `space`."""
  del name
  from gymnasium import spaces

  start = _start(space)
  if isinstance(space, spaces.Discrete):
    return lambda action: int(action) + start
  return lambda action: np.asarray(action, space.dtype)


def batch_writer(space: Any, name: str) -> Callable[[Any], Any]:
  """Returns the conversion of actions [N, ...] to a batch of `space`'s."""
  del name
  from gymnasium import spaces

  start = _start(space)
  if start:
    return lambda action: np.asarray(action, np.int64) + start
  if isinstance(space, spaces.Discrete):
    return np.asarray
  return lambda action: np.asarray(action, space.dtype)


def _map_leaves(
  function: Callable[[Any, str], Any], space: Any, name: str
) -> Any:
  """Returns the nest of function(leaf, name) for the leaves of `space`."""
  from gymnasium import spaces

  if isinstance(space, spaces.Dict):
    return {
      k: _map_leaves(function, s, f'{name}[{k!r}]') for k, s in space.items()
    }
  if isinstance(space, spaces.Tuple):
    return tuple(
      _map_leaves(function, s, f'{name}[{i}]') for i, s in enumerate(space)
    )
  return function(space, name)


def _wide_spec(space: Any, name: str) -> specs.Array:
  """Returns the spec of a space that is not a nest, in its own precision."""
  from gymnasium import spaces

  if isinstance(space, spaces.Discrete):
    return specs.DiscreteArray(int(space.n), np.int64, name)
  if isinstance(space, spaces.MultiDiscrete):
    first = np.asarray(space.start, np.int64)
    last = first + np.asarray(space.nvec, np.int64) - 1
    return specs.BoundedArray(space.shape, np.int64, first, last, name)
  if isinstance(space, spaces.MultiBinary):
    return specs.BoundedArray(space.shape, space.dtype, 0, 1, name)
  if isinstance(space, spaces.Box):
    low, high = space.low, space.high
    return specs.BoundedArray(space.shape, space.dtype, low, high, name)
  raise ValueError(
    f'The space of {name}, {space}, has no dm_env spec. Use Box, Discrete, '
    'MultiDiscrete, MultiBinary, and Dict or Tuple of these.'
  )


def _start(space: Any) -> int:
  from gymnasium import spaces

  return int(space.start) if isinstance(space, spaces.Discrete) else 0
