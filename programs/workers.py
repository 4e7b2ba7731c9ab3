"""The workers of a program: what each process or thread of it runs.

Every function here takes addresses and a description of the run, makes its
objects and runs them until the run stops. Imports are inside the functions: a
process loads only what it needs (the variable server no JAX, actors no
optimiser), and the launcher, which only names these functions, nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from concurrent import futures
import dataclasses
import logging
import math
import pathlib
import threading
import time
from typing import Any

from distacme import counting
from distacme.programs import connection as connection_lib
from distacme.programs import devices as devices_lib
from distacme.replay import spec as replay_spec

_FINISH_S = 30.0  # how long a service waits for its clients to save and end
_TERMINATED_S = 3.0  # the same, where it was the launcher's last resort
_REPLAY_PERIOD_S = 1.0
_PROGRESS_PERIOD_S = 1.0  # between savings of the run's counters
# How long saving replay may take at the end, after waiting for clients. A cluster
# that sends SIGTERM kills soon: who takes too long is not waited for.
_SAVE_S = 20.0
_TERMINATED_WAIT_S = 1.0
_TERMINATED_SAVE_S = 5.0

Connection = connection_lib.Connection


def run_variables(
  address: str,
  limits: counting.Limits,
  run_dir: pathlib.Path,
  counts: Mapping[str, int],
  others: Collection[str],
) -> None:
  """The variable server: params, counters, metrics, and the run's end.

  It is the last to go: it waits for the goodbyes of `others`, all workers but
  itself, and then writes how the run ended. If it is restarted it goes on with the
  counters that it had at most `_PROGRESS_PERIOD_S` before.
  """
  from distacme import logging as metrics_logging
  from distacme import run_directory
  from distacme.variables import server

  process = connection_lib.take_process()
  sink = metrics_logging.MetricsSink(run_dir)
  directory = run_directory.RunDirectory(run_dir)
  before = directory.read_progress() or run_directory.Progress(counts, 0.0)
  state = counting.RunState(
    limits, sink, before.counts, elapsed_s=before.seconds
  )
  terminated = threading.Event()

  def terminate() -> None:
    terminated.set()
    # In a thread: the signal may interrupt whoever holds the lock.
    threading.Thread(
      target=state.request_stop, args=(counting.StopReason.TERMINATED,)
    ).start()

  if process:
    process.on_terminate(terminate)
  service = server.VariableServer(state, address)
  save_at = time.monotonic()
  while state.directive().stop is None:
    if time.monotonic() >= save_at:
      save_at += _PROGRESS_PERIOD_S
      status = state.status()
      directory.write_progress(
        run_directory.Progress(status['counts'], status['seconds'])
      )
    time.sleep(0.05)
  # Who was terminated while it started says no goodbye.
  _wait_for(
    others, state.status, _TERMINATED_S if terminated.is_set() else _FINISH_S
  )
  service.stop()
  run_directory.write_json(directory.summary, state.status())
  sink.close()
  if process:
    process.end(0)


def _wait_for(
  workers: Collection[str],
  status: Callable[[], dict[str, Any]],
  timeout_s: float,
) -> None:
  """Waits until `workers` have said goodbye, or for too long.

  A worker that the run ends because of is not waited for.
  """
  deadline = time.monotonic() + timeout_s
  while time.monotonic() < deadline:
    try:
      now = status()
    except ConnectionError:  # the variable server is gone, and with it the run
      return
    ended = {
      name
      for name, worker in now['workers'].items()
      if worker['state'] == counting.DONE
    }
    if now['stop']:
      ended.add(now['stop']['worker'])
    added = {name for name in now['workers'] if name.startswith('actor/')}
    if ended.issuperset(added.union(workers)):
      return
    time.sleep(0.02)


def run_replay_server(
  address: str, variables_address: str, *replay_args: Any
) -> int:
  """Runs the replay worker; a service's own address comes first."""
  replay = connection_lib.Task('replay/0', run_replay, (address, *replay_args))
  return connection_lib.run_workers(variables_address, replay)


def run_learner_beside_replay(
  address: str,
  variables_address: str,
  experiment: Any,
  run_dir: pathlib.Path,
  *replay_args: Any,
) -> int:
  """Runs learner and replay as the two workers of one process.

  Reverb sees that, and the learner reads the table without a connection, more
  than twice as fast.
  """
  return connection_lib.run_workers(
    variables_address,
    connection_lib.Task(
      'learner/0', run_learner, (experiment, address, run_dir)
    ),
    connection_lib.Task('replay/0', run_replay, (address, *replay_args)),
  )


