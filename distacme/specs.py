"""Specs of environments: shapes, dtypes and bounds, narrowed to 32 bits."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from dm_env import specs
import numpy as np
import tree

from distacme import types

Array = specs.Array
BoundedArray = specs.BoundedArray
DiscreteArray = specs.DiscreteArray


class FrameStack(specs.BoundedArray):
  """Specifies an observation of the last frames, stacked on the last axis.

  An observation is the previous observation without the oldest frame, the first,
  and with a new frame at the end. Zeros stand for frames before an episode's
  first. So replay can store each frame once.
  """

  def __reduce__(self) -> Any:
    """Pickles it as what it is, and not as dm_env's array."""
    return type(self), super().__reduce__()[1]


def is_bounded(spec: types.NestedSpec) -> bool:
  """Returns whether `spec` is of one array of floats with finite bounds."""
  if not isinstance(spec, specs.BoundedArray):
    return False
  if not np.issubdtype(spec.dtype, np.floating) or 0 in spec.shape:
    return False
  with np.errstate(over='ignore', invalid='ignore'):
    # Bounds at the ends of a float type mean no bounds; in float32 the distance
    # between such bounds is infinite. float64: float16 holds none above 65504.
    range_ = np.subtract(spec.maximum, spec.minimum, dtype=np.float64)
    return bool(np.isfinite(np.float32(range_)).all())


def narrowed(
  spec: specs.BoundedArray, dtype: Any
) -> tuple[np.ndarray, np.ndarray]:
  """Returns the bounds of `spec` in a float type, rounded inwards.

  The float32 nearest to 0.3 is larger than 0.3, and an environment may refuse an
  action beyond its own bounds by that much. If no number of `dtype` lies between
  the bounds, returns the nearest numbers around the bounds.
  """
  with np.errstate(over='ignore'):  # The largest float64 becomes infinity.
    low, high = (b.astype(dtype) for b in (spec.minimum, spec.maximum))
  too_low = np.isfinite(low) & (low < spec.minimum)
  too_high = np.isfinite(high) & (high > spec.maximum)
  inner_low = np.where(too_low, np.nextafter(low, high), low)
  inner_high = np.where(too_high, np.nextafter(high, low), high)
  return np.minimum(inner_low, inner_high), np.maximum(inner_low, inner_high)


def in_32_bits(
  spec: types.NestedSpec, field: str, inwards: bool = False
) -> types.NestedSpec:
  """Returns specs with the numbers of JAX: native, of at most 32 bits.

  An unbounded 64-bit integer gets the bounds of the 32-bit type. A bound beyond
  float32 becomes infinite.

  Args:
    spec: a nest.
    field: name of the nest in messages, e.g. 'observation'.
    inwards: whether to round bounds of floats inwards, as actions need it.

  Raises:
    ValueError: if there is no leaf, or a leaf is no spec, no real number, or of
      integers that need more than 32 bits; the message names the leaf.
  """
  leaves = [
    _leaf_in_32_bits(leaf, name, inwards)
    for name, leaf in named_leaves(field, spec)
  ]
  if not leaves:
    raise ValueError(
      f'The {field} spec must be of one array at least, got {spec!r}. Let the '
      'environment have one, if only of a constant.'
    )
  return tree.unflatten_as(spec, leaves)


def named_leaves(field: str, nest: Any) -> Iterator[tuple[str, Any]]:
  """Yields each leaf with a unique name, e.g. "observation['a'][0]"."""
  for path, leaf in tree.flatten_with_path(nest):
    yield field + ''.join(f'[{key!r}]' for key in path), leaf


