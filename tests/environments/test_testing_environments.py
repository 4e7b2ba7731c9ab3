"""The tiny environments do what tests rely on."""

import time

import dm_env
import numpy as np
import pytest

from distacme import environments as library
from distacme.testing import environments

FIRST, MID, LAST = dm_env.StepType


def test_the_paddle_under_the_ball_wins_and_any_other_loses():
  for target, reward in (('ball', 1.0), ('left', -1.0)):
    environment = environments.Catch(seed=0)
    for _ in range(10):
      timestep = environment.reset()
      rewards = []
      while not timestep.last():
        ball = timestep.observation[:-1].argmax() % 5
        paddle = timestep.observation[-1].argmax()
        goal = ball if target == 'ball' else (ball + 1) % 5
        timestep = environment.step(1 + np.sign(goal - paddle))
        rewards.append(timestep.reward)
      assert rewards == [0.0] * 8 + [reward]
      assert timestep.discount == 0.0


def test_balls_fall_in_every_column():
  environment = environments.Catch(seed=0)
  columns = {environment.reset().observation[0].argmax() for _ in range(50)}
  assert columns == {0, 1, 2, 3, 4}


def test_counting_tells_episode_and_step():
  environment = environments.Counting(
    lengths=(1, 2),
    truncated=(True, False),
    reward=lambda episode, step: 10 * episode + step,
    first_episode=4,
  )
  steps = [environment.step(0) for _ in range(5)]
  assert [s.observation.tolist() for s in steps] == [
      [4, 0], [4, 1], [5, 0], [5, 1], [5, 2]
  ]  # fmt: skip
  assert [s.step_type for s in steps] == [FIRST, LAST, FIRST, MID, LAST]
  assert [s.reward for s in steps] == [None, 41, None, 51, 52]
  assert [s.discount for s in steps] == [None, 1, None, 1, 0]


def test_a_nested_step_is_rewarded_for_number_and_side():
  environment = environments.Nested(seed=0)
  rewards = {}
  for picked in (True, False):
    for moved in (True, False):
      observation = environment.reset().observation
      image, number = observation['number']
      assert image[0].argmax() == number
      pick = number if picked else (number + 1) % 3
      side = 1.0 if moved else -1.0
      action = {'move': side * observation['light'], 'pick': (pick,)}
      rewards[picked, moved] = environment.step(action).reward
  assert rewards == {
    (True, True): 1, (True, False): 0, (False, True): 0, (False, False): 0
  }  # fmt: skip


@pytest.mark.parametrize(
  ('share', 'expected'), [(1.0, 1.0), (0.5, 0.5), (0.0, 0.0)]
)
def test_the_reward_at_the_end_is_the_share_of_right_actions(share, expected):
  environment = library.make(
    'distacme.testing.environments:reward_at_the_end', seed=0
  )
  for _ in range(2):
    timestep = environment.reset()
    rewards, rights = [], set()
    for step in range(1000):
      progress, so_far, *shown = timestep.observation
      assert progress == np.float32(step / 1000)
      assert sorted(shown) == [0, 0, 1]
      right = int(np.argmax(shown))
      rights.add(right)
      timestep = environment.step(
        right if step < 1000 * share else (right + 1) % 3
      )
      rewards.append(timestep.reward)
    assert rights == {0, 1, 2}
    assert rewards == [0.0] * 999 + [np.float32(expected)]
    assert timestep.step_type == LAST
    assert timestep.discount == 0
    assert timestep.observation[1] == np.float32(expected)
    assert environment.step(0).first()


def test_slow_pendulum_takes_its_time():
  pytest.importorskip('gymnasium')
  slow = library.make('distacme.testing.environments:slow_pendulum', seed=3)
  quick = library.make('gymnasium:Pendulum-v1', seed=3)
  first, same = slow.reset(), quick.reset()
  np.testing.assert_array_equal(first.observation, same.observation)
  start = time.perf_counter()
  for _ in range(5):
    timestep = slow.step(np.ones(1, np.float32))
  assert time.perf_counter() - start >= 0.05
  for _ in range(5):
    same = quick.step(np.ones(1, np.float32))
  np.testing.assert_array_equal(timestep.observation, same.observation)


def test_cartpole_without_velocities_shows_places_only():
  gymnasium = pytest.importorskip('gymnasium')
  hidden = library.make(
    'distacme.testing.environments:cartpole_without_velocities', seed=3
  )
  whole = gymnasium.make('CartPole-v1')
  observation, _ = whole.reset(seed=3)
  timestep = hidden.reset()
  for step in range(1000):
    np.testing.assert_array_equal(timestep.observation, observation[[0, 2]])
    hidden.observation_spec().validate(timestep.observation)
    if timestep.last():
      break
    action = step % 2
    observation, reward, terminated, _, _ = whole.step(action)
    timestep = hidden.step(action)
    assert timestep.reward == reward
    assert timestep.last() == terminated
  assert timestep.last() and step > 10


def test_cartpole_is_rewarded_with_its_steps_at_the_end_only():
  pytest.importorskip('gymnasium')
  sparse = library.make(
    'distacme.testing.environments:cartpole_reward_at_the_end', seed=3
  )
  plain = library.make('gymnasium:CartPole-v1', seed=3)
  random = np.random.default_rng(0)
  steps = ends = 0
  for _ in range(100):
    action = random.integers(2)
    timestep, usual = sparse.step(action), plain.step(action)
    steps = 0 if timestep.first() else steps + 1
    np.testing.assert_array_equal(timestep.observation[:4], usual.observation)
    np.testing.assert_allclose(timestep.observation[4], steps / 500, rtol=1e-6)
    assert timestep.step_type == usual.step_type
    assert timestep.discount == usual.discount
    if not timestep.first():
      assert timestep.reward == (steps if timestep.last() else 0.0)
    ends += timestep.last()
  assert ends > 2


def test_a_whole_episode_of_the_sparse_cartpole_pays_500():
  pytest.importorskip('gymnasium')
  sparse = library.make(
    'distacme.testing.environments:cartpole_reward_at_the_end', seed=3
  )
  timestep = sparse.reset()
  rewards = []
  while not timestep.last():
    _, speed, angle, turn, _ = timestep.observation
    action = int(angle + 0.3 * turn + 0.02 * speed > 0.0)
    timestep = sparse.step(action)
    rewards.append(timestep.reward)
  assert rewards == [0.0] * 499 + [500.0]
  assert timestep.discount == 0.0
