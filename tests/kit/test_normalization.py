"""Running statistics are those of all that was seen at once."""

import jax
import numpy as np
import pytest

from distacme import specs
from distacme.kit import normalization
from distacme.variables import nests

FLOATS = specs.Array((2, 3), np.float32)
NEST = {
  'speed': specs.Array((3,), np.float32),
  'image': specs.BoundedArray((4, 4, 1), np.uint8, 0, 255),
  'clock': (specs.Array((), np.float32),),
}


def batch(size, seed=0, shape=(2, 3)):
  random = np.random.default_rng(seed)
  scale = random.uniform(0.1, 10.0, shape)
  return (5.0 + scale * random.normal(size=(size, *shape))).astype(np.float32)


def ones(size):
  return np.ones(size, np.float32)


def after(*batches):
  statistics = normalization.initial(FLOATS)
  for observation, weight in batches:
    statistics = normalization.updated(statistics, observation, weight)
  return statistics


def assert_statistics_of(statistics, observation):
  assert statistics['count'] == len(observation)
  np.testing.assert_allclose(
    statistics['mean_0'], observation.mean(axis=0), rtol=1e-4
  )
  np.testing.assert_allclose(
    statistics['squares_0'] / len(observation),
    observation.var(axis=0),
    rtol=1e-3,
  )


def test_several_batches_are_as_one():
  batches = [batch(size, seed=size) for size in (7, 1, 20)]
  statistics = after(*((each, ones(len(each))) for each in batches))
  assert_statistics_of(statistics, np.concatenate(batches))


def test_rows_without_weight_do_not_count():
  observation = batch(20)
  weight = np.random.default_rng(0).integers(2, size=20).astype(np.float32)
  other = observation.copy()
  other[weight == 0] = 1e6
  statistics = after((other, weight), (batch(5, seed=1), ones(5)))
  assert 0 < weight.sum() < 20
  assert_statistics_of(
    statistics, np.concatenate([observation[weight == 1], batch(5, seed=1)])
  )


@pytest.mark.parametrize('before', [(), ((batch(9), ones(9)),)])
def test_a_batch_without_weight_changes_nothing(before):
  statistics = after(*before)
  again = normalization.updated(statistics, batch(4), np.zeros(4, np.float32))
  jax.tree.map(np.testing.assert_array_equal, again, statistics)


def test_a_mean_far_from_zero_does_not_cost_the_deviation():
  # The difference of two large sums of squares would be lost in float32.
  observation = np.float32(1e4) + batch(500)
  halves = after((observation[:250], ones(250)), (observation[250:], ones(250)))
  np.testing.assert_allclose(
    halves['squares_0'] / 500,
    observation.astype(np.float64).var(axis=0),
    rtol=0.02,
  )


def test_what_is_seen_has_mean_zero_and_deviation_one():
  observation = batch(200)
  statistics = after((observation, ones(200)))
  result = np.asarray(normalization.normalized(statistics, observation))
  np.testing.assert_allclose(result.mean(axis=0), 0.0, atol=1e-4)
  np.testing.assert_allclose(result.std(axis=0), 1.0, rtol=1e-3)


def test_sequences_are_normalised_element_by_element():
  observation = batch(6)
  statistics = after((batch(50), ones(50)))
  flat = normalization.normalized(statistics, observation)
  rows = normalization.normalized(statistics, observation.reshape(2, 3, 2, 3))
  np.testing.assert_array_equal(rows, np.reshape(flat, (2, 3, 2, 3)))
  one = normalization.normalized(statistics, observation[0])
  np.testing.assert_array_equal(one, flat[0])


def test_before_anything_was_seen_observations_stay_as_they_are():
  observation = batch(5) * 100
  result = normalization.normalized(normalization.initial(FLOATS), observation)
  np.testing.assert_array_equal(result, observation)


def test_outliers_are_clipped_at_ten_deviations():
  statistics = after((batch(50), ones(50)))
  far = np.full((1, 2, 3), 1e6, np.float32)
  assert (normalization.normalized(statistics, far) == 10.0).all()
  assert (normalization.normalized(statistics, -far) == -10.0).all()


def test_what_never_changes_becomes_zero():
  constant = np.full((8, 2, 3), 3.0, np.float32)
  statistics = after((constant, ones(8)))
  assert not np.asarray(normalization.normalized(statistics, constant)).any()


def test_only_the_floats_of_a_nest_change():
  random = np.random.default_rng(0)
  observation = {
    'speed': batch(5, shape=(3,)),
    'image': random.integers(256, size=(5, 4, 4, 1), dtype=np.uint8),
    'clock': (batch(5, shape=()),),
  }
  statistics = normalization.updated(
    normalization.initial(NEST), observation, ones(5)
  )
  result = normalization.normalized(statistics, observation)
  assert jax.tree.structure(result) == jax.tree.structure(observation)
  assert result['image'].dtype == np.uint8
  np.testing.assert_array_equal(result['image'], observation['image'])
  for leaf in (result['speed'], result['clock'][0]):
    np.testing.assert_allclose(np.mean(leaf, axis=0), 0.0, atol=1e-4)
  # So that it can be published, and in one step of the learner as in another.
  again = nests.unflatten(nests.flatten(statistics))
  assert jax.tree.structure(again) == jax.tree.structure(statistics)
  assert [x.shape for x in jax.tree.leaves(statistics)] == [
    x.shape for x in jax.tree.leaves(normalization.initial(NEST))
  ]
