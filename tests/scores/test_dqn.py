"""DQN reaches the scores that we promise, and not one that it should not.

    pytest -m learning tests/scores

Minutes each; `training` says where the scores go.
"""

import pytest

from tests.scores.training import train

pytestmark = pytest.mark.learning


@pytest.mark.parametrize('seed', range(10))
def test_catch_is_solved(seed, tmp_path):
  result = train(
    'dqn',
    '--env bsuite:catch/0 --mode local --solved-return 0.95 '
    f'--eval-episodes 100 --max-env-steps 50000 --seed {seed}',
    tmp_path,
  )
  assert result['stop'] == 'solved'
  assert result['final_return'] >= 0.95


CARTPOLE = (
  '--env gymnasium:CartPole-v1 --solved-return 475 --eval-episodes 20 '
  '--max-env-steps 500000 --max-seconds 600'
)


@pytest.mark.parametrize('seed', range(3))
@pytest.mark.parametrize(
  'mode',
  [
    '--mode local --envs-per-actor 8',
    '--mode processes --num-actors 2 --envs-per-actor 4',
  ],
  ids=['local', 'processes'],
)
def test_cartpole_is_solved(mode, seed, tmp_path):
  result = train('dqn', f'{CARTPOLE} {mode} --seed {seed}', tmp_path)
  assert result['stop'] == 'solved'
  assert result['final_return'] >= 475


# What is observed is one integer, of 16 values and of 500.
TOY_TEXT = '--mode local --envs-per-actor 8 --eval-episodes 100'


@pytest.mark.parametrize('seed', range(3))
def test_the_slippery_lake_is_crossed(seed, tmp_path):
  # The best policy comes across in 0.74 of its episodes.
  result = train(
    'dqn',
    f'--env gymnasium:FrozenLake-v1 {TOY_TEXT} --eval-period 10000 '
    f'--solved-return 0.7 --max-env-steps 100000 --seed {seed}',
    tmp_path,
  )
  assert result['stop'] == 'solved'
  assert result['final_return'] >= 0.7


@pytest.mark.parametrize('seed', range(3))
def test_the_taxi_brings_its_passengers(seed, tmp_path):
  # The best policy earns about 7.9; at random it is -770.
  result = train(
    'dqn',
    f'--env gymnasium:Taxi-v4 {TOY_TEXT} --eval-period 10000 '
    f'--solved-return 7 --max-env-steps 300000 --seed {seed}',
    tmp_path,
  )
  assert result['stop'] == 'solved'
  assert result['final_return'] >= 7


def test_deep_sea_is_not_solved(tmp_path):
  # Its 20 steps to the right are one policy of a million: who finds it without
  # directed exploration has been told.
  result = train(
    'dqn',
    '--env bsuite:deep_sea/5 --mode local --envs-per-actor 8 '
    '--solved-return 0.5 --eval-period 3000 --max-env-steps 30000 --seed 0',
    tmp_path,
    control=True,
  )
  assert result['stop'] == 'step_limit'
  assert result['best_return'] < 0.5
  assert result['evaluations'] >= 5
