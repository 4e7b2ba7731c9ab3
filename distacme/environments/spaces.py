"""Gymnasium's spaces as specs, and what lies in them converted to and fro.

Box and MultiBinary become a BoundedArray, Discrete a DiscreteArray that counts
from 0 whatever the space starts at, MultiDiscrete a BoundedArray from its start
(both int32), Dict a dict and Tuple a tuple. 64-bit floats become 32-bit.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import tree

from distacme import specs
from distacme import types
from distacme.environments import checks

_WIDE = {
  np.dtype(np.float32): np.dtype(np.float64),
  np.dtype(np.int32): np.dtype(np.int64),
}


def spec(space: Any, field: str) -> types.NestedSpec:
  """Returns `space` as specs, their names beginning with `field`.

  Raises:
    ValueError: if part of it has no spec; names that part.
  """
  return _map_leaves(_leaf_spec, space, field)


def conversion(
  make_leaf_function: Callable[[Any, str], Callable[[Any], Any]],
  space: Any,
  field: str,
) -> Callable[[types.NestedArray], types.NestedArray]:
  """Returns a function of nests in `space`, made from those of its leaves."""
  functions = _map_leaves(make_leaf_function, space, field)
  if callable(functions):
    return functions

  structure = spec(space, field)

  def nest_function(nest: types.NestedArray) -> types.NestedArray:
    leaves = checks.flatten(field, structure, nest)
    pairs = zip(tree.flatten(functions), leaves, strict=True)
    return tree.unflatten_as(structure, [f(leaf) for f, leaf in pairs])

  return nest_function


def reader(space: Any, name: str) -> Callable[[Any], np.ndarray]:
  """Returns the conversion of an observation in `space` to what specs say."""
  narrow = _leaf_spec(space, name).dtype
  wide = _WIDE.get(narrow, narrow)
  start = _start(space)

  def read(value: Any) -> np.ndarray:
    array = np.asarray(value)
    if start:
      array = array - start
    return array.astype(narrow, copy=False) if array.dtype == wide else array

  return read


def writer(space: Any, name: str) -> Callable[[Any], Any]:
  """Returns the conversion of an action to one of `space`."""
  del name
  from gymnasium import spaces

  start = _start(space)
  if isinstance(space, spaces.Discrete):
    return lambda action: int(action) + start
  return lambda action: action


def batch_writer(space: Any, name: str) -> Callable[[Any], Any]:
  """Returns the conversion of actions [N, ...] to a batch of `space`'s."""
  del name
  start = _start(space)
  return lambda action: np.asarray(action) + start


def _map_leaves(
  function: Callable[[Any, str], Any], space: Any, name: str
) -> Any:
  """Returns the nest of what `function` gives for each leaf of `space`."""
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


def _leaf_spec(space: Any, name: str) -> specs.Array:
  """Returns the spec of a space that is not a nest."""
  from gymnasium import spaces

  if isinstance(space, spaces.Discrete):
    return specs.DiscreteArray(int(space.n), name=name)
  if isinstance(space, spaces.MultiDiscrete):
    last = space.start + space.nvec - 1
    return specs.BoundedArray(space.shape, np.int32, space.start, last, name)
  if isinstance(space, spaces.MultiBinary):
    return specs.BoundedArray(space.shape, space.dtype, 0, 1, name)
  if isinstance(space, spaces.Box):
    dtype = np.float32 if space.dtype == np.float64 else space.dtype
    with np.errstate(over='ignore'):  # The largest float64 becomes infinity.
      return specs.BoundedArray(space.shape, dtype, space.low, space.high, name)
  raise ValueError(
    f'The space of {name}, {space}, has no dm_env spec. Use Box, Discrete, '
    'MultiDiscrete, MultiBinary, and Dict or Tuple of these.'
  )


def _start(space: Any) -> int:
  from gymnasium import spaces

  return int(space.start) if isinstance(space, spaces.Discrete) else 0