def run_replay(
  connection: Connection,
  address: str,
  spec: replay_spec.ReplaySpec,
  clients: Collection[str],
  directory: pathlib.Path | None,
  save_period_s: float | None,
) -> None:
  """The replay server, and its metrics; saves and ends after its `clients`.

  It starts with what the newest checkpoint in `directory` holds, whether the run
  is resumed or this worker alone.
  """
  from distacme.replay import reverb

  port = int(address.rpartition(':')[2])
  save_period_s = save_period_s if directory else None
  server = reverb.ReplayServer(spec, port, directory if save_period_s else None)
  saving = _Saving(server, save_period_s)
  report_at = time.monotonic()
  while (stop := connection.report().stop) is None:
    saving.start_if_due()
    # While a large table is copied, it does not answer.
    if time.monotonic() >= report_at and not saving.under_way:
      report_at = time.monotonic() + _REPLAY_PERIOD_S
      metrics = server.metrics()
      connection.report(metrics=metrics, state=f'{metrics["size"]} items')
    time.sleep(0.05)
  terminated = stop == counting.StopReason.TERMINATED
  # Clients that still write, sample or set priorities would wait for ever.
  wait_s = _TERMINATED_WAIT_S if terminated else _FINISH_S
  _wait_for(clients, connection.status, wait_s)
  if not saving.under_way:
    connection.report(metrics=server.metrics())
  if stop != counting.StopReason.FAILED:  # for which what it holds may be why
    saving.finish(_TERMINATED_SAVE_S if terminated else _SAVE_S)
  if not saving.under_way:  # for which it would wait; the process ends without
    server.stop()


class _Saving:
  """Saves replay now and then, in a thread, since it may take long."""

  def __init__(self, server: Any, period_s: float | None):
    """Starts the first period; None saves nothing."""
    self._server = server
    self._period_s = math.inf if period_s is None else period_s
    self._wanted = period_s is not None
    self._at = time.monotonic() + self._period_s
    self._pool = futures.ThreadPoolExecutor(1)
    self._saved: futures.Future[Any] | None = None

  @property
  def under_way(self) -> bool:
    """Whether a checkpoint is being written."""
    return self._saved is not None and not self._saved.done()

  def start_if_due(self) -> None:
    """Starts to save if it is time, and the last checkpoint is written."""
    if time.monotonic() >= self._at and not self.under_way:
      self._start()

  def _start(self) -> None:
    if self._saved is not None:
      self._saved.result()  # raises what went wrong
    self._at = time.monotonic() + self._period_s
    self._saved = self._pool.submit(self._server.save)

  def finish(self, timeout_s: float) -> None:
    """Saves what there is now, unless that takes too long."""
    if not self._wanted:
      return
    deadline = time.monotonic() + timeout_s
    if self.under_way and not self._wait(deadline):
      return
    self._start()
    self._wait(deadline)

  def _wait(self, deadline: float) -> bool:
    assert self._saved is not None
    try:
      self._saved.result(max(0.0, deadline - time.monotonic()))
    except futures.TimeoutError:
      logging.warning(
        'saving replay was given up for lack of time; a resumed run continues '
        'from the checkpoint before.'
      )
      return False
    return True


def run_learner(
  connection: Connection,
  experiment: Any,
  replay_address: str,
  run_dir: pathlib.Path,
) -> None:
  """The learner, from its last checkpoint if there is one."""
  import jax

  from distacme import batches
  from distacme import checkpoint
  from distacme import frame_stacks
  from distacme import learner
  from distacme import placement as placement_lib
  from distacme import policy
  from distacme import run_directory
  from distacme import seeding
  from distacme import updates
  from distacme.replay import reverb

  connection.report(state='starting')
  devices = devices_lib.for_learner(
    experiment.run.learner_devices, connection_lib.owns_process()
  )
  spec = experiment.environment_spec()
  agent = experiment.make_agent(spec)
  key = seeding.learner_key(experiment.run.seed)
  directory = run_directory.RunDirectory(run_dir)
  checkpointer = checkpoint.Checkpointer(directory.checkpoints)

  def save(steps: int, state: Any) -> None:
    directory.write_counts(steps, connection.report().counts)
    checkpointer.save(steps, state)

  state = jax.jit(agent.initial_learner_state)(key)
  restored = checkpointer.restore(state)
  # One that was restarted went back to its last checkpoint.
  counted = connection.status()['counts'].get('learner_steps', 0)
  behind = counted - (restored.steps if restored else 0)
  connection.report({'learner_steps': -behind} if behind else None)
  params = jax.eval_shape(agent.actor_params, state)
  layout = policy.row_layout(agent, spec, params)
  agent = frame_stacks.learning_from(layout, agent)
  count = updates.choose_count(
    experiment.run.updates_per_call,
    agent,
    state,
    layout,
    devices[0].platform,
  )
  placement = placement_lib.Placement(agent.replay.batch_size, count, devices)
  sampler = reverb.ReverbSampler(replay_address, agent.replay, layout)
  worker = learner.Learner(
    agent,
    batches.PrefetchedBatches(
      sampler,
      count,
      placement,
      # What waits here grows old.
      depth=1 if agent.replay.used_once else 2,
    ),
    connection.params,
    connection,
    restored.state if restored else state,
    placement=placement,
    steps=restored.steps if restored else 0,
    publish_period=experiment.publish_period(agent),
    save=save,
    save_period_s=experiment.run.checkpoint_period_s,
    executor=learner.background_executor,
    stop_if_not_finite=experiment.run.stop_if_not_finite,
    last_saved=directory.last_saved,
  )
  worker.run()
  connection.report(state='saving')
  checkpointer.close()


