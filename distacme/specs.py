"""What an environment promises: shapes, dtypes and bounds, as dm_env specs."""

from __future__ import annotations

from typing import Any, NamedTuple

from dm_env import specs

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