def _leaf_in_32_bits(spec: Any, name: str, inwards: bool) -> specs.Array:
  if not isinstance(spec, specs.Array):
    raise ValueError(
      f'The spec of {name} must be a dm_env.specs.Array, BoundedArray or '
      f'DiscreteArray, or dicts and tuples of these, got {spec!r}. Return one '
      'from the environment.'
    )
  kind = spec.dtype.kind
  if kind == 'c':
    raise ValueError(
      f'{name} is {spec.dtype}, and networks take real numbers. Let the '
      'environment give real and imaginary parts as floats.'
    )
  if kind in 'OSUMm' or issubclass(spec.dtype.type, np.void):
    raise ValueError(
      f'{name} is {spec.dtype} ({type(spec).__name__}), not a number. Let the '
      'environment give floats, integers or booleans, as a number for each word.'
    )
  native = spec.dtype.newbyteorder('=')
  if kind in 'iu' and native.itemsize > 4:
    return _integers_in_32_bits(spec, name)
  dtype = (
    np.dtype(np.float32) if kind == 'f' and native.itemsize > 4 else native
  )
  if dtype == spec.dtype:
    return spec
  if inwards and kind == 'f' and isinstance(spec, specs.BoundedArray):
    low, high = narrowed(spec, dtype)
    return spec.replace(dtype=dtype, minimum=low, maximum=high)
  with np.errstate(over='ignore'):  # The largest float64 becomes infinity.
    return spec.replace(dtype=dtype)


def _integers_in_32_bits(spec: specs.Array, name: str) -> specs.Array:
  signed = spec.dtype.kind == 'i'
  if not isinstance(spec, specs.BoundedArray):
    return spec.replace(dtype=np.int32 if signed else np.uint32)
  wide = np.iinfo(spec.dtype)
  for dtype in (np.int32, np.uint32) if signed else (np.uint32,):
    narrow = np.iinfo(dtype)
    low, high = spec.minimum, spec.maximum
    if signed and narrow.min < 0:
      low = np.where(low == wide.min, narrow.min, low)
    high = np.where(high == wide.max, narrow.max, high)
    if (low >= narrow.min).all() and (high <= narrow.max).all():
      if isinstance(spec, specs.DiscreteArray):
        return spec.replace(dtype=dtype)
      return spec.replace(dtype=dtype, minimum=low, maximum=high)
  raise ValueError(
    f'{name} is {spec.dtype} in [{np.min(spec.minimum)}, '
    f'{np.max(spec.maximum)}], and JAX computes with 32-bit integers. Give it '
    f'bounds within those of int32 or uint32 if its values are, or let the '
    'environment scale it or give it as a float32.'
  )


def check_number(spec: Any, field: str) -> None:
  """Raises ValueError unless `spec` is of a single number."""
  if (
    not isinstance(spec, specs.Array)
    or spec.shape
    or spec.dtype.kind not in ('biuf')
  ):
    raise ValueError(
      f'The environment must have a {field} that is one number, '
      f'dm_env.specs.Array((), np.float32), got the {field} spec {spec!r}. Put '
      'a wrapper around the environment (distacme.environments.wrappers.Wrapper)'
      f' that makes one number of it, as a weighted sum.'
    )


class EnvironmentSpec(NamedTuple):
  """The specs of one environment, without a batch axis."""

  observations: types.NestedSpec
  actions: types.NestedSpec
  rewards: specs.Array
  discounts: specs.BoundedArray


def make_environment_spec(environment: Any) -> EnvironmentSpec:
  """Returns the specs of a dm_env environment or of a vector of them.

  Specs of observations and actions are those that agents see, `in_32_bits`.

  Raises:
    ValueError: if observations or actions have no 32-bit form, or reward or
      discount is not one number.
  """
  rewards, discounts = environment.reward_spec(), environment.discount_spec()
  check_number(rewards, 'reward')
  check_number(discounts, 'discount')
  return EnvironmentSpec(
    in_32_bits(environment.observation_spec(), 'observation'),
    in_32_bits(environment.action_spec(), 'action', inwards=True),
    rewards,
    discounts,
  )


# Name of a leaf in a dict of observations: bool [num_actions], True for actions that
# may be chosen now.
LEGAL_ACTIONS = 'legal_actions'


def has_legal_actions(observations: types.NestedSpec) -> bool:
  """Returns whether not all actions are legal in all states (`LEGAL_ACTIONS`)."""
  return isinstance(observations, Mapping) and LEGAL_ACTIONS in observations


def has_two_players(spec: EnvironmentSpec) -> bool:
  """Returns whether two players move in turn: discounts may be as low as -1."""
  discounts = spec.discounts
  if not isinstance(discounts, specs.BoundedArray):
    return False
  return bool(-1.0 <= np.min(discounts.minimum) < 0.0)
