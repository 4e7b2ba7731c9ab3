"""The workers of a program: what each process or thread of it runs.

Every function here takes addresses and a description of the run, makes its
objects and runs them until the run stops. Imports are inside the functions: a
process loads only what it needs (the variable server no JAX, actors no
optimiser), and the launcher, which only names these functions, nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
import logging
import os
import pathlib
import signal
import threading
import time
import traceback
from typing import Any

from distacme import core
from distacme import counting
from distacme.replay import spec as replay_spec

_FINISH_S = 30.0  # how long a service waits for its clients to save and end
_REPLAY_PERIOD_S = 1.0
_GOODBYE_S = 1.0


class Connection:
  """A worker's line to its run: params, reports, and when to stop."""

  def __init__(self, name: str, address: str):
    """Connects to the variable server at `address`."""
    from distacme.variables import client

    self.name = name
    self._address = address
    self.client = client.VariableClient(address, name)
    self._reporter = self.client.reporter()
    self._terminated = threading.Event()

  @property
  def reporter(self) -> core.Reporter:
    """What the worker's objects report to."""
    return self

  def report(
    self,
    counts: Mapping[str, int] | None = None,
    metrics: Mapping[str, float] | None = None,
    state: str = '',
  ) -> core.Directive:
    """See `core.Reporter`; a terminated process stops whatever the run says."""
    directive = self._reporter.report(counts, metrics, state)
    if self.terminated and directive.stop is None:
      return directive._replace(stop=counting.StopReason.TERMINATED.value)
    return directive

  def request_stop(self, reason: str, detail: str = '') -> None:
    """See `core.Reporter`."""
    self._reporter.request_stop(reason, detail)

  def status(self) -> dict[str, Any]:
    """Returns the run's status; see `counting.RunState`."""
    from distacme.variables import client

    return client.status(self._address, timeout_s=1.0)

  @property
  def terminated(self) -> bool:
    """Whether the launcher ended this worker, as it does when all else fails."""
    return self._terminated.is_set()

  def terminate(self) -> None:
    """Makes this worker stop; safe to call from a signal handler."""
    self._terminated.set()

  def stopped(self) -> bool:
    """Whether this worker is to end."""
    return self.report().stop is not None

  def wait_for_params(self) -> Any:
    """Returns a source once it has params; None if the run stops first."""
    from distacme import params

    self.client.subscribe()
    source = params.RemoteParams(self.client)
    self.report(state='waiting for params')
    while not self.stopped():
      if self.client.wait_newer(-1, timeout_s=0.1) is not None:
        return source
    return None

  def done(self) -> None:
    """Says goodbye, if there is still somebody to say it to."""
    self.report(state=counting.DONE)
    self._reporter.flush(_GOODBYE_S)

  def close(self) -> None:
    """Ends the threads of the connection."""
    self.client.close()


def run_worker(
  function: Callable[..., None],
  name: str,
  processes: bool,
  variables_address: str,
  *args: Any,
) -> int:
  """Runs one worker from its connection to its end; returns its exit code.

  Args:
    function: one of this module, called with the connection and `args`.
    name: of the worker.
    processes: whether it has a process of its own, which then ends here, with
      exit code 1 after a failure: native threads of the libraries may wait for
      servers that are gone, so the interpreter does not wait for them.
    variables_address: of the variable server.
    *args: for `function`.
  """
  if processes:
    set_up_process()
    signal.signal(signal.SIGTERM, lambda *_: os._exit(0))  # nothing to end yet
  code = 0
  try:
    connection = Connection(name, variables_address)
    if processes:
      signal.signal(signal.SIGTERM, lambda *_: connection.terminate())
    try:
      function(connection, *args)
    except BaseException:  # whatever ends a worker ends the run
      code = 1
      detail = traceback.format_exc()
      logging.error('%s failed:\n%s', name, detail)
      if not connection.terminated:
        connection.request_stop(counting.StopReason.FAILED.value, detail)
    connection.done()
    if not processes:  # which end without waiting for threads
      connection.close()
  except BaseException:
    code = 1
    logging.exception('%s could not reach its run', name)
  finally:
    if processes:
      logging.shutdown()
      os._exit(code)
  return code


def set_up_process() -> None:
  """Prepares a worker's process: logging, signals, its launcher's death."""
  from distacme.runtime import launchpad

  # Orbax tells absl about every step it takes.
  logging.getLogger('absl').setLevel(logging.WARNING)
  logging.basicConfig(
    level=logging.INFO,
    format='%(asctime)s %(levelname)s %(name)s: %(message)s',
    force=True,
  )
  # The terminal sends Ctrl-C to all; the launcher alone decides what it means.
  signal.signal(signal.SIGINT, signal.SIG_IGN)
  launchpad.die_with_parent()
  if launchpad.stop_requested():
    os._exit(0)


def run_variables(
  address: str,
  processes: bool,
  limits: counting.Limits,
  run_dir: pathlib.Path,
  counts: Mapping[str, int],
) -> None:
  """The variable server: params, counters, metrics, and the run's end.

  It is the last to go: it waits for the other workers' goodbyes and then
  writes how the run ended.
  """
  from distacme import logging as metrics_logging
  from distacme import run_directory
  from distacme.variables import server

  if processes:
    set_up_process()
  sink = metrics_logging.MetricsSink(run_dir)
  state = counting.RunState(limits, sink, counts)
  if processes:
    signal.signal(
      signal.SIGTERM,
      lambda *_: threading.Thread(
        target=state.request_stop, args=(counting.StopReason.TERMINATED,)
      ).start(),
    )
  service = server.VariableServer(state, address)
  while state.directive().stop is None:
    time.sleep(0.05)
  _wait_for_others(state.status, 'variables')
  directory = run_directory.RunDirectory(run_dir)
  run_directory.write_json(directory.summary, state.status())
  sink.close()
  service.stop()
  if processes:
    os._exit(0)


