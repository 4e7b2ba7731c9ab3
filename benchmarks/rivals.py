"""Compares DQN on CartPole, until solved, as a program with Stable-Baselines3.

Network, batch, updates per environment step, exploration steps and evaluation are
the same; `rival_sb3.py` lists the differences. Stable-Baselines3 has a Python
environment of its own (requirements/rivals.in), which `make bench` makes if there is a
Python 3.11 or newer.
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
_MAX_SECONDS = 120
_TIMEOUT_S = 2 * _MAX_SECONDS


def main() -> None:
  """Measures and reports."""
  if not RIVAL_PYTHON.exists():
    print(f'SKIPPED: Stable-Baselines3 is not there ({RIVAL_PYTHON})')
    return
  ours, theirs = [], []
  for seed in _SEEDS:  # in turns
    ours.append(run_ours(seed))
    theirs.append(run_theirs(seed))
  harness.compare(
    'DQN on CartPole as a program with 2 actors, speed',
    [run['env_steps'] / run['run_s'] for run in ours],
    [run['env_steps'] / run['run_s'] for run in theirs],
    unit='env steps/s',
    limit_name='Stable-Baselines3',
    at_least=1.2,
  )
  harness.compare(
    'DQN on CartPole, whole command until a return of 475',
    [run['wall_s'] for run in ours],
    [run['wall_s'] for run in theirs],
    unit='s',
    limit_name='Stable-Baselines3',
    at_most=1.0,
  )
  harness.compare(
    f'DQN on CartPole, solved within {_MAX_SECONDS} s',
    [float(sum(run['solved'] for run in ours))],
    [float(max(1, sum(run['solved'] for run in theirs)))],
    unit=f'of {len(_SEEDS)}',
    limit_name='Stable-Baselines3',
  )


def run_ours(seed: int) -> dict[str, Any]:
  """Trains as a program; returns steps and seconds."""
  with tempfile.TemporaryDirectory() as folder:
    run_dir = pathlib.Path(folder) / 'run'
    flags = [
      *('--agent', 'dqn', '--env', 'gymnasium:CartPole-v1'),
      *('--mode', 'processes', '--num-actors', '2', '--envs-per-actor', '4'),
      *('--solved-return', '475', '--max-seconds', f'{_MAX_SECONDS}'),
      *('--seed', f'{seed}', '--run-dir', str(run_dir)),
    ]
    wall_s, _ = timed([SCRIPT, 'train', *flags], _TIMEOUT_S)
    summary = run_directory.RunDirectory(run_dir).read_summary()
    assert summary is not None and summary.stop is not None
  return {
    'wall_s': wall_s,
    'env_steps': summary.counts['env_steps'],
    'run_s': summary.seconds,
    'solved': summary.stop.reason == 'solved',
  }


def run_theirs(seed: int) -> dict[str, Any]:
  """Trains with Stable-Baselines3; returns steps and seconds."""
  script = pathlib.Path(__file__).with_name('rival_sb3.py')
  command = [RIVAL_PYTHON, script, str(seed), str(_MAX_SECONDS)]
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
