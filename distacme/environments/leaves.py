"""Functions of one leaf of a nest; `apply` maps them over nests."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
import tree

from distacme import specs
from distacme import types


def apply(function: Callable[..., Any], spec: Any, *nests: Any) -> Any:
  """Returns the nest of function(leaf of spec, leaf of nest, ...)."""
  if isinstance(spec, specs.Array):  # Walking a nest costs microseconds.
    return function(spec, *nests)
  return tree.map_structure_up_to(spec, function, spec, *nests)


def in_own_order(
  spec: types.NestedSpec, path: tuple[Any, ...] = ()
) -> Iterator[tuple[tuple[Any, ...], specs.Array]]:
  """Yields (path, spec) of each leaf; `tree` would sort the keys of dicts."""
  if isinstance(spec, specs.Array):
    yield path, spec
  else:
    items = spec.items() if isinstance(spec, Mapping) else enumerate(spec)
    for key, inner in items:
      yield from in_own_order(inner, (*path, key))


def cast(spec: specs.Array, value: Any) -> np.ndarray:
  """Returns `value` in the dtype of `spec`."""
  return np.asarray(value, spec.dtype)


def zeros(spec: specs.Array) -> np.ndarray:
  """Returns zeros with the shape and dtype of `spec`."""
  return np.zeros(spec.shape, spec.dtype)


def canonical_spec(spec: specs.Array) -> specs.Array:
  """Returns `spec` with bounds of -1 and 1 if it is bounded, else `spec`."""
  if not specs.is_bounded(spec):
    return spec
  return spec.replace(minimum=-1.0, maximum=1.0)


def scaled(spec: specs.Array, canonical: specs.Array, action: Any) -> Any:
  """Returns an action of `canonical` scaled to the bounds of `spec`."""
  if spec is canonical:  # `spec` is not bounded.
    return action
  share = (np.clip(action, -1.0, 1.0) + 1.0) / 2.0
  # float64: float16 holds no distance above 65504.
  range_ = np.subtract(spec.maximum, spec.minimum, dtype=np.float64)
  inner = spec.minimum + share * range_
  # Rounding may carry an action over its bounds.
  return np.clip(inner, spec.minimum, spec.maximum).astype(spec.dtype)


def floats_spec(spec: specs.Array) -> specs.Array:
  """Returns the spec of the `floats` of an action."""
  discrete = isinstance(spec, specs.DiscreteArray)
  shape = (spec.num_values,) if discrete else spec.shape
  return specs.Array(shape, np.float32, spec.name)


def floats(spec: specs.Array, action: np.ndarray) -> np.ndarray:
  """Returns an action as float32; a discrete one is one-hot."""
  if isinstance(spec, specs.DiscreteArray):
    return np.eye(spec.num_values, dtype=np.float32)[action]
  return np.asarray(action, np.float32)


def stacked_spec(spec: specs.Array, num_frames: int) -> specs.FrameStack:
  """Returns the spec of `num_frames` values of `spec` on a new last axis."""
  bounds = []
  for bound in bounds_of(spec):
    bound = np.asarray(bound)
    # Bounds of single elements need the new axis; one bound for all broadcasts.
    bounds.append(bound[..., np.newaxis] if bound.ndim else bound)
  return specs.FrameStack(
    (*spec.shape, num_frames),
    spec.dtype,
    np.minimum(bounds[0], spec.dtype.type(0)),  # of blank frames
    np.maximum(bounds[1], spec.dtype.type(0)),
    spec.name,
  )


def bounds_of(spec: specs.Array) -> tuple[Any, Any]:
  """Returns the least and the greatest value that a spec allows."""
  if isinstance(spec, specs.BoundedArray):
    return spec.minimum, spec.maximum
  if spec.dtype == np.bool_:
    return False, True
  if np.issubdtype(spec.dtype, np.integer):
    info = np.iinfo(spec.dtype)
    return info.min, info.max
  return -np.inf, np.inf
