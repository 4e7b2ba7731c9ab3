"""Densities and entropies against formulas, draws against densities."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from distacme import specs
from distacme.kit import bounds
from distacme.kit import distributions

KEY = jax.random.key_data(jax.random.key(0))
DISCRETE = distributions.Categorical(specs.DiscreteArray(3))
LOGITS = np.array([[0.0, 1.0, -2.0], [5.0, 5.0, -50.0]], np.float32)
BOUNDS = specs.BoundedArray(
  (2, 1), np.float64, [[-1.0], [0.0]], [[3.0], [10.0]], 'torque'
)
GAUSSIAN = distributions.Gaussian(bounds.Bounds(BOUNDS, 'a test'))
MEAN = np.array([[0.5, -2.0], [0.0, 0.0]])
LOG_STD = np.array([[-1.0, 0.3], [0.0, 1.0]])
PARAMS = np.concatenate([MEAN, LOG_STD], axis=-1).astype(np.float32)


def chances(logits):
  weights = np.exp(logits.astype(np.float64))
  return weights / weights.sum(axis=-1, keepdims=True)


def draws(distribution, params, count):
  """Returns samples [count, ...] of one row's params."""
  return distribution.sample(jnp.tile(params, (count, 1)), KEY)


def test_the_log_prob_of_an_action_is_that_of_its_share_of_the_weights():
  for action in range(2):
    result = DISCRETE.log_prob(LOGITS, np.full(2, action, np.int32))
    np.testing.assert_allclose(
      result, np.log(chances(LOGITS)[:, action]), rtol=1e-5
    )


def test_the_entropy_of_actions_is_their_mean_surprise():
  p = chances(LOGITS)
  expected = -(p * np.log(p)).sum(axis=-1)
  np.testing.assert_allclose(DISCRETE.entropy(LOGITS), expected, rtol=1e-5)
  even = np.zeros((1, 3), np.float32)
  np.testing.assert_allclose(DISCRETE.entropy(even), np.log(3), rtol=1e-6)


def test_actions_are_drawn_as_often_as_their_chance():
  samples = draws(DISCRETE, LOGITS[0], 30_000)
  assert samples.dtype == np.int32
  counts = np.bincount(samples, minlength=3)
  expected = 30_000 * chances(LOGITS)[0]
  # Chi-square with 2 degrees of freedom, p = 0.001.
  assert np.sum((counts - expected) ** 2 / expected) < 13.8


def test_the_likeliest_action_is_the_mode_and_is_done_as_it_is():
  mode = DISCRETE.mode(LOGITS[:1])
  assert (mode.dtype, mode.tolist()) == (np.int32, [1])
  assert DISCRETE.action(mode) is mode
  assert (DISCRETE.num_params, DISCRETE.num_constant) == (3, 0)


def test_the_density_of_a_sample_is_that_of_a_normal_distribution():
  sample = np.array([[0.1, 0.2], [-3.0, 4.0]])
  std = np.exp(LOG_STD)
  density = np.exp(-((sample - MEAN) ** 2) / (2 * std**2)) / (
    std * np.sqrt(2 * np.pi)
  )
  np.testing.assert_allclose(
    GAUSSIAN.log_prob(PARAMS, sample.astype(np.float32)),
    np.log(density).sum(axis=-1),
    rtol=1e-5,
  )


def test_the_entropy_of_samples_is_their_mean_surprise():
  for row in range(2):
    samples = draws(GAUSSIAN, PARAMS[row], 100_000)
    surprise = -GAUSSIAN.log_prob(jnp.tile(PARAMS[row], (100_000, 1)), samples)
    assert GAUSSIAN.entropy(PARAMS)[row] == pytest.approx(
      float(surprise.mean()), abs=4 * float(surprise.std()) / 316
    )


def test_samples_have_the_mean_and_deviation_asked_for():
  samples = np.asarray(draws(GAUSSIAN, PARAMS[0], 100_000))
  std = np.exp(LOG_STD[0])
  assert (np.abs(samples.mean(axis=0) - MEAN[0]) < 5 * std / 316).all()
  np.testing.assert_allclose(samples.std(axis=0), std, rtol=0.02)
  assert abs(np.corrcoef(samples.T)[0, 1]) < 0.02


