"""dm_control's suite: flat observations, single precision, pictures."""

import ctypes.util
import os
import subprocess
import sys

import numpy as np
import pytest

from distacme import environments
from distacme import specs
from distacme.environments import headless
from distacme.environments import wrappers
from distacme.kit import bounds

from . import contract

pytest.importorskip(
  'dm_control', reason='dm_control installs up to Python 3.12'
)

CARTPOLE = 'dm_control:cartpole/balance'
# lqr's actions have no bounds, one of walker's observations is a scalar.
TASKS = (CARTPOLE, 'dm_control:walker/walk', 'dm_control:lqr/lqr_2_1')

needs_opengl = pytest.mark.skipif(
  not any(map(ctypes.util.find_library, ('EGL', 'OSMesa'))),
  reason='neither EGL nor OSMesa is installed',
)

TestCartpole = contract.contract_test(CARTPOLE)
TestWalker = contract.contract_test('dm_control:walker/walk', num_steps=10)


def test_the_entries_of_an_observation_are_named_in_their_order():
  from dm_control import suite

  environment = environments.make(CARTPOLE, seed=3)
  spec = environment.observation_spec()
  assert (spec.shape, spec.dtype) == ((5,), np.float32)
  assert spec.name == 'position[3], velocity[2]'
  bare = suite.load('cartpole', 'balance', task_kwargs={'random': 3})
  expected = bare.reset().observation
  np.testing.assert_array_equal(
    environment.reset().observation,
    np.concatenate([expected['position'], expected['velocity']]).astype('f'),
  )


@pytest.mark.parametrize('task', TASKS)
def test_actions_rewards_and_discounts_are_float32(task):
  environment = environments.make(task, seed=0)
  assert isinstance(environment.action_spec(), specs.BoundedArray)
  for spec in (
    environment.observation_spec(),
    environment.action_spec(),
    environment.reward_spec(),
    environment.discount_spec(),
  ):
    assert spec.dtype == np.float32


@pytest.mark.parametrize('task', ['lqr/lqr_2_1', 'lqr/lqr_6_2'])
def test_actions_without_limits_have_infinite_bounds(task):
  spec = environments.make(f'dm_control:{task}', seed=0).action_spec()
  assert (spec.minimum == -np.inf).all()
  assert (spec.maximum == np.inf).all()
  walker = environments.make('dm_control:walker/walk', seed=0).action_spec()
  assert (walker.minimum == -1.0).all()
  assert (walker.maximum == 1.0).all()


def test_a_wrapper_of_two_lines_gives_bounds_to_what_has_none():
  class Bounded(wrappers.Wrapper):
    def action_spec(self):
      return specs.BoundedArray((1,), 'float32', -1.0, 1.0)

  environment = Bounded(environments.make('dm_control:lqr/lqr_2_1', seed=0))
  spec = specs.make_environment_spec(environment)
  # As the message says that is shown without it.
  with pytest.raises(
    ValueError, match='Bounded.*Wrapper.*def action_spec'
  ) as e:
    bounds.Bounds(
      environments.make('dm_control:lqr/lqr_2_1', seed=0).action_spec(), 'DDPG'
    )
  assert "specs.BoundedArray((1,), 'float32', -1.0, 1.0)" in str(e.value)
  environment.reset()
  action = bounds.Bounds(spec.actions, 'DDPG').action(np.ones(1, 'f'))
  assert np.isfinite(environment.step(np.asarray(action)).reward)


def test_the_time_limit_truncates_after_1000_steps():
  environment = environments.make(CARTPOLE, seed=0)
  timestep = environment.reset()
  for _ in range(1000):
    assert not timestep.last()
    timestep = environment.step(np.zeros(1, np.float32))
  assert timestep.last()
  assert timestep.discount == 1.0
  assert environment.step(np.zeros(1, np.float32)).first()


@pytest.mark.parametrize('task', TASKS)
def test_the_seed_decides_the_episodes(task):
  episodes = [
    contract.episode(environments.make(task, seed=seed), 5)
    for seed in (1, 1, 2)
  ]
  assert contract.same(episodes[0], episodes[1])
  assert not contract.same(episodes[0], episodes[2])


@pytest.mark.parametrize('num_envs', [1, 3])
def test_a_vector_keeps_the_contract(num_envs):
  environment = environments.make_vector(CARTPOLE, num_envs, seed=0)
  counts = contract.check_vector(environment, num_steps=1002)
  assert counts == [2 * num_envs, 1000 * num_envs, num_envs]


@needs_opengl
def test_pictures_need_no_display(monkeypatch):
  monkeypatch.delenv('DISPLAY', raising=False)
  # Imported without OpenGL first, as where a worker both acts and records.
  environments.make(CARTPOLE, seed=0).reset()
  environment = environments.make(CARTPOLE, seed=0, render=True)
  assert environment.control_timestep() == 0.01  # for the speed of videos
  environment.reset()
  before = environment.render()
  for _ in range(20):
    environment.step(np.ones(1, np.float32))
  after = environment.render()
  assert (before.shape, before.dtype) == ((240, 320, 3), np.uint8)
  assert before.std() > 0
  assert not np.array_equal(before, after)


@needs_opengl
def test_a_task_that_lays_out_its_terrain_with_opengl_can_be_made():
  environments.make(CARTPOLE, seed=0)  # Imported without OpenGL first.
  environment = environments.make('dm_control:quadruped/escape', seed=0)
  assert environment.reset().first()


def test_what_does_not_render_loads_no_opengl():
  code = (
    'import sys\n'
    'from distacme import environments\n'
    f'environments.make({CARTPOLE!r}, 0).reset()\n'
    "assert not {'OpenGL', 'glfw'} & set(sys.modules)"
  )
  environ = {k: v for k, v in os.environ.items() if k != 'MUJOCO_GL'}
  done = subprocess.run(
    [sys.executable, '-c', code],
    capture_output=True,
    text=True,
    timeout=60,
    env=environ,
  )
  assert done.returncode == 0, done.stderr


def test_where_nothing_can_draw_the_error_says_what_to_install(monkeypatch):
  monkeypatch.delenv('DISPLAY', raising=False)
  monkeypatch.delenv('MUJOCO_GL', raising=False)
  monkeypatch.setattr(headless.ctypes.util, 'find_library', lambda _: None)
  with pytest.raises(
    ValueError,
    match=f"'{CARTPOLE}' cannot be rendered: there is no display.*apt-get "
    'install libegl1.*MUJOCO_GL=egl',
  ):
    environments.make(CARTPOLE, seed=0, render=True)


def test_a_renderer_that_does_not_work_is_named():
  with pytest.raises(
    ValueError,
    match=r"'a:b' cannot be rendered: MUJOCO_GL=.* does not work here "
    r'\(AttributeError: no glGetError\). Install EGL',
  ):
    with headless.failures_explained('a:b'):
      raise AttributeError('no glGetError')


@pytest.mark.parametrize(
  'task, message',
  [
    ('cartpole/balanse', "Did you mean 'cartpole/balance'"),
    ('cartpole', 'a domain and a task, like .*known: acrobot/swingup, '),
  ],
)
def test_an_unknown_task_is_answered_with_the_known_ones(task, message):
  with pytest.raises(ValueError, match=message):
    environments.make(f'dm_control:{task}', seed=0)
