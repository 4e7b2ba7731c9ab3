"""Runs the variable server of a program: params, counters, metrics, the end."""

from __future__ import annotations

import logging
import threading
import time
from typing import Any

from distacme import status as status_lib
from distacme.programs import program as program_lib
from distacme.programs import recorded_run
from distacme.programs.workers import context as context_lib
from distacme.programs.workers import shutdown
from distacme.rpc import keys
from distacme.rpc import token as token_lib
from distacme.run import descriptors
from distacme.run import endpoints
from distacme.run import files
from distacme.run import metrics
from distacme.run import run_directory
from distacme.run import run_state
from distacme.variables import server

# A connection for each of 1,000 workers, and some more.
_DESCRIPTORS = 4096
_PROGRESS_PERIOD_S = 1.0  # between savings of the run's counters


def run(context: context_lib.Context) -> None:
  """Serves until the run has ended.

  The server is the last worker to end: the server waits for the goodbyes of all
  other workers, and then writes the run's summary. A restarted server goes on
  with counters that are at most `_PROGRESS_PERIOD_S` old.
  """
  directory = context.directory
  config = recorded_run.run_config(context.config, directory)
  before = directory.read_progress() or run_directory.Progress(
    context.config['resumed_from'], 0.0
  )
  sink = metrics.MetricsSink(
    directory.path,
    clock=config.clock,
    resumed_at=before.counts.get(config.clock, 0),
  )
  context.opened.callback(sink.close)
  state = run_state.RunState(
    config.limits,
    sink,
    before.counts,
    elapsed_s=before.seconds,
    is_worker=lambda name: program_lib.may_join(context.program, name),
  )

  def terminate() -> None:
    # In a thread: the signal may interrupt code that holds the lock.
    threading.Thread(
      target=state.request_stop, args=(status_lib.StopReason.TERMINATED,)
    ).start()

  if context.process:
    context.process.on_terminate(terminate)
    descriptors.allow(_DESCRIPTORS)
  service = _serve(
    state,
    context.listened(),
    **context.interface._asdict(),
    key=directory.path / keys.FILE if config.encrypted else None,
    token=directory.path / token_lib.FILE,
  )
  try:
    context.listens(service.endpoint)
    stop = _until_stop(state, directory, context.terminated)
    others = [w.name for w in context.program.workers if w.name != context.name]
    shutdown.wait_for(others, state.status, shutdown.patience_s(stop))
  finally:  # or a thread's workers would go on with a server that nobody ends
    service.stop()
  directory.write_summary(state.status())
  try:
    sink.close()
  except OSError as error:
    logging.warning('the last metrics cannot be written: %s', error)


def _serve(
  state: run_state.RunState,
  before: endpoints.Endpoint | None,
  **settings: Any,
) -> server.VariableServer:
  """Returns a server, on the port of an earlier server if that port is free."""
  if before is None:
    return server.VariableServer(state, **settings)
  settings['incarnation'] = before.incarnation + 1
  try:
    return server.VariableServer(state, port=before.port, **settings)
  except OSError as error:
    logging.warning('%s Another port is used.', error)
    return server.VariableServer(state, **settings)


def _until_stop(
  state: run_state.RunState,
  directory: run_directory.RunDirectory,
  terminated: threading.Event,
) -> status_lib.StopReason:
  """Saves the run's counters until the run stops; returns the reason."""
  save_at = time.monotonic()
  while (stop := state.directive().stop) is None:
    if terminated.is_set():
      state.request_stop(status_lib.StopReason.TERMINATED)
    if time.monotonic() >= save_at:
      save_at += _PROGRESS_PERIOD_S
      if directory.stop_request.exists():
        state.request_stop(status_lib.StopReason.INTERRUPTED)
      status = state.status()
      progress = run_directory.Progress(status.counts, status.seconds)
      try:
        directory.write_progress(progress)
      except files.NotWrittenError as error:
        state.request_stop(status_lib.StopReason.FAILED, str(error))
    time.sleep(0.05)
  return stop
