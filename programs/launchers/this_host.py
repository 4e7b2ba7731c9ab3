"""A run as threads or processes of this host."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from distacme import lazy_imports
from distacme.programs import experiment as experiment_lib
from distacme.programs import program as program_lib
from distacme.programs.launchers import supervised_run
from distacme.programs.workers import main
from distacme.programs.workers import process
from distacme.run import lock
from distacme.run import run_directory
from distacme.run import status as status_lib
from distacme.runtime import launchpad
from distacme.runtime import process_tree
from distacme.runtime import signals
from distacme.runtime import supervision


def run(
  experiment: experiment_lib.Experiment,
  directory: run_directory.RunDirectory,
  show: Callable[[status_lib.Status], None],
) -> status_lib.Status:
  """Launches the program and stays until its last worker has ended.

  Args:
    experiment: to run, in mode threads or processes.
    directory: of the run.
    show: called with the run's status now and then.

  Returns:
    The last status.
  """
  program = program_lib.make_program(experiment, directory)
  lodgers = (
    {'learner/0': ['replay/0']} if experiment.run.replay_in_learner else {}
  )
  launched = supervised_run.LaunchedRun(lodgers, directory, show)
  with (
    signals.requested_from(launched.request_stop),
    process_tree.no_orphans(),
  ):
    if experiment.run.mode == 'processes':
      members = _launch_processes(program, directory)
    else:
      lazy_imports.load_all()  # hides TensorFlow meanwhile, which threads may import
      members = launchpad.launch_threads(program)
    services = launchpad.service_addresses(program)
    directory.write_running(services['variables'])
    launched.attach(members, services)
    policy = supervision.RestartPolicy(
      experiment.run.max_restarts,
      hang_timeout_s=experiment.run.hang_timeout_s,
    )
    supervisor = supervision.Supervisor(members, launched, policy)
    if experiment.run.mode == 'processes':
      launched.scale = _Actors(
        experiment, services, directory, supervisor
      ).scale
    supervisor.watch()
  return launched.finish()


def _launch_processes(
  program: launchpad.Program, directory: run_directory.RunDirectory
) -> list[supervision.Worker]:
  places = {
    **lock.variable(directory),
    process.WARNINGS_VARIABLE: str(directory.warnings),
  }
  environment = {
    kind: {**program_lib.ENVIRONMENT[kind], **places}
    for kind in program_lib.ENVIRONMENT
  }
  return launchpad.launch_processes(program, directory.logs, environment)


class _Actors:
  """As many actors as are asked for while the run goes on."""

  def __init__(
    self,
    experiment: experiment_lib.Experiment,
    services: Mapping[str, str],  # addresses by group
    directory: run_directory.RunDirectory,
    supervisor: supervision.Supervisor,
  ):
    self._experiment = experiment
    self._variables = services['variables']
    self._replay = services.get('replay') or services['learner']
    self._directory = directory
    self._supervisor = supervisor
    self._count = experiment.run.num_actors

  def scale(self, count: int) -> None:
    """Starts actors, or lets those of the highest numbers end."""
    for index in range(count, self._count):
      self._supervisor.dismiss(f'actor/{index}')
    new = [f'actor/{index}' for index in range(self._count, count)]
    if any(map(self._supervisor.has, new)):
      return  # asked again soon: one of that name has not ended yet
    if new:
      more = launchpad.Program('distacme')
      for index, label in enumerate(new, start=self._count):
        task = main.Task(label, (self._replay, self._experiment, index))
        program_lib._add_worker(more, self._variables, task, label)
      self._supervisor.add(_launch_processes(more, self._directory))
    self._count = count
