"""Each wrapper changes what it says, and the specs with it."""

import copy
import pickle

from absl.testing import absltest
import dm_env
from dm_env import test_utils
import numpy as np
import pytest
import tree

from distacme import environments
from distacme import specs
from distacme.environments import wrappers
from distacme.testing import environments as testing_environments

FIRST, MID, LAST = dm_env.StepType


class Nested(dm_env.Environment):
  """64-bit nests; observes the action that was taken, counts 3 steps."""

  t = 3

  def reset(self):
    self.t = 0
    return dm_env.restart(self._observation({'a': np.zeros(2), 'b': 0}))

  def step(self, action):
    if self.t == 3:
      return self.reset()
    self.t += 1
    observation = self._observation(action)
    if self.t == 3:
      return dm_env.termination(np.float64(self.t), observation)
    return dm_env.transition(np.float64(self.t), observation, np.float64(0.5))

  def _observation(self, action):
    return {
      'z': np.int64(self.t),
      'action': (np.asarray(action['a']), np.full((2, 2), self.t, np.float64)),
    }

  def observation_spec(self):
    pair = specs.Array((2,), np.float64), specs.Array((2, 2), np.float64)
    return {'z': specs.DiscreteArray(5, np.int64), 'action': pair}

  def action_spec(self):
    return {
      'a': specs.BoundedArray((2,), np.float64, [-1.0, 0.0], [1.0, 10.0]),
      'b': specs.DiscreteArray(3, np.int64),
    }

  def reward_spec(self):
    return specs.Array((), np.float64, 'reward')


ACTION = {'a': np.array([0.5, 1.0], np.float32), 'b': np.int32(2)}


def assert_conforms(spec, value):
  tree.map_structure_up_to(spec, lambda s, v: s.validate(v), spec, value)


def contract_test(wrap):
  """Returns dm_env's own tests of a wrapped environment, as a class."""

  class ContractTest(test_utils.EnvironmentTestMixin, absltest.TestCase):
    def make_object_under_test(self):
      return wrap(Nested())

  return ContractTest


TestSinglePrecision = contract_test(wrappers.SinglePrecision)
TestConcatObservation = contract_test(wrappers.ConcatObservation)
TestCanonicalActions = contract_test(wrappers.CanonicalActions)
TestActionRepeat = contract_test(lambda e: wrappers.ActionRepeat(e, 2))
TestFrameStack = contract_test(lambda e: wrappers.FrameStack(e, 3))
TestObservationActionReward = contract_test(wrappers.ObservationActionReward)
TestStepLimit = contract_test(lambda e: wrappers.StepLimit(e, 2))


def test_single_precision_narrows_nests_and_specs():
  environment = wrappers.SinglePrecision(Nested())
  spec = environment.observation_spec()
  assert [leaf.dtype for leaf in tree.flatten(spec)] == [
    np.float32, np.float32, np.int32,
  ]  # fmt: skip
  assert environment.action_spec()['a'].dtype == np.float32
  assert environment.reward_spec().dtype == np.float32
  assert environment.discount_spec().dtype == np.float32
  for timestep in (environment.reset(), environment.step(ACTION)):
    assert_conforms(spec, timestep.observation)
  environment.reward_spec().validate(timestep.reward)
  assert timestep.discount.dtype == np.float32


def test_single_precision_gives_the_environment_its_own_precision():
  taken = []

  class Recording(Nested):
    def step(self, action):
      taken.append(action)
      return super().step(action)

  environment = wrappers.SinglePrecision(Recording())
  environment.reset()
  environment.step(ACTION)
  assert_conforms(Nested().action_spec(), taken[0])


def test_single_precision_allows_no_actions_that_the_environment_refuses():
  inner = testing_environments.Counting()
  bounds = specs.BoundedArray((2,), np.float64, [-0.3, 0.0], [0.4, np.inf])
  inner.action_spec = lambda: bounds
  spec = wrappers.SinglePrecision(inner).action_spec()
  assert spec.dtype == np.float32
  for bound in (spec.minimum, spec.maximum):
    bounds.validate(bound.astype(np.float64))
  np.testing.assert_allclose(spec.minimum, bounds.minimum)
  np.testing.assert_allclose(spec.maximum, bounds.maximum)


