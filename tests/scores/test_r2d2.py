"""R2D2 remembers what it must, and nothing else that we run here can.

    pytest -m learning tests/scores

Half a minute to some minutes each; `training` says where the scores go.
"""

import pytest

from tests.scores.training import train

pytestmark = pytest.mark.learning

# The first two observations tell which of two actions is right at the end, 10 or
# 20 steps later: +1 or -1. Whoever does not remember gets 0 on average.
MEMORY_10, MEMORY_20 = 'bsuite:memory_len/9', 'bsuite:memory_len/13'
MEMORY = '--solved-return 0.9 --eval-episodes 100 --max-env-steps 100000'
LOCAL = '--mode local --envs-per-actor 8'
PROCESSES = '--mode processes --num-actors 2 --envs-per-actor 4'


@pytest.mark.parametrize('seed', range(3))
@pytest.mark.parametrize('env', [MEMORY_10, MEMORY_20])
def test_what_was_seen_at_the_start_is_remembered(env, seed, tmp_path):
  result = train(
    'r2d2', f'--env {env} {LOCAL} {MEMORY} --seed {seed}', tmp_path
  )
  assert result['stop'] == 'solved'
  assert result['final_return'] >= 0.9


# The first two observations show 4 bits, and the third asks for one of them: +1 or
# -1. Sequences of 3 steps, in the room of 49 rows.
FOUR_BITS = f'--env bsuite:memory_size/3 {LOCAL} --eval-episodes 100'


@pytest.mark.parametrize('seed', range(3))
def test_which_of_four_bits_was_asked_for_is_remembered(seed, tmp_path):
  result = train(
    'r2d2',
    f'{FOUR_BITS} --solved-return 0.9 --max-env-steps 40000 --seed {seed}',
    tmp_path,
  )
  assert result['stop'] == 'solved'
  assert result['final_return'] >= 0.9


def test_dqn_does_not_know_the_bits(tmp_path):
  # Nothing at all tells which of two actions is right; see below of coins.
  result = train(
    'dqn',
    f'{FOUR_BITS.replace("100", "400")} --max-env-steps 10000 --seed 0',
    tmp_path,
    control=True,
  )
  assert abs(result['final_return']) <= 0.2
  assert result['best_return'] <= 0.2
  assert result['evaluations'] >= 3


def test_actors_in_processes_remember_it_too(tmp_path):
  result = train(
    'r2d2', f'--env {MEMORY_10} {PROCESSES} {MEMORY} --seed 0', tmp_path
  )
  assert result['stop'] == 'solved'
  assert result['final_return'] >= 0.9


def test_dqn_does_not_remember_it(tmp_path):
  # The mean of 400 coins of +-1 is within 0.2 but for once in 16,000 times.
  result = train(
    'dqn',
    f'--env {MEMORY_10} {LOCAL} --eval-episodes 400 --eval-period 10000 '
    '--max-env-steps 30000 --seed 0',
    tmp_path,
    control=True,
  )
  assert abs(result['final_return']) <= 0.2
  assert result['best_return'] <= 0.2
  assert result['evaluations'] >= 3


# Sequences of half an episode: only the start state tells those with the last
# step what there was at the start.
def test_memory_reaches_across_the_starts_of_sequences(tmp_path):
  result = train(
    'r2d2',
    f'--env {MEMORY_20} {LOCAL} {MEMORY} --trace-length 10 --period 5 --seed 0 '
    '--burn-in-length 4',
    tmp_path,
  )
  assert result['stop'] == 'solved'


# Sequences of one step, so that of the bits there is nothing but the start state.
# There are four: of one alone, actions that nothing was learnt of may be right by
# luck, whatever it is, and memory_len/13 was "solved" so.
SINGLE = (
  f'{FOUR_BITS} --solved-return 0.9 --max-env-steps 40000 --trace-length 1 '
  '--period 1 --burn-in-length 0 --seed 0'
)


def test_all_that_is_remembered_may_be_in_the_start_state(tmp_path):
  result = train('r2d2', SINGLE, tmp_path)
  assert result['stop'] == 'solved'


def test_memory_that_starts_from_zeros_does_not_remember(tmp_path):
  result = train(
    'r2d2', f'{SINGLE} --no-use-start-state', tmp_path, control=True
  )
  assert result['stop'] == 'step_limit'
  assert result['best_return'] <= 0.5
  assert result['evaluations'] >= 20


CARTPOLE = (
  f'--env distacme.testing.environments:cartpole_without_velocities {LOCAL} '
  '--solved-return 450 --eval-episodes 20'
)


@pytest.mark.parametrize('seed', range(3))
def test_cartpole_is_balanced_without_seeing_velocities(seed, tmp_path):
  result = train(
    'r2d2',
    f'{CARTPOLE} --max-env-steps 300000 --max-seconds 900 --discount 0.99 '
    '--learning-rate 2e-3 --trace-length 20 --period 10 '
    f'--samples-per-insert 16 --seed {seed}',
    tmp_path,
  )
  assert result['stop'] == 'solved'
  assert result['final_return'] >= 450


def test_dqn_does_not_balance_it(tmp_path):
  result = train(
    'dqn',
    f'{CARTPOLE} --max-env-steps 80000 --seed 0',
    tmp_path,
    control=True,
  )
  assert result['stop'] == 'step_limit'
  assert result['best_return'] <= 150
