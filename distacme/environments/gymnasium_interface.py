"""Recognizes gymnasium's environments, and those with the interface of gym.

The package gym is the predecessor of gymnasium. This module never imports
gymnasium: an object of gymnasium exists only where gymnasium is loaded.
"""

from __future__ import annotations

import re
import sys
import traceback
from typing import Any

METHODS = (
  'reset(seed=None, options=None) must return (observation, info), and '
  'step(action) (observation, reward, terminated, truncated, info).'
)
# Modules whose code calls `reset` and `step` of environments.
_CALLERS = (
  'distacme.environments.gymnasium_adapters',
  'gymnasium.core',
  'gymnasium.vector',
  'gymnasium.wrappers',
)


def is_environment(value: Any) -> bool:
  """Returns whether `value` is a gymnasium.Env."""
  gymnasium = sys.modules.get('gymnasium')
  return gymnasium is not None and isinstance(value, gymnasium.Env)


def is_vector_environment(value: Any) -> bool:
  """Returns whether `value` is a gymnasium VectorEnv."""
  gymnasium = sys.modules.get('gymnasium')
  return gymnasium is not None and isinstance(value, gymnasium.vector.VectorEnv)


def remedy(value: Any) -> str:
  """Returns how to turn `value` into a gymnasium.Env; '' if nothing is known.

  Knows environments of gym, and classes with the methods of an environment
  that derive from no library.
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
    return f'Derive it from gymnasium.Env: {METHODS} '
  return ''


def raise_if_old(error: Exception) -> None:
  """Raises `old_interface_error` if a gym interface has caused `error`.

  Considers errors in the code that calls environments, of Gymnasium or of
  distacme; an error inside an environment has another cause.
  """
  if _raiser(error).startswith(_CALLERS) and re.search(
    r"unexpected keyword argument '(seed|options)'|values to unpack|cannot unpack",
    str(error),
  ):
    raise old_interface_error(str(error)) from error


def old_interface_error(found: str) -> ValueError:
  """Returns the error for an environment that seems to have gym's interface."""
  return ValueError(
    'The environment has not the interface of a gymnasium.Env, but perhaps that '
    f'of the older gym ({found}): {METHODS} Change it, or wrap it: '
    'shimmy.GymV21CompatibilityV0(env=environment) (pip install '
    "'shimmy[gym-v21]')."
  )


def _raiser(error: Exception) -> str:
  """Returns the name of the module whose code raised `error`."""
  frames = [frame for frame, _ in traceback.walk_tb(error.__traceback__)]
  return str(frames[-1].f_globals.get('__name__'))