def test_single_precision_leaves_a_broken_promise_to_be_found():
  class Broken(Nested):
    def _observation(self, action):
      return {**super()._observation(action), 'z': np.float64(0.5)}

  environment = environments.check_first_episode(
    environments.wrap(wrappers.SinglePrecision(Broken()))
  )
  with pytest.raises(ValueError, match=r"observation\['z'\] must be int32"):
    environment.reset()


class Promising(testing_environments.Counting):
  """Observes given values, under a given spec."""

  def __init__(self, spec, *observations):
    super().__init__(lengths=(99,))
    self._spec = spec
    self._observations = iter(observations)

  def observation_spec(self):
    return self._spec

  def _observation(self):
    return next(self._observations)


@pytest.mark.parametrize(
  'spec, value, expected',
  [
    (specs.DiscreteArray(5, np.int64), np.int64(4), specs.DiscreteArray(5)),
    (
      specs.BoundedArray((2,), np.int64, [0, -3], [2**31 - 1, 5]),
      np.array([2**31 - 1, -3]),
      specs.BoundedArray((2,), np.int32, [0, -3], [2**31 - 1, 5]),
    ),
    (
      specs.BoundedArray((), np.uint64, 0, 2**32 - 1),
      np.uint64(2**32 - 1),
      specs.BoundedArray((), np.uint32, 0, 2**32 - 1),
    ),
    (
      specs.Array((2,), np.int64),
      np.array([-(2**31), 2**31 - 1]),
      specs.Array((2,), np.int32),
    ),
    (
      specs.Array((2,), np.float64),
      np.array([1.5, 3e38]),
      specs.Array((2,), np.float32),
    ),
    (
      specs.Array((2,), '>f4'),
      np.array([0.5, -0.25], '>f4'),
      specs.Array((2,), np.float32),
    ),
    (
      specs.BoundedArray((2,), '>i8', 0, 9),
      np.array([3, 9], '>i8'),
      specs.BoundedArray((2,), np.int32, 0, 9),
    ),
  ],
)
def test_what_fits_in_32_bits_is_exact_in_them(spec, value, expected):
  environment = environments.wrap(Promising(spec, value))
  assert environment.observation_spec() == expected
  assert type(environment.observation_spec()) is type(expected)
  observation = environments.check_first_episode(environment).reset()
  assert observation.observation.dtype == expected.dtype
  assert (
    observation.observation[0].tolist() == value.astype(expected.dtype).tolist()
  )
  assert specs.make_environment_spec(Promising(spec)).observations == expected


@pytest.mark.parametrize(
  'spec, message',
  [
    (
      specs.BoundedArray((), np.int64, 0, 2**40),
      r'is int64 in \[0, 1099511627776\], and JAX computes with 32-bit',
    ),
    (specs.DiscreteArray(2**40, np.int64), r'int64 in \[0, 1099511627775\]'),
    (specs.Array((), np.complex64), 'is complex64, and networks take real'),
    (specs.Array((), object), r'is object \(Array\), not a number'),
    (dm_env.specs.StringArray(()), r'is object \(StringArray\), not a number'),
    (specs.Array((), 'M8[s]'), 'not a number'),
    (specs.Array((), [('x', np.float32)]), 'not a number'),
    (np.zeros(3), 'must be a dm_env.specs.Array.*, got array'),
    (None, 'must be a dm_env.specs.Array.*, got None'),
  ],
)
def test_what_networks_cannot_take_is_refused_by_name(spec, message):
  message = rf"observation\['x'\].*{message}"
  with pytest.raises(ValueError, match=message):
    environments.wrap(Promising({'x': spec}))
  with pytest.raises(ValueError, match=message):
    environments.make(lambda seed: Promising({'x': spec}), seed=0)
  with pytest.raises(ValueError, match=message):
    specs.make_environment_spec(Promising({'x': spec}))


@pytest.mark.parametrize('nest', [{}, (), {'x': ()}])
def test_an_observation_of_nothing_is_refused(nest):
  with pytest.raises(ValueError, match='observation spec must be of one array'):
    environments.wrap(Promising(nest))


