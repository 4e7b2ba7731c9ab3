"""Environments made to be rendered give pictures, and the others say why not."""

import gymnasium
import numpy as np
import pytest

from distacme import environments
from distacme import specs
from distacme.environments import rendering
from distacme.testing import environments as testing_environments

HERE = __name__


def is_picture(value):
  return (
    isinstance(value, np.ndarray)
    and value.dtype == np.uint8
    and value.ndim == 3
    and value.shape[2] == 3
    and min(value.shape[:2]) >= 80
  )


@pytest.mark.parametrize(
  'name',
  [
    'gymnasium:CartPole-v1',
    'gymnasium:FrozenLake-v1',
    'bsuite:catch/0',
    'bsuite:deep_sea/3',
    'distacme.testing.environments:catch',
  ],
)
def test_pictures_follow_the_episode(name):
  environment = environments.make(name, seed=0, render=True)
  environment.reset()
  pictures = [environment.render()]
  for _ in range(9):
    environment.step(1)
    pictures.append(environment.render())
  assert all(map(is_picture, pictures))
  assert len({picture.shape for picture in pictures}) == 1
  assert len({picture.tobytes() for picture in pictures}) > 2


@pytest.mark.parametrize('name', ['gymnasium:CartPole-v1', 'bsuite:catch/0'])
def test_pictures_change_nothing_else(name):
  plain = environments.make(name, seed=3)
  drawn = environments.make(name, seed=3, render=True)
  assert drawn.observation_spec() == plain.observation_spec()
  assert drawn.reward_spec() == plain.reward_spec()
  for _ in range(20):
    ours, theirs = drawn.step(1), plain.step(1)
    drawn.render()
    np.testing.assert_array_equal(ours.observation, theirs.observation)
    assert (ours.step_type, ours.reward) == (theirs.step_type, theirs.reward)


def test_an_environment_is_made_without_pictures_unless_they_are_asked_for():
  environment = environments.make('gymnasium:CartPole-v1', seed=0)
  assert not hasattr(environment, 'render')
  environment = environments.make('bsuite:catch/0', seed=0)
  assert not hasattr(environment, 'render')


class Painted(testing_environments.Counting):
  def render(self):
    return np.full((90, 120, 3), 7, np.uint8)


def painted(seed):
  del seed
  return Painted()


def drawn_by_gymnasium(seed):
  del seed
  return gymnasium.make('CartPole-v1', render_mode='rgb_array')


def not_drawn(seed):
  del seed
  return gymnasium.make('CartPole-v1')


@pytest.mark.parametrize('factory', [painted, drawn_by_gymnasium])
def test_an_environments_own_method_is_used(factory):
  environment = environments.make(factory, seed=0, render=True)
  environment.reset()
  assert is_picture(environment.render())
  environment = environments.make(
    f'{HERE}:{factory.__name__}', seed=0, render=True
  )
  environment.reset()
  assert is_picture(environment.render())


@pytest.mark.parametrize(
  'name',
  [
    'distacme.testing.environments:counting',
    'bsuite:cartpole/0',
    f'{HERE}:not_drawn',
  ],
)
def test_what_cannot_be_rendered_says_what_to_do(name):
  with pytest.raises(
    ValueError,
    match=r'cannot be rendered: .*no method render\(\).*Give it a method '
    "render.*render_mode='rgb_array'",
  ):
    environments.make(name, seed=0, render=True)


@pytest.mark.parametrize('options', ['', '?max_episode_steps=9'])
def test_a_gymnasium_environment_without_pictures_is_refused(
  options, monkeypatch
):
  spec = gymnasium.spec('CartPole-v1')
  monkeypatch.setattr(
    gymnasium.envs.classic_control.CartPoleEnv,
    'metadata',
    {'render_modes': ['human']},
  )
  monkeypatch.setitem(gymnasium.registry, 'CartPole-v1', spec)
  with pytest.raises(
    ValueError,
    match=r"^Environment 'gymnasium:CartPole-v1' cannot be rendered: "
    r".*\['human'\]. Add",
  ):
    environments.make(f'gymnasium:CartPole-v1{options}', seed=0, render=True)


def test_a_grid_is_drawn_from_its_least_value_to_its_largest():
  grid = np.array([[0.0, 1.0, 2.0]] * 2, np.float32)
  bounded = specs.BoundedArray((2, 3), np.float32, 0.0, 4.0)
  for spec, values in (
    (bounded, [0, 64, 128]),
    (specs.Array((2, 3), np.float32), [0, 128, 255]),
    (specs.BoundedArray((2, 3), np.float32, 0.0, np.inf), [0, 128, 255]),
  ):
    picture = rendering.draw_grid(spec, grid)
    assert picture.shape == (108, 162, 3)
    assert picture[0, [0, 54, 161]].tolist() == [[v] * 3 for v in values]


def test_a_grid_of_one_value_is_black():
  spec = specs.Array((2, 2), np.float32)
  assert not rendering.draw_grid(spec, np.full((2, 2), 5.0)).any()
