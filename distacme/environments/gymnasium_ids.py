"""Finds the EnvSpec of a gymnasium id, with the options of a name in it.

The part of a name after 'gymnasium:' is [module:]id[?options]. Options are
arguments of the environment's constructor, and `max_episode_steps`.
"""

from __future__ import annotations

from collections.abc import Iterator
import contextlib
import dataclasses
import importlib
import inspect
from typing import Any, NamedTuple

from distacme.environments import gymnasium_interface
from distacme.environments import hints
from distacme.environments import name_options

_STEP_LIMIT = 'max_episode_steps'
# Arguments that distacme sets in its calls of Gymnasium.
_OURS = (
  'id',
  'render_mode',
  'disable_env_checker',
  'num_envs',
  'vectorization_mode',
  'vector_kwargs',
  'wrappers',
)


def find_spec(text: str) -> Any:
  """Returns the EnvSpec of [module:]id[?options], with the options in it.

  Raises:
    ValueError: if gymnasium is missing, or there is no such id or option.
  """
  gymnasium_id, options = name_options.split(text)
  try:
    import gymnasium
  except ImportError as error:
    raise ValueError(
      f"Environment 'gymnasium:{gymnasium_id}' needs gymnasium, which cannot "
      f"be imported ({error}). Run: pip install 'distacme[envs]'"
    ) from error
  module, _, registered_id = gymnasium_id.rpartition(':')
  try:
    if module:  # Importing the module registers its environments.
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


def vector_takes(spec: Any) -> bool:
  """Returns whether the vector version takes all settings of an EnvSpec."""
  arguments = _arguments(spec.vector_entry_point)
  if spec.max_episode_steps is None and _STEP_LIMIT in arguments.defaults:
    return False  # The vector version would apply its own default limit.
  return arguments.takes_any or spec.kwargs.keys() <= arguments.defaults.keys()


@contextlib.contextmanager
def failures_explained(text: str, spec: Any) -> Iterator[None]:
  """Turns known failures of making an environment into a ValueError.

  Args:
    text: [module:]id[?options], for messages.
    spec: its EnvSpec.
  """
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
        f'that: {gymnasium_interface.METHODS} Or wrap one of the older gym in '
        'shimmy.GymV21CompatibilityV0 (pip install '
        "'shimmy[gym-v21]')."
      ) from error
    if '?' not in text:
      raise
    raise ValueError(
      f'Environment {name!r} cannot be made with these options '
      f'({type(error).__name__}: {error}). {_known_options(spec)}'
    ) from error


def _with_options(text: str, spec: Any, options: dict[str, str]) -> Any:
  """Returns an EnvSpec with the options that stand in `text`."""
  with failures_explained(text, spec):
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
    elif key not in arguments.defaults and not arguments.takes_any:
      known = [*arguments.defaults, _STEP_LIMIT]
      raise ValueError(
        f'Environment {name!r}: there is no option {key!r}. '
        f'{hints.did_you_mean(key, known)}{_known_options(spec)}'
      )
    else:
      default = arguments.defaults.get(key)
      kwargs[key] = name_options.value_like(name, key, value, default)
  return dataclasses.replace(
    spec, kwargs=kwargs, max_episode_steps=max_episode_steps
  )


def _step_limit(name: str, text: str) -> int | None:
  limit = name_options.value_like(name, _STEP_LIMIT, text, None)
  if limit is not None and (type(limit) is not int or limit < 1):
    raise ValueError(
      f'Environment {name!r}: {_STEP_LIMIT} must be a whole number of at least '
      f'1, or none for no limit, got {text!r}.'
    )
  return limit


class _Arguments(NamedTuple):
  """Lists the arguments of a constructor, except `_OURS`.

  Attributes:
    defaults: by name of the argument; None for one without a default.
    takes_any: whether the constructor takes arguments of other names, too.
  """

  defaults: dict[str, Any]
  takes_any: bool


def _arguments(entry_point: Any) -> _Arguments:
  """Returns the arguments of an environment's constructor.

  Args:
    entry_point: a class or function, or 'module:name' of one.
  """
  from gymnasium.envs import registration

  creator = (
    entry_point
    if callable(entry_point)
    else registration.load_env_creator(entry_point)
  )
  # With **kwargs a class hands other arguments to its base classes.
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


def _known_options(spec: Any) -> str:
  """Returns a sentence with all options of an environment."""
  defaults = _arguments(spec.entry_point).defaults
  written = [
    f'{key}={str(value).lower() if not isinstance(value, str) else value}'
    for key, value in {**defaults, _STEP_LIMIT: spec.max_episode_steps}.items()
    if isinstance(value, (bool, int, float, str, type(None)))
  ]
  return f'Known options: {", ".join(written)}.'
