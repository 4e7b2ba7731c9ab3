"""Gymnasium's environments, single and native vectors, as dm_env.

Terminated becomes LAST with discount 0, truncated LAST with discount 1; the
observation of LAST is the episode's last one. 64-bit floats become 32-bit.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
import contextlib
import dataclasses
import importlib
import os
import sys
from typing import Any
import warnings

import dm_env
import numpy as np
import tree

from distacme import specs
from distacme import types
from distacme.environments import checks
from distacme.environments import headless
from distacme.environments import hints
from distacme.environments import spaces

_FIRST, _MID, _LAST = dm_env.StepType
_PICTURES = 'rgb_array'
_ZERO, _ONE = np.float32(0.0), np.float32(1.0)

# A native vector of few CartPoles steps in 43 us, a row of a loop in 9 us.
_FEWEST_NATIVE_ROWS = 5


def make(
  gymnasium_id: str, seed: int, render: bool = False
) -> SingleEnvironment:
  """Returns the environment that `gymnasium.make` calls `gymnasium_id`.

  Raises:
    ValueError: if there is no such environment, or a package is missing, or it
      has no pictures and `render` asks for them.
  """
  spec = _find_spec(gymnasium_id)
  import gymnasium

  # Gymnasium's checker is ours to do, and `SingleEnvironment` keeps the order
  # of calls: without their wrappers a step is faster.
  spec = dataclasses.replace(spec, order_enforce=False)
  with _missing_packages_named(gymnasium_id):
    if not render:
      environment = gymnasium.make(spec, disable_env_checker=True)
    else:
      environment = _make_with_pictures(spec)
  return SingleEnvironment(environment, seed)


def _make_with_pictures(spec: Any) -> Any:
  """Returns the environment of an EnvSpec, whose `render` gives an array."""
  import gymnasium

  if not {'DISPLAY', 'WAYLAND_DISPLAY'} & set(os.environ):
    # SDL, which draws some, would look for a display and complain.
    os.environ.setdefault('SDL_VIDEODRIVER', 'dummy')
  with warnings.catch_warnings():
    warnings.filterwarnings('ignore', '.*not in the possible render_modes')
    environment = gymnasium.make(
      spec, disable_env_checker=True, render_mode=_PICTURES
    )
  modes = environment.metadata.get('render_modes')
  if _PICTURES not in (modes or ()):
    raise ValueError(
      f"Environment 'gymnasium:{spec.id}' cannot be rendered: its render modes "
      f'are {modes}. Add {_PICTURES!r} to the render_modes of its metadata, and '
      'let render() return a uint8 array [height, width, 3] in that mode.'
    )
  environment.reset()
  # What drawing needs is imported with the first picture: see that it is there.
  if 'mujoco' in sys.modules:
    with headless.failures_explained(f'gymnasium:{spec.id}'):
      headless.choose_renderer(f'gymnasium:{spec.id}')
      environment.render()
  else:
    environment.render()
  return environment


def make_native_vector(
  gymnasium_id: str, seeds: Sequence[int]
) -> NativeVector | None:
  """Returns the environment's own vector version, None if a loop is better.

  Its rows draw from one generator, seeded with the first of `seeds`.

  Raises:
    ValueError: as `make`.
  """
  spec = _find_spec(gymnasium_id)
  num_envs = len(seeds)
  if spec.vector_entry_point is None or num_envs < _FEWEST_NATIVE_ROWS:
    return None
  import gymnasium

  with _missing_packages_named(gymnasium_id):
    environment = gymnasium.make_vec(
      spec, num_envs, vectorization_mode='vector_entry_point'
    )
  if _resets_at_next_step(environment) and _is_vector_of(environment, spec):
    return NativeVector(environment, seeds[0])
  environment.close()
  return None


def is_environment(value: Any) -> bool:
  """Says whether `value` is a gymnasium.Env, without importing gymnasium."""
  gymnasium = sys.modules.get('gymnasium')
  return gymnasium is not None and isinstance(value, gymnasium.Env)


def is_vector_environment(value: Any) -> bool:
  """Says whether `value` is a gymnasium VectorEnv, without importing it."""
  gymnasium = sys.modules.get('gymnasium')
  return gymnasium is not None and isinstance(value, gymnasium.vector.VectorEnv)


class _Adapter:
  """What the adapters of Env and VectorEnv share: specs and conversions."""

  def __init__(
    self, environment: Any, observation_space: Any, action_space: Any
  ):
    self._environment = environment
    self._observation_spec = spaces.spec(observation_space, 'observation')
    self._action_spec = spaces.spec(action_space, 'action')
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
  """A gymnasium.Env as dm_env.Environment.

  It has a method `render` if the Env was made to return pictures
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
    if environment.render_mode == _PICTURES:
      self.render = environment.render
      self.metadata = environment.metadata  # how many pictures make a second

  def reset(self) -> dm_env.TimeStep:
    """Starts an episode."""
    observation, _ = self._environment.reset(seed=self._seed)
    self._seed = None  # From now on the environment's generator runs on.
    self._over = False
    return dm_env.TimeStep(_FIRST, None, None, self._read(observation))

  def step(self, action: types.NestedArray) -> dm_env.TimeStep:
    """Takes a step, or starts an episode if the last one is over."""
    if self._over:
      return self.reset()
    observation, reward, terminated, truncated, _ = self._environment.step(
      self._write(action)
    )
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
  """A gymnasium VectorEnv as `core.VectorEnvironment`.

  The VectorEnv must reset a row in the step after its last one
  (`AutoresetMode.NEXT_STEP`), as our contract has it.
  """

  def __init__(self, environment: Any, seed: int | np.ndarray | None = None):
    """Takes a gymnasium VectorEnv, and the seed for its first reset.

    Some take one for each row, [N].

    Raises:
      ValueError: if the VectorEnv resets its rows at another time.
    """
    if not _resets_at_next_step(environment):
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
    self._info: dict[str, Any] = {}  # that came with the last step
    # [N] rows whose next step starts an episode; None before the first reset.
    self._over: np.ndarray | None = None

  def reset(self) -> dm_env.TimeStep:
    """Starts all rows anew."""
    observation, self._info = self._environment.reset(seed=self._seed)
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
    observation, reward, terminated, truncated, self._info = (
      self._environment.step(self._write(action))
    )
    over = terminated | truncated
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
    # In C order: rows are read one by one, and some environments make columns.
    return tree.map_structure(lambda a: np.array(a, order='C'), observation)


