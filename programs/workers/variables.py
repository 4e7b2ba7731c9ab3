"""The variable server of a program: params, counters, metrics, and the run's end."""

from __future__ import annotations

from collections.abc import Collection, Mapping
import logging
import pathlib
import threading
import time

from distacme.programs.workers import process as process_lib
from distacme.programs.workers import shutdown
from distacme.run import files
from distacme.run import metrics
from distacme.run import run_directory
from distacme.run import run_state
from distacme.run import status as status_lib
from distacme.variables import server

_PROGRESS_PERIOD_S = 1.0  # between savings of the run's counters


def run(
  address: str,
  limits: status_lib.Limits,
  clock: status_lib.Clock,
  run_dir: pathlib.Path,
  counts: Mapping[str, int],
  others: Collection[str],
) -> int:
  """Serves until the run has ended.

  It is the last to go: it waits for the goodbyes of `others`, all workers but
  itself, and then writes how the run ended. If it is restarted it goes on with the
  counters that it had at most `_PROGRESS_PERIOD_S` before.

  Returns:
    The exit code, 1 after a failure; a process of its own ends here instead.
  """
  process = process_lib.take_process()
  code = 0
  try:
    _serve(process, address, limits, clock, run_dir, counts, others)
  except BaseException:  # the threads of gRPC would keep the process
    logging.exception('variables/0 failed')
    code = 1
  if process:
    process.end(code)
  return code


def _serve(
  process: process_lib.WorkerProcess | None,
  address: str,
  limits: status_lib.Limits,
  clock: status_lib.Clock,
  run_dir: pathlib.Path,
  counts: Mapping[str, int],
  others: Collection[str],
) -> None:
  directory = run_directory.RunDirectory(run_dir)
  before = directory.read_progress() or run_directory.Progress(counts, 0.0)
  sink = metrics.MetricsSink(
    run_dir,
    clock=clock,
    resumed_at=before.counts.get(clock, 0),
  )
  state = run_state.RunState(
    limits, sink, before.counts, elapsed_s=before.seconds
  )

  def terminate() -> None:
    # In a thread: the signal may interrupt whoever holds the lock.
    threading.Thread(
      target=state.request_stop, args=(status_lib.StopReason.TERMINATED,)
    ).start()

  if process:
    process.on_terminate(terminate)
  service = server.VariableServer(state, address)
  save_at = time.monotonic()
  while (stop := state.directive().stop) is None:
    if time.monotonic() >= save_at:
      save_at += _PROGRESS_PERIOD_S
      status = state.status()
      progress = run_directory.Progress(status.counts, status.seconds)
      try:
        directory.write_progress(progress)
      except files.NotWrittenError as error:
        state.request_stop(status_lib.StopReason.FAILED, str(error))
    time.sleep(0.05)
  shutdown.wait_for(others, state.status, shutdown.patience_s(stop))
  service.stop()
  directory.write_summary(state.status())
  try:
    sink.close()
  except OSError as error:
    logging.warning('the last metrics cannot be written: %s', error)