@pytest.mark.parametrize(
  'spec, value, message',
  [
    (specs.Array((), np.int64), np.int64(2**31), 'is 2147483648, .* of int32'),
    (specs.Array((), np.uint64), np.uint64(2**40), 'is 1099511627776, '),
    (specs.Array((2,), np.float64), np.array([0, 1e39]), r'is 1e\+39, beyond'),
    (specs.DiscreteArray(3, np.int64), np.int64(2**32), 'is 4294967296, '),
  ],
)
def test_a_number_that_does_not_fit_is_refused_by_name(spec, value, message):
  environment = environments.wrap(Promising({'x': spec}, {'x': value}))
  with (
    np.errstate(over='ignore'),
    pytest.raises(ValueError, match=rf"observation\['x'\] {message}"),
  ):
    environment.reset()


def test_a_users_own_vector_is_narrowed_as_well():
  class Wide:
    """A `core.VectorEnvironment` of two rows."""

    def __init__(self):
      self._rows = environments.make_vector(
        'distacme.testing.environments:counting', 2, seed=0
      )
      self.actions = []

    def __getattr__(self, name):
      return getattr(self._rows, name)

    def observation_spec(self):
      return specs.BoundedArray((2,), np.int64, 0, 99)

    def action_spec(self):
      return specs.DiscreteArray(2, np.int64)

    def reset(self):
      return self._wide(self._rows.reset())

    def step(self, action):
      self.actions.append(action)
      return self._wide(self._rows.step(action))

    def _wide(self, timestep):
      return timestep._replace(observation=timestep.observation.astype(int))

  wide = Wide()
  environment = environments.check_first_episode(environments.wrap(wide))
  assert environment.num_envs == 2
  assert environment.action_spec().dtype == np.int32
  environment.reset()
  timestep = environment.step(np.array([0, 1], np.int32))
  assert timestep.observation.dtype == np.int32
  assert timestep.observation.tolist() == [[0, 1], [0, 1]]
  assert wide.actions[0].dtype == np.int64


def test_what_needs_no_narrowing_is_not_wrapped():
  inner = testing_environments.nested(0)
  assert environments.make(lambda seed: inner, seed=0) is inner


@pytest.mark.parametrize(
  'reward',
  [
    {'x': specs.Array((), np.float32)},
    specs.Array((2,), np.float32),
    specs.Array((), object),
    None,
  ],
)
def test_a_reward_that_is_not_one_number_is_refused(reward):
  class Several(testing_environments.Counting):
    def reward_spec(self):
      return reward

  message = (
    'must have a reward that is one number.*got the reward spec.*wrapper'
  )
  with pytest.raises(ValueError, match=message):
    environments.wrap(Several())
  with pytest.raises(ValueError, match=message):
    environments.make(lambda seed: Several(), seed=0)


def test_a_discount_that_is_not_one_number_is_refused():
  class Several(testing_environments.Counting):
    def discount_spec(self):
      return specs.Array((2,), np.float32)

  with pytest.raises(ValueError, match='a discount that is one number'):
    environments.wrap(Several())


def test_observations_are_joined_in_the_order_of_the_spec():
  environment = wrappers.ConcatObservation(Nested())
  spec = environment.observation_spec()
  assert spec.name == 'z[1], action/0[2], action/1[4]'
  environment.reset()
  observation = environment.step(ACTION).observation
  spec.validate(observation)
  assert observation.tolist() == [1, 0.5, 1, 1, 1, 1, 1]


def test_a_single_observation_is_flattened_and_named():
  environment = wrappers.ConcatObservation(testing_environments.catch(0))
  assert environment.observation_spec().name == 'board[50]'
  assert environment.reset().observation.shape == (50,)


@pytest.mark.parametrize(
  'canonical, scaled',
  [
    ([0.0, 0.0], [0.0, 5.0]),
    ([-1.0, -1.0], [-1.0, 0.0]),
    ([1.0, 0.5], [1.0, 7.5]),
    ([9.0, -9.0], [1.0, 0.0]),
  ],
)
def test_canonical_actions_are_scaled_to_the_bounds(canonical, scaled):
  environment = wrappers.CanonicalActions(Nested())
  spec = environment.action_spec()
  assert (spec['a'].minimum.item(), spec['a'].maximum.item()) == (-1.0, 1.0)
  assert spec['b'] == Nested().action_spec()['b']
  environment.reset()
  timestep = environment.step({'a': np.array(canonical), 'b': 0})
  assert timestep.observation['action'][0].tolist() == scaled


