"""Runs each worker in a process of this host: mode processes."""

from __future__ import annotations

from collections.abc import Callable
import functools

from distacme import status as status_lib
from distacme.programs import experiment as experiment_lib
from distacme.programs.launchers import this_host
from distacme.programs.workers import main
from distacme.run import run_directory
from distacme.runtime import subprocesses
from distacme.runtime import supervision
from distacme.runtime import topology


def run(
  experiment: experiment_lib.Experiment,
  directory: run_directory.RunDirectory,
  show: Callable[[status_lib.Status], None],
) -> status_lib.Status:
  """Runs an experiment to its end; see `modes.Launcher.run`."""
  command = functools.partial(main.command, directory.path)
  return this_host.run(
    experiment,
    directory,
    show,
    functools.partial(_start_all, command=command, directory=directory),
    functools.partial(subprocesses.start, command=command, logs=directory.logs),
  )


def _start_all(
  program: topology.Program,
  command: subprocesses.Command,
  directory: run_directory.RunDirectory,
) -> list[supervision.Worker]:
  """Starts the program, through Launchpad if Launchpad is installed."""
  start_all = subprocesses.start_all
  try:
    from distacme.runtime import launchpad
  except ImportError:
    pass
  else:
    start_all = launchpad.launch_processes
  return start_all(program, command, directory.logs)
