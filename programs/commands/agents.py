"""`distacme agents`: lists the agents."""

from __future__ import annotations

import argparse
import ast
from collections.abc import Sequence
import importlib.util
import pathlib
import textwrap

from distacme.programs import presets


def main(arguments: Sequence[str]) -> int:
  """Prints each agent's name and the first line of its file."""
  argparse.ArgumentParser(
    prog='distacme agents', description='Lists the agents.'
  ).parse_args(arguments)
  from distacme.programs import agents_by_name

  for name in agents_by_name.known_agents():
    print(f'{name:12}{summary(f"distacme.agents.{name}")}')
  print(
    '\nPresets: settings that suit some environments better; --preset NAME takes '
    'one,\nauto (the default) the one of the environment, none none.\n'
  )
  for preset in presets.PRESETS:
    print(
      f'{preset.agent:12}--preset {preset.name:16}'
      f'{", ".join(preset.environments)}'
    )
    print(textwrap.indent(textwrap.fill(str(preset), 66), ' ' * 14))
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
