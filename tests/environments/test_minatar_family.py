"""MinAtar: its games as they are, options, pictures, messages."""

import subprocess
import sys

import numpy as np
import pytest

from distacme import environments

from . import contract

BREAKOUT = 'minatar:breakout'
GAMES = ('asterix', 'breakout', 'freeway', 'seaquest', 'space_invaders')

TestBreakout = contract.contract_test(BREAKOUT)
TestSeaquest = contract.contract_test('minatar:seaquest')


@pytest.mark.parametrize('game', GAMES)
def test_observations_are_grids_of_channels(game):
  environment = environments.make(f'minatar:{game}', seed=0)
  spec = environment.observation_spec()
  assert spec.shape[:2] == (10, 10)
  assert spec.dtype == np.bool_
  for timestep in contract.episode(environment, 20):
    spec.validate(timestep.observation)
  assert environment.action_spec().num_values == 6


def test_games_are_those_that_minatar_plays():
  minatar = pytest.importorskip('minatar')
  ours = environments.make('minatar:seaquest', seed=3)
  theirs = minatar.Environment('seaquest')
  theirs.seed(3)
  theirs.reset()
  random = np.random.default_rng(0)
  timestep = ours.reset()
  for _ in range(200):
    np.testing.assert_array_equal(timestep.observation, theirs.state())
    if timestep.last():
      break
    action = int(random.integers(6))
    reward, over = theirs.act(action)
    timestep = ours.step(action)
    assert (timestep.reward, timestep.last()) == (reward, over)
  assert timestep.last()
  assert timestep.discount == 0.0


@pytest.mark.parametrize('num_envs', [1, 3])
def test_a_vector_keeps_the_contract(num_envs):
  environment = environments.make_vector(BREAKOUT, num_envs, seed=0)
  assert min(contract.check_vector(environment, num_steps=60)) >= num_envs


def test_the_seed_decides_the_episodes():
  episodes = [
    contract.episode(environments.make(BREAKOUT, seed=seed))
    for seed in (1, 1, 2)
  ]
  assert contract.same(episodes[0], episodes[1])
  assert not contract.same(episodes[0], episodes[2])


def test_an_action_sticks_with_the_given_chance():
  environment = environments.make(f'{BREAKOUT}?sticky_actions=0.9', seed=0)
  free = environments.make(f'{BREAKOUT}?sticky_actions=0', seed=0)
  moved = {}
  for name, game in (('sticky', environment), ('free', free)):
    moved[name] = 0
    for _ in range(30):
      start = game.reset().observation[..., 0]
      moved[name] += (game.step(1).observation[..., 0] != start).any()
  assert moved['free'] == 30
  assert 0 < moved['sticky'] < 15


def test_only_the_actions_that_count_may_be_asked_for():
  environment = environments.make(f'{BREAKOUT}?minimal_actions=true', seed=0)
  assert environment.action_spec().num_values == 3
  assert environment.action_spec().maximum == 2
  sticking = environments.make(
    f'{BREAKOUT}?minimal_actions=true&sticky_actions=0', seed=0
  )
  start = sticking.reset().observation[9, :, 0].argmax()
  # 2 is 'right', the fourth of all actions.
  assert sticking.step(2).observation[9, :, 0].argmax() == start + 1


def test_difficulty_may_be_held():
  levels = {}
  for ramping in ('true', 'false'):
    environment = environments.make(
      f'minatar:asterix?difficulty_ramping={ramping}', seed=0
    )
    levels[ramping] = environment._game.ramping
  assert levels == {'true': True, 'false': False}


def test_a_picture_gives_each_channel_a_colour():
  environment = environments.make(BREAKOUT, seed=0, render=True)
  assert environment.metadata['render_fps'] == 10
  environment.reset()
  picture = environment.render()
  assert (picture.shape, picture.dtype) == ((160, 160, 3), np.uint8)
  for _ in range(3):  # Until the ball has left the bricks.
    environment.step(1)
  assert not np.array_equal(picture, environment.render())
  # Background, paddle, ball, trail, brick.
  colours = np.unique(environment.render().reshape(-1, 3), axis=0)
  assert len(colours) == 5


def test_what_minatar_would_draw_with_is_not_loaded():
  code = (
    'import sys\n'
    'from distacme import environments\n'
    f'environments.make({BREAKOUT!r}, 0).reset()\n'
    "assert not {'seaborn', 'matplotlib', 'pandas'} & set(sys.modules)"
  )
  done = subprocess.run(
    [sys.executable, '-c', code], capture_output=True, text=True, timeout=60
  )
  assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
  'name, message',
  [
    (
      'braekout',
      "'minatar:braekout'. Did you mean 'breakout'.*Known: asterix, breakout, "
      'freeway, .*Known options: sticky_actions=0.1',
    ),
    ('breakout?ramping=true', "Did you mean 'difficulty_ramping'"),
    ('breakout?sticky_actions=-1', r'must be in \[0, 1\), got -1.0'),
  ],
)
def test_what_cannot_be_made_is_answered_with_what_there_is(name, message):
  with pytest.raises(ValueError, match=message):
    environments.make(f'minatar:{name}', seed=0)
