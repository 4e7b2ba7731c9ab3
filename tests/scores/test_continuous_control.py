"""The agents for continuous control reach the scores that we promise.

    pytest -m learning tests/scores

A minute or two each; `training` says where the scores go.
"""

import pytest

from tests.scores.training import recorded
from tests.scores.training import train

pytestmark = pytest.mark.learning

# At random it is -1200, good agents -150: 20 episodes differ by what they start
# with, by some 30.
PENDULUM = '--env gymnasium:Pendulum-v1 --eval-episodes 20 --eval-period 2000'
ATOMS = '--min-value -1700 --max-value 0'
LOCAL = '--mode local'
PROCESSES = '--mode processes --num-actors 2'

AGENTS = {
  'ddpg': '--solved-return -200 --max-env-steps 30000',
  'd4pg': f'--solved-return -200 --max-env-steps 30000 {ATOMS}',
  'td3': '--solved-return -200 --max-env-steps 30000',
  'sac': '--solved-return -200 --max-env-steps 30000',
  'mpo': '--solved-return -250 --max-env-steps 50000',
  'dmpo': f'--solved-return -250 --max-env-steps 50000 {ATOMS}',
}


@pytest.mark.parametrize(
  'run',
  [
    *[pytest.param(f'{LOCAL} --seed {s}', id=f'local-{s}') for s in range(3)],
    pytest.param(f'{PROCESSES} --seed 0', id='processes-0'),
  ],
)
@pytest.mark.parametrize('agent', AGENTS)
def test_pendulum_swings_up(agent, run, tmp_path):
  result = train(agent, f'{PENDULUM} {AGENTS[agent]} {run}', tmp_path)
  assert result['stop'] == 'solved'


# The noise of the paper: an Ornstein-Uhlenbeck process with theta 0.15 and sigma 0.2.
MOUNTAIN_CAR = (
  '--env gymnasium:MountainCarContinuous-v0 --eval-episodes 20 '
  '--eval-period 5000 --solved-return 90 --max-env-steps 60000 --mode local '
  '--policy-learning-rate 1e-4 --noise-std 0.2 --noise-reversion 0.15 '
  '--samples-per-insert 64'
)


@pytest.mark.parametrize('seed', range(3))
def test_ddpg_gets_up_the_mountain(seed, tmp_path):
  result = train('ddpg', f'{MOUNTAIN_CAR} --seed {seed}', tmp_path)
  assert result['stop'] == 'solved'
  assert result['final_return'] >= 90


# An update for every fourth step; rewards are in [0, 1], episodes 1,000 steps long.
CARTPOLE = f'{LOCAL} --samples-per-insert 64 --eval-episodes 10'
BALANCE = (
  f'--env dm_control:cartpole/balance {CARTPOLE} --eval-period 5000 '
  '--solved-return 950 --max-env-steps 50000'
)
SWINGUP = (
  f'--env dm_control:cartpole/swingup {CARTPOLE} --eval-period 10000 '
  '--max-env-steps 150000'
)

BY_PRESET = f'--env dm_control:cartpole/swingup {LOCAL} --max-env-steps 150000'


@pytest.mark.parametrize('seed', range(3))
@pytest.mark.parametrize('agent', ['d4pg', 'ddpg'])
def test_the_pole_is_balanced(agent, seed, tmp_path):
  result = train(agent, f'{BALANCE} --seed {seed}', tmp_path)
  assert result['stop'] == 'solved'
  assert result['final_return'] >= 950


@pytest.mark.parametrize(
  ('agent', 'least'),
  [('d4pg', 750), ('ddpg', 750), ('mpo', 700), ('dmpo', 700)],
)
def test_the_pole_is_swung_up(agent, least, tmp_path):
  # MPO's and DMPO's presets have updates of their own.
  flags = SWINGUP if 'mpo' not in agent else BY_PRESET
  result = train(
    agent,
    f'{flags} --solved-return {least} --seed 0',
    tmp_path,
    timeout_s=3600,
  )
  assert result['stop'] == 'solved'
  assert result['final_return'] >= least


# At random it is 130, 1000 at best.
@pytest.mark.parametrize('agent', ['mpo', 'dmpo'])
def test_the_walker_stands(agent, tmp_path):
  result = train(
    agent,
    f'--env dm_control:walker/stand {LOCAL} --solved-return 900 '
    '--max-env-steps 150000 --seed 0',
    tmp_path,
    timeout_s=7200,
  )
  assert result['best_return'] >= 850


# As many samples per insert, so that all learn as much from as many steps.
BY_ACTORS = (
  f'--env gymnasium:Pendulum-v1 --eval-episodes 20 --eval-period 5000 {ATOMS} '
  '--samples-per-insert 64 --max-env-steps 30000 --mode processes '
)


@pytest.mark.parametrize('seed', range(2))
@pytest.mark.parametrize('num_actors', [1, 4])
def test_d4pg_learns_alike_from_one_actor_and_four(num_actors, seed, tmp_path):
  flags = f'{BY_ACTORS}--num-actors {num_actors} --seed {seed}'
  result = train('d4pg', flags, tmp_path)
  assert result['stop'] == 'step_limit'
  assert result['best_return'] >= -250


def test_d4pgs_four_actors_learn_in_as_many_steps_as_one():
  # What the runs above came to, or did when they were last recorded.
  means = []
  for num_actors in (1, 4):
    rows = [
      recorded('d4pg', f'{BY_ACTORS}--num-actors {num_actors} --seed {seed}')
      for seed in range(2)
    ]
    if not all('curve' in row for row in rows):
      pytest.skip("recorded before curves were: make learn ARGS='-k four'")
    # All of them reach -250, as the test above asks.
    steps = [
      next(steps for steps, mean in row['curve'] if mean >= -250)
      for row in rows
    ]
    means.append(sum(steps) / len(steps))
  # An evaluation's period is 5,000 steps; one more or less is chance.
  assert abs(means[0] - means[1]) < 7_500


# What must not learn.


@pytest.mark.parametrize(
  ('agent', 'flags', 'most'),
  [
    # It neither explores nor begins with what is random.
    ('ddpg', '--noise-std 0 --min-replay-size 1', -500),
    # Returns go to -1700: they all look alike.
    ('d4pg', '--min-value -1 --max-value 0', -400),
    # Who looks one step ahead is paid for not moving.
    ('td3', '--discount 0', -400),
    ('sac', '--discount 0', -400),
    ('mpo', '--discount 0', -400),
  ],
)
def test_what_must_not_swing_up_does_not(agent, flags, most, tmp_path):
  steps = 24_000 if agent == 'mpo' else 10_000
  result = train(
    agent,
    f'{PENDULUM} {LOCAL} --solved-return -250 --max-env-steps {steps} {flags} '
    '--seed 0',
    tmp_path,
    control=True,
  )
  assert result['stop'] == 'step_limit'
  assert result['evaluations'] >= 4
  assert result['final_return'] <= most
