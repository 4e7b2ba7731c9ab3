"""Atari by ale-py: preprocessing, ends of games, options, vectors, pictures."""

import dm_env
import numpy as np
import pytest

from distacme import environments
from distacme import specs
from distacme.environments import families

from . import contract

FIRST, MID, LAST = dm_env.StepType
PONG = 'atari:Pong'
# 20 steps, so that games end.
SHORT = f'{PONG}?max_frames=80&sticky_actions=0.25'

TestPong = contract.contract_test(PONG, num_steps=20)
TestShortPong = contract.contract_test(SHORT, num_steps=50)


def test_observations_are_stacked_images_with_the_newest_frame_last():
  environment = environments.make(PONG, seed=0)
  spec = environment.observation_spec()
  assert (spec.shape, spec.dtype) == ((84, 84, 4), np.uint8)
  assert environment.action_spec() == specs.DiscreteArray(6, name='action')
  steps = [environment.reset().observation]
  # Black before the first frame.
  assert not steps[0][..., :3].any()
  assert steps[0][..., 3].std() > 0
  for _ in range(20):
    steps.append(environment.step(2).observation)
    np.testing.assert_array_equal(steps[-1][..., :3], steps[-2][..., 1:])
  assert not np.array_equal(steps[-1][..., 3], steps[-2][..., 3])


@pytest.mark.parametrize('num_envs', [1, 3])
def test_a_vector_keeps_the_contract(num_envs):
  environment = environments.make_vector(SHORT, num_envs, seed=0)
  assert contract.check_vector(environment, num_steps=63) == [
    4 * num_envs,
    57 * num_envs,
    3 * num_envs,
  ]


def test_row_i_of_a_vector_is_the_environment_of_row_seed_i():
  together = environments.make_vector(SHORT, 2, seed=7)
  singles = [
    environments.make(SHORT, families.row_seed(7, row)) for row in range(2)
  ]
  random = np.random.default_rng(0)
  for _ in range(45):
    action = random.integers(6, size=2).astype(np.int32)
    rows = together.step(action)
    for row, environment in enumerate(singles):
      single = environment.step(action[row])
      assert rows.step_type[row] == single.step_type
      assert rows.reward[row] == (single.reward or 0.0)
      np.testing.assert_array_equal(rows.observation[row], single.observation)
  assert not np.array_equal(rows.observation[0], rows.observation[1])


def test_the_last_step_of_a_truncated_game_carries_its_last_observation():
  environment = environments.make(SHORT, seed=0)
  timestep = environment.reset()
  while not timestep.last():
    before, timestep = timestep, environment.step(2)
  assert timestep.discount == 1.0
  np.testing.assert_array_equal(
    timestep.observation[..., :3], before.observation[..., 1:]
  )
  assert environment.step(2).first()


def play(name, num_steps=200):
  """Returns timesteps of Breakout whose paddle fires and does not move."""
  environment = environments.make(name, seed=3)
  return [environment.reset()] + [environment.step(1) for _ in range(num_steps)]


def test_a_game_ends_with_the_last_life_and_terminates():
  timesteps = play('atari:Breakout')
  (last,) = [t for t in timesteps if t.last()]
  assert last.discount == 0.0
  assert {t.discount for t in timesteps if t.mid()} == {1.0}


def test_a_lost_life_may_set_the_discount_to_0_while_the_game_goes_on():
  name = 'atari:Breakout?terminal_on_life_loss=true'
  timesteps, plain = play(name), play('atari:Breakout')
  assert [t.step_type for t in timesteps] == [t.step_type for t in plain]
  (end,) = [i for i, t in enumerate(timesteps) if t.last()]
  game = timesteps[: end + 1]
  assert sum(t.discount == 0.0 for t in game) == 5
  assert timesteps[end + 1].first()
  assert timesteps[end + 2].discount == 1.0  # The first of a new game's lives.


