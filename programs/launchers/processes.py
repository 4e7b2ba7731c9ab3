"""Runs each worker in a process of this host: mode processes."""

from __future__ import annotations

from collections.abc import Callable
import functools
import pathlib
from typing import Any

from distacme import status as status_lib
from distacme.programs import experiment as experiment_lib
from distacme.programs import program as program_lib
from distacme.programs.launchers import this_host
from distacme.programs.workers import main
from distacme.run import run_directory
from distacme.runtime import process_tree
from distacme.runtime import signals
from distacme.runtime import subprocesses
from distacme.runtime import supervision
from distacme.runtime import topology


def run(
  experiment: experiment_lib.Experiment,
  directory: run_directory.RunDirectory,
  show: Callable[[status_lib.Status], None],
  stops: signals.StopRequests,
) -> status_lib.Status:
  """Runs an experiment to its end; see `modes.Launcher.run`."""
  family = process_tree.Family()
  how: dict[str, Any] = {
    'command': functools.partial(
      main.command, directory.path, program_lib.read(directory).import_path
    ),
    'logs': directory.logs,
    'family': family,
  }
  with family.no_orphans():
    return this_host.run(
      experiment,
      directory,
      show,
      functools.partial(_start_all, **how),
      functools.partial(subprocesses.start, **how),
      stops,
    )


def _start_all(
  program: topology.Program,
  command: subprocesses.Command,
  logs: pathlib.Path,
  family: process_tree.Family,
) -> list[supervision.Worker]:
  """Starts the program, through Launchpad if Launchpad is installed."""
  start_all = subprocesses.start_all
  if launchpad := this_host.find_launchpad():
    start_all = launchpad.launch_processes
  return start_all(program, command, logs, family)
