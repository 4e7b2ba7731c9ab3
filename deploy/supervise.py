"""Runs the workers of one job of a run on a cluster, on the job's host.

    python -m distacme.deploy.supervise ENGINE RUN_DIR KIND [--job I] [--per-job N]
    python -m distacme.deploy.supervise ENGINE RUN_DIR all --job I --per-job HOSTS

Jobs of all engines start this. It starts the workers, restarts them in their place,
writes down how they ended, and has the job started anew where that helps.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
import dataclasses
import functools
import importlib
import logging
import os
import pathlib
import platform
import signal
import sys
import threading
import time
from typing import Any

from distacme import status as status_lib
from distacme.deploy import cluster as cluster_lib
from distacme.deploy import engine as engine_lib
from distacme.deploy import records
from distacme.deploy import share as share_lib
from distacme.programs import program as program_lib
from distacme.programs import recorded_run
from distacme.programs.workers import context
from distacme.programs.workers import main as workers_main
from distacme.run import run_directory
from distacme.runtime import process_tree
from distacme.runtime import signals
from distacme.runtime import subprocesses
from distacme.runtime import supervision
from distacme.runtime import topology

# The exit code of a job that is to be started anew, for engines that go by it
# (EX_TEMPFAIL of sysexits.h).
START_ANEW = 75
# Before the time limit, or before the job is taken from its host.
WARNING = signal.SIGUSR1
ALL = 'all'
_SEEN_S = 90.0  # for a network file system to show what the launcher wrote
_POLL_S = 0.5
_NOT_ENDED = (
  engine_lib.JobState.RUNNING,
  engine_lib.JobState.ENDING,
  engine_lib.JobState.UNKNOWN,
)
_LAST_S = 15.0  # of the warning, for supervision itself
_END_S = 20.0  # for the other jobs to end by themselves


def main(arguments: Sequence[str] | None = None) -> int:
  """Runs the workers of a job to their ends; returns the exit code."""
  parser = argparse.ArgumentParser(prog='python -m distacme.deploy.supervise')
  parser.add_argument('engine')
  parser.add_argument('run_dir', type=pathlib.Path)
  parser.add_argument('kind', help=f'of the workers, or {ALL}')
  parser.add_argument('--job', type=int, default=0, help='number of the job')
  parser.add_argument(
    '--per-job', type=int, default=1, help='workers of each job'
  )
  flags = parser.parse_args(arguments)
  logging.basicConfig(
    level=logging.INFO,
    format='%(asctime)s %(levelname)s %(name)s: %(message)s',
  )
  early = _EarlySignals()
  directory = run_directory.RunDirectory(flags.run_dir.resolve())
  engine = importlib.import_module(
    f'distacme.deploy.{flags.engine}_engine'
  ).ENGINE
  program = _wait_for_program(directory)
  if (ended := records.read_summary(directory)) is not None:
    logging.info('the run has ended: %s', ended.stop)
    return 0
  if flags.kind == ALL:
    names = share_lib.spread(program, flags.job, flags.per_job)
  else:
    names = share_lib.names_of(program, flags.kind, flags.job, flags.per_job)
  # Of several hosts of one job the first speaks for all.
  leads = flags.kind != ALL or flags.job == 0
  return _Job(directory, program, names, engine, leads).run(early)


def _wait_for_program(
  directory: run_directory.RunDirectory,
) -> topology.Program:
  """Returns the run's program, which a network file system may show late."""
  give_up_at = time.monotonic() + _SEEN_S
  while not directory.program.exists() and time.monotonic() < give_up_at:
    logging.info('%s is not there yet', directory.program)
    time.sleep(_POLL_S)
  return program_lib.read(directory)


class _EarlySignals:
  """Keeps signals that come before there is a share to end."""

  def __init__(self) -> None:
    self._came: int | None = None
    self._handle: Any = None
    for number in (signal.SIGTERM, signal.SIGINT, WARNING):
      signal.signal(number, lambda number, _: self._take(number))

  def _take(self, number: int) -> None:
    if self._handle is None:
      self._came = number
    else:
      self._handle(number)

  def to(self, handle: Any) -> None:
    """Passes signals on, the one that has come, too."""
    self._handle = handle
    if self._came is not None:
      handle(self._came)