def test_rewards_may_be_clipped():
  rewards = {}
  for clip in ('false', 'true'):
    environment = environments.make(
      f'atari:Asteroids?clip_rewards={clip}', seed=0
    )
    answers = contract.episode(environment, 100)
    rewards[clip] = {float(t.reward) for t in answers if not t.first()}
  assert max(rewards['false']) > 1.0
  assert rewards['true'] == {0.0, 1.0}


def test_sticky_actions_change_what_happens():
  plain = contract.episode(environments.make(PONG, seed=0), 30)
  sticky = contract.episode(
    environments.make(f'{PONG}?sticky_actions=0.5', seed=0), 30
  )
  np.testing.assert_array_equal(plain[0].observation, sticky[0].observation)
  assert not contract.same(plain, sticky)


def test_the_seed_decides_games_sticky_actions_and_starts():
  episodes = [
    contract.episode(environments.make(SHORT, seed=seed), 30)
    for seed in (1, 1, 2)
  ]
  assert contract.same(episodes[0], episodes[1])
  assert not contract.same(episodes[0], episodes[2])


def test_all_actions_may_be_asked_for():
  environment = environments.make(f'{PONG}?full_action_space=true', seed=0)
  assert environment.action_spec().num_values == 18


def test_pictures_show_the_game_that_is_played():
  environment = environments.make(SHORT, seed=4, render=True)
  assert environment.metadata['render_fps'] == 15
  plain = environments.make(SHORT, seed=4)
  random = np.random.default_rng(0)
  for step in range(45):
    action = random.integers(6)
    timestep = environment.reset() if step == 30 else environment.step(action)
    same = plain.reset() if step == 30 else plain.step(action)
    np.testing.assert_array_equal(timestep.observation, same.observation)
    picture = environment.render()
    assert (picture.shape, picture.dtype) == ((210, 160, 3), np.uint8)
    # Luminance of the picture, averaged to 84 x 84 by hand, is what is seen.
    grey = picture @ np.array([0.299, 0.587, 0.114])
    rows = np.add.reduceat(grey, np.arange(0, 210, 15), axis=0)
    blocks = np.add.reduceat(rows, np.arange(0, 160, 20), axis=1) / 300
    seen = timestep.observation[..., 3].astype(np.float64)
    rows = np.add.reduceat(seen, np.arange(0, 84, 6), axis=0)
    expected = np.add.reduceat(rows[:, :80], np.arange(0, 80, 10), axis=1)
    assert blocks.shape == (14, 8)
    assert np.corrcoef(blocks.ravel(), expected.ravel())[0, 1] > 0.9
  environment.close()


@pytest.mark.parametrize('game', ['MsPacman', 'ms_pacman', 'mspacman'])
def test_a_game_is_found_however_it_is_spelt(game):
  environment = environments.make(f'atari:{game}', seed=0)
  assert environment.action_spec().num_values == 9


@pytest.mark.parametrize(
  'name, message',
  [
    ('Pnog', "'atari:Pnog'. Did you mean 'Pong'.*known: Adventure, AirRaid"),
    ('Combat', "No environment is called 'atari:Combat'"),  # needs two players
    ('PongNoFrameskip-v4', "A name is a game, like 'atari:Pong'"),
    (
      'Pong?sticky=1',
      "no option 'sticky'. Did you mean 'sticky_actions'. Known options: "
      'sticky_actions=0.0, clip_rewards=false',
    ),
    ('Pong?sticky_actions=1', r'sticky_actions must be in \[0, 1\), got 1.0'),
    ('Pong?max_frames=3', 'max_frames must be at least 4, one step, got 3'),
  ],
)
def test_what_cannot_be_made_is_answered_with_what_there_is(name, message):
  with pytest.raises(ValueError, match=message):
    environments.make(f'atari:{name}', seed=0)
  with pytest.raises(ValueError, match=message):
    environments.make_vector(f'atari:{name}', 2, seed=0)
