"""Adapts a gymnasium Env to dm_env, and a VectorEnv to `core`.

A terminated episode ends in LAST with discount 0, a truncated one in LAST with
discount 1; the observation of LAST is the episode's last one. 64-bit numbers
become 32-bit.
"""

from __future__ import annotations

from typing import Any

import dm_env
import numpy as np
import tree

from distacme import specs
from distacme import types
from distacme.environments import checks
from distacme.environments import gymnasium_interface
from distacme.environments import spaces

PICTURES = 'rgb_array'  # the render mode of an Env that returns pictures

_FIRST, _MID, _LAST = dm_env.StepType
_ZERO, _ONE = np.float32(0.0), np.float32(1.0)
_FLAGS = (bool, np.bool_)


class _Adapter:
  """Holds specs and conversions for the adapters of Env and VectorEnv."""

  def __init__(
    self, environment: Any, observation_space: Any, action_space: Any
  ):
    self._environment = environment
    self._observation_spec = spaces.spec(observation_space, 'observation')
    self._action_spec = spaces.spec(action_space, 'action', inwards=True)
    self._read = spaces.conversion(
      spaces.reader, observation_space, 'observation'
    )

  def observation_spec(self) -> types.NestedSpec:
    """Returns the observation space as specs."""
    return self._observation_spec

  def action_spec(self) -> types.NestedSpec:
    """Returns the action space as specs."""
    return self._action_spec

  def reward_spec(self) -> specs.Array:
    """Returns the spec of a float32."""
    return specs.Array((), np.float32, name='reward')

  def discount_spec(self) -> specs.BoundedArray:
    """Returns the spec of a float32 in [0, 1]."""
    return specs.BoundedArray((), np.float32, 0.0, 1.0, name='discount')

  def close(self) -> None:
    """Closes the gymnasium environment."""
    self._environment.close()


class SingleEnvironment(_Adapter, dm_env.Environment):
  """Adapts a gymnasium.Env to dm_env.Environment.

  The adapter has a method `render` if the Env was made to return pictures
  (render_mode='rgb_array').
  """

  def __init__(self, environment: Any, seed: int | None = None):
    """Takes a gymnasium.Env, and the seed for its first reset."""
    super().__init__(
      environment, environment.observation_space, environment.action_space
    )
    self._write = spaces.conversion(
      spaces.writer, environment.action_space, 'action'
    )
    self._seed = seed
    self._over = True  # The next step starts an episode.
    if environment.render_mode == PICTURES:
      self.render = environment.render
      self.metadata = environment.metadata  # holds pictures per second

  def reset(self) -> dm_env.TimeStep:
    """Starts an episode."""
    try:
      answer = self._environment.reset(seed=self._seed)
    except (TypeError, ValueError) as error:
      gymnasium_interface.raise_if_old(error)
      raise
    # Two values may also be an observation of two numbers.
    if (
      not isinstance(answer, (tuple, list))
      or len(answer) != 2
      or not isinstance(answer[1], (dict, type(None)))
    ):
      raise gymnasium_interface.old_interface_error(
        f'reset returned {answer!r:.200}'
      )
    observation = answer[0]
    self._seed = None  # Later episodes continue the environment's generator.
    self._over = False
    return dm_env.TimeStep(_FIRST, None, None, self._read(observation))

  def step(self, action: types.NestedArray) -> dm_env.TimeStep:
    """Takes a step, or starts an episode if the last one is over."""
    if self._over:
      return self.reset()
    action = self._write(action)
    try:
      observation, reward, terminated, truncated, _ = self._environment.step(
        action
      )
    except (TypeError, ValueError) as error:
      gymnasium_interface.raise_if_old(error)
      raise
    if type(terminated) not in _FLAGS or type(truncated) not in _FLAGS:
      checks.check_flag('terminated', terminated)
      checks.check_flag('truncated', truncated)
      terminated, truncated = bool(terminated), bool(truncated)
    self._over = terminated or truncated
    try:
      reward = np.float32(reward)
    except (TypeError, ValueError):
      checks.check_number('reward', reward)
      raise
    return dm_env.TimeStep(
      _LAST if self._over else _MID,
      reward,
      _ZERO if terminated else _ONE,
      self._read(observation),
    )


class NativeVector(_Adapter):
  """Adapts a gymnasium VectorEnv to `core.VectorEnvironment`.

  The VectorEnv must reset a row in the step after the row's last one
  (`AutoresetMode.NEXT_STEP`), as `core.VectorEnvironment` does.
  """

  def __init__(self, environment: Any, seed: int | np.ndarray | None = None):
    """Takes a gymnasium VectorEnv, and the seed for its first reset.

    Some VectorEnvs take an array of seeds [N], one for each row.

    Raises:
      ValueError: if the VectorEnv resets its rows at another time.
    """
    if not resets_at_next_step(environment):
      raise ValueError(
        f'{environment} has the autoreset mode '
        f'{environment.metadata.get("autoreset_mode")}, which is not that of '
        'dm_env. Make it with gymnasium.vector.AutoresetMode.NEXT_STEP.'
      )
    super().__init__(
      environment,
      environment.single_observation_space,
      environment.single_action_space,
    )
    self._write = spaces.conversion(
      spaces.batch_writer, environment.single_action_space, 'action'
    )
    self.num_envs = environment.num_envs
    self._seed = seed
    self._info: dict[str, Any] = {}  # of the last step
    # [N] rows whose next step starts an episode; None before the first reset.
    self._over: np.ndarray | None = None

  def reset(self) -> dm_env.TimeStep:
    """Starts all rows anew."""
    try:
      observation, self._info = self._environment.reset(seed=self._seed)
    except (TypeError, ValueError) as error:
      gymnasium_interface.raise_if_old(error)
      raise
    self._seed = None
    self._over = np.zeros(self.num_envs, np.bool_)
    return dm_env.TimeStep(
      np.full(self.num_envs, types.FIRST),
      np.zeros(self.num_envs, np.float32),
      np.ones(self.num_envs, np.float32),
      self._copied(self._read(observation)),
    )

  def step(self, action: types.NestedArray) -> dm_env.TimeStep:
    """Steps every row with `action`, a nest of [N, ...]."""
    if self._over is None:
      return self.reset()
    action = self._write(action)
    try:
      observation, reward, terminated, truncated, self._info = (
        self._environment.step(action)
      )
    except (TypeError, ValueError) as error:
      gymnasium_interface.raise_if_old(error)
      raise
    try:
      over = terminated | truncated
    except TypeError:
      checks.check_flags('terminated', terminated, self.num_envs)
      checks.check_flags('truncated', truncated, self.num_envs)
      raise
    step_type = np.where(over, types.LAST, types.MID)
    step_type[self._over] = types.FIRST
    self._over = over
    return dm_env.TimeStep(
      step_type,
      np.array(reward, np.float32),
      np.subtract(_ONE, terminated),
      self._copied(self._read(observation)),
    )

  def _copied(self, observation: types.NestedArray) -> types.NestedArray:
    """Returns a copy in C order: rows are read, and may come as columns."""
    return tree.map_structure(lambda a: np.array(a, order='C'), observation)


def resets_at_next_step(environment: Any) -> bool:
  """Returns whether a VectorEnv resets a row in the step after its last one."""
  from gymnasium import vector

  mode = environment.metadata.get('autoreset_mode')
  return mode == vector.AutoresetMode.NEXT_STEP
