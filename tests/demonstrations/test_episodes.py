"""Recorded episodes: arrays of a user's own, held against an environment's specs."""

import math

import dm_env
import numpy as np
import pytest
import tree

from distacme import demonstrations
from distacme import specs

OBSERVATIONS = {
  'pos': specs.BoundedArray((2,), np.float32, [-1.0, -2.0], [1.0, 2.0]),
  'on': specs.Array((), np.bool_),
}
SPEC = specs.EnvironmentSpec(
  OBSERVATIONS,
  specs.DiscreteArray(2, np.int32),
  specs.Array((), np.float32),
  specs.BoundedArray((), np.float32, 0.0, 1.0),
)


def given(steps=3, **changes):
  """Returns an episode as a user gives it."""
  episode = {
    'observations': {
      'pos': np.linspace(-1, 1, 2 * (steps + 1)).reshape(-1, 2),
      'on': np.arange(steps + 1) % 2 == 0,
    },
    'actions': np.arange(steps) % 2,
    'rewards': np.arange(steps, dtype=np.float64),
    'terminated': True,
  }
  return {k: v for k, v in {**episode, **changes}.items() if v is not None}


def observations(**changes):
  return {**given()['observations'], **changes}


def checked(*given_episodes, spec=SPEC):
  return list(demonstrations.from_episodes(given_episodes).checked(spec))


def refused(*given_episodes, spec=SPEC):
  with pytest.raises(ValueError) as error:
    checked(*given_episodes, spec=spec)
  return str(error.value)


def test_an_episode_comes_back_in_the_dtypes_of_the_specs():
  episode, other = checked(given(), given(1, terminated=False))
  assert episode.num_steps == 3
  assert episode.observations['pos'].dtype == np.float32
  assert episode.observations['on'].dtype == np.bool_
  assert episode.actions.dtype == np.int32
  assert episode.rewards.tolist() == [0, 1, 2]
  assert episode.discounts.tolist() == [1, 1, 0]
  assert episode.discounts.dtype == episode.rewards.dtype == np.float32
  assert other.discounts.tolist() == [1]


def test_discounts_may_stand_in_the_place_of_terminated():
  discounts = [0.5, 0.0, 1.0]
  (episode,) = checked(given(terminated=None, discounts=discounts))
  assert episode.discounts.tolist() == discounts


def test_lists_are_arrays_too():
  spec = SPEC._replace(observations=specs.Array((), np.float32))
  with pytest.raises(ValueError, match='rewards of episode 0 have shape'):
    checked({'observations': [0, 1], 'actions': [1], 'rewards': 1,
             'terminated': True}, spec=spec)  # fmt: skip


def test_timesteps_are_those_of_a_vector_of_one_environment():
  (episode,) = checked(given())
  steps = list(episode.timesteps())
  assert [int(t.step_type[0]) for t in steps] == [
    dm_env.StepType.FIRST,
    dm_env.StepType.MID,
    dm_env.StepType.MID,
    dm_env.StepType.LAST,
  ]
  assert [t.reward.tolist() for t in steps] == [[0], [0], [1], [2]]
  assert [t.discount.tolist() for t in steps] == [[1], [1], [1], [0]]
  assert all(t.reward.dtype == np.float32 for t in steps)
  rows = tree.map_structure(
    lambda *rows: np.concatenate(rows), *[t.observation for t in steps]
  )
  np.testing.assert_array_equal(rows['pos'], episode.observations['pos'])
  assert [episode.action(step).tolist() for step in range(3)] == [[0], [1], [0]]


def test_episodes_may_be_read_more_than_once():
  source = demonstrations.from_episodes([given()])
  assert len(list(source.read())) == len(list(source.read())) == 1


