"""A run as a Launchpad program: who takes part, where, and how it ends."""

from __future__ import annotations

import collections
from collections.abc import Callable, Mapping, Sequence
import dataclasses
import math
import pathlib
import platform
import time
from typing import Any

from distacme import counting
from distacme import lazy
from distacme import run_directory
from distacme.programs import config as config_lib
from distacme.programs import connection
from distacme.programs import doors
from distacme.programs import workers
from distacme.runtime import launchpad
from distacme.runtime import stop_signals
from distacme.runtime import supervision

_STATUS_PERIOD_S = 0.5
_HEARD_S = 5.0  # without a status after which heartbeats are not to be judged
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
  for index in range(run.num_actors):
    add_actor(program, experiment, index, variables, replay)
  worker(workers.run_evaluator, 'evaluator/0', experiment, directory.path)
  return program


def add_actor(
  program: launchpad.Program,
  experiment: config_lib.Experiment,
  index: int,
  variables: Any,
  replay: Any,
  label: str = 'actor',
) -> None:
  """Adds an actor's node to a program.

  Args:
    program: to add to.
    experiment: that it acts in.
    index: its number.
    variables: the variable server's handle or address.
    replay: the replay server's.
    label: of the node's group.
  """
  name = f'actor/{index}'
  task = connection.Task(name, workers.run_actor, (experiment, index, replay))
  node = launchpad.WorkerNode(connection.run_workers, variables, task)
  program.add_node(node, label=label)


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
  with (
    stop_signals.requested_from(watch.request_stop),
    stop_signals.no_orphans(),
  ):
    if experiment.run.mode == 'processes':
      members = launchpad.launch_processes(program, directory.logs, ENVIRONMENT)
    else:
      lazy.load_all()  # hides TensorFlow meanwhile, which threads may import
      members = launchpad.launch_threads(program)
    address = launchpad.service_address(program, 'variables')
    directory.write_running(address)
    watch.attach(address, members)
    watch.doors = doors.Doors(launchpad.service_addresses(program))
    policy = supervision.RestartPolicy(
      experiment.run.max_restarts,
      hang_timeout_s=experiment.run.hang_timeout_s,
    )
    supervisor = supervision.Supervisor(
      members, watch, policy, grace_s=_GRACE_S
    )
    if experiment.run.mode == 'processes':
      replay = launchpad.service_address(
        program, 'learner' if experiment.run.replay_in_learner else 'replay'
      )
      watch.actors = _Actors(
        experiment, (address, replay), directory.logs, supervisor
      )
    supervisor.watch()
  return watch.finish()


class _Actors:
  """As many actors as are asked for while the run goes on."""

  def __init__(
    self,
    experiment: config_lib.Experiment,
    addresses: tuple[str, str],  # of the variable server and of replay
    logs: pathlib.Path,
    supervisor: supervision.Supervisor,
  ):
    self._experiment = experiment
    self._addresses = addresses
    self._logs = logs
    self._supervisor = supervisor
    self.count = experiment.run.num_actors

  def scale(self, count: int) -> None:
    """Starts actors, or lets those of the highest numbers end."""
    for index in range(count, self.count):
      self._supervisor.dismiss(f'actor/{index}')
    if count > self.count:
      more = launchpad.Program('distacme')
      for index in range(self.count, count):
        label = f'actor/{index}'
        add_actor(more, self._experiment, index, *self._addresses, label)
      self._supervisor.add(
        launchpad.launch_processes(more, self._logs, ENVIRONMENT)
      )
    self.count = count


