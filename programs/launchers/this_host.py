"""Runs workers on this host, for the launchers of threads and of processes."""

from __future__ import annotations

from collections.abc import Callable
import threading
import types

from distacme import status as status_lib
from distacme.programs import experiment as experiment_lib
from distacme.programs import program as program_lib
from distacme.programs import run_config
from distacme.programs.launchers import supervised_run
from distacme.run import files
from distacme.run import notices
from distacme.run import run_directory
from distacme.runtime import signals
from distacme.runtime import supervision
from distacme.runtime import topology


def run(
  experiment: experiment_lib.Experiment,
  directory: run_directory.RunDirectory,
  show: Callable[[status_lib.Status], None],
  start_all: Callable[[topology.Program], list[supervision.Worker]],
  start: Callable[[topology.WorkerSpec], supervision.Worker] | None,
  stops: signals.StopRequests,
) -> status_lib.Status:
  """Starts the program, and returns after the end of the program's last worker.

  Args:
    experiment: to run.
    directory: of the run.
    show: called with the run's status now and then.
    start_all: starts the workers of a program.
    start: starts one more worker; None if no worker can be added.
    stops: ends the run; the second Ctrl-C kills the workers.

  Returns:
    The last status.
  """
  program = program_lib.read(directory)
  supervised = supervised_run.SupervisedRun(program, directory, show)
  with stops.passed_to(supervised.request_stop, supervised.hurry):
    members = start_all(program)
    supervised.attach(members)
    policy = supervision.RestartPolicy(
      experiment.run.max_restarts,
      hang_timeout_s=experiment.run.hang_timeout_s,
    )
    supervisor = supervision.Supervisor(members, supervised, policy)
    if start:
      actors = _Actors(experiment.run, program, directory, supervisor, start)
      supervised.scale = actors.scale
    supervisor.watch()
    return supervised.finish()


def find_launchpad() -> types.ModuleType | None:
  """Returns the module that starts workers by Launchpad, where that can be used.

  Not in another thread than the main one: Launchpad was made for that, and without it
  the same workers run.
  """
  if threading.current_thread() is not threading.main_thread():
    return None
  try:
    from distacme.runtime import launchpad
  except ImportError:
    return None
  return launchpad


class _Actors:
  """Keeps as many actors running as users ask for during a run."""

  def __init__(
    self,
    run: run_config.RunConfig,
    program: topology.Program,
    directory: run_directory.RunDirectory,
    supervisor: supervision.Supervisor,
    start: Callable[[topology.WorkerSpec], supervision.Worker],
  ):
    self._run = run
    self._program = program
    self._directory = directory
    self._supervisor = supervisor
    self._start = start
    self._count = run.num_actors

  def scale(self, count: int) -> None:
    """Starts actors, or lets the actors of the highest numbers end.

    Whoever asked asks again soon, also where the actors were not started.
    """
    if count == self._count:
      return
    gone = [
      program_lib.actor_name(index) for index in range(count, self._count)
    ]
    new = [
      program_lib.actor(self._run, index) for index in range(self._count, count)
    ]
    if any(self._supervisor.has(spec.name) for spec in new):
      return  # One of that name has not ended yet.
    if not self._write(self._program.without(*gone).plus(*new)):
      return
    for name in gone:
      self._supervisor.dismiss(name)
    self._count = min(self._count, count)
    try:
      for spec in new:
        self._supervisor.add([self._start(spec)])
        self._count += 1
    except OSError as error:  # no memory, or no descriptor
      missing = [s.name for s in new if not self._supervisor.has(s.name)]
      notices.warn_once(f'{missing[0]} could not be started: {error}')
      self._write(self._program.without(*missing))

  def _write(self, program: topology.Program) -> bool:
    """Writes the program that workers read; returns whether it was written."""
    try:
      program_lib.write(program, self._directory)
    except files.NotWrittenError as error:
      notices.warn_once(f'there are {self._count} actors as before: {error}')
      return False
    self._program = program
    return True
