"""The command line: `distacme train ...` and the commands around it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
import dataclasses
import difflib
import importlib
import os
import signal
import sys
import traceback
from typing import Any

import distacme
from distacme.programs import config as config_lib
from distacme.programs import presets
from distacme.programs import terminal

# What each does. `train` is below; the others are a module of their name with a
# `main(arguments)` that returns the exit code, imported when it is called.
_COMMANDS = {
  'train': 'train an agent in an environment',
  'evaluate': "play greedy episodes with a run's params",
  'plot': 'draw the learning curves of runs',
  'watch': 'show what a running program does, live',
  'scale': 'start or end actors of a running program',
  'agents': 'list the agents',
  'environments': 'list the families of environments and how to name them',
  'doctor': 'check the installation and say how to get what is missing',
}


def usage() -> str:
  """Returns the list of commands."""
  commands = [f'  {name:14}{does}\n' for name, does in _COMMANDS.items()]
  return (
    'usage: distacme COMMAND [OPTIONS]\n\ncommands:\n'
    f'{"".join(commands)}\n'
    "'distacme COMMAND --help' lists a command's options.\n"
  )


def main(arguments: Sequence[str] | None = None) -> None:
  """Runs a command and exits with its code."""
  terminal.open_missing()
  command, *rest = list(sys.argv[1:] if arguments is None else arguments) or [
    ''
  ]
  try:
    code = _run(command, rest)
    sys.stdout.flush()
  except BrokenPipeError:  # as of `distacme ... | head`
    # What is left to be flushed at exit goes nowhere, rather than failing.
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    code = 128 + signal.SIGPIPE
  sys.exit(code)


def _run(command: str, arguments: Sequence[str]) -> int:
  """Runs a command; returns its exit code."""
  if command in ('-h', '--help', 'help'):
    print(usage())
    return 0
  if command == '--version':
    print(f'distacme {distacme.__version__}')
    return 0
  if command not in _COMMANDS:
    if command:
      close = difflib.get_close_matches(command, _COMMANDS, n=1)
      hint = f' Did you mean {close[0]!r}?' if close else ''
      print(f'distacme: unknown command {command!r}.{hint}\n', file=sys.stderr)
    print(usage(), file=sys.stderr)
    return 2
  if command == 'train':
    return train(arguments)
  module = importlib.import_module(f'distacme.programs.{command}')
  code: int = _in_a_sentence(lambda: int(module.main(arguments)))
  return code


def train(arguments: Sequence[str]) -> int:
  """Trains an agent; returns the exit code."""
  prepared = _in_a_sentence(lambda: _prepare(arguments))
  return prepared if isinstance(prepared, int) else prepared.run()


def _prepare(arguments: Sequence[str]) -> Any:
  """Returns the run, or the runs of several seeds, that the flags ask for."""
  from distacme.programs import launch
  from distacme.programs import seeds

  experiment, several = parse(arguments)
  if several.seeds:
    return seeds.prepare(experiment, several, arguments)
  return launch.prepare(experiment)


def _in_a_sentence(function: Callable[[], Any]) -> Any:
  """Returns the function's result; if it refuses, says why and returns 2.

  Ctrl-C needs no explanation: what a run does about it, it does by itself.
  """
  try:
    return function()
  except KeyboardInterrupt:
    return 128 + signal.SIGINT
  except (ValueError, ImportError) as error:
    if not _raised_here(error):
      raise
    print(f'distacme: {error}', file=sys.stderr)
    return 2


def _raised_here(error: BaseException) -> bool:
  """Whether distacme refused something, rather than the user's code failing."""
  last = list(traceback.walk_tb(error.__traceback__))[-1][0]
  return str(last.f_globals.get('__name__')).partition('.')[0] == 'distacme'


def parse(
  arguments: Sequence[str],
) -> tuple[config_lib.Experiment, config_lib.SeedsConfig]:
  """Returns what the flags say: every field of run and agent is one.

  Raises:
    ValueError: if the agent is unknown or a value is impossible.
  """
  import tyro

  run = config_lib.RunConfig
  name = _value_of('--agent', arguments, run.agent)
  config = config_lib.agent_module(name).Config()
  defaults: dict[str, Any] = {'agent': name}
  preset = presets.find(
    name,
    _value_of('--env', arguments, run.env),
    _value_of('--preset', arguments, run.preset),
  )
  if preset:
    defaults |= preset.run
    config = dataclasses.replace(config, **preset.settings)
  flags = dataclasses.make_dataclass(
    'Flags',
    [
      ('run', run, run(**defaults)),
      ('seeds', config_lib.SeedsConfig, config_lib.SeedsConfig()),
      ('agent', type(config), config),
    ],
    frozen=True,
  )
  unprefixed: Any = tyro.conf.OmitArgPrefixes
  parsed: Any = tyro.cli(
    unprefixed[flags],
    prog='distacme train',
    description=_description(name, preset),
    args=list(arguments),
  )
  experiment = config_lib.Experiment(parsed.run, parsed.agent)
  return experiment, parsed.seeds


def _description(agent: str, preset: presets.Preset | None) -> str:
  if preset is None:
    return f'Trains {agent} in an environment.'
  return (
    f'Trains {agent} in an environment. Defaults are those of the preset '
    f'{preset.name}.'
  )


def _value_of(flag: str, arguments: Sequence[str], default: str) -> str:
  """Returns what a flag says that decides the defaults of others."""
  value = default
  for given, following in zip(arguments, [*arguments, ''][1:], strict=True):
    if given == flag:
      value = following
    elif given.startswith(f'{flag}='):
      value = given.partition('=')[2]
  return value
