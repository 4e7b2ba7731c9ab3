"""Observations as default networks see them: pictures, one-hot vectors, numbers.

The spec of an observation decides its form, once, when a network is made. A user's
own networks get observations unchanged.
"""

from __future__ import annotations

import haiku as hk
import jax
import jax.numpy as jnp
import numpy as np

from distacme import specs
from distacme import types

# The first is for pictures with channels, such as MinAtar's of 10 x 10. The second is
# for pictures without: most smaller arrays of two axes are tables of numbers.
_LEAST_SIDE = 5
_LEAST_GREY_SIDE = 36
_LEAST_SUSPECT = 1_024  # elements of an array that may be meant as a picture
_MOST_ONE_HOT = 1_024  # features of a leaf's one-hot vectors together
_MOST_EMBEDDED = 1_000_000  # values of an embedding's table
_EMBEDDING_SIZE = 64
_MOST_SCALED = 2**16  # a wider range only repeats the integers' type


def is_image(spec: types.NestedSpec) -> bool:
  """Returns whether `spec` is of one picture, which goes through convolutions.

  A picture is an array of 2 to 4 axes. Two adjacent axes are height and width: they
  are equal and no other two are, or they are longer than the other axes. The other
  axes are channels, such as colours and stacked frames, first or last: [H, W, C],
  [C, H, W], [H, W, C, frames] and so on. The elements are bools, or numbers within
  finite bounds, or uint8.
  """
  return _sides(spec) is not None


def has_image(observations: types.NestedSpec) -> bool:
  """Returns whether a nest of specs has a spec of a picture."""
  return any(is_image(spec) for spec in jax.tree.leaves(observations))


def image_size(spec: specs.Array) -> tuple[int, int]:
  """Returns the height and width of a picture's spec; see `is_image`."""
  sides = _sides(spec)
  assert sides is not None
  return spec.shape[sides], spec.shape[sides + 1]


def as_image(spec: specs.Array, leaf: jax.Array) -> jax.Array:
  """Returns pictures [B, ...] as float32 [B, H, W, C], from 0 to 1."""
  sides, range_ = _sides(spec), _range(spec)
  assert sides is not None and range_ is not None
  axes = range(1, leaf.ndim)
  here = (sides + 1, sides + 2)
  leaf = leaf.transpose(0, *here, *(axis for axis in axes if axis not in here))
  leaf = leaf.reshape(*leaf.shape[:3], -1)
  low, high = range_
  if (low, high) == (0.0, 1.0):
    return leaf.astype(jnp.float32)
  return (leaf.astype(jnp.float32) - low) / max(high - low, 1.0)


def as_vector(spec: specs.Array, leaf: jax.Array) -> jax.Array:
  """Returns arrays that are no pictures, [B, ...], as float32 features [B, F].

  An integer of few values becomes a one-hot vector, so that no order of the values
  is assumed. An integer of many values is looked up in a learnt table (`hk.Embed`).
  Other bounded integers are scaled to [0, 1]; floats stay unchanged.

  Raises:
    ValueError: if an integer has more values than a table may have.
  """
  flat = leaf.reshape(leaf.shape[0], -1)
  if not _is_bounded_integer(spec):
    return flat.astype(jnp.float32)
  low, counts = _counts(spec)
  if max(counts, default=0) > _MOST_SCALED and not _is_one_of_many(spec):
    return flat.astype(jnp.float32)
  index = flat.astype(jnp.int32) - low.astype(np.int32)[None]
  if counts.sum() <= _MOST_ONE_HOT:
    # One comparison for all integers: a call for each would compile for minutes.
    element = np.repeat(np.arange(len(counts)), counts)
    value = np.concatenate([np.arange(count) for count in (0, *counts)])
    return (index[:, element] == value[None]).astype(jnp.float32)
  if _is_one_of_many(spec):
    if spec.num_values > _MOST_EMBEDDED:
      raise ValueError(
        f'the observation {spec.name or ""!r} has {spec.num_values} values, and '
        f'a default network learns something of at most {_MOST_EMBEDDED}. Wrap '
        'the environment to observe numbers or fewer values, or give a network '
        'of your own.'
      )
    return hk.Embed(spec.num_values, _EMBEDDING_SIZE)(index[:, 0])
  return index / (counts - 1).clip(1).astype(np.float32)[None]


def describe_flattened(observations: types.NestedSpec) -> str:
  """Returns a note on leaves that look like pictures but are not; '' if none."""
  leaves = [
    f'{leaf.name or "an observation"} ({np.dtype(leaf.dtype)} of shape '
    f'{leaf.shape})'
    for leaf in jax.tree.leaves(observations)
    if len(leaf.shape) > 1
    and np.prod(leaf.shape) >= _LEAST_SUSPECT
    and not is_image(leaf)
  ]
  if not leaves:
    return ''
  return (
    f'{" and ".join(leaves)} {"are" if len(leaves) > 1 else "is"} taken as '
    'numbers in a row, without convolutions: a picture has height and width side '
    f'by side, at least {_LEAST_SIDE} long and longer than its channels, and '
    'bounds.'
  )


def _sides(spec: types.NestedSpec) -> int | None:
  """Returns the axis of a picture's height, or None for another spec."""
  if not isinstance(spec, specs.Array) or len(spec.shape) not in (2, 3, 4):
    return None
  axis = _place(spec.shape)
  if axis is None or _range(spec) is None:
    return None
  least = _LEAST_GREY_SIDE if len(spec.shape) == 2 else _LEAST_SIDE
  return axis if min(spec.shape[axis : axis + 2]) >= least else None


def _place(shape: tuple[int, ...]) -> int | None:
  """Returns the axis of the height in a shape of 2 to 4 axes, or None."""
  if 0 in shape:
    return None
  if len(set(shape)) == 1:
    return 0  # Channels come last in most pictures.
  axes = range(len(shape) - 1)
  equal = [axis for axis in axes if shape[axis] == shape[axis + 1]]
  longer = [
    axis
    for axis in axes
    if min(shape[axis : axis + 2])
    > max(shape[:axis] + shape[axis + 2 :], default=0)
  ]
  found = equal if len(equal) == 1 and not longer else longer
  return found[0] if len(found) == 1 else None


def _range(spec: specs.Array) -> tuple[float, float] | None:
  """Returns the least and the largest value of a picture's elements, or None."""
  dtype = np.dtype(spec.dtype)
  if dtype == np.bool_:
    return 0.0, 1.0
  if isinstance(spec, specs.BoundedArray):
    low, high = float(spec.minimum.min()), float(spec.maximum.max())
    if np.isfinite(low) and np.isfinite(high) and high - low <= _MOST_SCALED:
      return low, high
  return (0.0, 255.0) if dtype == np.uint8 else None


def _is_one_of_many(spec: specs.Array) -> bool:
  return (
    isinstance(spec, specs.DiscreteArray) and spec.num_values > _MOST_ONE_HOT
  )


def _is_bounded_integer(spec: specs.Array) -> bool:
  return isinstance(spec, specs.BoundedArray) and np.issubdtype(
    spec.dtype, np.integer
  )


def _counts(spec: specs.BoundedArray) -> tuple[np.ndarray, np.ndarray]:
  """Returns each element's least value and number of values, flat, as int64."""
  low, high = (
    np.broadcast_to(bound, spec.shape).astype(np.int64).reshape(-1)
    for bound in (spec.minimum, spec.maximum)
  )
  return low, high - low + 1
