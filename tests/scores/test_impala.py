"""IMPALA reaches the scores that we promise, also with a policy that is old.

    pytest -m learning tests/scores

Half a minute to some minutes each; `training` says where the scores go.
"""

import numpy as np
import pytest

import distacme
from distacme import specs
from distacme.agents import impala
from distacme.environments import vector
from distacme.testing import delays
from distacme.testing import environments
from tests.scores.training import record
from tests.scores.training import train

pytestmark = pytest.mark.learning

LOCAL = '--mode local --envs-per-actor 8'
PROCESSES = '--mode processes --num-actors 2 --envs-per-actor 4'
# With three seeds locally, and one in processes.
RUNS = [
  pytest.param(f'{mode} --seed {seed}', id=f'{name}-{seed}')
  for name, mode, seeds in (
    ('local', LOCAL, 3),
    ('processes', PROCESSES, 1),
  )
  for seed in range(seeds)
]


@pytest.mark.parametrize('run', RUNS)
def test_catch_is_solved(run, tmp_path):
  result = train(
    'impala',
    '--env bsuite:catch/0 --solved-return 0.95 --eval-episodes 100 '
    f'--max-env-steps 200000 {run}',
    tmp_path,
  )
  assert result['stop'] == 'solved'
  assert result['final_return'] >= 0.95


@pytest.mark.parametrize('run', RUNS)
def test_cartpole_is_solved(run, tmp_path):
  result = train(
    'impala',
    '--env gymnasium:CartPole-v1 --solved-return 475 --eval-episodes 20 '
    f'--max-env-steps 500000 --max-seconds 600 {run}',
    tmp_path,
  )
  assert result['stop'] == 'solved'
  assert result['final_return'] >= 475


def test_pendulum_swings_up(tmp_path):
  # Continuous actions; what acts at random gets about -1200, the best -150.
  result = train(
    'impala',
    f'--env gymnasium:Pendulum-v1 {LOCAL} --solved-return -220 '
    '--eval-episodes 50 --eval-period 20000 --max-env-steps 600000 '
    '--discount 0.9 --reward-scale 0.03 --entropy-weight 0 --seed 0',
    tmp_path,
  )
  assert result['stop'] == 'solved'
  assert result['final_return'] >= -220


# What the first two observations tell decides, 6 steps later, between +1 and -1.
MEMORY = f'--env bsuite:memory_len/5 {LOCAL} --eval-period 10000'


@pytest.mark.parametrize('seed', range(3))
def test_what_was_seen_at_the_start_is_remembered(seed, tmp_path):
  result = train(
    'impala',
    f'{MEMORY} --lstm-size 32 --solved-return 0.95 --eval-episodes 100 '
    f'--max-env-steps 200000 --seed {seed}',
    tmp_path,
  )
  assert result['stop'] == 'solved'
  assert result['final_return'] >= 0.95


def test_without_a_memory_it_is_not(tmp_path):
  # The mean of 400 coins of +-1 is within 0.2 but for once in 16,000 times.
  result = train(
    'impala',
    f'{MEMORY} --eval-episodes 400 --max-env-steps 100000 --seed 0',
    tmp_path,
    control=True,
  )
  assert result['stop'] == 'step_limit'
  assert result['best_return'] <= 0.2
  assert result['evaluations'] >= 5


class Scored(environments.Catch):
  """Catch that remembers how each episode ended."""

  def __init__(self, seed, caught):
    super().__init__(seed)
    self._caught = caught

  def step(self, action):
    timestep = super().step(action)
    if timestep.last():
      self._caught.append(timestep.reward > 0)
    return timestep


def share_caught(delay, seed, **changes):
  """Returns the share of balls caught in the last quarter of 200,000 steps."""
  caught = []
  games = [Scored(8 * seed + i, caught) for i in range(8)]
  spec = specs.make_environment_spec(games[0])
  agent = impala.make_agent(impala.Config(**changes), spec)
  loop = distacme.EnvironmentLoop(
    vector.LoopVector(games),
    agent,
    seed=seed,
    params=delays.DelayedParams(delay),
  )
  loop.run(num_steps=200_000)
  assert loop.learner.steps > 500
  return float(np.mean(caught[-len(caught) // 4 :]))


@pytest.mark.parametrize('seed', range(3))
def test_v_trace_makes_up_for_a_policy_of_50_updates_ago(seed):
  # Who acts at random catches one ball of five.
  prompt = share_caught(0, seed)
  late = share_caught(50, seed)
  uncorrected = share_caught(50, seed, off_policy_correction=False)
  record(
    f'pytest -m learning tests/scores/test_impala.py -k ago[{seed}]',
    prompt=prompt,
    late=late,
    uncorrected=uncorrected,
  )
  assert prompt > 0.95
  assert late > 0.9 * prompt
  assert uncorrected < 0.7 * prompt
