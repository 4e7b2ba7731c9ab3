"""Agents that learn from demonstrations, and what others make of the same tasks.

    pytest -m learning tests/scores

Half a minute to some minutes each; `training` says where the scores go.
"""

import pathlib
import subprocess
import sys

import pytest

from tests.scores import training

pytestmark = pytest.mark.learning

SEEDS = range(3)
LOCAL = '--mode local'
PROCESSES = '--mode processes --num-actors 2'
RECORDED = 'distacme.testing.demonstrations'
SCRIPT = pathlib.Path(sys.executable).with_name('distacme')


def command(*words, cwd):
  """Runs a command and returns what it printed."""
  done = subprocess.run(
    [SCRIPT, *map(str, words)], cwd=cwd, capture_output=True, text=True
  )
  assert done.returncode == 0, done.stdout + done.stderr
  return done.stdout


# Behavioural cloning of catch.

CATCH = '--env distacme.testing.environments:catch'
CATCH_BC = f'{CATCH} --demonstrations {RECORDED}:catch_expert'
BC = '--max-learner-steps 5000 --eval-episodes 100'


@pytest.mark.parametrize('seed', SEEDS)
@pytest.mark.parametrize('mode', ['local', 'processes'])
def test_bc_catches_like_its_expert(mode, seed, tmp_path):
  result = training.train(
    'bc', f'{CATCH_BC} --mode {mode} {BC} --seed {seed}', tmp_path
  )
  assert result['final_return'] >= 0.98


def test_bc_of_random_actions_catches_by_chance(tmp_path):
  flags = f'{CATCH_BC.replace("expert", "random")} {LOCAL} {BC} --seed 0'
  result = training.train('bc', flags, tmp_path, control=True)
  assert result['best_return'] <= 0.2


def test_bc_with_a_memory_catches_too(tmp_path):
  result = training.train(
    'bc', f'{CATCH_BC} {LOCAL} {BC} --lstm-size 32 --seed 0', tmp_path
  )
  assert result['final_return'] >= 0.98


# Recorded from runs of ours.


@pytest.fixture(scope='module', name='catch')
def fixture_catch(tmp_path_factory):
  """Returns a folder with datasets of 1 to 100 episodes of who always catches."""
  folder = tmp_path_factory.mktemp('catch')
  training.train(
    'dqn',
    f'{CATCH} {LOCAL} --solved-return 1 --eval-episodes 100 --seed 0',
    folder / 'expert',
  )
  record(folder, 'catch')
  return folder


def record(folder, name):
  """Records 1, 5, 20 and 100 episodes of the expert in a folder."""
  for episodes in SIZES:
    command(
      *f'record expert --episodes {episodes} --output {name}-{episodes}'.split(),
      cwd=folder,
    )


SIZES = (1, 5, 20, 100)


def alone(episodes):
  """Returns a flag for one episode, of which nothing can be kept apart."""
  return ' --validation-share 0' if episodes == 1 else ''


@pytest.mark.parametrize('seed', SEEDS)
@pytest.mark.parametrize('episodes', SIZES)
def test_bc_catches_the_more_the_more_it_has_seen(
  catch, episodes, seed, tmp_path
):
  result = training.train(
    'bc',
    f'{CATCH} --demonstrations catch-{episodes}{alone(episodes)} {LOCAL} '
    f'--max-learner-steps 2000 --eval-episodes 100 --seed {seed}',
    tmp_path,
    cwd=catch,
  )
  if episodes == 1:
    assert result['final_return'] <= 0.5
  if episodes == 100:
    assert result['final_return'] >= 0.98


@pytest.fixture(scope='module', name='cartpole')
def fixture_cartpole(tmp_path_factory):
  """Returns a folder with datasets of 1 to 100 episodes of a solved CartPole."""
  folder = tmp_path_factory.mktemp('cartpole')
  training.train('dqn', CARTPOLE_EXPERT, folder / 'expert')
  record(folder, 'cartpole')
  return folder