@pytest.mark.parametrize(
  'changes, sentence',
  [
    (
      {'actions': None},
      "has the keys ['observations', 'rewards', 'terminated']",
    ),
    ({'infos': {}}, "'infos'"),
    ({'terminated': None}, 'Give observations, actions, rewards and either'),
    ({'discounts': [1, 1, 0]}, 'and either terminated or discounts'),
    ({'terminated': [False, False, True]}, 'is [False, False, True]. Give one'),
    ({'terminated': 'False'}, "is 'False'. Give one bool"),
    ({'terminated': math.nan}, 'is nan. Give one bool'),
    ({'rewards': np.zeros((3, 1))}, 'rewards of episode 0 have shape [3, 1]'),
    ({'rewards': np.zeros(0)}, 'one step at least'),
    (
      {'actions': np.zeros(4, int)},
      'actions of episode 0 has shape [4], and with 3 rewards its first axis '
      'must be 3',
    ),
    ({'terminated': None, 'discounts': [1.0]}, 'discounts of episode 0 has'),
    (
      {'observations': observations(on=np.ones(3, bool))},
      "observations['on'] of episode 0 has shape [3], and with 3 rewards its "
      'first axis must be 4: one for each step, and the last observation',
    ),
    ({'observations': observations(on=np.bool_(True))}, 'has shape []'),
  ],
)
def test_mappings_that_are_no_episode_are_refused(changes, sentence):
  assert sentence in refused(given(**changes))


def test_the_number_of_the_episode_is_named():
  assert 'rewards of episode 1 have' in refused(given(), given(rewards=0.0))
  beyond = given(actions=np.array([0, 1, 2]))
  assert 'episode 1 of the given episodes hold 2' in refused(given(), beyond)


@pytest.mark.parametrize(
  'changes, found, wanted',
  [
    (
      {'actions': np.array([0, 1, 2])},
      'actions of episode 0 of',
      'from 0 to 1',
    ),
    ({'actions': np.array([0, -1, 1])}, 'hold -1', 'from 0 to 1'),
    ({'actions': np.zeros(3)}, 'are float64[]', 'are int32[]'),
    ({'actions': np.zeros((3, 1), int)}, 'are int64[1]', 'are int32[]'),
    ({'actions': {'a': np.zeros(3, int)}}, "are {'a': an array}", 'an array'),
    (
      {'observations': observations(pos=np.zeros((4, 3)))},
      "observations['pos'] of episode 0 of the given episodes are float64[3]",
      'are float32[2]',
    ),
    (
      {'observations': observations(on=np.zeros(4))},
      "observations['on'] of episode 0 of the given episodes are float64[]",
      'are bool[]',
    ),
    (
      {'observations': observations(pos=np.full((4, 2), 1.5))},
      'hold 1.5',
      'from -1.0 to 1.0',  # of its element
    ),
    (
      {'observations': observations(pos=np.full((4, 2), math.nan))},
      'hold nan',
      'Leave the episode out',
    ),
    ({'rewards': [0, math.inf, 0]}, 'rewards of episode 0 of', 'hold inf'),
    (
      {'terminated': None, 'discounts': [1, math.nan, 0]},
      'discounts of episode 0 of',
      'hold nan',
    ),
    (
      {'observations': {'pos': np.zeros((4, 2))}},
      "are {'pos': an array}",
      "{'pos': an array, 'on': an array}",
    ),
    (
      {'observations': {'pos': np.zeros((4, 2)), 'off': np.ones(4, bool)}},
      "are {'pos': an array, 'off': an array}",
      "{'pos': an array, 'on': an array}",
    ),
    (
      {'observations': (np.zeros((4, 2)), np.ones(4, bool))},
      'are (an array, an array)',
      "{'pos': an array, 'on': an array}",
    ),
  ],
)
def test_what_does_not_fit_is_named_with_both_values(changes, found, wanted):
  sentence = refused(given(**changes))
  assert found in sentence
  assert wanted in sentence


