"""A run as a Launchpad program: who takes part, where, and how it ends."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
import dataclasses
import time
from typing import Any

from distacme import counting
from distacme import lazy
from distacme import run_directory
from distacme.programs import config as config_lib
from distacme.programs import connection
from distacme.programs import workers
from distacme.runtime import launchpad
from distacme.runtime import stop_signals

_STATUS_PERIOD_S = 0.5
_GRACE_S = 60.0  # for workers to save and end, before they are killed

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

  def worker(function: Callable[..., None], name: str, *args: Any) -> None:
    task = connection.Task(name, function, args)
    node = launchpad.WorkerNode(connection.run_workers, variables, task)
    program.add_node(node, label=name.partition('/')[0])

  variables = program.add_node(
    launchpad.ServiceNode(
      workers.run_variables, run.limits, directory.path, counts, others
    ),
    label='variables',
  )
  table = (
    replay_spec,
    clients,
    directory.replay,
    run.replay_checkpoint_period_s,
  )
  if run.replay_in_learner:
    node = launchpad.ServiceNode(
      workers.run_learner_beside_replay,
      *(variables, experiment, directory.path, *table),
    )
    replay = program.add_node(node, label='learner')
  else:
    node = launchpad.ServiceNode(workers.run_replay_server, variables, *table)
    replay = program.add_node(node, label='replay')
    worker(workers.run_learner, 'learner/0', experiment, replay, directory.path)
  for index, name in enumerate(actors):
    worker(workers.run_actor, name, experiment, index, replay)
  worker(workers.run_evaluator, 'evaluator/0', experiment, directory.path)
  return program


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
  watch = _Watch(lodgers, directory, show)
  with stop_signals.requested_from(watch.request_stop):
    if experiment.run.mode == 'processes':
      members = launchpad.launch_processes(program, directory.logs, ENVIRONMENT)
    else:
      lazy.load_all()  # hides TensorFlow meanwhile, which threads may import
      members = launchpad.launch_threads(program)
    address = launchpad.service_address(program, 'variables')
    directory.write_running(address)
    watch.attach(address, members)
    launchpad.wait(
      members,
      on_failure=watch.on_failure,
      stopping=watch.stopping,
      poll=watch.poll,
      grace_s=_GRACE_S,
    )
  return watch.finish()


class _Watch:
  """What the launcher knows of the run, from its variable server."""

  def __init__(
    self,
    lodgers: Mapping[str, Sequence[str]],  # who lives in another's process
    directory: run_directory.RunDirectory,
    show: Callable[[dict[str, Any]], None],
  ):
    self._address = ''  # until it is launched
    self._members: list[launchpad.Worker] = []
    self._lodgers = lodgers
    self._directory = directory
    self._show = show
    self._status: dict[str, Any] | None = None
    self._stop: dict[str, Any] | None = None  # asked for by the launcher
    self._next = 0.0
    self._failures: dict[str, str] = {}

  def attach(self, address: str, members: list[launchpad.Worker]) -> None:
    """Takes over what was launched, and passes on what was asked meanwhile."""
    self._address, self._members = address, members
    if self._stop is not None:
      self.request_stop(**self._stop)

  def stopping(self) -> bool:
    """Whether the run is to end."""
    return bool(self._stop or (self._status and self._status['stop']))

  def request_stop(
    self, reason: str, detail: str = '', worker: str = ''
  ) -> None:
    """Ends the run."""
    from distacme.variables import client

    if self._stop is None:
      self._stop = {'reason': reason, 'detail': detail, 'worker': worker}
    if not self._address:
      return
    try:
      client.request_stop(self._address, reason, detail, worker, timeout_s=1.0)
    except ConnectionError:
      # The variable server is not there yet or not any more.
      for member in self._members:
        if member.exit_code() is None:
          member.terminate()

  def on_failure(self, worker: launchpad.Worker, how: str) -> None:
    """Ends the run, if it does not end already, because a worker failed."""
    log = f'; its log is {worker.log}' if worker.log else ''
    detail = f'ended with {how}{log}'
    self._failures[worker.name] = detail
    self.request_stop(counting.StopReason.FAILED.value, detail, worker.name)
    # It cannot say goodbye itself, and the services wait for it.
    for name in (worker.name, *self._lodgers.get(worker.name, ())):
      try:
        last_words = connection.Connection(name, self._address, 1.0)
        last_words.done()
        last_words.close()
      except (TimeoutError, ConnectionError):
        pass

  def poll(self) -> None:
    """Asks for the status and shows it, not too often."""
    from distacme.variables import client

    now = time.monotonic()
    if now < self._next:
      return
    self._next = now + _STATUS_PERIOD_S
    try:
      self._status = client.status(self._address, timeout_s=0.4)
    except ConnectionError:
      return
    self._show(self._status)

  def finish(self) -> dict[str, Any]:
    """Returns how the run ended."""
    if self._directory.summary.exists():
      status = run_directory.read_json(self._directory.summary)
    else:  # the variable server itself was lost
      status = self._status or counting.RunState().status()
      status['stop'] = None
    if self._stop and (status['stop'] or {}).get('reason') == 'terminated':
      status['stop'] = self._stop  # which it did by SIGTERM
    status['stop'] = status['stop'] or self._stop
    status['failures'] = self._failures
    run_directory.write_json(self._directory.summary, status)
    self._show(status)
    return status
