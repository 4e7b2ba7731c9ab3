"""Runs each worker in a thread of this process: mode threads."""

from __future__ import annotations

from collections.abc import Callable
import functools

from distacme import lazy_imports
from distacme import status as status_lib
from distacme.programs import experiment as experiment_lib
from distacme.programs.launchers import this_host
from distacme.programs.workers import main
from distacme.run import run_directory
from distacme.runtime import supervision
from distacme.runtime import topology
from distacme.runtime import worker_threads


def run(
  experiment: experiment_lib.Experiment,
  directory: run_directory.RunDirectory,
  show: Callable[[status_lib.Status], None],
) -> status_lib.Status:
  """Runs an experiment to its end; see `modes.Launcher.run`."""
  run_worker = functools.partial(
    main.run_worker, directory.path, experiment=experiment
  )
  return this_host.run(
    experiment,
    directory,
    show,
    functools.partial(_start_all, run=run_worker),
    start=None,  # a thread cannot be ended from outside
  )


def _start_all(
  program: topology.Program, run: worker_threads.RunWorker
) -> list[supervision.Worker]:
  """Starts the program, through Launchpad if Launchpad is installed."""
  lazy_imports.load_all()  # hides TensorFlow meanwhile; threads may import it
  start_all = worker_threads.start_all
  try:
    from distacme.runtime import launchpad
  except ImportError:
    pass
  else:
    start_all = launchpad.launch_threads
  return start_all(program, run)
