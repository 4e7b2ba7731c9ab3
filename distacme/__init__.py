"""Distributed reinforcement learning: one agent, any number of processes."""

import importlib
from typing import Any

__version__ = '0.1.0'

# Resolved at first use: most processes need few of these names, and the variable
# server must not pay for importing JAX.
_EXPORTS = {
  'EnvironmentLoop': 'distacme.environment_loop',
  'EnvironmentSpec': 'distacme.specs',
  'load_policy': 'distacme.programs.loading',
  'make_environment_spec': 'distacme.specs',
  'train': 'distacme.programs.training',
}

__all__ = [
  'EnvironmentLoop',
  'EnvironmentSpec',
  'load_policy',
  'make_environment_spec',
  'train',
]


def __getattr__(name: str) -> Any:
  if name in _EXPORTS:
    return getattr(importlib.import_module(_EXPORTS[name]), name)
  if not name.startswith('_'):
    try:
      return importlib.import_module(f'distacme.{name}')
    except ModuleNotFoundError as error:
      if error.name != f'distacme.{name}':
        raise
  raise AttributeError(f'module distacme has no attribute {name!r}.')
