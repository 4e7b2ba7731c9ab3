"""Gymnasium's environments, single and native vectors, as dm_env.

Terminated becomes LAST with discount 0, truncated LAST with discount 1; the
observation of LAST is the episode's last one. 64-bit numbers become 32-bit.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
import contextlib
import dataclasses
import importlib
import inspect
import os
import re
import sys
import traceback
from typing import Any, NamedTuple
import warnings

import dm_env
import numpy as np
import tree

from distacme import specs
from distacme import types
from distacme.environments import checks
from distacme.environments import headless
from distacme.environments import hints
from distacme.environments import options as options_lib
from distacme.environments import spaces

_FIRST, _MID, _LAST = dm_env.StepType
_PICTURES = 'rgb_array'
_ZERO, _ONE = np.float32(0.0), np.float32(1.0)

_FLAGS = (bool, np.bool_)
_STEP_LIMIT = 'max_episode_steps'
# What we decide ourselves when we call Gymnasium.
_OURS = (
  'id',
  'render_mode',
  'disable_env_checker',
  'num_envs',
  'vectorization_mode',
  'vector_kwargs',
  'wrappers',
)
_INTERFACE = (
  'reset(seed=None, options=None) must return (observation, info), and '
  'step(action) (observation, reward, terminated, truncated, info).'
)
# The names of modules whose code calls environments.
_CALLERS = (
  __name__,
  'gymnasium.core',
  'gymnasium.vector',
  'gymnasium.wrappers',
)

# A native vector of few CartPoles steps in 43 us, a row of a loop in 9 us.
_FEWEST_NATIVE_ROWS = 5


def make(text: str, seed: int, render: bool = False) -> SingleEnvironment:
  """Returns the environment that `gymnasium.make` makes of an id and options.

  Args:
    text: like 'FrozenLake-v1' or
      'FrozenLake-v1?is_slippery=false&max_episode_steps=50': after the question
      mark, arguments of the environment's constructor, and the steps after
      which an episode is truncated.
    seed: for the first reset.
    render: whether it gets a method `render`.

  Raises:
    ValueError: if there is no such environment or option, or a package is
      missing, or it has no pictures and `render` asks for them.
  """
  spec = _find_spec(text)
  import gymnasium

  # Gymnasium's checker is ours to do, and `SingleEnvironment` keeps the order
  # of calls: without their wrappers a step is faster.
  spec = dataclasses.replace(spec, order_enforce=False)
  with _failures_explained(text, spec):
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


def make_native_vector(text: str, seeds: Sequence[int]) -> NativeVector | None:
  """Returns the environment's own vector version, None if a loop is better.

  Its rows draw from one generator, seeded with the first of `seeds`.

  Raises:
    ValueError: as `make`.
  """
  spec = _find_spec(text)
  num_envs = len(seeds)
  if spec.vector_entry_point is None or num_envs < _FEWEST_NATIVE_ROWS:
    return None
  import gymnasium

  with _failures_explained(text, spec):
    if not _vector_takes(spec):
      return None
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


def old_interface(value: Any) -> str:
  """Says what to do with what is nearly a gymnasium.Env; '' if it is not.

  That is, an environment of the package gym, which gymnasium succeeded, or of
  none of them.
  """
  if any(
    base.__module__.partition('.')[0] == 'gym' for base in type(value).__mro__
  ):
    return (
      'It is an environment of gym, which gymnasium has replaced. Derive it '
      'from gymnasium.Env, or wrap it: '
      'shimmy.GymV21CompatibilityV0(env=environment), or '
      'GymV26CompatibilityV0 if its reset takes a seed (pip install '
      "'shimmy[gym-v21]' or 'shimmy[gym-v26]'). "
    )
  like = ('observation_space', 'action_space', 'reset', 'step')
  if all(hasattr(value, name) for name in like):
    return f'Derive it from gymnasium.Env: {_INTERFACE} '
  return ''


def _raise_if_old(error: Exception) -> None:
  """Raises ValueError if `error` is that of an environment's old interface.

  Only where the code that calls environments fails, Gymnasium's or ours: what
  goes wrong within an environment is its own.
  """
  if _raiser(error).startswith(_CALLERS) and re.search(
    r"unexpected keyword argument '(seed|options)'|values to unpack|cannot unpack",
    str(error),
  ):
    raise _old(str(error)) from error


def _raiser(error: Exception) -> str:
  """Returns the name of the module whose code raised `error`."""
  frames = [frame for frame, _ in traceback.walk_tb(error.__traceback__)]
  return str(frames[-1].f_globals.get('__name__'))


def _old(found: str) -> ValueError:
  return ValueError(
    'The environment has not the interface of a gymnasium.Env, but perhaps that '
    f'of the older gym ({found}): {_INTERFACE} Change it, or wrap it: '
    'shimmy.GymV21CompatibilityV0(env=environment) (pip install '
    "'shimmy[gym-v21]')."
  )


class _Adapter:
  """What the adapters of Env and VectorEnv share: specs and conversions."""

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
    try:
      answer = self._environment.reset(seed=self._seed)
    except (TypeError, ValueError) as error:
      _raise_if_old(error)
      raise
    # Two values may also be an observation of two numbers.
    if (
      not isinstance(answer, (tuple, list))
      or len(answer) != 2
      or not isinstance(answer[1], (dict, type(None)))
    ):
      raise _old(f'reset returned {answer!r:.200}')
    observation = answer[0]
    self._seed = None  # From now on the environment's generator runs on.
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
      _raise_if_old(error)
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
    try:
      observation, self._info = self._environment.reset(seed=self._seed)
    except (TypeError, ValueError) as error:
      _raise_if_old(error)
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
      _raise_if_old(error)
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


def _find_spec(text: str) -> Any:
  """Returns the EnvSpec of [module:]id[?options], with the options in it."""
  gymnasium_id, options = options_lib.split(text)
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
    spec = gymnasium.spec(registered_id)
  except (gymnasium.error.Error, ImportError) as error:
    raise ValueError(
      f"No environment is called 'gymnasium:{gymnasium_id}' ({error}) "
      f'{hints.did_you_mean(registered_id, gymnasium.registry)}'
      "Write the version too, as in 'gymnasium:CartPole-v1'; if a package of "
      'its own registers the environment, put its module in front, as in '
      "'gymnasium:package:Name-v0'."
    ) from error
  return _with_options(text, spec, options) if options else spec


def _with_options(text: str, spec: Any, options: dict[str, str]) -> Any:
  """Returns an EnvSpec with the options that stand in `text`."""
  with _failures_explained(text, spec):
    arguments = _arguments(spec.entry_point)
  name = f'gymnasium:{text}'
  kwargs = dict(spec.kwargs)
  max_episode_steps = spec.max_episode_steps
  for key, value in options.items():
    if key == _STEP_LIMIT:
      max_episode_steps = _step_limit(name, value)
    elif key in _OURS:
      raise ValueError(
        f'Environment {name!r}: {key} is for distacme to say. Leave it out.'
      )
    elif key not in arguments.defaults and not arguments.any:
      known = [*arguments.defaults, _STEP_LIMIT]
      raise ValueError(
        f'Environment {name!r}: there is no option {key!r}. '
        f'{hints.did_you_mean(key, known)}{_options_of(spec)}'
      )
    else:
      default = arguments.defaults.get(key)
      kwargs[key] = options_lib.value_like(name, key, value, default)
  return dataclasses.replace(
    spec, kwargs=kwargs, max_episode_steps=max_episode_steps
  )


def _step_limit(name: str, text: str) -> int | None:
  limit = options_lib.value_like(name, _STEP_LIMIT, text, None)
  if limit is not None and (type(limit) is not int or limit < 1):
    raise ValueError(
      f'Environment {name!r}: {_STEP_LIMIT} must be a whole number of at least '
      f'1, or none for no limit, got {text!r}.'
    )
  return limit


class _Arguments(NamedTuple):
  """What a constructor takes.

  Attributes:
    defaults: of its arguments by name; None of those without.
    any: whether it takes others, too.
  """

  defaults: dict[str, Any]
  any: bool


def _arguments(entry_point: Any) -> _Arguments:
  """Returns what an environment's constructor takes, but for what is ours."""
  from gymnasium.envs import registration

  creator = (
    entry_point
    if callable(entry_point)
    else registration.load_env_creator(entry_point)
  )
  # A class hands the arguments that it does not name to those it derives from.
  functions = [creator]
  if isinstance(creator, type):
    inits = (vars(base).get('__init__') for base in creator.__mro__)
    functions = [init for init in inits if init is not None]
  defaults: dict[str, Any] = {}
  for function in functions:
    parameters = inspect.signature(function).parameters.values()
    several = [
      p for p in parameters if p.kind in (p.VAR_KEYWORD, p.VAR_POSITIONAL)
    ]
    for parameter in parameters:
      default = parameter.default
      if parameter not in several and parameter.name not in ('self', *_OURS):
        default = None if default is parameter.empty else default
        defaults.setdefault(parameter.name, default)
    if all(p.kind is not p.VAR_KEYWORD for p in several):
      return _Arguments(defaults, False)
  return _Arguments(defaults, True)


