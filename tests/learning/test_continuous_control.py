"""The agents for continuous control reach the scores that we promise.

    pytest -m learning tests/learning

A minute or two each; `training` says where the scores go.
"""

import pytest

from tests.learning.training import train

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


def test_without_noise_and_first_actions_ddpg_does_not(tmp_path):
  result = train(
    'ddpg',
    f'{PENDULUM} {LOCAL} --solved-return -200 --max-env-steps 10000 '
    '--noise-std 0 --min-replay-size 1 --seed 0',
    tmp_path,
    control=True,
  )
  assert result['stop'] == 'step_limit'