def test_a_bound_of_all_actions_may_stand_beside_bounds_of_each():
  class Mixed(testing_environments.Counting):
    def action_spec(self):
      return specs.BoundedArray((2,), np.float32, 0.0, [1.0, 4.0])

    def step(self, action):
      self.action_spec().validate(action)
      return super().step(action)._replace(reward=action.sum())

  environment = wrappers.CanonicalActions(Mixed())
  environment.reset()
  timestep = environment.step(np.zeros(2, np.float32))
  assert timestep.reward == 2.5


def test_canonical_actions_reach_bounds_further_apart_than_float16_counts():
  class Wide(testing_environments.Counting):
    def action_spec(self):
      return specs.BoundedArray((1,), np.float16, -40_000.0, 40_000.0)

    def step(self, action):
      return super().step(0)._replace(reward=float(action.sum()))

  environment = wrappers.CanonicalActions(Wide())
  environment.reset()
  assert environment.step(np.array([0.5], np.float16)).reward == 20_000.0


@pytest.mark.parametrize('bound', [np.inf, 3e38])
def test_actions_without_finite_bounds_are_left_alone(bound):
  class Unbounded(testing_environments.Counting):
    def action_spec(self):
      return specs.BoundedArray((1,), np.float32, -bound, bound)

    def step(self, action):
      return super().step(0)._replace(reward=action.sum())

  environment = wrappers.CanonicalActions(Unbounded())
  assert environment.action_spec() == Unbounded().action_spec()
  environment.reset()
  assert environment.step(np.array([7.0], np.float32)).reward == 7.0


def test_repeated_rewards_are_summed_with_their_discounts():
  environment = wrappers.ActionRepeat(Nested(), 2)
  assert environment.step(ACTION).first()
  timestep = environment.step(ACTION)
  assert (timestep.reward, timestep.discount) == (1.0 + 0.5 * 2.0, 0.25)
  assert timestep.observation['z'] == 2


def test_repeated_rewards_keep_to_their_bounds():
  spec = wrappers.ActionRepeat(testing_environments.catch(0), 3).reward_spec()
  assert (spec.minimum.item(), spec.maximum.item()) == (-3.0, 3.0)


def test_an_action_is_not_repeated_into_the_next_episode():
  environment = wrappers.ActionRepeat(Nested(), 2)
  first, _, last, again = [environment.step(ACTION) for _ in range(4)]
  assert (last.step_type, last.reward, last.discount) == (LAST, 3.0, 0.0)
  assert again.first()


def test_frames_are_stacked_with_the_newest_last():
  environment = wrappers.FrameStack(testing_environments.Counting((4, 2)), 3)
  spec = environment.observation_spec()
  assert spec.shape == (2, 3)
  seen = [environment.step(0).observation for _ in range(7)]
  spec.validate(seen[0])
  assert [frames[1].tolist() for frames in seen] == [
    [0, 0, 0], [0, 0, 1], [0, 1, 2], [1, 2, 3], [2, 3, 4],
    [0, 0, 0], [0, 0, 1],
  ]  # fmt: skip


def test_before_the_first_frame_there_are_zeros():
  environment = wrappers.FrameStack(Ones(), 3)
  assert environment.reset().observation.tolist() == [[0, 0, 1]]
  assert environment.step(0).observation.tolist() == [[0, 1, 1]]
  assert environment.reset().observation.tolist() == [[0, 0, 1]]


class Ones(testing_environments.Counting):
  def observation_spec(self):
    return specs.BoundedArray((1,), np.float32, 1, 1)

  def _observation(self):
    return np.ones(1, np.float32)


def test_a_stack_says_so_and_allows_the_zeros_before_an_episode():
  environment = wrappers.FrameStack(Ones(), 3)
  spec = environment.observation_spec()
  assert isinstance(spec, specs.FrameStack)
  spec.validate(environment.reset().observation)
  narrow = wrappers.SinglePrecision(environment).observation_spec()
  assert isinstance(narrow, specs.FrameStack)


