"""Gymnasium as dm_env: ends of episodes, spaces, native vectors."""

import dm_env
import gymnasium
from gymnasium import spaces
import numpy as np
import pytest
import tree

from distacme import environments
from distacme import specs
from distacme.environments import gymnasium_family

from . import contract

FIRST, MID, LAST = dm_env.StepType


class Scripted(gymnasium.Env):
  """Answers with given observations and the given end."""

  def __init__(
    self,
    observation_space,
    observations,
    terminated=False,
    truncated=False,
    action_space=None,
    reward=1.5,
  ):
    self.observation_space = observation_space
    self.action_space = action_space or spaces.Discrete(2)
    self.actions = []
    self._observations = observations
    self._end = (terminated, truncated)
    self._reward = reward

  def reset(self, *, seed=None, options=None):
    self._t = 0
    return self._observations[0], {}

  def step(self, action):
    self.actions.append(action)
    self._t += 1
    last = self._t == len(self._observations) - 1
    terminated, truncated = self._end if last else (False, False)
    observation = self._observations[self._t]
    return observation, self._reward, terminated, truncated, {}


TestCartPole = contract.contract_test('gymnasium:CartPole-v1')
TestPendulum = contract.contract_test('gymnasium:Pendulum-v1')
TestFrozenLake = contract.contract_test('gymnasium:FrozenLake-v1')
TestBlackjack = contract.contract_test('gymnasium:Blackjack-v1')
TestLunarLander = contract.contract_test('gymnasium:LunarLander-v3')
TestHalfCheetah = contract.contract_test('gymnasium:HalfCheetah-v5', 20)


@pytest.mark.parametrize(
  'name, num_envs, num_steps',
  [
    ('CartPole-v1', 1, 100),
    ('CartPole-v1', 8, 100),
    ('FrozenLake-v1', 3, 60),
    ('Blackjack-v1', 3, 20),
    ('LunarLander-v3', 2, 200),
    ('InvertedPendulum-v5', 2, 60),
  ],
)
def test_a_vector_keeps_the_contract(name, num_envs, num_steps):
  environment = environments.make_vector(f'gymnasium:{name}', num_envs, seed=0)
  counts = contract.check_vector(environment, num_steps)
  assert min(counts) > 0  # Rows ended and began again.


@pytest.mark.parametrize(
  'terminated, truncated, discount',
  [(True, False, 0.0), (False, True, 1.0), (True, True, 0.0)],
)
def test_the_end_of_an_episode(terminated, truncated, discount):
  environment = gymnasium_family.SingleEnvironment(
    Scripted(spaces.Discrete(5), [0, 3, 4], terminated, truncated)
  )
  first, middle, last, again = [environment.step(0) for _ in range(4)]
  assert (first.step_type, first.reward, first.discount) == (FIRST, None, None)
  assert (middle.step_type, middle.reward, middle.discount) == (MID, 1.5, 1.0)
  assert (last.step_type, last.reward, last.discount) == (LAST, 1.5, discount)
  assert last.observation == 4
  assert (again.step_type, again.observation) == (FIRST, 0)


def test_every_space_becomes_a_spec():
  space = spaces.Dict(
    box=spaces.Box(-1.0, np.array([1.0, 2.0]), dtype=np.float64),
    image=spaces.Box(0, 255, (4, 4), np.uint8),
    pair=spaces.Tuple(
      (
        spaces.Discrete(3, start=5),
        spaces.Dict(deep=spaces.MultiDiscrete([2, 3], start=[1, 0])),
      )
    ),
    flags=spaces.MultiBinary(3),
  )
  environment = gymnasium_family.SingleEnvironment(Scripted(space, []))
  expected = {
    'box': specs.BoundedArray((2,), np.float32, -1.0, [1.0, 2.0]),
    'image': specs.BoundedArray((4, 4), np.uint8, 0, 255),
    'pair': (
      specs.DiscreteArray(3),
      {'deep': specs.BoundedArray((2,), np.int32, [1, 0], [2, 2])},
    ),
    'flags': specs.BoundedArray((3,), np.int8, 0, 1),
  }
  tree.assert_same_structure(environment.observation_spec(), expected)
  for came, promised in zip(
    tree.flatten(environment.observation_spec()),
    tree.flatten(expected),
    strict=True,
  ):
    assert type(came) is type(promised)
    assert came == promised