def test_the_likeliest_sample_is_the_mean():
  np.testing.assert_allclose(GAUSSIAN.mode(PARAMS), MEAN, rtol=1e-6)


def test_samples_of_size_one_are_the_bounds_and_none_goes_beyond():
  sample = np.array(
    [[-1.0, 1.0], [1.0, -1.0], [0.0, 0.5], [-7.0, 9.0]], np.float32
  )
  action = GAUSSIAN.action(sample)
  assert action.shape == (4, 2, 1)
  np.testing.assert_allclose(
    action[..., 0], [[-1, 10], [3, 0], [1, 7.5], [-1, 10]]
  )


@pytest.mark.parametrize(
  'spec',
  [
    BOUNDS,
    specs.BoundedArray((), np.float32, -0.3, 0.7),
    specs.BoundedArray((3,), np.float32, -0.1, 0.1),
    specs.BoundedArray((2, 2), np.float16, -2.0, [[1.0, 2.0], [3.0, 4.0]]),
  ],
)
def test_actions_conform_to_their_spec(spec):
  gaussian = distributions.for_actions(spec, 'TRPO')
  size = int(np.prod(spec.shape))
  assert (gaussian.num_params, gaussian.num_constant) == (2 * size, size)
  params = np.tile(np.float32(0.3), (64, 2 * size))
  sample = gaussian.sample(params, KEY)
  assert sample.shape == (64, size)
  actions = np.asarray(gaussian.action(sample))
  for action in actions:
    spec.validate(action.astype(spec.dtype))
  # One of a sequence of them, and one by itself.
  many = gaussian.action(np.reshape(sample, (8, 8, size)))
  np.testing.assert_array_equal(np.reshape(many, actions.shape), actions)
  np.testing.assert_array_equal(gaussian.action(sample[0]), actions[0])


@pytest.mark.parametrize(
  'spec',
  [
    specs.Array((2,), np.float32, 'force'),
    specs.BoundedArray((2,), np.int32, 0, 3, 'force'),
    specs.BoundedArray((2,), np.float32, -np.inf, 1.0, 'force'),
    specs.BoundedArray((2,), np.float32, 0.0, [1.0, np.inf], 'force'),
    {'force': specs.DiscreteArray(3)},
  ],
)
def test_other_actions_are_refused_in_the_words_of_continuous_control(spec):
  with pytest.raises(
    ValueError, match=r'TRPO needs one discrete action .* got .*force'
  ) as error:
    distributions.for_actions(spec, 'TRPO')
  with pytest.raises(ValueError) as other:
    bounds.Bounds(spec, 'TRPO')
  words = str(error.value).replace(
    'one discrete action (specs.DiscreteArray) or ', ''
  )
  assert words == str(other.value)


@pytest.mark.parametrize(
  ('distribution', 'params'), [(DISCRETE, LOGITS[0]), (GAUSSIAN, PARAMS[0])]
)
def test_rows_that_do_not_explore_get_the_mode(distribution, params):
  params = np.tile(params, (1000, 1))
  explores = np.arange(1000) % 2 == 0
  sample = distributions.draw(distribution, params, KEY, explores)
  mode = distribution.mode(params)
  drawn = distribution.sample(params, KEY)
  np.testing.assert_array_equal(sample[~explores], mode[~explores])
  np.testing.assert_array_equal(sample[explores], drawn[explores])
  assert (sample[explores] != mode[explores]).any()


def test_an_action_that_is_masked_has_finite_entropy_and_gradients():
  categorical = distributions.Categorical(specs.DiscreteArray(3))
  logits = jnp.array([[1.0, -jnp.inf, 2.0]])

  def loss(logits):
    log_prob = categorical.log_prob(logits, jnp.array([2]))
    return (categorical.entropy(logits) + log_prob).sum()

  apart = distributions.Categorical(specs.DiscreteArray(2))
  assert categorical.entropy(logits)[0] == pytest.approx(
    float(apart.entropy(jnp.array([[1.0, 2.0]]))[0]), rel=1e-6
  )
  gradient = np.asarray(jax.grad(loss)(logits))
  assert np.isfinite(gradient).all()
  assert gradient[0, 1] == 0.0 != gradient[0, 0]
  drawn = categorical.sample(jnp.tile(logits, (100, 1)), jax.random.key(0))
  assert set(np.asarray(drawn).tolist()) == {0, 2}