CARTPOLE = '--env gymnasium:CartPole-v1'
CARTPOLE_EXPERT = (
  f'{CARTPOLE} {LOCAL} --solved-return 495 --max-env-steps 100000 --seed 0'
)


@pytest.mark.parametrize('seed', SEEDS)
@pytest.mark.parametrize('episodes', SIZES)
def test_bc_balances_like_its_expert(cartpole, episodes, seed, tmp_path):
  result = training.train(
    'bc',
    f'{CARTPOLE} --demonstrations cartpole-{episodes}{alone(episodes)} {LOCAL} '
    f'--max-learner-steps 5000 --seed {seed}',
    tmp_path,
    cwd=cartpole,
  )
  if episodes == 100:
    assert result['final_return'] >= 475


@pytest.mark.parametrize('seed', SEEDS)
@pytest.mark.parametrize('agent', ['dqfd', 'r2d3'])
def test_the_same_dataset_serves_all_agents(cartpole, agent, seed, tmp_path):
  result = training.train(
    agent,
    f'{CARTPOLE} --demonstrations cartpole-100 {LOCAL} --solved-return 475 '
    f'--max-env-steps 150000 --seed {seed}',
    tmp_path,
    cwd=cartpole,
  )
  assert result['stop'] == 'solved'
  assert result['final_return'] >= 475


@pytest.fixture(scope='module', name='pendulum')
def fixture_pendulum(tmp_path_factory):
  """Returns a folder with a run that swings a pendulum up, and 100 episodes."""
  folder = tmp_path_factory.mktemp('pendulum')
  training.train(
    'td3',
    f'--env gymnasium:Pendulum-v1 {LOCAL} --max-env-steps 15000 --seed 0',
    folder / 'expert',
  )
  command(*'record expert --episodes 100 --output pendulum'.split(), cwd=folder)
  return folder


@pytest.mark.parametrize('seed', SEEDS)
@pytest.mark.parametrize('loss', ['squared_error', 'log_likelihood'])
def test_bc_swings_up_like_its_expert(pendulum, loss, seed, tmp_path):
  flags = (
    f'--env gymnasium:Pendulum-v1 --demonstrations pendulum {LOCAL} '
    f'--continuous-loss {loss} --max-learner-steps 10000 --eval-episodes 100 '
    f'--seed {seed}'
  )
  training.train('bc', flags, tmp_path, cwd=pendulum)
  # The same 200 starts, of which some cost three times as much as others.
  of_expert, of_bc = (
    mean_return(run, cwd=pendulum) for run in ('expert', tmp_path)
  )
  assert of_bc >= 1.15 * of_expert  # both negative


def mean_return(run_dir, cwd):
  """Returns the mean return of 200 episodes that no run has seen."""
  said = command(
    'evaluate', run_dir, *'--episodes 200 --seed 7'.split(), cwd=cwd
  )
  return float(said.split()[2])


# One optimal episode of a task that no exploration solves.

DEEP_SEA = {10: '--env bsuite:deep_sea/0', 20: '--env bsuite:deep_sea/5'}
# 200 episodes.
STEPS = {
  size: f'--max-env-steps {200 * size} --eval-period {20 * size} '
  '--eval-episodes 4'
  for size in DEEP_SEA
}


@pytest.mark.parametrize('seed', SEEDS)
@pytest.mark.parametrize('mode', [LOCAL, PROCESSES])
@pytest.mark.parametrize('size', DEEP_SEA)
def test_dqfd_dives_where_one_episode_did(size, mode, seed, tmp_path):
  result = training.train(
    'dqfd',
    f'{DEEP_SEA[size]} --demonstrations {RECORDED}:deep_sea_{size} {mode} '
    f'{STEPS[size]} --seed {seed}',
    tmp_path,
  )
  assert result['final_return'] >= 0.95


