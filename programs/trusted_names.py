"""Refuses names of a run directory whose import would run somebody else's code."""

from __future__ import annotations

from collections.abc import Collection, Mapping
import inspect
import sys
from typing import Any

from distacme import agents
from distacme.environments import families
from distacme.programs import agents_by_name
from distacme.programs import recorded_run
from distacme.run import run_directory
from distacme.testing import environments

FLAG = '--trust-run-dir'


def check(
  config: Mapping[str, Any],
  directory: run_directory.RunDirectory,
  given: Collection[str],
) -> None:
  """Refuses config.json's names of code that is no part of distacme.

  A run directory may come from anywhere, also one that belongs to this user: it may
  have been downloaded.

  Args:
    config: the content of config.json.
    directory: of the run.
    given: fields that the caller gives, rather than config.json.

  Raises:
    ValueError: if there is such a name; nothing has been imported by then.
  """
  run = config['run']
  names = [
    (part, name)
    for part in ('agent', 'env', 'network')
    if part not in given
    # The one or the other is imported.
    for name in (str(run.get(part, '')), recorded_run.import_path(config, part))
  ]
  for part, name in names:
    if name and not _is_ours(part, name):
      raise ValueError(
        f'{directory.config} names {part}={name!r}, which is no part of '
        'distacme: loading it runs the code that the name leads to. If you know '
        f"that code, give it again ('--{part} {name}', or load_policy(..., "
        f'{part}={name!r})). If you trust whoever made the directory, add '
        f"'{FLAG}' (trust_run_dir=True)."
      )


def _is_ours(part: str, name: str) -> bool:
  if part == 'agent':
    return (
      name.removeprefix(f'{agents.__name__}.') in agents_by_name.known_agents()
    )
  if part == 'env' and ':' in name:
    module, _, function = name.partition(':')
    made_here = inspect.isfunction(getattr(environments, function, None))
    return families.is_built_in(name) or (
      module == environments.__name__ and made_here
    )
  return ':' not in name  # a function's own name, which nothing imports


def is_loaded_or_ours(agent: str) -> bool:
  """Returns whether importing an agent runs no code that has not run before."""
  return agent in sys.modules or _is_ours('agent', agent)
