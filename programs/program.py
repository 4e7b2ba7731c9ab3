"""A run as a Launchpad program: who takes part, where, and how it ends."""

from __future__ import annotations

from collections.abc import Callable, Mapping
import dataclasses
from typing import Any

from distacme import lazy
from distacme import run_directory
from distacme.programs import config as config_lib
from distacme.programs import connection
from distacme.programs import launched as launched_lib
from distacme.programs.workers import variables as variables_worker
from distacme.runtime import directory_lock
from distacme.runtime import launchpad
from distacme.runtime import stop_signals
from distacme.runtime import supervision

_ALL = {
  'TF_CPP_MIN_LOG_LEVEL': '3',
  'GRPC_VERBOSITY': 'ERROR',
  'PYTHONUNBUFFERED': '1',  # what a user prints is in the log at once
}
# Small policy calls are three times faster where XLA believes in one core; jax
# reads these when it is imported. Actors leave accelerators to the learner.
_ACTING = {
  **_ALL,
  'MALLOC_ARENA_MAX': '2',  # 6 MB less
  'JAX_PLATFORMS': 'cpu',
  'NPROC': '1',
  'OMP_NUM_THREADS': '1',
  'XLA_FLAGS': (
    '--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1'
  ),
}
ENVIRONMENT = {
  'variables': {**_ALL, 'MALLOC_ARENA_MAX': '2'},  # 20 MB less
  'replay': _ALL,
  'learner': _ALL,
  'actor': _ACTING,
  'evaluator': _ACTING,
}


def make_program(
  experiment: config_lib.Experiment, directory: run_directory.RunDirectory
) -> launchpad.Program:
  """Returns the program of a run, as data; nothing starts and no port is bound."""
  agent = experiment.make_agent(experiment.environment_spec())
  restored = config_lib.read_checkpoint(agent, directory)
  counts = directory.read_counts(restored.steps) if restored else {}
  experiment = dataclasses.replace(
    experiment, resumed_at=counts.get('env_steps', 0)
  )
  run = experiment.run
  # The priorities are the actors' business, and naming their function would
  # make the replay server import the agent.
  replay_spec = dataclasses.replace(agent.replay, first_priority=None)
  actors = [f'actor/{index}' for index in range(run.num_actors)]
  clients = ['learner/0', *actors]  # of replay
  others = ['replay/0', 'evaluator/0', *clients]  # all but the variable server
  program = launchpad.Program('distacme')

  def add(name: str, *args: Any) -> None:
    _add_worker(program, variables, connection.Task(name, args))

  variables = program.add_node(
    launchpad.ServiceNode(
      variables_worker.run, run.limits, directory.path, counts, others
    ),
    label='variables',
  )
  services = [
    connection.Task(
      'replay/0',
      (replay_spec, clients, directory.replay, run.replay_checkpoint_period_s),
    )
  ]
  run_args = (experiment, directory.path)
  if run.replay_in_learner:
    services.insert(0, connection.Task('learner/0', run_args))
  replay = program.add_node(
    launchpad.ServiceNode(connection.run_service, variables, *services),
    label=services[0].kind,
  )
  if not run.replay_in_learner:
    add('learner/0', replay, *run_args)
  for index, name in enumerate(actors):
    add(name, replay, experiment, index)
  add('evaluator/0', *run_args)
  return program


def _add_worker(
  program: launchpad.Program,
  variables: Any,  # the variable server's handle or address
  task: connection.Task,
  label: str = '',
) -> None:
  node = launchpad.WorkerNode(connection.run_workers, variables, task)
  program.add_node(node, label=label or task.kind)


def run(
  experiment: config_lib.Experiment,
  directory: run_directory.RunDirectory,
  show: Callable[[dict[str, Any]], None],
) -> dict[str, Any]:
  """Launches the program and stays until its last worker has ended.

  Args:
    experiment: to run, in mode threads or processes.
    directory: of the run.
    show: called with the run's status now and then.

  Returns:
    The last status.
  """
  program = make_program(experiment, directory)
  lodgers = (
    {'learner/0': ['replay/0']} if experiment.run.replay_in_learner else {}
  )
  launched = launched_lib.LaunchedRun(lodgers, directory, show)
  with (
    stop_signals.requested_from(launched.request_stop),
    stop_signals.no_orphans(),
  ):
    if experiment.run.mode == 'processes':
      members = _launch_processes(program, directory)
    else:
      lazy.load_all()  # hides TensorFlow meanwhile, which threads may import
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
    **directory_lock.variable(directory),
    connection.WARNINGS_VARIABLE: str(directory.warnings),
  }
  environment = {kind: {**ENVIRONMENT[kind], **places} for kind in ENVIRONMENT}
  return launchpad.launch_processes(program, directory.logs, environment)


class _Actors:
  """As many actors as are asked for while the run goes on."""

  def __init__(
    self,
    experiment: config_lib.Experiment,
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
        task = connection.Task(label, (self._replay, self._experiment, index))
        _add_worker(more, self._variables, task, label)
      self._supervisor.add(_launch_processes(more, self._directory))
    self._count = count