def test_what_was_done_and_what_it_earned_is_observed():
  inner = testing_environments.Catch(seed=0)
  environment = wrappers.ObservationActionReward(inner)
  spec = environment.observation_spec()
  first = environment.reset()
  assert first.observation['action'].tolist() == [0, 0, 0]
  assert first.observation['reward'] == 0
  seen = [environment.step(2) for _ in range(20)]
  for timestep in (first, *seen):
    assert_conforms(spec, timestep.observation)
  assert seen[0].observation['action'].tolist() == [0, 0, 1]
  (last,) = [t for t in seen[:12] if t.last()]
  assert last.observation['reward'] == last.reward != 0
  (again,) = [t for t in seen[:12] if t.first()]
  assert again.observation['action'].tolist() == [0, 0, 0]
  assert again.observation['reward'] == 0


def test_frames_of_nests_are_stacked_leaf_by_leaf():
  environment = wrappers.FrameStack(Nested(), 2)
  environment.reset()
  observation = environment.step(ACTION).observation
  assert_conforms(environment.observation_spec(), observation)
  assert observation['action'][1].shape == (2, 2, 2)
  assert observation['z'].tolist() == [0, 1]


def test_stacked_frames_keep_the_bounds_of_their_elements():
  class Bounded(testing_environments.Counting):
    def observation_spec(self):
      return specs.BoundedArray((2,), np.float32, [0, 1], [2, 3])

  spec = wrappers.FrameStack(Bounded(), 3).observation_spec()
  spec.validate(np.array([[0, 1, 2], [1, 2, 3]], np.float32))
  with pytest.raises(ValueError):
    spec.validate(np.array([[0, 1, 3], [1, 2, 3]], np.float32))


def test_frames_that_the_environment_reuses_are_copied():
  class Reusing(testing_environments.Counting):
    array = np.zeros(2, np.float32)

    def _observation(self):
      self.array[:] = super()._observation()
      return self.array

  environment = wrappers.FrameStack(Reusing(), 2)
  environment.reset()
  assert environment.step(0).observation[1].tolist() == [0, 1]


def test_a_step_limit_truncates():
  environment = wrappers.StepLimit(testing_environments.Counting((5, 1)), 2)
  steps = [environment.step(0) for _ in range(6)]
  assert [s.step_type for s in steps] == [FIRST, MID, LAST, FIRST, LAST, FIRST]
  assert [s.discount for s in steps] == [None, 1, 1, None, 0, None]
  assert [s.observation[1] for s in steps] == [0, 1, 2, 0, 1, 0]


@pytest.mark.parametrize(
  'make, message',
  [
    (wrappers.ActionRepeat, 'num_repeats must be at least 1, got 0'),
    (wrappers.FrameStack, 'num_frames must be at least 1, got 0'),
    (wrappers.StepLimit, 'max_steps must be at least 1, got 0'),
  ],
)
def test_impossible_numbers_are_refused(make, message):
  with pytest.raises(ValueError, match=message):
    make(testing_environments.catch(0), 0)


def test_wrap_all_puts_the_first_wrapper_innermost():
  environment = wrappers.wrap_all(
    Nested(),
    [wrappers.ConcatObservation, lambda e: wrappers.FrameStack(e, 2)],
  )
  assert environment.observation_spec().shape == (7, 2)
  assert environment.reset().observation.shape == (7, 2)


def test_what_the_inner_environment_has_is_reached_through_a_wrapper():
  inner = testing_environments.Catch(seed=0)
  inner.colour = 'red'
  environment = wrappers.StepLimit(wrappers.ConcatObservation(inner), 3)
  assert environment.colour == 'red'
  assert copy.copy(environment).colour == 'red'
  with pytest.raises(AttributeError, match='size'):
    _ = environment.size


def test_the_spec_of_stacked_frames_is_pickled_as_what_it_is():
  spec = specs.FrameStack((84, 84, 4), np.uint8, 0, 255, name='pixels')
  found = pickle.loads(pickle.dumps(spec))
  assert isinstance(found, specs.FrameStack)
  assert found == spec
