"""The command line: `distacme train ...`."""

from __future__ import annotations

from collections.abc import Sequence
import dataclasses
import sys
import traceback
from typing import Any

from distacme.programs import config as config_lib

_USAGE = """\
usage: distacme COMMAND [OPTIONS]

commands:
  train    train an agent in an environment

'distacme COMMAND --help' lists a command's options.
"""


def main(arguments: Sequence[str] | None = None) -> None:
  """Runs a command and exits with its code."""
  command, *rest = list(sys.argv[1:] if arguments is None else arguments) or [
    ''
  ]
  commands = {'train': train}
  if command in ('-h', '--help'):
    print(_USAGE)
    sys.exit(0)
  if command not in commands:
    print(
      f'distacme: unknown command {command!r}.\n\n{_USAGE}', file=sys.stderr
    )
    sys.exit(2)
  sys.exit(commands[command](rest))


def train(arguments: Sequence[str]) -> int:
  """Trains an agent; returns the exit code."""
  from distacme.programs import launch

  try:
    prepared = launch.prepare(parse_experiment(arguments))
  except (ValueError, ImportError) as error:
    if not _raised_here(error):
      raise
    print(f'distacme: {error}', file=sys.stderr)
    return 2
  return prepared.run()


def _raised_here(error: BaseException) -> bool:
  """Whether distacme refused something, rather than the user's code failing."""
  last = list(traceback.walk_tb(error.__traceback__))[-1][0]
  return str(last.f_globals.get('__name__')).partition('.')[0] == 'distacme'


def parse_experiment(arguments: Sequence[str]) -> config_lib.Experiment:
  """Returns what the flags say: every field of run and agent is one.

  Raises:
    ValueError: if the agent is unknown or a value is impossible.
  """
  import tyro

  name = _agent_name(arguments)
  config = config_lib.agent_module(name).Config
  flags = dataclasses.make_dataclass(
    'Flags',
    [
      ('run', config_lib.RunConfig, config_lib.RunConfig(agent=name)),
      ('agent_config', config, config()),
    ],
    frozen=True,
  )
  unprefixed: Any = tyro.conf.OmitArgPrefixes
  parsed: Any = tyro.cli(
    unprefixed[flags],
    prog='distacme train',
    description=f'Trains {name} in an environment.',
    args=list(arguments),
  )
  return config_lib.Experiment(parsed.run, parsed.agent_config)


def _agent_name(arguments: Sequence[str]) -> str:
  """Returns --agent, which decides the other flags, or its default."""
  name = config_lib.RunConfig.agent
  for flag, value in zip(arguments, [*arguments[1:], ''], strict=True):
    if flag == '--agent':
      name = value
    elif flag.startswith('--agent='):
      name = flag.partition('=')[2]
  return name
