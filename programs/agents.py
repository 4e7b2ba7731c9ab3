"""`distacme agents`: what can learn."""

from __future__ import annotations

import argparse
import ast
from collections.abc import Sequence
import importlib.util
import pathlib


def main(arguments: Sequence[str]) -> int:
  """Prints each agent's name and the first line of its file."""
  argparse.ArgumentParser(
    prog='distacme agents', description='Lists the agents.'
  ).parse_args(arguments)
  from distacme.programs import config

  for name in config.known_agents():
    print(f'{name:12}{summary(f"distacme.agents.{name}")}')
  print(
    "\nTrain one with 'distacme train --agent NAME'; 'distacme train --agent "
    "NAME --help'\nlists its settings. For a module of your own: --agent "
    'my_package.my_agent.'
  )
  return 0


def summary(module: str) -> str:
  """Returns the first line of a module's docstring, without running it.

  Agents import JAX, which takes a second.
  """
  spec = importlib.util.find_spec(module)
  if spec is None or spec.origin is None:
    return ''
  tree = ast.parse(pathlib.Path(spec.origin).read_text())
  return (ast.get_docstring(tree) or '').partition('\n')[0]
