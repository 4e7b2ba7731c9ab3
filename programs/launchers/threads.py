"""Runs each worker in a thread of this process: mode threads."""

from __future__ import annotations

from collections.abc import Callable, Mapping
import functools
import threading

from distacme import lazy_imports
from distacme import status as status_lib
from distacme.programs import experiment as experiment_lib
from distacme.programs import program as program_lib
from distacme.programs.launchers import this_host
from distacme.programs.workers import main
from distacme.run import run_directory
from distacme.runtime import ending
from distacme.runtime import signals
from distacme.runtime import supervision
from distacme.runtime import topology
from distacme.runtime import worker_threads


def run(
  experiment: experiment_lib.Experiment,
  directory: run_directory.RunDirectory,
  show: Callable[[status_lib.Status], None],
  stops: signals.StopRequests,
) -> status_lib.Status:
  """Runs an experiment to its end; see `modes.Launcher.run`."""
  terminated = {
    worker.name: threading.Event()
    for worker in program_lib.read(directory).owners()
  }

  def run_worker(name: str) -> int:
    threading.current_thread().name = f'{ending.WORKER}{name}'
    return main.run_worker(directory.path, name, experiment, terminated[name])

  return this_host.run(
    experiment,
    directory,
    show,
    functools.partial(_start_all, run=run_worker, terminated=terminated),
    start=None,  # a thread cannot be ended from outside
    stops=stops,
  )


def _start_all(
  program: topology.Program,
  run: worker_threads.RunWorker,
  terminated: Mapping[str, threading.Event],
) -> list[supervision.Worker]:
  """Starts the program, through Launchpad if Launchpad is installed."""
  lazy_imports.load_all()  # hides TensorFlow meanwhile; threads may import it
  start_all = worker_threads.start_all
  if launchpad := this_host.find_launchpad():
    start_all = launchpad.launch_threads
  return [
    worker._replace(terminate=terminated[worker.name].set)
    for worker in start_all(program, run)
  ]
