"""A run as a Launchpad program: who takes part, where, and how it ends."""

from __future__ import annotations

import dataclasses
from typing import Any

from distacme.programs import checks
from distacme.programs import experiment as experiment_lib
from distacme.programs.workers import main
from distacme.programs.workers import variables as variables_worker
from distacme.run import run_directory
from distacme.runtime import launchpad

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
  experiment: experiment_lib.Experiment, directory: run_directory.RunDirectory
) -> launchpad.Program:
  """Returns the program of a run, as data; nothing starts and no port is bound."""
  agent = experiment.make_agent(experiment.environment_spec())
  restored = checks.read_checkpoint(agent, directory)
  counts = directory.read_counts(restored.steps) if restored else {}
  experiment = dataclasses.replace(experiment, resumed_from=counts)
  run = experiment.run
  # The priorities are the actors' business, and naming their function would
  # make the replay server import the agent.
  replay_spec = dataclasses.replace(agent.replay, first_priority=None)
  actors = [f'actor/{index}' for index in range(run.num_actors)]
  clients = ['learner/0', *actors]  # of replay
  others = ['replay/0', 'evaluator/0', *clients]  # all but the variable server
  program = launchpad.Program('distacme')

  def add(name: str, *args: Any) -> None:
    _add_worker(program, variables, main.Task(name, args))

  variables = program.add_node(
    launchpad.ServiceNode(
      variables_worker.run,
      run.limits,
      run.clock,
      directory.path,
      counts,
      others,
    ),
    label='variables',
  )
  services = [
    main.Task(
      'replay/0',
      (
        replay_spec,
        clients,
        directory.replay,
        run.replay_checkpoint_period_s,
      ),
    )
  ]
  run_args = (experiment, directory.path)
  if run.replay_in_learner:
    services.insert(0, main.Task('learner/0', run_args))
  replay = program.add_node(
    launchpad.ServiceNode(main.run_service, variables, *services),
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
  task: main.Task,
  label: str = '',
) -> None:
  node = launchpad.WorkerNode(main.run_workers, variables, task)
  program.add_node(node, label=label or task.kind)
