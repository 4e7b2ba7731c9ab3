"""Agents that search, beside searches that have learnt nothing.

    pytest -m learning tests/scores

Half a minute to half an hour each; `training` says where the scores go.
"""

import pytest

from tests.scores import training

pytestmark = pytest.mark.learning

SEEDS = range(3)
LOCAL = '--mode local'
PROCESSES = '--mode processes --num-actors 2'
MODES = pytest.mark.parametrize('mode', [LOCAL, PROCESSES])
# Ends before the first learner step is published: the evaluated network is untrained.
UNTRAINED = '--mode local --max-learner-steps 1 --publish-period 1000000'


def train(agent, flags, directory, **options):
  return training.train(agent, flags, directory, **options)


# Catch, whose rules the search knows: written in JAX, and as a simulator.

CATCH = {
  'model': '--env jax:catch --envs-per-actor 8 --num-simulations 25',
  'simulator': '--env bsuite:catch/0 --envs-per-actor 8 --num-simulations 25',
}
CATCHES = '--max-env-steps 6000 --eval-episodes 100'


@MODES
@pytest.mark.parametrize('seed', SEEDS)
@pytest.mark.parametrize('kind', CATCH)
def test_mcts_catches(kind, mode, seed, tmp_path):
  result = train(
    'mcts', f'{CATCH[kind]} {mode} {CATCHES} --seed {seed}', tmp_path
  )
  assert result['final_return'] >= 0.95


FEW = CATCH['model'].replace('25', '4')


@pytest.mark.parametrize('seed', SEEDS)
def test_mcts_catches_with_four_simulations(seed, tmp_path):
  result = train('mcts', f'{FEW} {LOCAL} {CATCHES} --seed {seed}', tmp_path)
  assert result['final_return'] >= 0.95


def test_an_untrained_search_of_four_simulations_catches_less(tmp_path):
  flags = f'{FEW} {UNTRAINED} --eval-episodes 100 --seed 0'
  result = train('mcts', flags, tmp_path, control=True)
  assert result['final_return'] <= 0.6


@pytest.mark.parametrize('simulations', [10, 25])
def test_an_untrained_search_is_recorded_beside_it(simulations, tmp_path):
  """With ten simulations of a known game nothing need be learnt."""
  flags = CATCH['model'].replace('25', str(simulations))
  result = train(
    'mcts', f'{flags} {UNTRAINED} --eval-episodes 100 --seed 0', tmp_path
  )
  assert result['final_return'] >= 0.6


@MODES
@pytest.mark.parametrize('seed', SEEDS)
def test_muzero_learns_the_rules_and_catches(mode, seed, tmp_path):
  result = train(
    'muzero',
    f'{CATCH["simulator"]} {mode} --max-env-steps 60000 --eval-period 10000 '
    f'--eval-episodes 100 --seed {seed}',
    tmp_path,
  )
  assert result['final_return'] >= 0.95


def test_an_untrained_model_catches_by_chance(tmp_path):
  result = train(
    'muzero',
    f'{CATCH["simulator"]} {UNTRAINED} --eval-episodes 100 --seed 0',
    tmp_path,
    control=True,
  )
  assert result['final_return'] <= 0.2


# Games for two.

TIC_TAC_TOE = '--env pgx:tic_tac_toe --opponent perfect --eval-episodes 40'


@MODES
@pytest.mark.parametrize('seed', SEEDS)
def test_mcts_does_not_lose_to_perfect_play(mode, seed, tmp_path):
  result = train(
    'mcts',
    f'{TIC_TAC_TOE} {mode} --max-env-steps 20000 --seed {seed}',
    tmp_path,
  )
  assert result['final_return'] >= -1 / 40


def test_an_untrained_search_loses_to_perfect_play(tmp_path):
  result = train(
    'mcts', f'{TIC_TAC_TOE} {UNTRAINED} --seed 0', tmp_path, control=True
  )
  assert result['final_return'] <= -5 / 40


CONNECT_FOUR = (
  '--env pgx:connect_four --opponent untrained --num-simulations 32 '
  '--eval-period 50000 --eval-episodes 40'
)


@MODES
@pytest.mark.parametrize('seed', SEEDS)
def test_mcts_beats_an_untrained_search_at_connect_four(mode, seed, tmp_path):
  result = train(
    'mcts',
    f'{CONNECT_FOUR} {mode} --max-env-steps 100000 --seed {seed}',
    tmp_path,
  )
  assert result['final_return'] >= 0.8  # nine of ten


# A reward at the end of an episode only, which tells DQN too little.

SPARSE = (
  '--env distacme.testing.environments:cartpole_reward_at_the_end '
  '--envs-per-actor 8 --eval-episodes 10'
)
SPARSE_STEPS = '--max-env-steps 20000 --eval-period 10000'
# Learnt from outcomes, in many updates: what is rewarded lies up to 500 steps ahead.
SPARSE_MCTS = (
  '--discount 1 --n-step 500 --num-simulations 25 --samples-per-insert 128'
)


@MODES
@pytest.mark.parametrize('seed', SEEDS)
def test_mcts_balances_for_a_reward_at_the_end(mode, seed, tmp_path):
  result = train(
    'mcts',
    f'{SPARSE} {mode} {SPARSE_STEPS} {SPARSE_MCTS} --seed {seed}',
    tmp_path,
  )
  assert result['best_return'] >= 115  # four of six have 296 to 500


@pytest.mark.parametrize('seed', SEEDS)
def test_dqn_does_not_balance_for_a_reward_at_the_end(seed, tmp_path):
  result = train(
    'dqn',
    f'{SPARSE} {LOCAL} {SPARSE_STEPS} --seed {seed}',
    tmp_path,
    control=True,
  )
  assert result['best_return'] <= 150


# By default.


@pytest.mark.parametrize('seed', SEEDS)
@pytest.mark.parametrize('agent', ['mcts', 'muzero'])
def test_cartpole_is_solved_by_default(agent, seed, tmp_path):
  result = train(
    agent,
    f'--env gymnasium:CartPole-v1 {LOCAL} --envs-per-actor 8 '
    f'--solved-return 475 --max-env-steps 100000 --seed {seed}',
    tmp_path,
  )
  assert result['stop'] == 'solved'


# The same steps by 1, 2 and 4 actors.


@pytest.mark.parametrize('num_actors', [1, 2, 4])
@pytest.mark.parametrize('seed', SEEDS)
def test_return_depends_on_steps_and_not_on_actors(num_actors, seed, tmp_path):
  result = train(
    'mcts',
    f'{TIC_TAC_TOE} --mode processes --num-actors {num_actors} '
    f'--envs-per-actor {32 // num_actors} --max-env-steps 20000 --seed {seed}',
    tmp_path,
  )
  assert result['final_return'] >= -2 / 40
