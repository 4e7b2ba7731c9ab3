"""What an environment promises: shapes, dtypes and bounds, as dm_env specs."""

from __future__ import annotations

from typing import Any, NamedTuple

from dm_env import specs
import numpy as np

from distacme import types

Array = specs.Array
BoundedArray = specs.BoundedArray
DiscreteArray = specs.DiscreteArray


class FrameStack(specs.BoundedArray):
  """The spec of an observation that is its last frames, stacked on the last axis.

  It promises that each observation is the one before without its oldest frame,
  which comes first, and with a new one; before an episode's first frame there
  are zeros. So replay can keep each frame once.
  """


def is_bounded(spec: types.NestedSpec) -> bool:
  """Says whether `spec` is of one array of some floats with finite bounds."""
  if not isinstance(spec, specs.BoundedArray):
    return False
  if not np.issubdtype(spec.dtype, np.floating) or 0 in spec.shape:
    return False
  with np.errstate(over='ignore', invalid='ignore'):
    # Bounds as far apart as floats reach are finite, and mean that there are none.
    # float64, as float16 itself holds no distance above 65504.
    range_ = np.subtract(spec.maximum, spec.minimum, dtype=np.float64)
    return bool(np.isfinite(np.float32(range_)).all())


def narrowed(
  spec: specs.BoundedArray, dtype: Any
) -> tuple[np.ndarray, np.ndarray]:
  """Returns the bounds of `spec` in a float type, none further out than it was.

  The float32 nearest to 0.3 is more than that, and an environment may refuse
  actions that are out of its own bounds by so little. Where no number of `dtype`
  lies between the bounds, they are those around.
  """
  with np.errstate(over='ignore'):  # The largest float64 becomes infinity.
    low, high = (b.astype(dtype) for b in (spec.minimum, spec.maximum))
  too_low = np.isfinite(low) & (low < spec.minimum)
  too_high = np.isfinite(high) & (high > spec.maximum)
  inner_low = np.where(too_low, np.nextafter(low, high), low)
  inner_high = np.where(too_high, np.nextafter(high, low), high)
  return np.minimum(inner_low, inner_high), np.maximum(inner_low, inner_high)


class EnvironmentSpec(NamedTuple):
  """Specs of one environment, without any batch axis."""

  observations: types.NestedSpec
  actions: types.NestedSpec
  rewards: specs.Array
  discounts: specs.BoundedArray


def make_environment_spec(environment: Any) -> EnvironmentSpec:
  """Returns the specs of a dm_env environment or of a vector of them."""
  return EnvironmentSpec(
    observations=environment.observation_spec(),
    actions=environment.action_spec(),
    rewards=environment.reward_spec(),
    discounts=environment.discount_spec(),
  )
