"""`distacme status RUN_DIR`: says where a run stands, and where its workers are."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
import time

from rich import table as rich_table

from distacme.programs import modes
from distacme.programs.commands import run_flags
from distacme.programs.view import dashboard
from distacme.programs.view import observer
from distacme.programs.view import terminal
from distacme.run import curves
from distacme.run import run_directory
from distacme.runtime import signals

_PERIOD_S = 2.0


def main(arguments: Sequence[str]) -> int:
  """Shows the run once, or when it has ended."""
  parser = argparse.ArgumentParser(
    prog='distacme status',
    description='Says once what the workers of a run do and, of a run on a '
    "cluster, where each is, in the cluster's words, and how it ended before. "
    "'distacme watch' shows it live.",
    epilog='exit codes: 0 if the run goes on or reached its end, 2 if the '
    'directory is no run, or its run was killed or does not answer; otherwise '
    'the code of the run: 1 after a failure, 130 after a stop.',
  )
  run_flags.add_run_dir(parser)
  parser.add_argument(
    '--wait', action='store_true', help='wait until the run has ended'
  )
  flags = parser.parse_args(arguments)
  directory = run_directory.RunDirectory(flags.run_dir.resolve())
  launcher = modes.find(directory.read_config()['run']['mode'])
  if not flags.wait:
    code = launcher.forward(directory, ['status'])
    if code is not None:
      states = launcher.job_states(directory)
      terminal.console().print(_jobs(directory, states))
      return code
  elif not launcher.shares_disk and directory.read_running() is None:
    _find_out(launcher, directory)
  run = observer.Observer(directory.path)
  view = run.look()
  while flags.wait and view.phase not in ('ended', 'lost'):
    time.sleep(_PERIOD_S)
    view = run.look()
  console = terminal.console()
  none = curves.curve_of([], 'env_steps')
  console.print(dashboard.picture(view, none, console.width))
  if launcher.remote:
    states = view.jobs
    if view.phase in ('running', 'silent'):
      states = launcher.job_states(directory)
    console.print(_jobs(directory, states))
  if view.phase in ('lost', 'silent'):
    raise ValueError(view.note)
  if view.status is None or view.status.stop is None:
    return 0
  code = signals.exit_code(view.status.stop.reason)
  return code or int(bool(view.status.failures))


def _find_out(
  launcher: modes.Launcher, directory: run_directory.RunDirectory
) -> None:
  """Has a run noted that goes on, although nothing here started it.

  Raises:
    ValueError: if nothing is known of it, and the cluster does not answer.
  """
  try:
    launcher.job_states(directory)
  except ValueError as error:
    if directory.read_summary() is None:
      raise
    terminal.say(f'whether the run goes on again is not known: {error}')


def _jobs(
  directory: run_directory.RunDirectory, states: Mapping[str, str]
) -> rich_table.Table:
  """Returns a table of the workers' jobs: where they are, how they ended before."""
  from distacme.deploy import records

  table = rich_table.Table(title='jobs')
  for name in ('worker', 'job', 'host', 'ended before'):
    table.add_column(name)
  places = {place.worker: place for place in records.every_place(directory)}
  for worker in sorted({*states, *places}):
    place = places.get(worker)
    ends = place.ends if place else ()
    table.add_row(
      worker,
      states.get(worker, 'gone' if place else ''),
      place.host if place else '',
      f'{len(ends)} times, last: {ends[-1].how}' if ends else '',
    )
  return table
