"""PPO learns Pong from pixels on one core, in about half an hour.

pytest -m hours tests/scores
"""

import pytest

from tests.scores.training import train

pytestmark = pytest.mark.hours


def test_pong_is_learnt_from_pixels(tmp_path):
  # By the preset of Atari's games. At random it is -20.3; 21 is the most there is.
  result = train(
    'ppo',
    '--env atari:Pong --mode local --solved-return 18 --max-env-steps 2000000 '
    '--seed 0',
    tmp_path,
    timeout_s=9000,
  )
  assert result['stop'] == 'solved'
  assert result['final_return'] >= 18