def test_samples_of_nested_spaces_conform_to_the_specs():
  space = spaces.Dict(
    box=spaces.Box(-np.inf, np.inf, (2, 2), np.float64),
    pair=spaces.Tuple(
      (
        spaces.Discrete(3, start=5),
        spaces.Dict(deep=spaces.MultiDiscrete([2, 3])),
      )
    ),
  )
  space.seed(0)
  samples = [space.sample() for _ in range(20)]
  environment = gymnasium_family.SingleEnvironment(Scripted(space, samples))
  for sample in samples:
    observation = environment.step(0).observation
    tree.map_structure(
      lambda spec, value: spec.validate(value),
      environment.observation_spec(),
      observation,
    )
    np.testing.assert_allclose(observation['box'], sample['box'], rtol=1e-6)
    assert observation['pair'][0] == sample['pair'][0] - 5


def test_nested_actions_reach_the_environment_in_its_own_space():
  space = spaces.Dict(
    jump=spaces.Discrete(3, start=-1),
    move=spaces.Tuple((spaces.Box(-1, 1, (2,)), spaces.MultiBinary(2))),
  )
  scripted = Scripted(spaces.Discrete(2), [0] * 9, action_space=space)
  environment = environments.wrap(scripted)
  action = tree.map_structure(
    lambda spec: spec.generate_value()[np.newaxis], environment.action_spec()
  )
  environment.reset()
  environment.step(action)
  assert scripted.actions[0] in space
  assert scripted.actions[0]['jump'] == -1


def test_rewards_and_observations_are_float32():
  space = spaces.Box(-1.0, 1.0, (2,), np.float64)
  environment = gymnasium_family.SingleEnvironment(
    Scripted(space, [np.zeros(2), np.ones(2)], reward=1)
  )
  environment.reset()
  timestep = environment.step(0)
  assert timestep.observation.dtype == np.float32
  environment.reward_spec().validate(timestep.reward)
  environment.discount_spec().validate(timestep.discount)


@pytest.mark.parametrize('reward', ['much', {}])
def test_a_reward_that_is_no_number_is_reported(reward):
  environment = gymnasium_family.SingleEnvironment(
    Scripted(spaces.Discrete(2), [0, 1], reward=reward)
  )
  environment.reset()
  with pytest.raises(
    ValueError, match=f'reward must be a number, got {reward!r}'
  ):
    environment.step(0)


class Nested(gymnasium.Env):
  """Samples nests; an episode is over where the choice taken is 0."""

  observation_space = spaces.Dict(
    light=spaces.Box(-1.0, 1.0, (2,), np.float64),
    pair=spaces.Tuple((spaces.Discrete(3, start=1), spaces.MultiBinary(2))),
  )
  action_space = spaces.Dict(
    choice=spaces.Tuple((spaces.Discrete(4),)), move=spaces.Box(-1.0, 1.0, (2,))
  )

  def reset(self, *, seed=None, options=None):
    self.observation_space.seed(seed)
    return self.observation_space.sample(), {}

  def step(self, action):
    assert action in self.action_space
    over = action['choice'][0] == 0
    return self.observation_space.sample(), 1.0, over, False, {}


@pytest.mark.parametrize(
  'make',
  [
    Nested,
    lambda: gymnasium.vector.SyncVectorEnv([Nested] * 3),
  ],
  ids=['single', 'vector'],
)
def test_nests_of_spaces_keep_the_contract_in_vectors(make):
  environment = environments.wrap(make())
  assert min(contract.check_vector(environment, num_steps=40)) > 0


def test_a_space_without_a_spec_is_refused_by_name():
  space = spaces.Dict(words=spaces.Text(5))
  with pytest.raises(
    ValueError, match=r"observation\['words'\].*Text.*Use Box"
  ):
    gymnasium_family.SingleEnvironment(Scripted(space, []))


def test_an_observation_of_another_structure_is_reported():
  space = spaces.Dict(a=spaces.Discrete(2), b=spaces.Discrete(2))
  environment = gymnasium_family.SingleEnvironment(Scripted(space, [{'a': 0}]))
  with pytest.raises(
    ValueError, match="observation must have the structure.*'b'.*got.*'a'"
  ):
    environment.reset()


