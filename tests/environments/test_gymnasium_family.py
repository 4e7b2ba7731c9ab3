"""Gymnasium as dm_env: ends of episodes, spaces, native vectors."""

import re

import dm_env
import gymnasium
from gymnasium import spaces
import numpy as np
import pytest
import tree

from distacme import environments
from distacme import specs
from distacme.environments import gymnasium_adapters

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
  environment = gymnasium_adapters.SingleEnvironment(
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
  environment = gymnasium_adapters.SingleEnvironment(Scripted(space, []))
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
  environment = gymnasium_adapters.SingleEnvironment(Scripted(space, samples))
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
  environment = gymnasium_adapters.SingleEnvironment(
    Scripted(space, [np.zeros(2), np.ones(2)], reward=1)
  )
  environment.reset()
  timestep = environment.step(0)
  assert timestep.observation.dtype == np.float32
  environment.reward_spec().validate(timestep.reward)
  environment.discount_spec().validate(timestep.discount)


@pytest.mark.parametrize('reward', ['much', {}])
def test_a_reward_that_is_no_number_is_reported(reward):
  environment = gymnasium_adapters.SingleEnvironment(
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
    gymnasium_adapters.SingleEnvironment(Scripted(space, []))


def test_an_observation_of_another_structure_is_reported():
  space = spaces.Dict(a=spaces.Discrete(2), b=spaces.Discrete(2))
  environment = gymnasium_adapters.SingleEnvironment(
    Scripted(space, [{'a': 0}])
  )
  with pytest.raises(
    ValueError, match="observation must have the structure.*'b'.*got.*'a'"
  ):
    environment.reset()


def native_cart_poles(num_envs, seed, **kwargs):
  return gymnasium_adapters.NativeVector(
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
  rows = [gymnasium_adapters.SingleEnvironment(e) for e in singles]
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


def unwrapped(environment):
  return environment._environment.unwrapped


def test_arguments_of_the_constructor_stand_in_the_name():
  name = 'gymnasium:FrozenLake-v1?map_name=8x8&is_slippery=false'
  environment = environments.make(name, seed=0)
  assert environment.observation_spec().num_values == 64
  transitions = unwrapped(environment).P[0][2]
  assert [t[:2] for t in transitions] == [(1.0, 1)]  # It never slips.


def test_a_step_limit_stands_in_the_name():
  name = 'gymnasium:CartPole-v1?max_episode_steps=3'
  for num_envs in (1, 8):
    environment = environments.make_vector(name, num_envs, seed=0)
    environment.reset()
    action = np.zeros(num_envs, np.int32)
    timesteps = [environment.step(action) for _ in range(3)]
    types = [timestep.step_type.tolist() for timestep in timesteps]
    assert types == [[kind] * num_envs for kind in (MID, MID, LAST)]
    assert timesteps[-1].discount.tolist() == [1.0] * num_envs


def test_a_step_limit_can_be_taken_away():
  name = 'gymnasium:CartPole-v1?max_episode_steps=none'
  environment = environments.make(name, seed=0)
  assert environment._environment is unwrapped(environment)  # no TimeLimit
  # The native version would have one, so it is not used.
  rows = environments.make_vector(name, 8, seed=0)
  assert not isinstance(rows, gymnasium_adapters.NativeVector)


def test_options_reach_a_native_vector():
  name = 'gymnasium:CartPole-v1?sutton_barto_reward=true'
  environment = environments.make_vector(name, 8, seed=0)
  assert isinstance(environment, gymnasium_adapters.NativeVector)
  environment.reset()
  reward = environment.step(np.zeros(8, np.int32)).reward
  assert reward.tolist() == [0.0] * 8


def test_options_that_a_native_vector_does_not_take_reach_a_loop(monkeypatch):
  spec = gymnasium.spec('CartPole-v1')

  class Plain(gymnasium.vector.VectorEnv):
    def __init__(self, num_envs, max_episode_steps=500):
      raise AssertionError('the option would be lost')

  monkeypatch.setattr(spec, 'vector_entry_point', Plain)
  name = 'gymnasium:CartPole-v1?sutton_barto_reward=true'
  environment = environments.make_vector(name, 8, seed=0)
  environment.reset()
  assert environment.step(np.zeros(8, np.int32)).reward.tolist() == [0.0] * 8


@pytest.mark.parametrize(
  'options, message',
  [
    (
      'is_slipery=1',
      "there is no option 'is_slipery'. Did you mean 'is_slippery'. Known "
      'options: .*map_name=4x4, is_slippery=true.*max_episode_steps=100',
    ),
    ('is_slippery=2', "is_slippery must be true or false, got '2'"),
    ('success_rate=often', "success_rate must be a number, got 'often'"),
    (
      'max_episode_steps=0',
      'max_episode_steps must be .* at least 1.*, got .0',
    ),
    ('max_episode_steps=1.5', "or none for no limit, got '1.5'"),
    ('render_mode=human', 'render_mode is for distacme to say. Leave it out'),
    (
      'map_name=9x9',
      r"cannot be made with these options \(KeyError: '9x9'\). Known options: ",
    ),
  ],
)
def test_an_option_that_cannot_be_is_refused(options, message):
  name = f'gymnasium:FrozenLake-v1?{options}'
  with pytest.raises(ValueError, match=message) as error:
    environments.make(name, seed=0)
  assert f'Environment {name!r}' in str(error.value)


def test_arguments_are_looked_for_in_the_classes_derived_from():
  name = 'gymnasium:InvertedPendulum-v5'
  environment = environments.make(f'{name}?width=64', seed=0)
  assert unwrapped(environment).width == 64
  with pytest.raises(
    ValueError, match="no option 'widht'. Did you mean 'width'"
  ):
    environments.make(f'{name}?widht=64', seed=0)


class OldGym:
  """Has the interface of the package gym before its version 0.26."""

  observation_space = spaces.Box(-1.0, 1.0, (2,))
  action_space = spaces.Discrete(2)
  render_mode = None
  metadata = {'render_modes': ['rgb_array']}

  def reset(self):
    return np.zeros(2, np.float32)

  def step(self, action):
    return np.zeros(2, np.float32), 0.0, False, {}


class OldMethods(OldGym, gymnasium.Env):
  """A gymnasium.Env by name only."""


class OldAnswers(OldMethods):
  def reset(self, *, seed=None, options=None):
    return super().reset()


class OldAnswers4(OldAnswers):
  def reset(self, *, seed=None, options=None):
    return np.zeros(4, np.float32)


class OldStep(OldMethods):
  def reset(self, *, seed=None, options=None):
    return super().reset(), {}


OLD_REMEDY = 'reset.seed=None.*must return.*shimmy'


@pytest.mark.parametrize(
  'environment, found',
  [
    (OldMethods(), "unexpected keyword argument 'seed'"),
    # Two numbers observed are no observation and information.
    (OldAnswers(), r'reset returned array\(\[0., 0.\]'),
    (OldStep(), 'expected 5, got 4'),
    (gymnasium.wrappers.TimeLimit(OldStep(), 9), 'expected 5, got 4'),
    (gymnasium.wrappers.TimeLimit(OldMethods(), 9), 'unexpected keyword'),
    (gymnasium.wrappers.FlattenObservation(OldAnswers4()), 'expected 2'),
    (gymnasium.vector.SyncVectorEnv([OldStep]), 'expected 5, got 4'),
    (gymnasium.vector.SyncVectorEnv([OldMethods]), 'unexpected keyword'),
  ],
)
def test_the_interface_of_old_gym_is_named(environment, found):
  environment = environments.wrap(environment)
  with pytest.raises(ValueError, match=f'{found}.*{OLD_REMEDY}'):
    environment.reset()
    environment.step(np.zeros(1, np.int32))


def test_what_fails_within_an_environment_is_its_own_error():
  class Failing(OldStep):
    def step(self, action):
      first, second = 1, 2, 3
      return first, second

  environment = environments.wrap(Failing())
  environment.reset()
  with pytest.raises(ValueError, match='^too many values to unpack'):
    environment.step(np.zeros(1, np.int32))


def test_what_does_not_derive_from_gymnasium_is_told_to():
  remedy = 'Derive it from gymnasium.Env: reset.*must return'
  with pytest.raises(ValueError, match=f'Not an environment: .*{remedy}'):
    environments.wrap(OldGym())
  with pytest.raises(ValueError, match=f'which is neither .*{remedy}'):
    environments.make(lambda seed: OldGym(), seed=0)


def test_an_environment_of_gym_is_named_with_its_wrapper():
  old = type('Env', (OldGym,), {'__module__': 'gym.core'})
  remedy = 'It is an environment of gym, .*shimmy.GymV21CompatibilityV0'
  with pytest.raises(ValueError, match=remedy):
    environments.wrap(type('Maze', (old,), {})())


def test_an_id_of_an_old_environment_is_named(monkeypatch):
  spec = gymnasium.envs.registration.EnvSpec('Old-v0', entry_point=OldGym)
  monkeypatch.setitem(gymnasium.registry, 'Old-v0', spec)
  with pytest.raises(
    ValueError, match="'gymnasium:Old-v0' is no gymnasium.Env.*shimmy"
  ):
    environments.make('gymnasium:Old-v0', seed=0)


@pytest.mark.parametrize('flag', [{}, None, 'yes', 2, [False, False]])
@pytest.mark.parametrize('field', ['terminated', 'truncated'])
def test_a_flag_that_is_none_is_reported(field, flag):
  environment = gymnasium_adapters.SingleEnvironment(
    Scripted(spaces.Discrete(2), [0, 1], **{field: flag})
  )
  environment.reset()
  with pytest.raises(ValueError, match=f'{field} must be True or False, got'):
    environment.step(0)


@pytest.mark.parametrize('flag', [np.True_, 1, np.array([True])])
def test_what_is_like_a_flag_is_one(flag):
  environment = gymnasium_adapters.SingleEnvironment(
    Scripted(spaces.Discrete(2), [0, 1], terminated=flag)
  )
  environment.reset()
  assert environment.step(0).last()


@pytest.mark.parametrize('num_envs', [1, 3])
@pytest.mark.parametrize(
  'name, num_values',
  [
    ('FrozenLake-v1', [16]),
    ('Taxi-v4', [500]),
    ('CliffWalking-v1', [48]),
    ('Blackjack-v1', [32, 11, 2]),
  ],
)
def test_discrete_observations_keep_their_number_of_values(
  name, num_envs, num_values
):
  environment = environments.make_vector(f'gymnasium:{name}', num_envs, seed=0)
  leaves = tree.flatten(environment.observation_spec())
  assert [type(leaf) for leaf in leaves] == [specs.DiscreteArray] * len(leaves)
  assert [leaf.num_values for leaf in leaves] == num_values
  contract.check_vector(environment, num_steps=20)


class Choices(gymnasium.Env):
  """Samples every discrete space there is, from other numbers than 0."""

  observation_space = spaces.Dict(
    many=spaces.MultiDiscrete([[2, 3], [4, 5]], start=[[0, -1], [7, 2]]),
    one=spaces.Discrete(3, start=-7),
    flags=spaces.MultiBinary([2, 2]),
    small=spaces.Discrete(3, start=2**40),
    box=spaces.Box(-5, np.array([2, 9]), (2,), np.int64),
  )
  action_space = spaces.Discrete(2)

  def reset(self, *, seed=None, options=None):
    self.observation_space.seed(seed)
    return self.observation_space.sample(), {}

  def step(self, action):
    return self.observation_space.sample(), 0.0, False, False, {}


@pytest.mark.parametrize(
  'make', [Choices, lambda: gymnasium.vector.SyncVectorEnv([Choices] * 3)]
)
def test_discrete_observations_have_bounds_for_each_element(make):
  environment = environments.wrap(make())
  spec = environment.observation_spec()
  assert spec['one'].num_values == spec['small'].num_values == 3
  assert spec['many'].minimum.tolist() == [[0, -1], [7, 2]]
  assert spec['many'].maximum.tolist() == [[1, 1], [10, 6]]
  assert (spec['flags'].minimum, spec['flags'].maximum) == (0, 1)
  assert spec['box'].minimum.tolist() == [-5, -5]
  assert spec['box'].maximum.tolist() == [2, 9]
  for name in ('many', 'one', 'small', 'box'):
    assert spec[name].dtype == np.int32
  rows = [environment.reset().observation] + [
    environment.step(np.zeros(environment.num_envs, np.int32)).observation
    for _ in range(200)
  ]
  for name, leaf in spec.items():
    values = np.concatenate([row[name] for row in rows])
    assert (values.min(0) == leaf.minimum).all()
    assert (values.max(0) == leaf.maximum).all()


@pytest.mark.parametrize('value', [np.uint8(2), np.int16(2), 2, np.int64(2)])
def test_a_discrete_observation_may_be_of_any_integer_type(value):
  environment = gymnasium_adapters.SingleEnvironment(
    Scripted(spaces.Discrete(3), [value])
  )
  observation = environment.reset().observation
  environment.observation_spec().validate(observation)


@pytest.mark.parametrize(
  'space, bounds',
  [
    (spaces.Box(0, 9, (2,), np.int64), (0, 9)),
    (spaces.Box(0, 9, (2,), np.uint64), (0, 9)),
    (spaces.Box(0, 2**32 - 1, (2,), np.int64), (0, 2**32 - 1)),
    (
      spaces.Box(-(2**63), 2**63 - 1, (2,), np.int64),
      (-(2**31), 2**31 - 1),
    ),
    (spaces.Box(0, 2**64 - 1, (2,), np.uint64), (0, 2**32 - 1)),
    (spaces.Box(0, 2**32 - 1, (2,), np.uint32), (0, 2**32 - 1)),
  ],
)
def test_integers_are_exact_in_32_bits(space, bounds):
  low, high = bounds
  value = np.array([low, high], space.dtype)
  environment = gymnasium_adapters.SingleEnvironment(Scripted(space, [value]))
  spec = environment.observation_spec()
  assert spec.dtype.itemsize == 4
  assert (spec.minimum.min(), spec.maximum.max()) == bounds
  observation = environment.reset().observation
  spec.validate(observation)
  assert observation.tolist() == [low, high]


@pytest.mark.parametrize(
  'space, values',
  [
    (spaces.Box(0, 2**40, (2,), np.int64), '[0, 1099511627776]'),
    (spaces.Box(-1, 2**32 - 1, (2,), np.int64), '[-1, 4294967295]'),
    (spaces.Box(0, 2**40, (2,), np.uint64), '[0, 1099511627776]'),
    (spaces.Discrete(2**40), '[0, 1099511627775]'),
    (spaces.MultiDiscrete([2, 3], start=[0, 2**40]), '[0, 1099511627778]'),
  ],
)
def test_integers_that_need_64_bits_are_refused_by_name(space, values):
  with pytest.raises(
    ValueError,
    match=rf"observation\['x'\] is u?int64 in {re.escape(values)}, and JAX",
  ):
    gymnasium_adapters.SingleEnvironment(Scripted(spaces.Dict(x=space), []))


@pytest.mark.parametrize(
  'space, value, message',
  [
    (
      spaces.Box(-(2**63), 2**63 - 1, (2,), np.int64),
      np.array([0, 2**31]),
      'observation is 2147483648, .* of int32, and JAX',
    ),
    (
      spaces.Box(0, 2**32 - 1, (2,), np.int64),
      np.array([0, -1]),
      'observation is -1, .* of uint32, and JAX',
    ),
    (
      spaces.Box(0, 2**64 - 1, (), np.uint64),
      np.uint64(2**32),
      'observation is 4294967296, .* of uint32, and JAX',
    ),
    (
      spaces.Box(-np.inf, np.inf, (2,), np.float64),
      np.array([0, -1e300]),
      r'observation is -1e\+300, beyond float32',
    ),
  ],
)
def test_a_number_that_does_not_fit_is_refused_when_it_comes(
  space, value, message
):
  environment = gymnasium_adapters.SingleEnvironment(Scripted(space, [value]))
  with np.errstate(over='ignore'), pytest.raises(ValueError, match=message):
    environment.reset()


def test_infinite_and_large_floats_pass():
  space = spaces.Box(-np.inf, np.inf, (3,), np.float64)
  value = np.array([np.inf, 3e38, 3e38])
  environment = gymnasium_adapters.SingleEnvironment(Scripted(space, [value]))
  with np.errstate(over='ignore'):
    observation = environment.reset().observation
  np.testing.assert_array_equal(observation, value.astype(np.float32))


@pytest.mark.parametrize(
  'space',
  [
    spaces.Box(-0.3, 0.3, (2,), np.float64),
    spaces.Box(-3, 3, (2,), np.int64),
    spaces.MultiDiscrete([3, 4]),
    spaces.MultiBinary(3),
  ],
)
def test_actions_reach_the_environment_in_its_own_type_and_bounds(space):
  scripted = Scripted(spaces.Discrete(2), [0] * 9, action_space=space)
  environment = environments.wrap(scripted)
  spec = environment.action_spec()
  assert spec.dtype.itemsize <= 4
  environment.reset()
  for bound in (spec.minimum, spec.maximum):
    environment.step(np.broadcast_to(bound, spec.shape)[np.newaxis])
    assert scripted.actions[-1].dtype == space.dtype
    assert scripted.actions[-1] in space


def test_other_byte_orders_become_this_machines():
  space = spaces.Box(-1.0, 1.0, (2,), np.dtype('>f4'))
  value = np.array([0.5, -0.25], '>f4')
  single = environments.wrap(Scripted(space, [value]))
  assert single.observation_spec().dtype == np.dtype('=f4')
  observation = single.reset().observation
  assert observation.dtype == np.dtype('=f4')
  assert observation.tolist() == [[0.5, -0.25]]
