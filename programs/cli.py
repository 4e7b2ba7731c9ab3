"""The command line: `distacme train ...` and the commands around it."""

from __future__ import annotations

from collections.abc import Sequence
import difflib
import importlib
import os
import signal
import sys

import distacme
from distacme.programs.view import terminal

# The purpose of each command. A command is a module of its name, with a
# `main(arguments)` that returns the exit code; it is imported when it is called.
_COMMANDS = {
  'train': 'train an agent in an environment',
  'evaluate': "play greedy episodes with a run's params",
  'play': "play a game for two against a run's agent",
  'record': "write episodes of a run's policy as a dataset",
  'plot': 'draw the learning curves of runs',
  'watch': 'show what a running program does, live',
  'status': 'say where a run and its workers are',
  'logs': "print the logs of a run's workers",
  'scale': 'start or end actors of a running program',
  'stop': 'end a run in order',
  'agents': 'list the agents',
  'environments': 'list the families of environments and how to name them',
  'cluster-example': 'print a cluster.toml to start from',
  'doctor': 'check the installation and say how to get what is missing',
}


def usage() -> str:
  """Returns the list of commands."""
  commands = [f'  {name:17}{does}\n' for name, does in _COMMANDS.items()]
  return (
    'usage: distacme COMMAND [OPTIONS]\n\ncommands:\n'
    f'{"".join(commands)}\n'
    "'distacme COMMAND --help' lists a command's options.\n"
  )


def main(arguments: Sequence[str] | None = None) -> None:
  """Runs a command and exits with the command's code.

  `programs.start.main` runs it where signals are to end it in a sentence.
  """
  terminal.open_missing()
  command, *rest = list(sys.argv[1:] if arguments is None else arguments) or [
    ''
  ]
  from distacme.runtime import signals

  try:
    code = _run(command, rest)
    sys.stdout.flush()
  except signals.Stopped as stopped:
    print(f'distacme: {stopped}', file=sys.stderr)
    code = signals.exit_code(stopped.reason)
  except BrokenPipeError:  # e.g. `distacme ... | head`
    # Output that is flushed at exit is dropped; else flushing would fail.
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    code = 128 + signal.SIGPIPE
  sys.exit(code)


def _run(command: str, arguments: Sequence[str]) -> int:
  """Runs a command; returns the command's exit code."""
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
  from distacme.programs import refusals

  module = importlib.import_module(
    f'distacme.programs.commands.{command.replace("-", "_")}'
  )
  if command == 'train':  # which shows by itself how its run has failed
    return int(module.main(arguments))
  code: int = refusals.in_a_sentence(lambda: int(module.main(arguments)))
  return code