def native_cart_poles(num_envs, seed, **kwargs):
  return gymnasium_family.NativeVector(
    gymnasium.make_vec(
      'CartPole-v1',
      num_envs,
      vectorization_mode='vector_entry_point',
      **kwargs,
    ),
    seed,
  )


def test_native_rows_answer_exactly_like_single_environments():
  num_envs, num_steps = 6, 600
  native = native_cart_poles(num_envs, seed=3, max_episode_steps=20)
  singles = [
    gymnasium.make('CartPole-v1', max_episode_steps=20) for _ in range(num_envs)
  ]
  rows = [gymnasium_family.SingleEnvironment(e) for e in singles]
  random = np.random.default_rng(0)
  timestep = native.reset()
  seen = set()
  for row in rows:
    row.reset()
  for _ in range(num_steps):
    for i in np.flatnonzero(timestep.step_type == FIRST):
      # Rows draw their starts from one generator; continue from the same one.
      singles[i].unwrapped.state = native._environment.state[:, i].copy()
    action = random.integers(2, size=num_envs)
    timestep = native.step(action)
    for i, row in enumerate(rows):
      single = row.step(action[i])
      assert timestep.step_type[i] == single.step_type
      if single.first():
        assert (timestep.reward[i], timestep.discount[i]) == (0.0, 1.0)
      else:
        assert timestep.reward[i] == single.reward
        assert timestep.discount[i] == single.discount
        np.testing.assert_array_equal(
          timestep.observation[i], single.observation
        )
        seen.add((int(single.step_type), float(single.discount)))
  assert seen == {(MID, 1.0), (LAST, 0.0), (LAST, 1.0)}


@pytest.mark.parametrize('num_envs', [1, 8])
def test_cart_pole_is_truncated_after_500_steps(num_envs):
  environment = environments.make_vector('gymnasium:CartPole-v1', num_envs, 0)
  timestep = environment.reset()
  for step in range(1, 501):
    position, speed, angle, spin = timestep.observation.T
    push_right = 0.05 * position + 0.1 * speed + angle + 0.5 * spin > 0
    timestep = environment.step(push_right.astype(np.int32))
    expected = LAST if step == 500 else MID
    assert timestep.step_type.tolist() == [expected] * num_envs
  assert timestep.discount.tolist() == [1.0] * num_envs
  assert environment.step(push_right).step_type.tolist() == [FIRST] * num_envs


def test_native_arrays_have_the_promised_types_and_are_never_written_again():
  environment = native_cart_poles(4, seed=0)
  timesteps = [environment.reset()]
  copies = [tree.map_structure(np.copy, timesteps[0])]
  for _ in range(50):
    timesteps.append(environment.step(np.ones(4, np.int32)))
    copies.append(tree.map_structure(np.copy, timesteps[-1]))
  for timestep, copy in zip(timesteps, copies, strict=True):
    tree.map_structure(np.testing.assert_array_equal, timestep, copy)
    assert timestep.step_type.dtype == np.int8
    assert timestep.reward.dtype == np.float32
    assert timestep.discount.dtype == np.float32
    assert timestep.observation.dtype == np.float32
    assert timestep.observation.flags.c_contiguous


@pytest.mark.parametrize('num_envs', [1, 6])
def test_a_native_vector_of_something_else_is_not_used(num_envs):
  # What ale-py registers has raw screens, its vector version stacks small ones.
  environment = environments.make_vector(
    'gymnasium:ale_py:ALE/Pong-v5', num_envs, seed=0
  )
  assert environment.observation_spec().shape == (210, 160, 3)
  assert environment.reset().observation.shape == (num_envs, 210, 160, 3)


def test_a_vector_with_another_autoreset_mode_is_refused():
  other = gymnasium.make_vec(
    'CartPole-v1',
    2,
    vectorization_mode='sync',
    vector_kwargs={'autoreset_mode': gymnasium.vector.AutoresetMode.SAME_STEP},
  )
  with pytest.raises(ValueError, match='SAME_STEP.*Make it with .*NEXT_STEP'):
    environments.wrap(other)
