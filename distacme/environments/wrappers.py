"""Wrappers of dm_env environments: precision, scale, repeats, frames, limits.

A wrapper is a dm_env environment. Other attributes of the inner environment
(`render`, `physics`) are reached through the wrapper. Nests of observations and
actions stay nests, except in `ConcatObservation`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
import functools
import operator
from typing import Any

import dm_env
import numpy as np
import tree

from distacme import specs
from distacme import types
from distacme.environments import checks
from distacme.environments import leaves
from distacme.environments import precision


def wrap_all(
  environment: dm_env.Environment,
  wrappers: Iterable[Callable[[dm_env.Environment], dm_env.Environment]],
) -> dm_env.Environment:
  """Returns `environment` in all `wrappers`, the first innermost."""
  for wrapper in wrappers:
    environment = wrapper(environment)
  return environment


class Wrapper(dm_env.Environment):
  """Passes calls on; subclasses override `_timestep`, `_action` and specs."""

  def __init__(self, environment: Any):
    """Takes a dm_env environment, or an object with its methods."""
    self._environment = environment
    self._observation_spec = environment.observation_spec()
    self._action_spec = environment.action_spec()
    self._reward_spec = environment.reward_spec()
    self._discount_spec = environment.discount_spec()

  def __getattr__(self, name: str) -> Any:
    if name.startswith('_'):  # Copying and pickling ask before __init__.
      raise AttributeError(f'{type(self).__name__} has no attribute {name!r}.')
    return getattr(self._environment, name)

  def reset(self) -> dm_env.TimeStep:
    """Starts an episode."""
    return self._timestep(self._environment.reset())

  def step(self, action: types.NestedArray) -> dm_env.TimeStep:
    """Takes a step, or starts an episode if the last one is over."""
    return self._timestep(self._environment.step(self._action(action)))

  def observation_spec(self) -> types.NestedSpec:
    """Returns the observation spec."""
    return self._observation_spec

  def action_spec(self) -> types.NestedSpec:
    """Returns the action spec."""
    return self._action_spec

  def reward_spec(self) -> specs.Array:
    """Returns the reward spec."""
    return self._reward_spec

  def discount_spec(self) -> specs.BoundedArray:
    """Returns the discount spec."""
    return self._discount_spec

  def close(self) -> None:
    """Closes the environment."""
    self._environment.close()

  def _timestep(self, timestep: dm_env.TimeStep) -> dm_env.TimeStep:
    """Returns the timestep to return for the environment's `timestep`."""
    return timestep

  def _action(self, action: types.NestedArray) -> types.NestedArray:
    """Returns the environment's action for `action`."""
    return action


class SinglePrecision(Wrapper):
  """Narrows 64-bit floats and integers to 32 bits, in specs as well.

  A number that does not fit raises ValueError in the step that brings it. The
  environment gets actions in its own precision. Wraps vectors, too.
  """

  def __init__(self, environment: Any):
    """Takes a dm_env environment, or a `core.VectorEnvironment`.

    Raises:
      ValueError: if a spec has no 32-bit form.
    """
    super().__init__(environment)
    self._inner_action_spec = self._action_spec
    self._observation_spec = specs.in_32_bits(
      self._observation_spec, 'observation'
    )
    self._action_spec = specs.in_32_bits(
      self._action_spec, 'action', inwards=True
    )
    self._reward_spec = specs.in_32_bits(self._reward_spec, 'reward')
    self._discount_spec = specs.in_32_bits(self._discount_spec, 'discount')
    self._read_observation, self._read_reward, self._read_discount = (
      precision.nest_reader(spec, field)
      for spec, field in (
        (self._observation_spec, 'observation'),
        (self._reward_spec, 'reward'),
        (self._discount_spec, 'discount'),
      )
    )

  def _timestep(self, timestep: dm_env.TimeStep) -> dm_env.TimeStep:
    checks.check_timestep(timestep)
    step_type, reward, discount, observation = timestep
    return dm_env.TimeStep(
      step_type,
      None if reward is None else self._read_reward(reward),
      None if discount is None else self._read_discount(discount),
      self._read_observation(observation),
    )

  def _action(self, action: types.NestedArray) -> types.NestedArray:
    return leaves.apply(leaves.cast, self._inner_action_spec, action)


class ConcatObservation(Wrapper):
  """Joins a nest of observations into one float32 vector.

  Leaves follow each other in the order of the spec, each in C order. The name
  of the new spec lists leaves and sizes, like 'position[3], velocity[2]'.
  """

  def __init__(self, environment: dm_env.Environment):
    super().__init__(environment)
    entries = list(leaves.in_own_order(self._observation_spec))
    self._paths = [path for path, _ in entries]
    sizes = [int(np.prod(spec.shape)) for _, spec in entries]
    names = [
      f'{"/".join(map(str, path)) or spec.name}[{size}]'
      for (path, spec), size in zip(entries, sizes, strict=True)
    ]
    self._observation_spec = specs.Array(
      (sum(sizes),), np.float32, ', '.join(names)
    )

  def _timestep(self, timestep: dm_env.TimeStep) -> dm_env.TimeStep:
    entries = [
      np.ravel(functools.reduce(operator.getitem, path, timestep.observation))
      for path in self._paths
    ]
    vector = np.concatenate(entries).astype(np.float32, copy=False)
    return timestep._replace(observation=vector)