@pytest.mark.parametrize(
  ('episode', 'found'),
  [
    (given(rewards=[0.0, 1e300, 0.0]), 'rewards of episode 0'),
    (given(terminated=None, discounts=[1.0, 1.0, 2.0]), 'discounts of episode'),
    (given(terminated=None, discounts=[1.0, -1.0, 0.0]), 'hold -1.0'),
  ],
)
def test_numbers_that_nothing_can_be_learnt_from_are_refused(episode, found):
  assert found in refused(episode)


def test_integers_that_would_wrap_are_refused():
  spec = SPEC._replace(actions=specs.Array((), np.int32))
  wide = np.array([0, 2**40 + 5, 1])
  assert 'actions of episode 0' in refused(given(actions=wide), spec=spec)
  assert '1099511627781' in refused(given(actions=wide), spec=spec)


def test_no_episodes_are_refused():
  assert refused() == (
    'There is no episode in the given episodes. Record some.'
  )


def test_an_action_at_its_bound_may_be_rounded():
  spec = SPEC._replace(actions=specs.BoundedArray((1,), np.float32, -0.1, 0.1))
  actions = np.full((3, 1), np.float32(0.1).astype(np.float64) + 1e-8)
  checked(given(actions=actions), spec=spec)
  assert 'hold 0.11' in refused(given(actions=actions + 0.01), spec=spec)


def test_integers_of_another_size_are_taken_by_their_values():
  (episode,) = checked(given(actions=np.array([0, 1, 0], np.uint8)))
  assert episode.actions.dtype == np.int32


# Specs of the source, where it has some.


def sourced(**theirs):
  return demonstrations.Demonstrations(
    'the file', lambda: iter(checked(given())), **theirs
  )


@pytest.mark.parametrize(
  'theirs, found, wanted',
  [
    ({'actions': specs.DiscreteArray(3)}, 'one of 3 values', 'one of 2'),
    (
      {'actions': specs.BoundedArray((), np.int32, 0, 1)},
      'action of the file is int32[] from 0 to 1',
      'one of 2 values',
    ),
    ({'actions': specs.Array((2,), np.float32)}, 'float32[2]', 'one of 2'),
    (
      {'observations': {**OBSERVATIONS, 'on': specs.Array((3,), np.bool_)}},
      "observation['on'] of the file is bool[3]",
      "environment's is bool[]",
    ),
    (
      {'observations': {**OBSERVATIONS, 'on': specs.Array((), np.float32)}},
      'float32[]',
      'bool[]',
    ),
    (
      {'observations': specs.Array((2,), np.float32)},
      'observations of the file are an array',
      "{'pos': an array, 'on': an array}",
    ),
  ],
)
def test_specs_of_another_environment_are_refused(theirs, found, wanted):
  with pytest.raises(ValueError) as error:
    list(sourced(**theirs).checked(SPEC))
  assert found in str(error.value)
  assert wanted in str(error.value)
  assert str(error.value).endswith('has them, its wrappers included.')


def test_bounds_of_actions_are_compared_and_those_of_observations_are_not():
  wide = specs.BoundedArray((2,), np.float32, -9.0, 9.0)
  theirs = {'observations': {**OBSERVATIONS, 'pos': wide}}
  assert list(sourced(**theirs).checked(SPEC))
  bounded = SPEC._replace(
    actions=specs.BoundedArray((2,), np.float32, -1.0, 1.0)
  )
  with pytest.raises(ValueError, match='action of the file is .*-9'):
    list(sourced(actions=wide).checked(bounded))


def test_the_number_of_discrete_observations_is_compared():
  spec = SPEC._replace(observations=specs.DiscreteArray(64))
  with pytest.raises(ValueError, match='one of 16 .*one of 64'):
    list(sourced(observations=specs.DiscreteArray(16)).checked(spec))


def test_specs_are_compared_before_anything_is_read():
  def read():
    raise AssertionError

  source = demonstrations.Demonstrations(
    'the file', read, actions=specs.DiscreteArray(3)
  )
  with pytest.raises(ValueError, match='one of 3 values'):
    next(source.checked(SPEC))
