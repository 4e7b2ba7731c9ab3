"""Measures a program: its start and end, memory, samples per insert, waiting."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
import contextlib
import os
import pathlib
import signal
import statistics
import subprocess
import sys
import tempfile
import time

import psutil

from benchmarks import harness
from distacme import status as status_lib
from distacme.programs import program as program_lib
from distacme.run import endpoints
from distacme.run import metrics as metrics_lib
from distacme.run import run_directory
from distacme.variables import client

_RUNS = 3
_SECONDS = 15.0  # of learning, until a program has settled
_DEADLINE_S = 120.0
_SAMPLES_PER_INSERT = 32.0
_FLAGS = (
  *('--agent', 'dqn', '--env', 'gymnasium:CartPole-v1'),
  *('--mode', 'processes', '--num-actors', '2', '--envs-per-actor', '4'),
  *('--samples-per-insert', f'{_SAMPLES_PER_INSERT}'),
)
_SCRIPT = pathlib.Path(sys.executable).with_name('distacme')


def main() -> None:
  """Measures and reports."""
  first_step_s, clock_s, actor_mb, error, waiting = [], [], [], [], []
  for _ in range(_RUNS):
    with tempfile.TemporaryDirectory() as folder:
      directory = run_directory.RunDirectory(pathlib.Path(folder) / 'run')
      start = time.perf_counter()
      with program(directory) as launcher:
        wait_for_learner_steps(directory, 1)
        first_step_s.append(time.perf_counter() - start)
        status = read_status(directory)
        assert status is not None
        clock_s.append(time.perf_counter() - start - status.seconds)
        learning_since_s = status.seconds
        time.sleep(_SECONDS)
        status = read_status(directory)
        assert status is not None
        actor_mb += [p.memory_info().rss / 1e6 for p in actors(launcher)]
      metrics = status.workers['replay/0'].metrics
      reached = metrics['samples_per_insert'] / _SAMPLES_PER_INSERT
      error.append(abs(reached - 1))
      waiting.append(share_waiting(directory, learning_since_s))
  harness.number(
    'launch to first learner step, 2 actors',
    first_step_s,
    unit='s',
    at_most=10.0,
  )
  harness.number(
    "launch to the start of the run's clock, 2 actors", clock_s, unit='s'
  )
  harness.number(
    "learner's time without a batch, 2 actors",
    [100 * value for value in waiting],
    unit='%',
    at_most=10.0,
  )
  harness.number('actor, resident', actor_mb, unit='MB', at_most=250.0)
  harness.number(
    'samples per insert, off what was asked',
    [100 * value for value in error],
    unit='%',
    at_most=5.0,
  )


def share_waiting(
  directory: run_directory.RunDirectory, since_s: float
) -> float:
  """Returns the mean share of its time that the learner waited for batches.

  Args:
    directory: of the run.
    since_s: of the run's clock, before which nothing counts.
  """
  name = 'share_waiting_for_data'
  # The metrics of the first second are of a time without data.
  return statistics.mean(
    row[name]
    for row in metrics_lib.read_metrics(directory.path)
    if name in row and row['seconds'] > since_s + 2
  )


@contextlib.contextmanager
def program(
  directory: run_directory.RunDirectory, flags: Sequence[str] = _FLAGS
) -> Iterator[subprocess.Popen[bytes]]:
  """Yields the launcher of a program, which runs until the context ends."""
  log = directory.path.with_suffix('.out')
  with open(log, 'wb') as output:
    launcher = subprocess.Popen(
      [_SCRIPT, 'train', *flags, '--run-dir', directory.path],
      stdout=output,
      stderr=subprocess.STDOUT,
    )
    try:
      yield launcher
    except Exception:
      print(log.read_text(), file=sys.stderr)
      raise
    finally:
      launcher.send_signal(signal.SIGINT)
      try:
        launcher.wait(_DEADLINE_S)
      except subprocess.TimeoutExpired:
        launcher.kill()  # Its workers end with the launcher.
        launcher.wait()
        raise


def wait_for_learner_steps(
  directory: run_directory.RunDirectory, count: int
) -> None:
  """Waits until the program's learner has made `count` steps."""
  deadline = time.monotonic() + _DEADLINE_S
  while time.monotonic() < deadline:
    status = read_status(directory)
    if status and status.counts.get('learner_steps', 0) >= count:
      return
    time.sleep(0.05)
  raise TimeoutError(f'no learner step within {_DEADLINE_S:.0f} s')


def read_status(
  directory: run_directory.RunDirectory,
) -> status_lib.Status | None:
  """Returns the program's status; None if it cannot be asked yet."""
  server = endpoints.find(directory.endpoints, program_lib.VARIABLES)
  if server is None:
    return None
  try:
    return client.status(server, timeout_s=1.0)
  except ConnectionError:
    return None


def actors(launcher: subprocess.Popen[bytes]) -> list[psutil.Process]:
  """Returns the processes of a program's actors, known by their logs."""
  children = psutil.Process(launcher.pid).children(recursive=True)
  return [
    child
    for child in children
    if '/logs/actor/' in os.readlink(f'/proc/{child.pid}/fd/1')
  ]


if __name__ == '__main__':
  main()