class CanonicalActions(Wrapper):
  """Takes actions in [-1, 1] and scales them to the environment's bounds.

  Clips actions outside of [-1, 1]. Discrete actions, and those without finite
  bounds, stay as they are.
  """

  def __init__(self, environment: dm_env.Environment):
    super().__init__(environment)
    self._inner_action_spec = self._action_spec
    self._action_spec = leaves.apply(leaves.canonical_spec, self._action_spec)

  def _action(self, action: types.NestedArray) -> types.NestedArray:
    return leaves.apply(
      leaves.scaled, self._inner_action_spec, self._action_spec, action
    )


class ActionRepeat(Wrapper):
  """Takes each action `num_repeats` times, or until the episode is over.

  The reward is the sum over the repeats, each reward times the discounts of the
  repeats before it. The discount is the product over the repeats, the
  observation that of the last one.
  """

  def __init__(self, environment: dm_env.Environment, num_repeats: int):
    super().__init__(environment)
    self._num_repeats = _at_least_one('num_repeats', num_repeats)
    spec = self._reward_spec
    if isinstance(spec, specs.BoundedArray):  # of 1 to num_repeats
      self._reward_spec = spec.replace(
        minimum=np.minimum(spec.minimum, num_repeats * spec.minimum),
        maximum=np.maximum(spec.maximum, num_repeats * spec.maximum),
      )

  def step(self, action: types.NestedArray) -> dm_env.TimeStep:
    """Takes a step of `num_repeats` steps."""
    timestep = self._environment.step(action)
    if timestep.first():
      return timestep
    reward, discount = timestep.reward, timestep.discount
    for _ in range(self._num_repeats - 1):
      if timestep.last():
        break
      timestep = self._environment.step(action)
      reward = reward + discount * timestep.reward
      discount = discount * timestep.discount
    return timestep._replace(reward=reward, discount=discount)


class FrameStack(Wrapper):
  """Stacks the last `num_frames` observations on a new last axis.

  The newest comes last. Zeros stand for observations before an episode's first.
  """

  def __init__(self, environment: dm_env.Environment, num_frames: int):
    super().__init__(environment)
    self._num_frames = _at_least_one('num_frames', num_frames)
    self._frames: list[types.NestedArray] = []
    self._observation_spec = leaves.apply(
      lambda spec: leaves.stacked_spec(spec, num_frames), self._observation_spec
    )

  def _timestep(self, timestep: dm_env.TimeStep) -> dm_env.TimeStep:
    # A copy: environments may reuse their arrays.
    frame = tree.map_structure(np.array, timestep.observation)
    if timestep.first():
      blank = tree.map_structure(np.zeros_like, frame)
      self._frames = [blank] * self._num_frames
    self._frames = [*self._frames[1:], frame]
    stacked = tree.map_structure(lambda *f: np.stack(f, -1), *self._frames)
    return timestep._replace(observation=stacked)


class ObservationActionReward(Wrapper):
  """Adds the last action and its reward to the observation.

  Observations become dicts with `observation`; `action`, a float32, one-hot if
  discrete; and `reward`. Action and reward are zero where an episode starts.
  """

  def __init__(self, environment: dm_env.Environment):
    super().__init__(environment)
    self._taken: types.NestedArray = None
    self._observation_spec = {
      'observation': self._observation_spec,
      'action': leaves.apply(leaves.floats_spec, self._action_spec),
      'reward': specs.Array(self._reward_spec.shape, np.float32, 'reward'),
    }

  def step(self, action: types.NestedArray) -> dm_env.TimeStep:
    """Takes a step, or starts an episode if the last one is over."""
    self._taken = leaves.apply(leaves.floats, self._action_spec, action)
    return super().step(action)

  def _timestep(self, timestep: dm_env.TimeStep) -> dm_env.TimeStep:
    spec = self._observation_spec
    taken, reward = self._taken, timestep.reward
    if timestep.first():
      taken = leaves.apply(leaves.zeros, spec['action'])
      reward = np.zeros(spec['reward'].shape)
    observation = {
      'observation': timestep.observation,
      'action': taken,
      'reward': np.asarray(reward, np.float32),
    }
    return timestep._replace(observation=observation)


class StepLimit(Wrapper):
  """Truncates episodes after `max_steps`: LAST, the discount unchanged."""

  def __init__(self, environment: dm_env.Environment, max_steps: int):
    super().__init__(environment)
    self._max_steps = _at_least_one('max_steps', max_steps)
    self._steps = max_steps  # The next step starts an episode.

  def step(self, action: types.NestedArray) -> dm_env.TimeStep:
    """Takes a step, or starts an episode if the last one is over."""
    if self._steps == self._max_steps:
      return self.reset()
    return super().step(action)

  def _timestep(self, timestep: dm_env.TimeStep) -> dm_env.TimeStep:
    self._steps = 0 if timestep.first() else self._steps + 1
    if self._steps == self._max_steps:
      return timestep._replace(step_type=dm_env.StepType.LAST)
    return timestep


def _at_least_one(name: str, value: int) -> int:
  if value < 1:
    raise ValueError(f'{name} must be at least 1, got {value}.')
  return value