def _resets_at_next_step(environment: Any) -> bool:
  from gymnasium import vector

  mode = environment.metadata.get('autoreset_mode')
  return mode == vector.AutoresetMode.NEXT_STEP


def _is_vector_of(environment: Any, spec: Any) -> bool:
  """Says whether rows are what `make` makes: those of 'ALE/Pong-v5' are not."""
  import gymnasium

  single = gymnasium.make(spec, disable_env_checker=True)
  same: bool = (
    environment.single_observation_space == single.observation_space
    and environment.single_action_space == single.action_space
  )
  single.close()
  return same


def _find_spec(gymnasium_id: str) -> Any:
  """Returns the EnvSpec registered as `gymnasium_id`, [module:]id."""
  try:
    import gymnasium
  except ImportError as error:
    raise ValueError(
      f"Environment 'gymnasium:{gymnasium_id}' needs gymnasium, which cannot "
      f"be imported ({error}). Run: pip install 'distacme[envs]'"
    ) from error
  module, _, registered_id = gymnasium_id.rpartition(':')
  try:
    if module:  # Importing it registers its environments.
      importlib.import_module(module)
    return gymnasium.spec(registered_id)
  except (gymnasium.error.Error, ImportError) as error:
    raise ValueError(
      f"No environment is called 'gymnasium:{gymnasium_id}' ({error}) "
      f'{hints.did_you_mean(registered_id, gymnasium.registry)}'
      "Write the version too, as in 'gymnasium:CartPole-v1'; if a package of "
      'its own registers the environment, put its module in front, as in '
      "'gymnasium:package:Name-v0'."
    ) from error


@contextlib.contextmanager
def _missing_packages_named(gymnasium_id: str) -> Iterator[None]:
  """Turns a missing package into a ValueError that names the environment."""
  import gymnasium

  try:
    yield
  except (gymnasium.error.DependencyNotInstalled, ImportError) as error:
    raise ValueError(
      f"Environment 'gymnasium:{gymnasium_id}' needs a package that is not "
      f'installed: {error}. Install it; those of gymnasium itself come with: '
      "pip install 'distacme[envs]'"
    ) from error
