"""The checks of a worker's first episode find each broken promise."""

import re
import traceback

import dm_env
import numpy as np
import pytest

from distacme import environments
from distacme import specs
from distacme.environments import checks
from distacme.environments import vector
from distacme.testing import environments as testing_environments

from .broken import Broken
from .broken import observation

FIRST, MID, LAST = dm_env.StepType
GOOD_START = dm_env.restart(observation())


def step(reward=0.0, discount=1.0, **changes):
  return dm_env.TimeStep(MID, reward, discount, observation(**changes))


def run(*rows):
  """Steps environments of the given timesteps through, checked."""
  environment = environments.check_first_episode(
    vector.LoopVector([Broken(*timesteps) for timesteps in rows])
  )
  environment.reset()
  for _ in rows[0][1:]:
    environment.step(np.zeros(len(rows), np.int32))


@pytest.mark.parametrize(
  'wrong, message',
  [
    (
      step(position=np.zeros(3, np.float32)),
      "observation['position'] must be float32 of shape (2,), "
      'got float32 of shape (3,).',
    ),
    (
      step(position=np.zeros(2)),
      "observation['position'] must be float32 of shape (2,), "
      'got float64 of shape (2,).',
    ),
    (
      step(position=np.array([0.0, np.nan], np.float32)),
      "observation['position'] must not be NaN, got nan at index [1] in row 0.",
    ),
    (
      step(position=np.array([0.0, 1.5], np.float32)),
      "observation['position'] must be in [-1.0, 1.0], "
      'got 1.5 at index [1] in row 0.',
    ),
    (
      step(lamp=np.int32(3)),
      "observation['lamp'] must be in [0, 2], got 3 in row 0.",
    ),
    (
      step(lamp=None),
      "observation['lamp'] must be int32 of shape (), got object",
    ),
    (
      step(extra=np.zeros(2)),
      "observation must have the structure {'position': 'float32 of "
      "shape (2,)', 'lamp': 'int32 of shape ()'}, got {",
    ),
    (
      dm_env.transition(0.0, np.zeros(2)),
      'got float64 of shape (2,)',
    ),
    (step(reward='much'), "reward must be a number, got 'much' of type str"),
    (step(reward={}), 'reward must be a number, got {} of type dict'),
    (step(reward=np.zeros(1)), 'reward must be float32 of shape ()'),
    (step(reward=None), 'reward must not be NaN (as None becomes), got nan'),
    (step(reward=np.nan), 'reward must not be NaN'),
    (step(discount=1.5), 'discount must be in [0.0, 1.0], got 1.5 in row 0'),
    (step(discount=-0.5), 'discount must be in [0.0, 1.0], got -0.5'),
    (
      GOOD_START,
      'FIRST came after FIRST, in row 0. FIRST must come after LAST or a '
      'reset, and only there.',
    ),
    (
      step()._replace(step_type={}),
      'step_type must be a number, got {} of type dict',
    ),
    (step()._replace(step_type=7), 'step_type must be in [0, 2], got 7'),
  ],
)
def test_a_broken_promise_is_reported_with_what_came(wrong, message):
  with pytest.raises(ValueError, match=re.escape(message)):
    run([GOOD_START, wrong])


@pytest.mark.parametrize(
  'wrong', [None, (observation(), 0.0, False, False, {})]
)
def test_what_is_no_timestep_is_reported_with_what_to_return(wrong):
  with pytest.raises(
    ValueError, match='must return a dm_env.TimeStep .*Return dm_env.restart'
  ):
    run([GOOD_START, wrong])


def test_the_bounds_of_the_element_that_breaks_them_are_given():
  class Tilted(testing_environments.Counting):
    def observation_spec(self):
      return specs.BoundedArray((2,), np.float32, [0, 0], [100, 1])

  environment = checks.check_first_episode(vector.LoopVector([Tilted()]))
  environment.reset()
  environment.step(np.zeros(1, np.int32))
  with pytest.raises(
    ValueError,
    match=r'observation must be in \[0.0, 1.0\], got 2.0 at index \[1\] in row 0',
  ):
    environment.step(np.zeros(1, np.int32))