def _options_of(spec: Any) -> str:
  """Says what may follow the name of an environment."""
  defaults = _arguments(spec.entry_point).defaults
  written = [
    f'{key}={str(value).lower() if not isinstance(value, str) else value}'
    for key, value in {**defaults, _STEP_LIMIT: spec.max_episode_steps}.items()
    if isinstance(value, (bool, int, float, str, type(None)))
  ]
  return f'Known options: {", ".join(written)}.'


def _vector_takes(spec: Any) -> bool:
  """Says whether the vector version can be told all that an EnvSpec says."""
  arguments = _arguments(spec.vector_entry_point)
  if spec.max_episode_steps is None and _STEP_LIMIT in arguments.defaults:
    return False  # It would have a limit of its own.
  return arguments.any or spec.kwargs.keys() <= arguments.defaults.keys()


@contextlib.contextmanager
def _failures_explained(text: str, spec: Any) -> Iterator[None]:
  """Turns what fails when an environment is made into a ValueError, if known."""
  import gymnasium

  name = f'gymnasium:{text}'
  try:
    yield
  except (gymnasium.error.DependencyNotInstalled, ImportError) as error:
    raise ValueError(
      f'Environment {name!r} needs a package that is not installed: {error}. '
      'Install it; those of gymnasium itself come with: '
      "pip install 'distacme[envs]'"
    ) from error
  except Exception as error:
    if isinstance(error, TypeError) and 'gymnasium.Env' in str(error):
      raise ValueError(
        f'Environment {name!r} is no gymnasium.Env ({error}) Derive it from '
        f'that: {_INTERFACE} Or wrap one of the older gym in '
        'shimmy.GymV21CompatibilityV0 (pip install '
        "'shimmy[gym-v21]')."
      ) from error
    if '?' not in text or _raiser(error) == __name__:
      raise
    raise ValueError(
      f'Environment {name!r} cannot be made with these options '
      f'({type(error).__name__}: {error}). {_options_of(spec)}'
    ) from error
