"""`distacme stop RUN_DIR`: ends a run in order, wherever its workers are."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
import time

from distacme import status as status_lib
from distacme.programs import modes
from distacme.programs import program
from distacme.programs.commands import run_flags
from distacme.programs.view import observer
from distacme.programs.view import progress
from distacme.programs.view import terminal
from distacme.run import endpoints
from distacme.run import run_directory

_POLL_S = 0.5
# For workers to save and end: their launcher gives them a minute.
_PATIENCE_S = 90.0


def main(arguments: Sequence[str]) -> int:
  """Asks a run to end, and waits for its end."""
  parser = argparse.ArgumentParser(
    prog='distacme stop',
    description='Ends a run as Ctrl-C would: its workers save and end. Of a run '
    'on a cluster, jobs that wait are cancelled, and so is what has not ended '
    f"after {_PATIENCE_S:.0f} s. 'distacme train' with the same settings and "
    '--run-dir goes on with the run.',
    epilog='exit codes: 0 once the run has ended, 2 if it does not run or has '
    'not ended.',
  )
  run_flags.add_run_dir(parser)
  flags = parser.parse_args(arguments)
  directory = run_directory.RunDirectory(flags.run_dir.resolve())
  launcher = modes.find(directory.read_config()['run']['mode'])
  asked = launcher.request_stop(directory)
  running = directory.read_running()
  if running is None or running.gone:
    raise ValueError(
      f'{directory.path} does not run: there is nothing to stop.'
    )
  if not asked and launcher.remote and not _has_begun(directory):
    why = 'nothing of the run has begun'
    if asked is False:
      why = 'there is no variable server that could be asked to end the run'
    terminal.say(f'{why}: its jobs are cancelled')
    launcher.cancel(directory)
    _write_end(directory)
    return 0
  if asked is None:
    _ask(directory)
  give_up_at = time.monotonic() + _PATIENCE_S
  while directory.read_running() == running and time.monotonic() < give_up_at:
    time.sleep(_POLL_S)
    if asked is not None:
      launcher.job_states(directory)  # which sees the end
  if launcher.remote:
    launcher.cancel(directory)
  ended = directory.read_summary()
  if ended is None and launcher.remote:
    ended = _write_end(directory)
  if ended is None:
    raise ValueError(
      f'{directory.path} was asked to end and has not ended after '
      f"{_PATIENCE_S:.0f} s; 'distacme watch' shows what its workers do. "
      f'Its launcher is process {running.pid} on {running.host}.'
    )
  terminal.say(progress.ending(ended))
  return 0


def _has_begun(directory: run_directory.RunDirectory) -> bool:
  """Returns whether there is a variable server, which ends the run in order."""
  found = endpoints.find(directory.endpoints, program.VARIABLES)
  return found is not None


def _ask(directory: run_directory.RunDirectory) -> None:
  """Asks the run to end: by a file, and where it can be reached at once."""
  directory.stop_request.touch()
  server = endpoints.find(directory.endpoints, program.VARIABLES)
  if server is None or not server.allowed:
    return
  from distacme.variables import client

  try:
    client.request_stop(server, status_lib.StopReason.INTERRUPTED)
  except ConnectionError:
    terminal.say(
      f'the variable server at {server.address} is not reached from here: it is '
      f'asked by the file {directory.stop_request}'
    )


def _write_end(directory: run_directory.RunDirectory) -> status_lib.Status:
  """Writes how a run on a cluster ended whose variable server does not."""
  last = observer.Observer(directory.path).look().status
  status = status_lib.Status(
    seconds=last.seconds if last else 0.0,
    counts=last.counts if last else {},
    stop=status_lib.Stop(status_lib.StopReason.INTERRUPTED),
  )
  directory.write_summary(status)
  directory.end_running()
  return status
