"""Compares SAC on HalfCheetah with Stable-Baselines3, in a process on one core.

Networks, batch, updates per environment step and evaluations are the same;
`rival_sb3_sac.py` lists the differences. The two run one after the other. `rivals.py`
tells how to get Stable-Baselines3.
"""

from __future__ import annotations

import json
import os
import pathlib
import tempfile
from typing import Any

import haiku as hk
import jax.numpy as jnp

from benchmarks import harness
from benchmarks import rivals
from distacme.kit import actor_critic
from distacme.run import run_directory

_SEED = 0
_ENV_STEPS = 30_000
_EVAL_PERIOD = 5_000
_EVAL_EPISODES = 5
_TIMEOUT_S = 1_800


def plain_networks(num_params: int) -> actor_critic.ActorCritic:
  """Returns the MLPs of Stable-Baselines3, without normalization."""

  def mlp(inputs: Any, size: int) -> Any:
    return hk.nets.MLP([256, 256, size])(inputs)

  return actor_critic.ActorCritic(
    lambda observation: mlp(observation, num_params),
    lambda observation, action: mlp(
      jnp.concatenate([observation, action], axis=-1), 1
    ),
  )


def main() -> None:
  """Measures and reports."""
  if not rivals.RIVAL_PYTHON.exists():
    print(f'SKIPPED: Stable-Baselines3 is not there ({rivals.RIVAL_PYTHON})')
    return
  os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
  ours, theirs = run_ours(), run_theirs()
  harness.compare(
    'SAC on HalfCheetah in one process on one core, speed',
    [ours['env_steps'] / ours['run_s']],
    [theirs['env_steps'] / theirs['run_s']],
    unit='env steps/s',
    limit_name='Stable-Baselines3',
  )
  for number, (a, b) in enumerate(
    zip(ours['returns'], theirs['returns'], strict=True), start=1
  ):
    # Two numbers, no ratio: returns may be negative.
    what = (
      f'SAC on HalfCheetah, mean return after {number * _EVAL_PERIOD:,} steps'
    )
    harness.number(f'{what}: ours', [a], unit='')
    harness.number(f'{what}: Stable-Baselines3', [b], unit='')


def run_ours() -> dict[str, Any]:
  """Trains in one process; returns steps, seconds and mean returns."""
  with tempfile.TemporaryDirectory() as folder:
    run_dir = pathlib.Path(folder) / 'run'
    flags = [
      *('--agent', 'sac', '--env', 'gymnasium:HalfCheetah-v5'),
      *(
        '--mode',
        'local',
        '--network',
        'benchmarks.continuous_rivals:plain_networks',
      ),
      *('--learning-rate', '3e-4', '--max-gradient-norm', '1e9'),
      *('--eval-period', f'{_EVAL_PERIOD}'),
      *('--eval-episodes', f'{_EVAL_EPISODES}'),
      *('--max-env-steps', f'{_ENV_STEPS}'),
      *('--seed', f'{_SEED}', '--run-dir', str(run_dir)),
    ]
    rivals.timed([rivals.SCRIPT, 'train', *flags], _TIMEOUT_S)
    summary = run_directory.RunDirectory(run_dir).read_summary()
    assert summary is not None
    lines = (run_dir / 'metrics.jsonl').read_text().splitlines()
  returns = [
    row['mean_return'] for row in map(json.loads, lines) if 'mean_return' in row
  ]
  return {
    'env_steps': summary.counts['env_steps'],
    'run_s': summary.seconds,
    'returns': returns[: _ENV_STEPS // _EVAL_PERIOD],
  }


def run_theirs() -> dict[str, Any]:
  """Trains with Stable-Baselines3; returns steps, seconds and mean returns."""
  script = pathlib.Path(__file__).with_name('rival_sb3_sac.py')
  numbers = (_SEED, _ENV_STEPS, _EVAL_PERIOD, _EVAL_EPISODES)
  command = [rivals.RIVAL_PYTHON, script, *map(str, numbers)]
  _, output = rivals.timed(command, _TIMEOUT_S)
  result: dict[str, Any] = json.loads(output.splitlines()[-1])
  return result


if __name__ == '__main__':
  main()
