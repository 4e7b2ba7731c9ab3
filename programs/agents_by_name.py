"""Finds agents by their names."""

from __future__ import annotations

import difflib
import importlib
import pkgutil
import types

from distacme import agents


def known_agents() -> list[str]:
  """Returns the names of the agents in distacme.agents."""
  return sorted(module.name for module in pkgutil.iter_modules(agents.__path__))


def agent_module(name: str) -> types.ModuleType:
  """Returns the module of an agent, which has `Config` and `make_agent`.

  Args:
    name: one of `known_agents`, or the path of a module to import.

  Raises:
    ValueError: if there is no agent of that name.
  """
  path = f'distacme.agents.{name}' if name in known_agents() else name
  try:
    if not all(part.isidentifier() for part in path.split('.')):
      raise ModuleNotFoundError(name=path)  # Python refuses the path, too
    module = importlib.import_module(path)
  except ImportError as error:
    if not f'{path}.'.startswith(f'{error.name}.'):
      message = f'the agent {name!r} cannot be imported: {error}.'
      raise ValueError(message) from error
    close = difflib.get_close_matches(name, known_agents(), n=1)
    hint = f' Did you mean {close[0]!r}?' if close else ''
    raise ValueError(
      f'no agent is called {name!r}.{hint} Known: '
      f'{", ".join(known_agents())}; or name a module of your own, like '
      'my_package.my_agent, whose folder is on PYTHONPATH.'
    ) from error
  for attribute in ('Config', 'make_agent'):
    if not hasattr(module, attribute):
      raise ValueError(
        f'{path} is no agent: it has no {attribute}. An agent is a module '
        'with a dataclass Config and a function make_agent(config, spec, '
        'network=None), like distacme.agents.dqn.'
      )
  return module
