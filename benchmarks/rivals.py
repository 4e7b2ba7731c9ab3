"""Compares DQN on CartPole, until solved, as a program with Stable-Baselines3.

Network, batch, updates per environment step, exploration steps and evaluation are
the same; `theirs.py` lists the differences. Stable-Baselines3 and sbx have a Python
environment of their own (requirements/rivals.in), which `make bench` makes if there is
a Python 3.11 or newer.
"""

from __future__ import annotations

import json
import os
import pathlib
import subprocess
import sys
import tempfile
import time
from typing import Any

from benchmarks import harness
from distacme.run import run_directory

_ROOT = pathlib.Path(__file__).parents[1]
RIVAL_PYTHON = _ROOT / '.venv-rivals/bin/python'
SCRIPT = pathlib.Path(sys.executable).with_name('distacme')
_SEEDS = range(5)
MAX_SECONDS = 120
_TIMEOUT_S = 2 * MAX_SECONDS
_PROGRAM = (
  *('--mode', 'processes', '--num-actors', '2'),
  *('--envs-per-actor', '4'),
)


def main() -> None:
  """Measures and reports."""
  if not RIVAL_PYTHON.exists():
    print(f'SKIPPED: Stable-Baselines3 is not there ({RIVAL_PYTHON})')
    return
  ours, theirs = [], []
  for seed in _SEEDS:  # in turns
    ours.append(train('dqn', seed, *_PROGRAM))
    theirs.append(run_theirs('sb3', 'dqn_cartpole', seed, MAX_SECONDS))
  name = 'DQN on CartPole'
  harness.compare(
    f'{name} as a program with 2 actors, speed',
    [run['env_steps'] / run['run_s'] for run in ours],
    [run['env_steps'] / run['run_s'] for run in theirs],
    unit='env steps/s',
    limit_name='Stable-Baselines3',
    at_least=1.2,
  )
  compare_solving(name, ours, theirs)


def compare_solving(
  name: str, ours: list[dict[str, Any]], theirs: list[dict[str, Any]]
) -> None:
  """Reports seconds until CartPole is solved, and how many runs solved it."""
  harness.compare(
    f'{name}, whole command until a return of 475',
    [run['wall_s'] for run in ours],
    [run['wall_s'] for run in theirs],
    unit='s',
    limit_name='Stable-Baselines3',
    at_most=1.0,
  )
  for side, runs in (('ours', ours), ('Stable-Baselines3', theirs)):
    harness.number(
      f'{name}, share of runs solved within {MAX_SECONDS} s: {side}',
      [sum(run['solved'] for run in runs) / len(runs)],
      unit='',
    )


def train(agent: str, seed: int, *flags: str) -> dict[str, Any]:
  """Trains on CartPole until solved; returns steps and seconds."""
  with tempfile.TemporaryDirectory() as folder:
    run_dir = pathlib.Path(folder) / 'run'
    flags = (
      *('--agent', agent, '--env', 'gymnasium:CartPole-v1', *flags),
      *('--solved-return', '475', '--max-seconds', f'{MAX_SECONDS}'),
      *('--seed', f'{seed}', '--run-dir', str(run_dir)),
    )
    wall_s, _ = timed([SCRIPT, 'train', *flags], _TIMEOUT_S)
    summary = run_directory.RunDirectory(run_dir).read_summary()
    assert summary is not None and summary.stop is not None
  return {
    'wall_s': wall_s,
    'env_steps': summary.counts['env_steps'],
    'run_s': summary.seconds,
    'solved': summary.stop.reason == 'solved',
  }


def run_theirs(
  library: str, case: str, seed: int, seconds: int
) -> dict[str, Any]:
  """Runs a case of `theirs.py`; returns its results, and the command's seconds."""
  script = pathlib.Path(__file__).with_name('theirs.py')
  command = [RIVAL_PYTHON, script, library, case, str(seed), str(seconds)]
  wall_s, output = timed(command, _TIMEOUT_S)
  result: dict[str, Any] = json.loads(output.splitlines()[-1])
  return result | {'wall_s': wall_s}


def timed(command: list[Any], timeout_s: float) -> tuple[float, str]:
  """Runs a command; returns its seconds and its output."""
  start = time.perf_counter()
  done = subprocess.run(
    command,
    # A network is imported from this folder.
    env={**os.environ, 'PYTHONPATH': str(_ROOT)},
    capture_output=True,
    text=True,
    timeout=timeout_s,
  )
  if done.returncode:
    raise RuntimeError(f'{command} failed:\n{done.stdout}{done.stderr}')
  return time.perf_counter() - start, done.stdout


if __name__ == '__main__':
  main()
