"""PPO reaches the scores that we promise, and not without a reason to.

    pytest -m learning tests/scores

Half a minute to some minutes each; `training` says where the scores go.
"""

import pytest

from tests.scores.training import train

pytestmark = pytest.mark.learning

CARTPOLE = (
  '--env gymnasium:CartPole-v1 --solved-return 475 --eval-episodes 20 '
  '--max-env-steps 100000 --max-seconds 600'
)


@pytest.mark.parametrize(
  'run',
  [
    '--mode local --envs-per-actor 8 --seed 0',
    '--mode local --envs-per-actor 8 --seed 1',
    '--mode local --envs-per-actor 8 --seed 2',
    '--mode processes --num-actors 2 --envs-per-actor 4 --seed 0',
  ],
  ids=['local-0', 'local-1', 'local-2', 'processes-0'],
)
def test_cartpole_is_solved(run, tmp_path):
  result = train('ppo', f'{CARTPOLE} {run}', tmp_path)
  assert result['stop'] == 'solved'
  assert result['final_return'] >= 475


def test_who_looks_one_step_ahead_does_not_solve_it(tmp_path):
  # Every step earns 1, whatever is done: only the steps after it differ.
  result = train(
    'ppo',
    f'{CARTPOLE} --mode local --envs-per-actor 8 --discount 0 --seed 0',
    tmp_path,
    control=True,
  )
  assert result['stop'] == 'step_limit'
  assert result['best_return'] < 400
  assert result['evaluations'] >= 20


@pytest.mark.parametrize('seed', range(3))
def test_pendulum_swings_up(seed, tmp_path):
  # The rl-zoo's PPO reaches -172 +- 104 in 100,000 steps; at random it is -1200.
  result = train(
    'ppo',
    '--env gymnasium:Pendulum-v1 --mode local --envs-per-actor 4 '
    '--solved-return -180 --eval-episodes 50 --eval-period 10000 '
    '--max-env-steps 200000 --discount 0.9 --reward-scale 0.03 '
    '--learning-rate 5e-4 --unroll-length 512 --batch-size 4 --queue-size 4 '
    f'--num-epochs 10 --num-minibatches 16 --seed {seed}',
    tmp_path,
  )
  assert result['stop'] == 'solved'
  assert result['final_return'] >= -180


@pytest.mark.parametrize('seed', range(3))
def test_the_lander_lands(seed, tmp_path):
  # By the preset of the environment. The rl-zoo's PPO reaches 242 +- 32 in 1M steps.
  result = train(
    'ppo',
    '--env gymnasium:LunarLander-v3 --mode local --solved-return 240 '
    f'--max-env-steps 500000 --seed {seed}',
    tmp_path,
  )
  assert result['stop'] == 'solved'
  assert result['final_return'] >= 200


@pytest.mark.parametrize('seed', range(3))
def test_what_is_paid_after_1000_steps_only_is_learnt(seed, tmp_path):
  # 64 rows, each in an episode of its own, which nothing may cut. Unrolls are as long:
  # with shorter ones nothing but their own guesses tells values what pays.
  result = train(
    'ppo',
    '--env distacme.testing.environments:reward_at_the_end --mode local '
    '--envs-per-actor 64 --unroll-length 1000 --batch-size 64 --queue-size 64 '
    '--num-minibatches 64 --discount 1 --gae-lambda 1 --solved-return 0.9 '
    f'--max-env-steps 2000000 --seed {seed}',
    tmp_path,
  )
  assert result['stop'] == 'solved'
  assert result['final_return'] >= 0.9
