"""What default networks make of an observation: pictures, one-hot vectors, numbers.

The spec decides, once, when a network is made. Networks of a user's own get
observations as they are.
"""

from __future__ import annotations

import haiku as hk
import jax
import jax.numpy as jnp
import numpy as np

from distacme import specs
from distacme import types

_LEAST_SIDE = 5  # of a picture with channels, such as MinAtar's of 10 x 10
_LEAST_GREY_SIDE = (
  36  # without channels, where most arrays are tables of numbers
)
_MOST_ONE_HOT = 1_024  # features of a leaf's one-hot vectors together
_MOST_EMBEDDED = 1_000_000  # values of an embedding's table
_EMBEDDING_SIZE = 64
_MOST_SCALED = 2**16  # a wider range of integers is that of their type


def is_image(spec: types.NestedSpec) -> bool:
  """Says whether `spec` is of one picture, which goes through convolutions.

  That is an array of 2 to 4 axes, two of which, side by side, are longer than
  the others: height and width. The others are channels, such as colours and
  stacked frames, first or last: [H, W, C], [C, H, W], [H, W, C, frames] and so
  on. Its elements are bools, or numbers within finite bounds, or uint8.
  """
  return _sides(spec) is not None


def has_image(observations: types.NestedSpec) -> bool:
  """Says whether a nest of specs has one of a picture."""
  return any(is_image(spec) for spec in jax.tree.leaves(observations))


def image_size(spec: specs.Array) -> tuple[int, int]:
  """Returns the height and width of what `is_image`."""
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
  """Returns what is no picture, [B, ...], as float32 features [B, F].

  Each integer of few values becomes a one-hot vector, so that no order among
  them is assumed; one of many is looked up in a table that is learnt, by
  `hk.Embed`. Other bounded integers are scaled to [0, 1]; floats stay as they are.

  Raises:
    ValueError: if an integer has more values than a table may.
  """
  flat = leaf.reshape(leaf.shape[0], -1)
  if not _is_bounded_integer(spec):
    return flat.astype(jnp.float32)
  low, counts = _counts(spec)
  index = flat.astype(jnp.int32) - low.astype(np.int32)[None]
  if counts.sum() <= _MOST_ONE_HOT:
    columns = [
      jax.nn.one_hot(index[:, i], int(count)) for i, count in enumerate(counts)
    ]
    return jnp.concatenate(columns, axis=-1)
  if isinstance(spec, specs.DiscreteArray):
    if spec.num_values > _MOST_EMBEDDED:
      raise ValueError(
        f'the observation {spec.name or ""!r} has {spec.num_values} values, and '
        f'a default network learns something of at most {_MOST_EMBEDDED}. Wrap '
        'the environment to observe numbers or fewer values, or give a network '
        'of your own.'
      )
    return hk.Embed(spec.num_values, _EMBEDDING_SIZE)(index[:, 0])
  width = counts - 1
  if width.max() > _MOST_SCALED:
    return flat.astype(jnp.float32)
  return index / width.clip(1).astype(np.float32)[None]


def describe_flattened(observations: types.NestedSpec) -> str:
  """Says which leaves look like pictures and are taken as numbers; or ''."""
  leaves = [
    f'{leaf.name or "an observation"} ({np.dtype(leaf.dtype)} of shape '
    f'{leaf.shape})'
    for leaf in jax.tree.leaves(observations)
    if len(leaf.shape) > 1
    and np.prod(leaf.shape) >= _MOST_ONE_HOT
    and not is_image(leaf)
  ]
  if not leaves:
    return ''
  return (
    f'{" and ".join(leaves)} is taken as a list of numbers, without convolutions: '
    'a picture has height and width side by side, at least '
    f'{_LEAST_SIDE} long and longer than its channels, and bounds.'
  )


def _sides(spec: types.NestedSpec) -> int | None:
  """Returns the axis of a picture's height, before its width; else None."""
  if not isinstance(spec, specs.Array) or _range(spec) is None:
    return None
  shape = spec.shape
  if len(shape) == 2:
    return 0 if min(shape) >= _LEAST_GREY_SIDE else None
  if len(shape) not in (3, 4):
    return None
  for axis in range(len(shape) - 1):  # Where all are alike, channels come last.
    pair, others = shape[axis : axis + 2], shape[:axis] + shape[axis + 2 :]
    if min(pair) >= max(_LEAST_SIDE, *others):
      return axis
  return None


def _range(spec: specs.Array) -> tuple[float, float] | None:
  """Returns the least and the largest value of a picture's elements, if known."""
  dtype = np.dtype(spec.dtype)
  if dtype == np.bool_:
    return 0.0, 1.0
  if isinstance(spec, specs.BoundedArray):
    low, high = float(spec.minimum.min()), float(spec.maximum.max())
    if np.isfinite(low) and np.isfinite(high) and high - low <= _MOST_SCALED:
      return low, high
  return (0.0, 255.0) if dtype == np.uint8 else None


def _is_bounded_integer(spec: specs.Array) -> bool:
  return isinstance(spec, specs.BoundedArray) and np.issubdtype(
    spec.dtype, np.integer
  )


def _counts(spec: specs.BoundedArray) -> tuple[np.ndarray, np.ndarray]:
  """Returns each element's least value and how many it has, flat, as int64."""
  low, high = (
    np.broadcast_to(bound, spec.shape).astype(np.int64).reshape(-1)
    for bound in (spec.minimum, spec.maximum)
  )
  return low, high - low + 1
