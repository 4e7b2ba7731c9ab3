"""Compares D4PG with one actor and with four, on slow environments."""

from __future__ import annotations

import pathlib
import tempfile
import time

from benchmarks import harness
from benchmarks import program
from distacme.run import run_directory

_SECONDS = 30.0
_FLAGS = (
  *('--agent', 'd4pg', '--mode', 'processes'),
  *('--env', 'distacme.testing.environments:slow_pendulum'),
  *('--min-value', '-1700', '--max-value', '0'),
  # Few samples, so that the learner keeps up with four actors.
  *('--samples-per-insert', '16', '--eval-period', '1000000'),
)


def main() -> None:
  """Measures and reports."""
  rates = {count: [speed(count)] for count in (1, 4)}
  harness.compare(
    'D4PG, 4 actors, environments of 10 ms a step',
    rates[4],
    rates[1],
    unit='env steps/s',
    limit_name='1 actor',
    at_least=3.6,
  )


def speed(num_actors: int) -> float:
  """Returns the environment steps per second of a program that learns."""
  with tempfile.TemporaryDirectory() as folder:
    directory = run_directory.RunDirectory(pathlib.Path(folder) / 'run')
    flags = (*_FLAGS, '--num-actors', f'{num_actors}')
    with program.program(directory, flags):
      program.wait_for_learner_steps(directory, 1)
      first, start = steps(directory), time.perf_counter()
      time.sleep(_SECONDS)
      return (steps(directory) - first) / (time.perf_counter() - start)


def steps(directory: run_directory.RunDirectory) -> int:
  """Returns the environment steps that were made so far."""
  status = program.read_status(directory)
  assert status is not None  # it learns
  return status.counts['env_steps']


if __name__ == '__main__':
  main()