@pytest.mark.parametrize('size', DEEP_SEA)
def test_dqn_does_not_dive(size, tmp_path):
  result = training.train(
    'dqn', f'{DEEP_SEA[size]} {LOCAL} {STEPS[size]} --seed 0', tmp_path, True
  )
  assert result['best_return'] <= 0.0


# On the episode alone, before any action, so that there is nothing but the margin to
# say that other actions are worse.
ALONE = (
  f'{DEEP_SEA[20]} --demonstrations {RECORDED}:deep_sea_20 {LOCAL} '
  '--clock learner_steps --max-learner-steps 500 --eval-period 50 '
  '--eval-episodes 1 --max-eval-share 1'
)


@pytest.mark.parametrize('seed', SEEDS)
def test_the_margin_makes_the_demonstrated_actions_the_best(seed, tmp_path):
  result = training.train('dqfd', f'{ALONE} --seed {seed}', tmp_path)
  assert result['final_return'] >= 0.95
  assert result['env_steps'] == 0


@pytest.mark.parametrize('seed', SEEDS)
def test_without_the_margin_they_are_not(seed, tmp_path):
  result = training.train(
    'dqfd', f'{ALONE} --margin-weight 0 --seed {seed}', tmp_path, control=True
  )
  assert result['best_return'] <= 0.0
  assert result['env_steps'] == 0


# A task for which an agent needs a memory and demonstrations.

DOOR = '--env distacme.testing.environments:remember_the_door'
DOOR_R2D3 = f'{DOOR} --demonstrations {RECORDED}:door_expert'
DOOR_STEPS = '--eval-episodes 50'


@pytest.mark.parametrize('seed', SEEDS)
@pytest.mark.parametrize('mode', [LOCAL, PROCESSES])
def test_r2d3_remembers_the_door(mode, seed, tmp_path):
  result = training.train(
    'r2d3',
    f'{DOOR_R2D3} {mode} {DOOR_STEPS} --solved-return 0.95 '
    f'--max-env-steps 100000 --seed {seed}',
    tmp_path,
  )
  assert result['stop'] == 'solved'
  assert result['final_return'] >= 0.9


def test_r2d2_does_not_find_it(tmp_path):
  result = training.train(
    'r2d2',
    f'{DOOR} {LOCAL} {DOOR_STEPS} --samples-per-insert 16 '
    '--max-env-steps 50000 --seed 0',
    tmp_path,
    control=True,
  )
  assert result['best_return'] == 0.0


def test_dqfd_finds_the_doors_and_does_not_remember_which(tmp_path):
  result = training.train(
    'dqfd',
    f'{DOOR} --demonstrations {RECORDED}:door_expert {LOCAL} '
    '--eval-episodes 400 --max-env-steps 20000 --seed 0',
    tmp_path,
    control=True,
  )
  assert 0.3 <= result['final_return'] <= 0.6


DOOR_BC = (
  f'{DOOR} --demonstrations {RECORDED}:door_expert {LOCAL} --validation-share 0 '
  '--max-learner-steps 2000 --eval-episodes 400 --learning-rate 3e-3'
)


@pytest.mark.parametrize('seed', SEEDS)
def test_bc_with_a_memory_remembers_the_door(seed, tmp_path):
  result = training.train(
    'bc', f'{DOOR_BC} --lstm-size 64 --seed {seed}', tmp_path
  )
  assert result['final_return'] >= 0.95


def test_bc_without_a_memory_guesses_the_door(tmp_path):
  result = training.train('bc', f'{DOOR_BC} --seed 0', tmp_path, control=True)
  assert 0.4 <= result['final_return'] <= 0.6


@pytest.mark.parametrize('seed', SEEDS)
def test_of_demonstrations_alone_the_door_is_not_learnt(seed, tmp_path):
  result = training.train(
    'r2d3',
    f'{DOOR_R2D3} {LOCAL} --demonstration-ratio 1 --max-learner-steps 3000 '
    f'--eval-period 500 --seed {seed}',
    tmp_path,
    control=True,
  )
  assert result['best_return'] <= 0.6