class _Job:
  """The workers of one job on this host."""

  def __init__(
    self,
    directory: run_directory.RunDirectory,
    program: topology.Program,
    names: Sequence[str],
    engine: engine_lib.Engine,
    leads: bool,
  ):
    self._leads = leads
    self._directory = directory
    self._program = program
    self._names = names
    self._engine = engine
    self._run = recorded_run.run_config(directory.read_config(), directory)
    self._cluster = cluster_lib.read(records.cluster_file(directory))
    before = records.read_place(directory, names[0])
    self._place = records.Place(
      names[0],
      engine.this_job(),
      platform.node(),
      time.time(),
      ends=before.ends if before else (),
    )
    self._share = share_lib.Share(
      program,
      directory,
      names,
      self._place,
      engine,
      self._cluster.max_requeues,
    )

  def run(self, early: _EarlySignals) -> int:
    """Runs the workers to their ends; returns the exit code of the job."""
    logging.info(
      '%s on %s, job %s',
      ', '.join(self._names),
      self._place.host,
      self._place.job,
    )
    self._write(self._place)
    if self._share.serves and self._directory.read_running() is None:
      # Somebody has submitted the scripts by hand.
      self._directory.write_running(self._run.mode)
    try:
      host = self._engine.host(self._cluster)
    except ValueError as error:
      self._write(self._place.ended(f'could not start: {error}'))
      raise
    os.environ[context.ADVERTISED] = host
    family = process_tree.Family()
    how: dict[str, Any] = {
      'command': functools.partial(
        workers_main.command, self._directory.path, self._import_path()
      ),
      'logs': self._directory.logs,
      'family': family,
    }
    with family.no_orphans():
      members = [
        # Into the logs of earlier starts of the job, if there are some.
        subprocesses.Process(self._program[name], mode='a', **how).worker(name)
        for name in self._names
      ]
      self._share.attach(members)
      early.to(self._take_signal)
      policy = supervision.RestartPolicy(
        self._run.max_restarts, hang_timeout_s=self._run.hang_timeout_s
      )
      supervision.Supervisor(members, self._share, policy).watch()
    return self._end()

  def _write(self, place: records.Place) -> None:
    """Writes the job's place, for each of its workers."""
    for name in self._names:
      named = dataclasses.replace(place, worker=name)
      records.write_place(self._directory, named)

  def _import_path(self) -> Sequence[str]:
    """Returns the folders from which workers import, those of this Python last."""
    added = self._program.import_path
    return (*added, *(path for path in sys.path if path not in added))

  def _take_signal(self, number: int) -> None:
    """Ends this job at a signal, and the run if the job was cancelled."""
    if number == WARNING:
      grace_s = self._cluster.slurm.warning_s - _LAST_S
      self._share.leave(
        'its time was up',
        anew=True,
        grace_s=max(self._engine.grace_s, grace_s),
      )
      return
    # In a thread: it asks the engine, and the run.
    threading.Thread(
      target=self._terminate, args=(number,), daemon=True
    ).start()

  def _terminate(self, number: int) -> None:
    if self._share.serves and self._engine.is_cancelled():
      self._share.request_stop(status_lib.StopReason.TERMINATED)
      return
    name = signal.Signals(number).name
    self._share.leave(f'got {name}, of the engine or its user', anew=False)

  def _end(self) -> int:
    """Writes down how the job ended; returns the exit code."""
    status = self._share.finish()
    leaving = self._share.leaving
    if leaving is None:
      logging.info('the run ended: %s', status.stop)
      reason = status.stop.reason if status.stop else None
      self._write(
        self._place.ended(
          f'the run ended: {reason.value}' if reason else 'its workers ended'
        )
      )
      if self._share.serves:
        self._end_run()
      elif status.stop and status.stop.worker not in self._names:
        return 0  # the end is another's
      return signals.exit_code(reason) if reason else 1
    logging.info('leaves: %s', leaving.how)
    self._share.leave_if_replaced()
    if not self._share.is_replaced:  # the record is another's
      self._write(self._place.ended(leaving.how, leaving.failed))
    if not self._leads and not leaving.failed:
      return 0  # srun would kill the first host's workers for another code
    anew = leaving.anew and not self._share.is_replaced
    if anew and not self._engine.start_anew():
      logging.error('%s does not start this job anew', self._place.job)
    return START_ANEW if anew else 128 + signal.SIGTERM

  def _end_run(self) -> None:
    """Cancels what is left of the run's jobs, once the run has ended."""
    self._directory.end_running()
    left = records.jobs(self._directory) - {self._place.job}
    give_up_at = time.monotonic() + _END_S
    while left and time.monotonic() < give_up_at:
      states = {job: self._engine.state(job) for job in left}
      self._engine.cancel(
        [job for job in left if states[job] == engine_lib.JobState.WAITING]
      )
      left = {job for job in left if states[job] in _NOT_ENDED}
      time.sleep(_POLL_S)
    self._engine.cancel(sorted(left))


if __name__ == '__main__':
  sys.exit(main())
