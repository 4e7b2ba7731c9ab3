"""Runs the share of one pod: the run's files first, then supervision, as in any job.

    python -m distacme.deploy.kubernetes_pod RUN_DIR KIND --submitted DIR [--secrets DIR]
    python -m distacme.deploy.kubernetes_pod RUN_DIR actors N
    python -m distacme.deploy.kubernetes_pod RUN_DIR stop

The machine that submits a run does not see the pods' volume. What it has to tell comes
as a ConfigMap and a Secret. The pod of the variable server makes the run directory
of it, or goes on with the one that lies there; the other pods wait until it has.
The others are run in that pod: they make the program one of N actors, or end the run.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
import dataclasses
import logging
import os
import pathlib
import signal
import sys
import threading
import time
from typing import NoReturn

from distacme import status as status_lib
from distacme.deploy import kubernetes_manifests
from distacme.deploy import records
from distacme.deploy import share
from distacme.deploy import submitted as submitted_lib
from distacme.deploy import supervise
from distacme.programs import program as program_lib
from distacme.programs import recorded_run
from distacme.run import endpoints
from distacme.run import files
from distacme.run import run_directory
from distacme.run import run_state
from distacme.variables import client

# The number of the pod among those of its Job, which the Job's controller sets.
INDEX = 'JOB_COMPLETION_INDEX'
_POLL_S = 0.5
_EXPLAIN_S = 30.0
_LOSSES_COUNT_S = 600.0  # as restarts within a pod do
_ECHO_S = 10.0
_ECHO_BYTES = 1 << 16
_SHORT = 1600  # bytes of the run's end in a pod's message


def main(arguments: Sequence[str] | None = None) -> int:
  """Runs the worker of this pod to its end; returns the exit code."""
  parser = argparse.ArgumentParser(
    prog='python -m distacme.deploy.kubernetes_pod'
  )
  parser.add_argument('run_dir', type=pathlib.Path)
  parser.add_argument('kind', help="of the worker, or 'actors' or 'stop'")
  parser.add_argument('number', type=int, nargs='?', help='of actors')
  parser.add_argument('--submitted', type=pathlib.Path)
  parser.add_argument('--secrets', type=pathlib.Path)
  flags = parser.parse_args(arguments)
  directory = run_directory.RunDirectory(flags.run_dir)
  if flags.number is not None:
    set_actors(directory, flags.number)
    return 0
  if flags.kind == 'stop':
    directory.stop_request.touch()
    return 0
  logging.basicConfig(
    level=logging.INFO,
    format='%(asctime)s %(levelname)s %(name)s: %(message)s',
  )
  # The first process of a container has no default for signals: it ignores them.
  signal.signal(signal.SIGTERM, _leave)
  submitted = submitted_lib.Submitted(flags.submitted, flags.secrets)
  name = f'{flags.kind}/{_index()}'
  serves = name == program_lib.VARIABLES
  try:
    if serves:
      submitted_lib.bring(submitted, directory)
  except ValueError as error:  # another pod may be luckier
    logging.error('%s', error)
    return 1
  if refused := _wait_for(submitted, directory):
    logging.error('%s', refused)
    return kubernetes_manifests.RUN_FAILED
  _check_losses(directory, name)
  echo = _Echo(directory.logs / name)
  try:
    code = supervise.main(
      ['kubernetes', f'{directory.path}', flags.kind, '--job', _index()]
    )
  finally:
    echo.end()
  ended = records.read_summary(directory)
  if ended is None:
    return code
  if serves:
    _tell_end(ended)
  stop = ended.stop
  failed = stop is not None and stop.reason == status_lib.StopReason.FAILED
  mine = serves or (stop is not None and stop.worker == name)
  return kubernetes_manifests.RUN_FAILED if failed and mine else 0


def _tell_end(ended: status_lib.Status) -> None:
  """Writes how the run ended, as short as the cluster keeps it: 4 KiB."""
  stop = ended.stop
  short = status_lib.Status(
    seconds=ended.seconds,
    counts=ended.counts,
    stop=stop and dataclasses.replace(stop, detail=stop.detail[-_SHORT:]),
    failures={
      worker: how[-_SHORT // 4 :]
      for worker, how in list(ended.failures.items())[:2]
    },
  )
  try:
    pathlib.Path(kubernetes_manifests.MESSAGE).write_text(
      files.to_json(short.to_dict())
    )
  except OSError as error:
    logging.warning('the end of the run is in its summary alone: %s', error)


def _index() -> str:
  return os.environ.get(INDEX, '0')


def _leave(number: int, frame: object) -> NoReturn:
  del frame
  sys.exit(128 + number)


def _wait_for(
  submitted: submitted_lib.Submitted, directory: run_directory.RunDirectory
) -> str:
  """Waits until the run directory is of this submission; returns a refusal.

  Without a limit: the pod of the variable server may wait for a node for hours.
  """
  wanted = submitted.id
  explain_at = time.monotonic()
  while True:
    share.tell_alive()
    brought = submitted_lib.read(directory)
    if brought is not None and brought.id == wanted:
      if submitted_lib.is_seen(brought, directory):
        return brought.refusal
    if time.monotonic() >= explain_at:
      explain_at += _EXPLAIN_S
      logging.info(
        'waiting for %s, which makes %s ready',
        program_lib.VARIABLES,
        directory.path,
      )
    time.sleep(_POLL_S)


def _check_losses(directory: run_directory.RunDirectory, name: str) -> None:
  """Writes down that the pod before was lost; ends a run that loses it again and again.

  A pod whose memory runs out, or whose node is gone, says nothing itself. Its Job
  replaces it for ever.
  """
  place = records.read_place(directory, name)
  if place is None or not place.runs:
    return
  if records.read_summary(directory) is not None:
    return
  how = 'was lost: its memory ran out, or its node failed'
  place = place.ended(how)
  records.write_place(directory, place)
  since = time.time() - _LOSSES_COUNT_S
  losses = sum(end.how == how and end.time > since for end in place.ends)
  logging.warning('the pod of %s before this one %s', name, how)
  run = recorded_run.run_config(directory.read_config(), directory)
  if losses <= run.max_restarts:
    return
  detail = (
    f'the pod of {name} {how}, {losses} times within '
    f"{_LOSSES_COUNT_S / 60:.0f} minutes. 'kubectl describe pod {place.job}' may say "
    'more; memory is set in cluster.toml.'
  )
  logging.error('%s', detail)
  stop = status_lib.Stop(status_lib.StopReason.FAILED, detail, name)
  if name == program_lib.VARIABLES:
    progress = directory.read_progress()
    counts = dict(progress.counts) if progress else {}
    seconds = progress.seconds if progress else 0.0
    directory.write_summary(
      status_lib.Status(seconds=seconds, counts=counts, stop=stop)
    )
    return
  server = endpoints.find(directory.endpoints, program_lib.VARIABLES)
  try:
    if server is not None:
      client.request_stop(server, stop.reason, stop.detail, stop.worker)
  except ConnectionError as error:
    logging.warning('%s', error)


def set_actors(directory: run_directory.RunDirectory, number: int) -> None:
  """Makes the program one with so many actors, whose pods come or go thereafter.

  Raises:
    ValueError: if the run has no actors, or may not have so many.
  """
  run_state.check_num_actors(number)
  program = program_lib.read(directory)
  if program_lib.REPLAY not in program:
    raise ValueError(
      f'{directory.path} is a run without actors: its agent learns from '
      'demonstrations alone. There is nothing to scale.'
    )
  run = recorded_run.run_config(directory.read_config(), directory)
  names = [spec.name for spec in program.workers]
  actors = [name for name in names if program_lib.is_actor(name)]
  wanted = [program_lib.actor(run, index) for index in range(number)]
  program_lib.write(program.without(*actors).plus(*wanted), directory)


class _Echo:
  """Repeats a worker's log on this process's output, for `kubectl logs`.

  The volume keeps the log; a cluster collects what pods print.
  """

  def __init__(self, log: pathlib.Path):
    """Begins behind what pods before this one have written."""
    self._log = log
    self._position = log.stat().st_size if log.exists() else 0
    self._ended = threading.Event()
    self._thread = threading.Thread(target=self._run, daemon=True)
    self._thread.start()

  def end(self) -> None:
    """Repeats the rest."""
    self._ended.set()
    self._thread.join(_ECHO_S)

  def _run(self) -> None:
    last = False
    while not last:
      last = self._ended.wait(_POLL_S)
      try:
        self._repeat()
      except FileNotFoundError:
        pass  # it is not there yet
      except OSError as error:  # the volume is away, or nobody listens
        logging.warning('%s cannot be repeated: %s', self._log, error)
        return

  def _repeat(self) -> None:
    with open(self._log, 'rb') as file:
      file.seek(self._position)
      while data := file.read(_ECHO_BYTES):
        sys.stdout.buffer.write(data)
        self._position += len(data)
    sys.stdout.flush()


if __name__ == '__main__':
  sys.exit(main())
