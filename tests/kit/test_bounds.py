"""Bounded actions are vectors in [-1, 1] and back."""

import jax.numpy as jnp
import numpy as np
import pytest

from distacme import specs
from distacme.kit import bounds as bounds_lib


def bounds(minimum, maximum, shape, dtype=np.float32):
  spec = specs.BoundedArray(shape, dtype, minimum, maximum)
  return bounds_lib.Bounds(spec, 'a test')


@pytest.mark.parametrize('lead', [(), (5,), (3, 5)])
@pytest.mark.parametrize('shape', [(), (1,), (3,), (2, 3)])
def test_there_and_back_is_the_same(shape, lead):
  random = np.random.default_rng(0)
  low = random.uniform(-3, 1, shape)
  box = bounds(low, low + random.uniform(0.5, 2, shape), shape)
  vector = random.uniform(-1, 1, (*lead, box.size)).astype(np.float32)
  action = box.action(jnp.asarray(vector))
  assert action.shape == (*lead, *shape)
  np.testing.assert_allclose(box.vector(action), vector, atol=1e-5)


def test_ends_and_middle_are_those_of_the_spec():
  box = bounds([-2.0, 0.0], [2.0, 10.0], (2,))
  for vector, action in (
    ([-1.0, -1.0], [-2.0, 0.0]),
    ([1.0, 1.0], [2.0, 10.0]),
    ([0.0, 0.0], [0.0, 5.0]),
    ([7.0, -7.0], [2.0, 0.0]),  # clipped
  ):
    np.testing.assert_allclose(box.action(jnp.array(vector)), action)


def test_double_precision_is_asked_for_in_vain():
  box = bounds(-1.0, 1.0, (2,), np.float64)
  assert box.action(jnp.zeros(2)).dtype == np.float32
  assert box.vector(np.zeros(2, np.float64)).dtype == np.float32


@pytest.mark.parametrize('bound', [0.1, 0.3, 0.4, 1 / 3])
def test_bounds_that_float32_cannot_hold_are_kept(bound):
  spec = specs.BoundedArray((2,), np.float64, -bound, bound)
  box = bounds_lib.Bounds(spec, 'a test')
  for end in (-1.0, 1.0):
    action = np.asarray(box.action(jnp.full(2, end)), np.float64)
    spec.validate(action)  # 0.30000001 it would refuse
    np.testing.assert_allclose(action, end * bound, rtol=1e-6)


def test_an_element_of_one_value_is_harmless():
  box = bounds([-1.0, 4.0], [1.0, 4.0], (2,))
  action = box.action(jnp.array([0.5, -0.3]))
  np.testing.assert_allclose(action, [0.5, 4.0])
  np.testing.assert_allclose(box.vector(action), [0.5, 0.0])


def test_a_value_that_float32_cannot_hold_is_the_nearest():
  box = bounds(0.1, 0.1, (1,), np.float64)
  assert box.action(jnp.array([0.5])) == np.float32(0.1)


@pytest.mark.parametrize(
  ('dtype', 'low', 'high'),
  [
    (np.float32, 2e38, 3e38),  # whose sum float32 does not hold
    (np.float32, -3e38, -2e38),
    (np.float16, -40_000.0, 40_000.0),  # nor float16 their distance
  ],
)
def test_large_bounds_do_not_overflow(dtype, low, high):
  box = bounds(low, high, (3,), dtype)
  vector = np.array([-1.0, 0.5, 1.0], np.float32)
  action = box.action(jnp.asarray(vector))
  expected = np.float64([low, low + 0.75 * (high - low), high])
  np.testing.assert_allclose(np.float64(action), expected, rtol=1e-3)
  np.testing.assert_allclose(box.vector(action), vector, atol=1e-2)


@pytest.mark.parametrize(
  ('spec', 'message'),
  [
    (
      specs.BoundedArray((2,), np.float32, -np.inf, 1.0, 'push'),
      "got minimum=-inf in the action spec .*name='push'",
    ),
    (
      specs.BoundedArray((2,), np.float32, [0, 0], [1, np.inf]),
      r'got maximum=\[ 1. inf\] in the action spec',
    ),
    (specs.BoundedArray((2,), np.int32, 0, 3), 'got dtype=int32 in the action'),
    (specs.Array((2,), np.float32), 'got the action spec Array.* no bounds'),
    (
      specs.BoundedArray((2,), np.float32, -3e38, 3e38),
      'no bounds to speak of',
    ),
    (specs.BoundedArray((0,), np.float32, -1, 1), r'\(0,\).* has no elements'),
    (specs.DiscreteArray(3), 'got dtype=int32 in the action spec Discrete'),
    (
      {'a': specs.BoundedArray((), np.float32, 0, 1)},
      "got the action spec {'a'",
    ),
  ],
  ids=[
    'minimum',
    'maximum',
    'integers',
    'unbounded',
    'far apart',
    'empty',
    'discrete',
    'nested',
  ],
)
def test_other_actions_are_refused_with_what_to_do(spec, message):
  with pytest.raises(ValueError, match=message) as caught:
    bounds_lib.Bounds(spec, 'DDPG')
  assert 'DDPG needs actions that are one array of floats' in str(caught.value)
  assert 'wrapper' in str(caught.value)