# The order in which services end: each waits for those before it.
_SERVICES = ('replay', 'variables')


def _wait_for_others(
  status: Callable[[], dict[str, Any]], service: str
) -> None:
  """Waits until all but the later services have said goodbye, or too long.

  A worker that failed is not waited for: it may never say it.
  """
  deadline = time.monotonic() + _FINISH_S
  later = _SERVICES[_SERVICES.index(service) :]
  while time.monotonic() < deadline:
    try:
      now = status()
    except ConnectionError:  # the variable server is gone, and with it the run
      return
    failed = now['stop']['worker'] if now['stop'] else ''
    if not any(
      worker['state'] != counting.DONE
      for name, worker in now['workers'].items()
      if name.partition('/')[0] not in later and name != failed
    ):
      return
    time.sleep(0.02)


def run_replay_server(
  address: str,
  processes: bool,
  variables_address: str,
  spec: replay_spec.ReplaySpec,
) -> int:
  """Runs the replay worker; a service's own address comes first."""
  return run_worker(
    run_replay, 'replay/0', processes, variables_address, address, spec
  )


def run_replay(
  connection: Connection, address: str, spec: replay_spec.ReplaySpec
) -> None:
  """The replay server, and its metrics."""
  from distacme.replay import reverb

  server = reverb.ReplayServer(spec, port=int(address.rpartition(':')[2]))
  report_at = time.monotonic()
  while not connection.stopped():
    if time.monotonic() >= report_at:
      report_at += _REPLAY_PERIOD_S
      metrics = server.metrics()
      connection.report(metrics=metrics, state=f'{metrics["size"]} items')
    time.sleep(0.05)
  connection.report(metrics=server.metrics())
  # Clients that still write, sample or set priorities would wait for ever.
  _wait_for_others(connection.status, 'replay')
  server.stop()


def run_learner(
  connection: Connection,
  experiment: Any,
  replay_address: str,
  run_dir: pathlib.Path,
) -> None:
  """The learner, from its last checkpoint if there is one."""
  import jax

  from distacme import checkpoint
  from distacme import environment_loop
  from distacme import learner
  from distacme import params
  from distacme import run_directory
  from distacme.replay import reverb

  connection.report(state='starting')
  spec = experiment.environment_spec()
  agent = experiment.make_agent(spec)
  key, _ = environment_loop.keys(experiment.run.seed)
  checkpointer = checkpoint.Checkpointer(
    run_directory.RunDirectory(run_dir).checkpoints
  )
  state = jax.jit(agent.initial_learner_state)(key)
  restored = checkpointer.restore(state)
  layout = environment_loop.replay_layout(agent, spec, state)
  sampler = reverb.ReverbSampler(replay_address, agent.replay, layout)
  worker = learner.Learner(
    agent,
    learner.PrefetchedBatches(sampler),
    params.RemoteParams(connection.client),
    connection.reporter,
    restored.state if restored else state,
    steps=restored.steps if restored else 0,
    publish_period=experiment.run.publish_period,
    save=checkpointer.save,
    save_period_s=experiment.run.checkpoint_period_s,
    executor=learner.background_executor,
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
  import numpy as np

  from distacme import actor
  from distacme import environment_loop
  from distacme import environments
  from distacme import policy
  from distacme import specs
  from distacme import types
  from distacme.replay import assembly
  from distacme.replay import reverb

  use_one_core()
  connection.report(state='starting')
  run = experiment.run
  rows = run.envs_per_actor
  environment = experiment.make_vector(rows, stream=index)
  spec = specs.make_environment_spec(environment)
  agent = experiment.make_agent(spec)
  source = connection.wait_for_params()
  if source is None:
    return
  streams = types.Streams(
    np.arange(index * rows, (index + 1) * rows), run.num_actors * rows
  )
  _, key = environment_loop.keys(run.seed, index)
  params = source.newest().params
  layout = environment_loop.replay_layout(agent, spec, params=params)
  inserter = reverb.ReverbInserter(replay_address, layout, connection.stopped)
  actor.Actor(
    environments.check_first_episode(environment),
    policy.Policy(agent, source, rows, key, streams),
    assembly.NStepWriter(agent.replay, layout, rows, inserter),
    connection.reporter,
  ).run()


def run_evaluator(
  connection: Connection, experiment: Any, run_dir: pathlib.Path
) -> None:
  """The evaluator; keeps the best params."""
  from distacme import checkpoint
  from distacme import environment_loop
  from distacme import evaluator
  from distacme import run_directory
  from distacme import specs

  use_one_core()
  connection.report(state='starting')
  run = experiment.run
  rows = evaluator.num_rows(run.eval_episodes)
  environment = experiment.make_vector(rows, stream=run.num_actors)
  agent = experiment.make_agent(specs.make_environment_spec(environment))
  source = connection.wait_for_params()
  if source is None:
    return
  _, key = environment_loop.keys(run.seed, run.num_actors)
  best = checkpoint.BestParams(run_directory.RunDirectory(run_dir).best)
  evaluator.Evaluator(
    environment,
    agent,
    source,
    connection.reporter,
    key=key,
    episodes=run.eval_episodes,
    period=run.eval_period,
    solved_return=run.solved_return,
    keep=best.offer,
  ).run()
  best.close()


def use_one_core() -> None:
  """Makes small policy calls fast, in a process that only acts.

  With the environment variables of `train.ACTOR_ENVIRONMENT`, three times.
  """
  import jax

  if threading.current_thread() is threading.main_thread():
    jax.config.update('jax_cpu_enable_async_dispatch', False)
