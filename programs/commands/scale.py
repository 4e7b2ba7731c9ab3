"""`distacme scale RUN_DIR --num-actors N`: sets a run's number of actors."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from distacme.programs import modes
from distacme.programs import program
from distacme.programs.commands import run_flags
from distacme.run import endpoints
from distacme.run import run_directory
from distacme.run import run_state


def main(arguments: Sequence[str]) -> int:
  """Asks a running program for so many actors."""
  parser = argparse.ArgumentParser(
    prog='distacme scale',
    description='Starts actors of a running program of processes, or ends those '
    'of the highest numbers. What else acts, learns and evaluates goes on; a '
    'resumed run begins with its own --num-actors again.',
    epilog='exit codes: 0 once the run has been asked, 2 if it cannot be.',
  )
  run_flags.add_run_dir(parser)
  parser.add_argument(
    '--num-actors', type=int, required=True, help='how many there are to be'
  )
  flags = parser.parse_args(arguments)
  run_state.check_num_actors(flags.num_actors)
  directory = run_directory.RunDirectory(flags.run_dir.resolve())
  _check_scales(directory)
  launcher = modes.find(directory.read_config()['run']['mode'])
  if launcher.remote:
    if not launcher.shares_disk:
      launcher.job_states(directory)  # which sees whether it goes on
    if directory.read_running() is None:
      raise ValueError(_not_running(directory))
    launcher.scale(directory, flags.num_actors)
    print(f'asked for {flags.num_actors} actors: see distacme status')
    return 0
  server = _server(directory)
  from distacme.variables import client

  try:
    client.scale(server, flags.num_actors)
  except ConnectionError as error:
    raise ValueError(
      f'{error}. It is asked on the host of the run, while that goes on.'
    ) from None
  print(f'asked for {flags.num_actors} actors: see distacme watch')
  return 0


def _check_scales(directory: run_directory.RunDirectory) -> None:
  """Refuses a run the actors of which stay as many as they are."""
  mode = directory.read_config()['run']['mode']
  if not modes.find(mode).scales:
    raise ValueError(
      f'{directory.path} is a run in mode {mode!r}: only one in mode '
      f'{" or ".join(map(repr, modes.scaling()))} can start and end actors while '
      'it goes on.'
    )
  if program.REPLAY not in program.read(directory):
    raise ValueError(
      f'{directory.path} is a run without actors: its agent learns from '
      'demonstrations alone. There is nothing to scale.'
    )


def _server(directory: run_directory.RunDirectory) -> endpoints.Endpoint:
  """Returns the endpoint of the run's variable server."""
  running = directory.read_running()
  server = endpoints.find(directory.endpoints, program.VARIABLES)
  if running is None or running.gone or server is None:
    raise ValueError(_not_running(directory))
  if not server.allowed:
    raise ValueError(
      f'{server.key or server.token}, a secret of the run, cannot be read: only '
      'the user who started it takes part. Ask that user.'
    )
  return server


def _not_running(directory: run_directory.RunDirectory) -> str:
  return (
    f'{directory.path} does not run, or has no variable server yet. '
    "'distacme train' with its settings and --run-dir goes on with it."
  )