class _Watch:
  """What the launcher knows of the run, from its variable server.

  A `supervision.Run`.
  """

  def __init__(
    self,
    lodgers: Mapping[str, Sequence[str]],  # who lives in another's process
    directory: run_directory.RunDirectory,
    show: Callable[[dict[str, Any]], None],
  ):
    self._address = ''  # until it is launched
    self._members: list[supervision.Worker] = []
    self._lodgers = lodgers
    self._directory = directory
    self._show = show
    self._status: dict[str, Any] | None = None
    self._stop: dict[str, Any] | None = None  # asked for by the launcher
    self._next = 0.0
    self.actors: _Actors | None = None  # threads stay as many as they are
    self.doors: doors.Doors | None = None
    self._heard = -math.inf  # when the last status came
    self._heartbeats: dict[str, float] = {}
    self._failures: dict[str, str] = {}
    # How a worker ended before it was started again, every time.
    self._restarts = collections.defaultdict[str, list[str]](list)
    self._first_failure = ''

  def attach(self, address: str, members: list[supervision.Worker]) -> None:
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

  def silent_s(self, worker: str) -> float:
    """Returns the seconds since a worker's last heartbeat; inf before the first.

    While the variable server does not answer, it is the one that is silent.
    """
    unheard_s = time.monotonic() - self._heard
    if worker.startswith('variables/'):
      return unheard_s
    if unheard_s > _HEARD_S:
      return 0.0
    return time.monotonic() - self._heartbeats.get(worker, -math.inf)

  def may_restart(self, worker: str, code: int) -> bool:
    """Whether it was killed, or has worked: else it would fail again at once.

    Nor if the run has come to its end meanwhile.
    """
    known = self._ask()
    if self.stopping():
      return False
    if code < 0 or worker.startswith('variables/'):
      return True
    reported = known.get(worker, {})
    return bool(reported.get('counts') or reported.get('metrics'))

  def on_restart(
    self, worker: supervision.Worker, how: str, delay_s: float
  ) -> None:
    """Remembers how the worker ended; the first one is shown."""
    self._restarts[worker.name].append(how)
    self._note(worker, how, f'; it is restarted in {delay_s:g} s')

  def on_failure(self, worker: supervision.Worker, how: str) -> None:
    """Ends the run, if it does not end already, because a worker failed."""
    detail = self._note(worker, how, '')
    self._failures[worker.name] = detail
    self.request_stop(counting.StopReason.FAILED.value, detail, worker.name)
    self.on_absence(worker)

  def on_absence(self, worker: supervision.Worker) -> None:
    """Says goodbye for a worker that cannot, and that the services wait for."""
    for name in (worker.name, *self._lodgers.get(worker.name, ())):
      try:
        last_words = connection.Connection(name, self._address, 1.0)
        last_words.done()
        last_words.close()
      except (TimeoutError, ConnectionError):
        pass

  def _note(self, worker: supervision.Worker, how: str, more: str) -> str:
    """Returns how a worker failed, the first time with its traceback."""
    log = f'; its log is {worker.log}' if worker.log else ''
    detail = f'{worker.name} on {platform.node()} ended with {how}{log}{more}'
    if not self._first_failure:
      traceback = self._ask().get(worker.name, {}).get('failure', '')
      detail = self._first_failure = f'{detail}\n{traceback}'.rstrip()
    return detail

  def _ask(self) -> dict[str, Any]:
    """Returns what is known of the workers, as new as can be."""
    self._next = 0.0
    self.poll()
    return self._status['workers'] if self._status else {}

  def poll(self) -> None:
    """Asks for the status and shows it, not too often."""
    from distacme.variables import client

    now = time.monotonic()
    if now < self._next:
      return
    self._next = now + _STATUS_PERIOD_S
    if self.doors:
      self.doors.look()
    try:
      self._status = client.status(self._address, timeout_s=0.4)
    except ConnectionError:
      return
    self._note_heartbeats(self._status['workers'])
    self._show(self._with_failures(self._status))
    wanted = self._status['num_actors']
    if self.actors and wanted not in (None, self.actors.count):
      if not self.stopping():
        self.actors.scale(wanted)

  def _note_heartbeats(self, workers: Mapping[str, Any]) -> None:
    """Remembers when each worker was heard of, which a new server does not know."""
    now = time.monotonic()
    if now - self._heard > _HEARD_S:
      # The server was away, and nobody could be heard of meanwhile.
      self._heartbeats = dict.fromkeys(self._heartbeats, now)
    self._heard = now
    for name, worker in workers.items():
      heartbeat = now - worker['seconds_since_report']
      known = self._heartbeats.get(name, -math.inf)
      self._heartbeats[name] = max(heartbeat, known)

  def _with_failures(self, status: dict[str, Any]) -> dict[str, Any]:
    """Adds what the launcher knows to the status of a run."""
    return status | {
      'failures': self._failures,
      'restarts': dict(self._restarts),
      'first_failure': self._first_failure,
    }

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
    status = self._with_failures(status)
    run_directory.write_json(self._directory.summary, status)
    self._show(status)
    return status