def test_the_row_that_breaks_a_promise_is_named():
  with pytest.raises(ValueError, match='got 3 in row 1'):
    run([GOOD_START, step()], [GOOD_START, step(lamp=np.int32(3))])


def test_a_shape_that_only_one_row_has_is_reported_by_field():
  with pytest.raises(ValueError, match=r"observation\['position'\].*\(3,\)"):
    run(
      [GOOD_START, step()],
      [GOOD_START, step(position=np.zeros(3, np.float32))],
    )


def test_an_episode_must_start_with_first():
  with pytest.raises(ValueError, match='MID came after a reset'):
    run([step()])
  with pytest.raises(ValueError, match='MID came after LAST'):
    run([GOOD_START, step()._replace(step_type=LAST), step()])


def test_a_discount_out_of_bounds_is_found_whatever_the_spec_says():
  class Undiscounted(testing_environments.Counting):
    def discount_spec(self):
      return specs.Array((), np.float32)

    def step(self, action):
      return super().step(action)._replace(discount=2.0)

  environment = checks.check_first_episode(vector.LoopVector([Undiscounted()]))
  environment.reset()
  with pytest.raises(ValueError, match=r'discount must be in \[0.0, 1.0\]'):
    environment.step(np.zeros(1, np.int32))


def test_rows_that_a_users_own_vector_forgets_are_reported():
  class Flat:
    num_envs = 2

    def __init__(self, vector_environment):
      self._environment = vector_environment

    def __getattr__(self, name):
      return getattr(self._environment, name)

    def reset(self):
      timestep = self._environment.reset()
      return timestep._replace(reward=np.float32(0.0))

  flat = Flat(
    environments.make_vector('distacme.testing.environments:catch', 2, 0)
  )
  with pytest.raises(
    ValueError, match='reward must be an array of 2 rows, got'
  ):
    checks.check_first_episode(flat).reset()


def test_an_environments_own_error_keeps_its_traceback():
  with pytest.raises(RuntimeError, match='the motor burnt') as error:
    run([GOOD_START, RuntimeError('the motor burnt')])
  assert error.value.__cause__ is None
  assert traceback.extract_tb(error.tb)[-1].filename.endswith('broken.py')


def test_a_good_environment_is_checked_until_an_episode_is_over_and_no_longer():
  bare = vector.LoopVector(
    [
      testing_environments.Counting(lengths=(2,)),
      testing_environments.Counting(lengths=(9,)),
    ]
  )
  checked = checks.check_first_episode(bare)
  action = np.zeros(2, np.int32)
  checked.reset()
  for _ in range(2):  # MID, LAST
    checked.step(action)
    assert checked.step != bare.step
  assert checked.step(action).step_type.tolist() == [FIRST, MID]
  assert checked.step == bare.step
  assert checked.reset == bare.reset


def test_an_endless_episode_is_not_checked_for_ever():
  bare = vector.LoopVector([testing_environments.Counting(lengths=(100,))])
  checked = checks.check_first_episode(bare, max_steps=5)
  checked.reset()
  for _ in range(5):
    assert checked.step != bare.step
    checked.step(np.zeros(1, np.int32))
  assert checked.step == bare.step


@pytest.mark.parametrize('num_envs', [1, 8])
@pytest.mark.parametrize(
  'name',
  ['gymnasium:CartPole-v1', 'gymnasium:FrozenLake-v1', 'bsuite:memory_len/0'],
)
def test_good_environments_pass(name, num_envs):
  environment = checks.check_first_episode(
    environments.make_vector(name, num_envs, seed=0)
  )
  environment.reset()
  for _ in range(300):
    environment.step(np.zeros(num_envs, np.int32))
