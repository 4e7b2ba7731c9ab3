"""What is put around a dm_env environment before an agent sees it.

Each is a dm_env environment itself; whatever else the inner one has (`render`,
`physics`) is reached through it. Nests of observations and actions stay nests,
but for `ConcatObservation`, which is there to join them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
import functools
import operator
from typing import Any

import dm_env
import numpy as np
import tree

from distacme import specs
from distacme import types
from distacme.environments import checks
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
  """Passes everything on; a wrapper overrides `_timestep`, `_action`, specs."""

  def __init__(self, environment: Any):
    """Takes a dm_env environment, or what has its methods."""
    self._environment = environment
    self._observation_spec = environment.observation_spec()
    self._action_spec = environment.action_spec()
    self._reward_spec = environment.reward_spec()
    self._discount_spec = environment.discount_spec()

  def __getattr__(self, name: str) -> Any:
    if name.startswith('_'):  # Copying and pickling look before __init__.
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
    """Returns what is seen of `timestep`."""
    return timestep

  def _action(self, action: types.NestedArray) -> types.NestedArray:
    """Returns the environment's action for `action`."""
    return action


class SinglePrecision(Wrapper):
  """64-bit floats and integers become 32-bit, in specs as well.

  Numbers that do not fit are refused where they come. Actions are given to the
  environment in its own precision. Takes vectors of environments, too.
  """

  def __init__(self, environment: Any):
    """Takes a dm_env environment, or a `core.VectorEnvironment`.

    Raises:
      ValueError: if specs are of what has no 32-bit form.
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
    return _map(_cast, self._inner_action_spec, action)


class ConcatObservation(Wrapper):
  """Joins a nest of observations into one float32 vector.

  Leaves follow each other in the order of the spec, each row by row. The name of
  the new spec tells them, like 'position[3], velocity[2]'.
  """

  def __init__(self, environment: dm_env.Environment):
    super().__init__(environment)
    leaves = list(_leaves(self._observation_spec))
    self._paths = [path for path, _ in leaves]
    sizes = [int(np.prod(spec.shape)) for _, spec in leaves]
    names = [
      f'{"/".join(map(str, path)) or spec.name}[{size}]'
      for (path, spec), size in zip(leaves, sizes, strict=True)
    ]
    self._observation_spec = specs.Array(
      (sum(sizes),), np.float32, ', '.join(names)
    )

  def _timestep(self, timestep: dm_env.TimeStep) -> dm_env.TimeStep:
    leaves = [
      np.ravel(functools.reduce(operator.getitem, path, timestep.observation))
      for path in self._paths
    ]
    vector = np.concatenate(leaves).astype(np.float32, copy=False)
    return timestep._replace(observation=vector)


class CanonicalActions(Wrapper):
  """Bounded continuous actions become actions in [-1, 1], scaled back here.

  What lies outside is clipped. Other actions, and those without finite bounds,
  stay as they are.
  """

  def __init__(self, environment: dm_env.Environment):
    super().__init__(environment)
    self._inner_action_spec = self._action_spec
    self._action_spec = _map(_canonical_spec, self._action_spec)

  def _action(self, action: types.NestedArray) -> types.NestedArray:
    return _map(_scaled, self._inner_action_spec, self._action_spec, action)


class ActionRepeat(Wrapper):
  """Takes each action `num_repeats` times, or until the episode is over.

  Rewards are summed, each times the discounts of the repeats before it, and
  discounts multiplied; the observation is the last one.
  """

  def __init__(self, environment: dm_env.Environment, num_repeats: int):
    super().__init__(environment)
    self._num_repeats = _at_least_one('num_repeats', num_repeats)
    spec = self._reward_spec
    if isinstance(spec, specs.BoundedArray):  # of a sum of 1 to so many
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
  """Observes the last `num_frames` observations, stacked on a new last axis.

  The newest comes last. Before an episode's first one there are zeros.
  """

  def __init__(self, environment: dm_env.Environment, num_frames: int):
    super().__init__(environment)
    self._num_frames = _at_least_one('num_frames', num_frames)
    self._frames: list[types.NestedArray] = []
    self._observation_spec = _map(
      lambda spec: _stacked_spec(spec, num_frames), self._observation_spec
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
  """Observes, beside the observation, what was done before and what it earned.

  Observations become dicts: `observation`; `action` as float32, one-hot if it is
  discrete; and `reward`. The last two are zero where an episode starts.
  """

  def __init__(self, environment: dm_env.Environment):
    super().__init__(environment)
    self._taken: types.NestedArray = None
    self._observation_spec = {
      'observation': self._observation_spec,
      'action': _map(_taken_spec, self._action_spec),
      'reward': specs.Array(self._reward_spec.shape, np.float32, 'reward'),
    }

  def step(self, action: types.NestedArray) -> dm_env.TimeStep:
    """Takes a step, or starts an episode if the last one is over."""
    self._taken = _map(_taken, self._action_spec, action)
    return super().step(action)

  def _timestep(self, timestep: dm_env.TimeStep) -> dm_env.TimeStep:
    spec = self._observation_spec
    taken, reward = self._taken, timestep.reward
    if timestep.first():
      taken = _map(_zeros, spec['action'])
      reward = np.zeros(spec['reward'].shape)
    observation = {
      'observation': timestep.observation,
      'action': taken,
      'reward': np.asarray(reward, np.float32),
    }
    return timestep._replace(observation=observation)


class StepLimit(Wrapper):
  """Truncates episodes after `max_steps`: LAST with the discount as it was."""

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


def _map(function: Callable[..., Any], spec: Any, *nests: Any) -> Any:
  """Returns function(leaf of spec, leaf of nest, ...) for the leaves of spec."""
  if isinstance(spec, specs.Array):  # Most are; walking costs microseconds.
    return function(spec, *nests)
  return tree.map_structure_up_to(spec, function, spec, *nests)


def _leaves(
  spec: types.NestedSpec, path: tuple[Any, ...] = ()
) -> Iterator[tuple[tuple[Any, ...], specs.Array]]:
  """Yields (path, spec) of each leaf; unlike `tree`, dicts in their own order."""
  if isinstance(spec, specs.Array):
    yield path, spec
  else:
    items = spec.items() if isinstance(spec, Mapping) else enumerate(spec)
    for key, inner in items:
      yield from _leaves(inner, (*path, key))


def _cast(spec: specs.Array, value: Any) -> np.ndarray:
  return np.asarray(value, spec.dtype)


def _canonical_spec(spec: specs.Array) -> specs.Array:
  if not specs.is_bounded(spec):
    return spec
  return spec.replace(minimum=-1.0, maximum=1.0)


def _scaled(spec: specs.Array, canonical: specs.Array, action: Any) -> Any:
  if spec is canonical:  # It is not bounded.
    return action
  share = (np.clip(action, -1.0, 1.0) + 1.0) / 2.0
  # float64, as float16 itself holds no distance above 65504.
  range_ = np.subtract(spec.maximum, spec.minimum, dtype=np.float64)
  scaled = spec.minimum + share * range_
  # Rounding must not carry it over its bounds.
  return np.clip(scaled, spec.minimum, spec.maximum).astype(spec.dtype)


def _taken_spec(spec: specs.Array) -> specs.Array:
  discrete = isinstance(spec, specs.DiscreteArray)
  shape = (spec.num_values,) if discrete else spec.shape
  return specs.Array(shape, np.float32, spec.name)


def _taken(spec: specs.Array, action: np.ndarray) -> np.ndarray:
  if isinstance(spec, specs.DiscreteArray):
    return np.eye(spec.num_values, dtype=np.float32)[action]
  return np.asarray(action, np.float32)


def _zeros(spec: specs.Array) -> np.ndarray:
  return np.zeros(spec.shape, spec.dtype)


def _stacked_spec(spec: specs.Array, num_frames: int) -> specs.FrameStack:
  bounds = []
  for bound in _bounds(spec):
    bound = np.asarray(bound)
    # Bounds of each element get the axis too; bounds of all broadcast.
    bounds.append(bound[..., np.newaxis] if bound.ndim else bound)
  return specs.FrameStack(
    (*spec.shape, num_frames),
    spec.dtype,
    np.minimum(bounds[0], spec.dtype.type(0)),  # of blank frames
    np.maximum(bounds[1], spec.dtype.type(0)),
    spec.name,
  )


def _bounds(spec: specs.Array) -> tuple[Any, Any]:
  """Returns the least and the greatest that a spec allows."""
  if isinstance(spec, specs.BoundedArray):
    return spec.minimum, spec.maximum
  if spec.dtype == np.bool_:
    return False, True
  if np.issubdtype(spec.dtype, np.integer):
    info = np.iinfo(spec.dtype)
    return info.min, info.max
  return -np.inf, np.inf


def _at_least_one(name: str, value: int) -> int:
  if value < 1:
    raise ValueError(f'{name} must be at least 1, got {value}.')
  return value