def run_actor(
  connection: Connection,
  experiment: Any,
  index: int,
  replay_address: str,
) -> None:
  """One actor with its environments."""
  device = experiment.run.actor_device(index)
  with devices_lib.for_acting(
    connection.name, device, connection_lib.owns_process()
  ):
    _act(connection, experiment, index, replay_address)


def _act(
  connection: Connection,
  experiment: Any,
  index: int,
  replay_address: str,
) -> None:
  import numpy as np

  from distacme import actor
  from distacme import environments
  from distacme import policy
  from distacme import seeding
  from distacme import specs
  from distacme import types
  from distacme.replay import reverb
  from distacme.replay import writers

  use_one_core()
  connection.report(state='starting')
  status = connection.status()
  if status['workers'].get(connection.name, {}).get('counts'):
    # One that was restarted would else act its first episodes again.
    experiment = dataclasses.replace(
      experiment, resumed_at=status['counts']['env_steps']
    )
  run = experiment.run
  rows = run.envs_per_actor
  # The evaluator's stream is that after the first actors'.
  stream = index + (index >= run.num_actors)
  environment = experiment.make_vector(rows, stream=stream)
  spec = specs.make_environment_spec(environment)
  agent = experiment.make_agent(spec)
  if not connection.wait_for_params():
    return
  num_actors = max(run.num_actors, index + 1)  # it may have been added later
  streams = types.Streams(
    np.arange(index * rows, (index + 1) * rows), num_actors * rows
  )
  key = seeding.actor_key(experiment.seed, stream)
  newest = connection.params.newest()
  assert newest is not None  # just waited for
  layout = policy.row_layout(agent, spec, newest.params)
  inserter = reverb.ReverbInserter(
    replay_address,
    layout,
    connection.stopped,
    at_once=agent.replay.used_once,
  )
  actor.Actor(
    environments.check_first_episode(environment),
    policy.Policy(agent, connection.params, rows, key, streams),
    writers.make_writer(agent.replay, layout, rows, inserter),
    connection,
  ).run()


def run_evaluator(
  connection: Connection, experiment: Any, run_dir: pathlib.Path
) -> None:
  """The evaluator; keeps the best params."""
  with devices_lib.for_acting(
    connection.name, None, connection_lib.owns_process()
  ):
    _evaluate(connection, experiment, run_dir)


def _evaluate(
  connection: Connection, experiment: Any, run_dir: pathlib.Path
) -> None:
  from distacme import checkpoint
  from distacme import evaluator
  from distacme import run_directory
  from distacme import seeding
  from distacme import specs

  use_one_core()
  # Until something is learnt there is nothing to evaluate, and the cores are for
  # those who start.
  if not connection.wait_for_params() or not connection.wait_for_learning():
    return
  run = experiment.run
  rows = evaluator.num_rows(run.eval_episodes)
  environment = experiment.make_vector(rows, stream=run.num_actors)
  agent = experiment.make_agent(specs.make_environment_spec(environment))
  key = seeding.actor_key(experiment.seed, run.num_actors)
  best = checkpoint.BestParams(run_directory.RunDirectory(run_dir).best)
  evaluator.Evaluator(
    environment,
    agent,
    connection.params,
    connection,
    key=key,
    episodes=run.eval_episodes,
    period=run.eval_period,
    env_steps=experiment.resumed_at,
    solved_return=run.solved_return,
    keep=best.offer,
  ).run()
  best.close()


def use_one_core() -> None:
  """Makes small policy calls fast, in a process that only acts.

  Three times as fast, with the environment variables that the launcher sets.
  """
  import jax

  if connection_lib.owns_process():
    jax.config.update('jax_cpu_enable_async_dispatch', False)
