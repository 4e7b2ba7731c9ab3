"""Steps several environments as one vector, and one row as an environment."""

from __future__ import annotations

from collections.abc import Sequence
import functools
from typing import Any

import dm_env
import numpy as np
import tree

from distacme import core
from distacme import specs
from distacme import types
from distacme.environments import checks
from distacme.environments import simulators
from distacme.environments import wrappers


class LoopVector:
  """Steps single environments in a loop; a `core.VectorEnvironment`.

  Copies all results, so environments may reuse their arrays. Observations keep
  their dtype, in this machine's byte order. Rewards and discounts become
  float32, also in the specs.
  """

  def __init__(self, environments: Sequence[dm_env.Environment]):
    """Takes environments that have the same specs, one for each row."""
    self.num_envs = len(environments)
    self._environments = tuple(environments)
    first = self._environments[0]
    self._observation_spec = first.observation_spec()
    self._action_spec = first.action_spec()
    self._reward_spec = first.reward_spec().replace(dtype=np.float32)
    self._discount_spec = first.discount_spec().replace(dtype=np.float32)
    # Most specs are a single array; walking a nest costs microseconds.
    self._observation_is_nest = tree.is_nested(self._observation_spec)
    self._action_is_nest = tree.is_nested(self._action_spec)

  @functools.cached_property
  def simulators(self) -> tuple[core.Simulator, ...]:
    """Returns each row as a simulator, which steps that very row.

    Raises:
      ValueError: if an environment cannot be saved; see `simulators`.
    """
    return tuple(simulators.as_simulator(e) for e in self._environments)

  def reset(self) -> dm_env.TimeStep:
    """Starts all rows anew."""
    return self._batch([e.reset() for e in self._environments])

  def step(self, action: types.NestedArray) -> dm_env.TimeStep:
    """Steps every row with `action`, a nest of [N, ...]."""
    rows = self._unnest(action) if self._action_is_nest else action
    if len(rows) != self.num_envs:
      raise ValueError(
        f'{len(rows)} actions came for {self.num_envs} environments; give one '
        'for each.'
      )
    return self._batch(
      [
        environment.step(row)
        # Not strict: numpy takes 1 us to find the end of its rows.
        for environment, row in zip(self._environments, rows, strict=False)
      ]
    )

  def observation_spec(self) -> types.NestedSpec:
    """Returns the observation spec of a row."""
    return self._observation_spec

  def action_spec(self) -> types.NestedSpec:
    """Returns the action spec of a row."""
    return self._action_spec

  def reward_spec(self) -> specs.Array:
    """Returns the reward spec of a row."""
    return self._reward_spec

  def discount_spec(self) -> specs.BoundedArray:
    """Returns the discount spec of a row."""
    return self._discount_spec

  def close(self) -> None:
    """Closes all environments."""
    for environment in self._environments:
      environment.close()

  def _batch(self, timesteps: Sequence[dm_env.TimeStep]) -> dm_env.TimeStep:
    """Returns one timestep of arrays [N, ...]."""
    try:
      step_types, rewards, discounts, observations = zip(
        *timesteps, strict=False
      )
    except (TypeError, ValueError):
      for timestep in timesteps:
        checks.check_timestep(timestep)
      raise
    if not all(step_types):  # FIRST is 0; its reward and discount are None.
      rewards, discounts = zip(
        *[(r, d) if s else (0.0, 1.0) for s, r, d, _ in timesteps],
        strict=True,
      )
    try:
      return dm_env.TimeStep(
        np.array(step_types, np.int8),
        np.array(rewards, np.float32),
        np.array(discounts, np.float32),
        self._nest(observations)
        if self._observation_is_nest
        else _stacked(observations),
      )
    except (TypeError, ValueError):  # Name the field to blame, if any.
      for step_type, reward, discount, observation in zip(
        step_types, rewards, discounts, observations, strict=True
      ):
        checks.check_number('step_type', step_type)
        checks.check_number('reward', reward)
        checks.check_number('discount', discount)
        checks.check_row('observation', self._observation_spec, observation)
      raise

  def _nest(
    self, observations: Sequence[types.NestedArray]
  ) -> types.NestedArray:
    """Returns a nest of [N, ...] from N nests of [...]."""
    spec = self._observation_spec
    rows = [checks.flatten('observation', spec, o) for o in observations]
    leaves = [_stacked(leaf) for leaf in zip(*rows, strict=True)]
    return tree.unflatten_as(spec, leaves)

  def _unnest(self, action: types.NestedArray) -> list[types.NestedArray]:
    """Returns N nests of [...] from a nest of [N, ...]."""
    leaves = checks.flatten('action', self._action_spec, action)
    rows = zip(*leaves, strict=True)
    return [tree.unflatten_as(self._action_spec, row) for row in rows]


class DrawnRows(LoopVector):
  """A loop that can be filmed: `render` draws its first environment."""

  def __init__(self, environments: Sequence[Any]):
    """Takes environments, the first with a method `render`."""
    super().__init__(environments)
    self._drawn = environments[0]

  def __getattr__(self, name: str) -> Any:
    """Returns an attribute of the first: `render`, and how fast it is."""
    # Copying and pickling ask before __init__, and a search asks for a model.
    if name not in ('render', 'metadata', 'control_timestep'):
      raise AttributeError(f'{type(self).__name__} has no attribute {name!r}.')
    return getattr(self._drawn, name)


def _stacked(rows: Sequence[Any]) -> np.ndarray:
  """Returns a new array [N, ...], in this machine's byte order."""
  array = np.array(rows)
  if array.dtype.isnative:
    return array
  return array.astype(array.dtype.newbyteorder('='))


class VectorWrapper(wrappers.Wrapper):
  """Passes the calls of a vector on; subclasses override `_timestep` and more.

  Around a `core.ModelEnvironment` it is one, too.
  """

  def __init__(self, environment: core.VectorEnvironment):
    """Takes the vector."""
    super().__init__(environment)
    self.num_envs = environment.num_envs
    self._has_model = isinstance(environment, core.ModelEnvironment)
    self._follow()

  def reset(self) -> dm_env.TimeStep:
    """Starts all rows anew."""
    timestep = super().reset()
    self._follow()
    return timestep

  def step(self, action: types.NestedArray) -> dm_env.TimeStep:
    """Steps every row."""
    timestep = super().step(action)
    self._follow()
    return timestep

  def _follow(self) -> None:
    # Attributes of the object: from Python 3.12 on, `isinstance` of a protocol
    # does not see those that `__getattr__` finds.
    if self._has_model:
      self.model = self._environment.model
      self.state = self._environment.state


class SingleRow(wrappers.Wrapper):
  """Turns a vector of one row into a dm_env.Environment."""

  @property
  def vector(self) -> core.VectorEnvironment:
    """The vector of one row."""
    vector: core.VectorEnvironment = self._environment
    return vector

  def _timestep(self, timestep: dm_env.TimeStep) -> dm_env.TimeStep:
    return _first_row(timestep)

  def _action(self, action: types.NestedArray) -> types.NestedArray:
    return tree.map_structure(lambda leaf: np.asarray(leaf)[None], action)


def _first_row(timestep: dm_env.TimeStep) -> dm_env.TimeStep:
  """Returns row 0; as in dm_env, FIRST has no reward and no discount."""
  observation = tree.map_structure(lambda a: a[0], timestep.observation)
  if timestep.step_type[0] == types.FIRST:
    return dm_env.restart(observation)
  return dm_env.TimeStep(
    dm_env.StepType(timestep.step_type[0]),
    timestep.reward[0],
    timestep.discount[0],
    observation,
  )
