"""The loop over single environments."""

import dm_env
import numpy as np
import pytest
import tree

from distacme import environments
from distacme.environments import vector
from distacme.testing import environments as testing_environments

from . import broken
from . import contract

FIRST, MID, LAST = dm_env.StepType
CATCH = 'distacme.testing.environments:catch'


def test_rows_are_what_the_single_environments_answer():
  together = vector.LoopVector(
    [testing_environments.Catch(seed) for seed in range(3)]
  )
  singles = [testing_environments.Catch(seed) for seed in range(3)]
  random = np.random.default_rng(0)
  for _ in range(30):
    action = random.integers(3, size=3)
    timestep = together.step(action)
    for i, environment in enumerate(singles):
      single = environment.step(action[i])
      assert timestep.step_type[i] == single.step_type
      assert timestep.reward[i] == (single.reward or 0.0)
      expected_discount = 1.0 if single.first() else single.discount
      assert timestep.discount[i] == expected_discount
      np.testing.assert_array_equal(timestep.observation[i], single.observation)


def test_rows_end_and_start_on_their_own():
  environment = vector.LoopVector(
    [
      testing_environments.Counting(lengths=(1,)),
      testing_environments.Counting(lengths=(2,), truncated=(True,)),
    ]
  )
  action = np.zeros(2, np.int32)
  timesteps = [environment.reset()] + [environment.step(action) for _ in 'abc']
  step_types = np.stack([t.step_type for t in timesteps], axis=1)
  discounts = np.stack([t.discount for t in timesteps], axis=1)
  rewards = np.stack([t.reward for t in timesteps], axis=1)
  assert step_types.tolist() == [
    [FIRST, LAST, FIRST, LAST],
    [FIRST, MID, LAST, FIRST],
  ]
  assert discounts.tolist() == [[1, 0, 1, 0], [1, 1, 1, 1]]
  assert rewards.tolist() == [[0, 1, 0, 1], [0, 1, 1, 0]]
  last = timesteps[2].observation[1]
  assert last.tolist() == [0, 2]  # Kept, not the next episode's first.


def test_arrays_are_copies_of_what_the_environment_reuses():
  class Reusing(testing_environments.Counting):
    array = np.zeros(2, np.float32)

    def _observation(self):
      self.array[:] = super()._observation()
      return self.array

  environment = vector.LoopVector([Reusing()])
  first = environment.reset()
  environment.step(np.zeros(1, np.int32))
  assert first.observation.tolist() == [[0, 0]]


@pytest.mark.parametrize('num_envs', [1, 3])
def test_arrays_have_the_types_of_the_contract(num_envs):
  environment = environments.make_vector('bsuite:catch/0', num_envs, seed=0)
  for timestep in (
    environment.reset(),
    environment.step(np.zeros(num_envs, np.int32)),
  ):
    for array, dtype in (
      (timestep.step_type, np.int8),
      (timestep.reward, np.float32),
      (timestep.discount, np.float32),
    ):
      assert (array.shape, array.dtype) == ((num_envs,), dtype)
  assert environment.reward_spec().dtype == np.float32
  assert environment.discount_spec().dtype == np.float32


def test_nested_observations_are_stacked_leaf_by_leaf():
  timesteps = [
    dm_env.restart(broken.observation(lamp=np.int32(i))) for i in range(2)
  ]
  environment = vector.LoopVector([broken.Broken(t) for t in timesteps])
  observation = environment.reset().observation
  tree.assert_same_structure(observation, broken.SPEC)
  assert observation['position'].shape == (2, 2)
  assert observation['lamp'].tolist() == [0, 1]
  assert observation['lamp'].dtype == np.int32


@pytest.mark.parametrize('num_envs', [1, 3])
@pytest.mark.parametrize(
  'name',
  [CATCH, 'distacme.testing.environments:nested', 'bsuite:memory_len/0'],
)
def test_a_vector_keeps_the_contract(name, num_envs):
  environment = environments.make_vector(name, num_envs, seed=0)
  assert min(contract.check_vector(environment, num_steps=40)) > 0


def test_a_wrong_number_of_actions_is_refused():
  environment = environments.make_vector(CATCH, num_envs=2, seed=0)
  with pytest.raises(ValueError, match='3 actions came for 2 environments'):
    environment.step(np.zeros(3, np.int32))


def test_close_closes_every_row():
  closed = []

  class Closing(testing_environments.Counting):
    def close(self):
      closed.append(self)

  rows = [Closing(), Closing()]
  vector.LoopVector(rows).close()
  assert closed == rows
