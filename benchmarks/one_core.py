"""Compares agents with Stable-Baselines3 and sbx, each side on a core of its own.

The two sides of a pair run at the same time, on two cores that they swap from pair to
pair; on a machine of one core they run in turns. Networks, batches, updates for each
environment step, step sizes and evaluations are the same; `theirs.py` lists
the differences. `rivals.py` tells how to get the rivals.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent import futures
import dataclasses
import json
import os
import sys
from typing import Any

from benchmarks import harness
from benchmarks import rivals

_PAIRS = 3
_TIMEOUT_S = 300
_NAMES = {'sb3': 'Stable-Baselines3', 'sbx': 'sbx'}

Results = list[dict[str, Any]]


@dataclasses.dataclass(frozen=True)
class Row:
  """A comparison of what is done in a second.

  Attributes:
    name: of the row.
    unit: of what is done.
    case: of the scripts of both sides.
    library: of the rival.
    seconds: that are measured.
  """

  name: str
  unit: str
  case: str
  library: str
  seconds: int


_SPEEDS = (
  Row('SAC on HalfCheetah', 'updates/s', 'sac', 'sbx', 10),
  Row('SAC on HalfCheetah', 'updates/s', 'sac', 'sb3', 10),
  Row('TD3 on HalfCheetah', 'updates/s', 'td3', 'sbx', 10),
  Row('TD3 on HalfCheetah', 'updates/s', 'td3', 'sb3', 10),
  # From the first step on: compilation counts.
  Row('PPO on Pong, 8 environments', 'env steps/s', 'ppo_pong', 'sb3', 60),
  Row('DQN on Pong', 'env steps/s', 'dqn_pong', 'sb3', 20),
)
# Of `distacme train`, beside those of `rivals.train`.
_SOLVING = {'dqn': (), 'ppo': ('--envs-per-actor', '8')}


def main() -> None:
  """Measures and reports."""
  if not rivals.RIVAL_PYTHON.exists():
    print(f'SKIPPED: the rivals are not there ({rivals.RIVAL_PYTHON})')
    return
  for row in _SPEEDS:
    ours, theirs = in_pairs(
      lambda seed, row=row: own_speed(row, seed),
      lambda seed, row=row: rivals.run_theirs(
        row.library, row.case, seed, row.seconds
      ),
    )
    harness.compare(
      f'{row.name} beside {_NAMES[row.library]}, one core',
      [run['done'] / run['run_s'] for run in ours],
      [run['done'] / run['run_s'] for run in theirs],
      unit=row.unit,
      limit_name=_NAMES[row.library],
      at_least=1.0,
    )
  for agent, flags in _SOLVING.items():
    ours, theirs = in_pairs(
      lambda seed, agent=agent, flags=flags: rivals.train(
        agent, seed, '--mode', 'local', *flags
      ),
      lambda seed, agent=agent: rivals.run_theirs(
        'sb3', f'{agent}_cartpole', seed, rivals.MAX_SECONDS
      ),
    )
    rivals.compare_solving(
      f'{agent.upper()} on CartPole, one core', ours, theirs
    )


def in_pairs(
  ours: Callable[[int], dict[str, Any]], theirs: Callable[[int], dict[str, Any]]
) -> tuple[Results, Results]:
  """Runs both sides for each seed; returns the results of each side."""
  cores = sorted(os.sched_getaffinity(0))[:2]
  found: tuple[Results, Results] = ([], [])
  with futures.ThreadPoolExecutor(len(cores)) as pool:
    for seed in range(_PAIRS):
      running = [
        pool.submit(_on_core, cores[(seed + side) % len(cores)], run, seed)
        for side, run in enumerate((ours, theirs))
      ]
      for results, future in zip(found, running, strict=True):
        results.append(future.result())
  return found


def _on_core(
  core: int, run: Callable[[int], dict[str, Any]], seed: int
) -> dict[str, Any]:
  # Of this thread, and of the processes that it starts.
  os.sched_setaffinity(0, {core})
  return run(seed)


def own_speed(row: Row, seed: int) -> dict[str, Any]:
  """Runs distacme in one process; returns what it did in how many seconds."""
  module = [sys.executable, '-m', 'benchmarks.one_core_ours']
  command = [*module, row.case, str(seed), str(row.seconds)]
  _, output = rivals.timed(command, _TIMEOUT_S)
  result: dict[str, Any] = json.loads(output.splitlines()[-1])
  return result


if __name__ == '__main__':
  main()
