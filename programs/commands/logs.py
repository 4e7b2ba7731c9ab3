"""`distacme logs RUN_DIR [WORKER]`: prints the logs of a run's workers."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
import subprocess
import sys

from distacme.programs import modes
from distacme.programs import program
from distacme.programs.commands import run_flags
from distacme.programs.view import terminal
from distacme.run import files
from distacme.run import run_directory

_LINES = 10


def main(arguments: Sequence[str]) -> int:
  """Prints the end of every log, or the whole log of one worker."""
  parser = argparse.ArgumentParser(
    prog='distacme logs',
    description="Prints the last lines of each worker's log, or the whole log of "
    'one worker.',
    epilog='exit codes: 0, or 2 if there is no such run or worker.',
  )
  run_flags.add_run_dir(parser)
  parser.add_argument(
    'worker', nargs='?', metavar='WORKER', help="as in status, e.g. 'actor/3'"
  )
  parser.add_argument(
    '-f',
    '--follow',
    action='store_true',
    help='go on with what the worker logs; Ctrl-C ends it',
  )
  flags = parser.parse_args(arguments)
  directory = run_directory.RunDirectory(flags.run_dir.resolve())
  launcher = modes.find(directory.read_config()['run']['mode'])
  if not launcher.has_processes:
    return _show(['tail', '-n', '+1', str(directory.logs / 'all')])
  names = [spec.name for spec in program.read(directory).owners()]
  if flags.follow and flags.worker is None:
    raise ValueError(
      f'--follow is for one worker. Name one of {", ".join(names)}.'
    )
  if flags.worker is None:
    if (code := launcher.forward(directory, ['logs'])) is not None:
      return code
    for name in names:
      terminal.say(f'==> {name} <==')
      for line in files.tail(directory.logs / name).splitlines()[-_LINES:]:
        terminal.say(line)
    return 0
  if flags.worker not in names:
    raise ValueError(
      f'{directory.path} has no worker {flags.worker!r} with a log. It has '
      f'{", ".join(names)}.'
    )
  if not launcher.shares_disk:
    return _show(launcher.log_command(directory, flags.worker, flags.follow))
  follow = ['-F'] if flags.follow else []
  path = directory.logs / flags.worker
  if not path.exists() and not flags.follow:
    raise ValueError(
      f'{flags.worker} has no log yet: it has not begun. '
      f"'distacme status {directory.path}' says why."
    )
  return _show(['tail', '-n', '+1', *follow, str(path)])


def _show(command: Sequence[str]) -> int:
  """Runs a command that prints a log."""
  sys.stdout.flush()
  return subprocess.run(command, check=False).returncode
