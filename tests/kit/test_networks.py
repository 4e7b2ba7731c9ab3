"""Modules that agents share."""

import haiku as hk
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from distacme import specs
from distacme.kit import convolutions
from distacme.kit import networks

KEY = jax.random.key(0)


def apply(function, *inputs):
  """Returns the function's value and its params, initialised."""
  transformed = hk.without_apply_rng(hk.transform(function))
  params = transformed.init(KEY, *inputs)
  return transformed.apply(params, *inputs), params


def test_observations_are_joined_row_by_row():
  observation = {
    'a': np.array([[[1, 2], [3, 4]], [[5, 6], [7, 8]]], np.uint8),
    'b': np.array([9, 10], np.int32),
  }
  flat = networks.flatten_observation(observation)
  assert flat.dtype == jnp.float32
  assert flat.tolist() == [[1, 2, 3, 4, 9], [5, 6, 7, 8, 10]]


def test_a_torso_ends_in_a_rectifier():
  observation = np.random.default_rng(0).normal(size=(7, 3, 2))
  features, _ = apply(lambda o: networks.MLPTorso([8, 5])(o), observation)
  assert features.shape == (7, 5)
  assert features.min() == 0.0 < features.max()


def test_a_torso_without_layers_passes_observations_on():
  observation = np.arange(6.0).reshape(2, 3)
  features, params = apply(lambda o: networks.MLPTorso([])(o), observation)
  np.testing.assert_array_equal(features, observation)
  assert not params


def test_an_image_becomes_the_features_of_the_nature_paper():
  image = np.random.default_rng(0).integers(
    256, size=(2, 84, 84, 4), dtype=np.uint8
  )
  features, params = apply(
    lambda o: convolutions.NatureTorso(name='t')(o), image
  )
  assert features.shape == (2, 7 * 7 * 64)
  assert features.min() == 0.0 < features.max()
  assert {name: leaf['w'].shape for name, leaf in params.items()} == {
    't/conv2_d': (8, 8, 4, 32),
    't/conv2_d_1': (4, 4, 32, 64),
    't/conv2_d_2': (3, 3, 64, 64),
  }


def test_the_first_convolution_is_what_a_sum_by_hand_gives():
  image = np.random.default_rng(0).integers(
    256, size=(1, 36, 36, 1), dtype=np.uint8
  )

  def first_layer(image):
    outputs = []

    def record(next_method, args, kwargs, context):
      output = next_method(*args, **kwargs)
      if context.method_name == '__call__':
        outputs.append(output)
      return output

    with hk.intercept_methods(record):
      convolutions.NatureTorso(name='t')(image)
    return outputs[0]

  output, params = apply(first_layer, image)
  layer = jax.tree.map(np.asarray, params['t/conv2_d'])
  window = image[0, 4:12, 8:16] / 255.0  # of the output at row 1, column 2
  expected = np.einsum('hwc,hwco->o', window, layer['w']) + layer['b']
  np.testing.assert_allclose(output[0, 1, 2], expected, rtol=1e-4, atol=1e-5)


def test_the_smallest_image_leaves_one_pixel():
  features, _ = apply(
    lambda o: convolutions.NatureTorso()(o), np.zeros((1, 36, 36, 1), np.uint8)
  )
  assert features.shape == (1, 64)


def test_dueling_values_are_state_value_plus_advantage_less_its_mean():
  features = np.random.default_rng(0).normal(size=(6, 4)).astype(np.float32)
  q, params = apply(
    lambda f: networks.DuelingHead(3, 8, name='head')(f), features
  )
  params = jax.tree.map(np.asarray, params)

  def stream(name):
    hidden, out = (params[f'head/{name}/~/linear_{i}'] for i in (0, 1))
    activity = np.maximum(features @ hidden['w'] + hidden['b'], 0)
    return activity @ out['w'] + out['b']

  value, advantage = stream('value'), stream('advantage')
  assert value.shape == (6, 1)
  for row in range(6):  # eq. 9 of Wang et al. 2016, written out
    expected = value[row, 0] + advantage[row] - advantage[row].mean()
    np.testing.assert_allclose(q[row], expected, rtol=1e-4, atol=1e-5)


def test_the_mean_of_dueling_values_is_the_state_value():
  features = np.ones((2, 4), np.float32)
  q, params = apply(
    lambda f: networks.DuelingHead(3, 8, name='head')(f), features
  )
  shifted = dict(params)
  bias = params['head/advantage/~/linear_1']
  shifted['head/advantage/~/linear_1'] = {**bias, 'b': bias['b'] + 5.0}
  transformed = hk.without_apply_rng(
    hk.transform(lambda f: networks.DuelingHead(3, 8, name='head')(f))
  )
  # An advantage that all actions share is none.
  np.testing.assert_allclose(
    transformed.apply(shifted, features), q, rtol=1e-4, atol=1e-5
  )
  bias = params['head/value/~/linear_1']
  shifted['head/value/~/linear_1'] = {**bias, 'b': bias['b'] + 5.0}
  np.testing.assert_allclose(
    transformed.apply(shifted, features).mean(axis=-1),
    q.mean(axis=-1) + 5.0,
    rtol=1e-4,
  )


@pytest.mark.parametrize('rows', [1, 4])
def test_rows_are_independent(rows):
  features = np.random.default_rng(0).normal(size=(4, 4)).astype(np.float32)

  def head(f):
    return networks.DuelingHead(3, 8)(f)

  whole, _ = apply(head, features)
  part, _ = apply(head, features[:rows])
  np.testing.assert_allclose(part, whole[:rows], rtol=1e-4, atol=1e-6)


# First weights. Sizes are roots of mean squares.


def size(x):
  return float(np.sqrt(np.mean(np.square(x))))


@pytest.mark.parametrize(
  ('initialization', 'of_torso', 'of_values'),
  [('orthogonal', (0.7, 1.4), (0.5, 2.0)), ('lecun', (0.1, 0.3), (0.05, 0.4))],
)
def test_orthogonal_weights_keep_the_size_of_a_picture(
  initialization, of_torso, of_values
):
  spec = specs.BoundedArray((84, 84, 4), np.uint8, 0, 255)
  image = random_image((16, 84, 84, 4))

  def network(o):
    torso = networks.ObservationTorso(
      spec, (256,), 'shallow', initialization=initialization
    )
    features = torso(o)
    head = networks.PolicyValueHead(6, initialization=initialization)
    return features, *head(features)

  (features, policy, value), _ = apply(network, image)
  # The picture's own size is 0.58.
  assert of_torso[0] < size(features) < of_torso[1], size(features)
  assert of_values[0] < size(value) < of_values[1], size(value)
  assert size(policy) < 0.05, size(policy)


def test_orthogonal_weights_are_orthogonal():
  _, params = apply(
    lambda o: networks.MLPTorso((8,), 'orthogonal')(o),
    np.ones((1, 20), np.float32),
  )
  (layer,) = params.values()
  np.testing.assert_allclose(
    layer['w'].T @ layer['w'], 2 * np.eye(8), atol=1e-5
  )


# Torsos of Espeholt et al. 2018, fig. 3.


def random_image(shape):
  return np.random.default_rng(0).integers(256, size=shape, dtype=np.uint8)


def test_the_shallow_torso_has_the_papers_layers():
  features, params = apply(
    lambda o: convolutions.ShallowTorso(name='t')(o),
    random_image((2, 84, 84, 4)),
  )
  assert features.shape == (2, 9 * 9 * 32)
  assert features.min() == 0.0 < features.max()
  assert {name: leaf['w'].shape for name, leaf in params.items()} == {
    't/conv2_d': (8, 8, 4, 16),
    't/conv2_d_1': (4, 4, 16, 32),
  }


def test_the_deep_torso_has_the_papers_fifteen_layers():
  features, params = apply(
    lambda o: convolutions.DeepTorso(name='t')(o), random_image((1, 84, 84, 4))
  )
  # Each of 3 sections halves the sides: 84, 42, 21, 11.
  assert features.shape == (1, 11 * 11 * 32)
  assert features.min() == 0.0 < features.max()
  shapes = [leaf['w'].shape for leaf in params.values()]
  assert len(shapes) == 15
  assert shapes[:5] == [(3, 3, 4, 16)] + 4 * [(3, 3, 16, 16)]
  assert shapes[5:10] == [(3, 3, 16, 32)] + 4 * [(3, 3, 32, 32)]
  assert shapes[10:] == 5 * [(3, 3, 32, 32)]


def test_the_deep_torso_passes_on_what_its_residuals_leave():
  # With residual layers of zeros, only the first of each section is left.
  def torso(o):
    return convolutions.DeepTorso(name='t')(o)

  image = random_image((1, 12, 12, 1))
  _, params = apply(torso, image)
  sections = {'t/conv2_d', 't/conv2_d_5', 't/conv2_d_10'}
  zeroed = {
    name: layer if name in sections else jax.tree.map(jnp.zeros_like, layer)
    for name, layer in params.items()
  }
  result = hk.without_apply_rng(hk.transform(torso)).apply(zeroed, image)
  x = jnp.asarray(image, jnp.float32) / 255
  for name in ('t/conv2_d', 't/conv2_d_5', 't/conv2_d_10'):
    x = jax.lax.conv_general_dilated(
      x,
      params[name]['w'],
      (1, 1),
      'SAME',
      dimension_numbers=('NHWC', 'HWIO', 'NHWC'),
    )
    x = jax.lax.reduce_window(
      x, -jnp.inf, jax.lax.max, (1, 3, 3, 1), (1, 2, 2, 1), 'SAME'
    )
  np.testing.assert_allclose(
    result, np.maximum(x, 0).reshape(1, -1), rtol=1e-4, atol=1e-5
  )


@pytest.mark.parametrize(
  ('spec', 'convolutions'),
  [(specs.Array((40, 40, 1), np.uint8), 2), (specs.Array((5,), np.uint8), 0)],
)
def test_an_observation_gets_convolutions_if_it_is_an_image(spec, convolutions):
  features, params = apply(
    lambda o: networks.ObservationTorso(spec, (7,), 'shallow')(o),
    np.zeros((3, *spec.shape), np.uint8),
  )
  assert features.shape == (3, 7)
  assert sum('conv2_d' in name for name in params) == convolutions


def test_policy_and_value_come_from_their_own_features():
  features, other = np.ones((5, 4), np.float32), np.zeros((5, 4), np.float32)

  def head(f, of_values=None):
    return networks.PolicyValueHead(3, name='head')(f, of_values)

  (policy, value), params = apply(head, features)
  assert (policy.shape, value.shape) == ((5, 3), (5,))
  assert np.abs(policy).max() < 0.1 < np.abs(params['head/value']['w']).max()
  transformed = hk.without_apply_rng(hk.transform(head))
  apart_policy, apart_value = transformed.apply(params, features, other)
  np.testing.assert_array_equal(apart_policy, policy)
  assert not apart_value.any()


def test_params_that_are_constant_are_the_same_in_all_states():
  features = np.random.default_rng(0).normal(size=(5, 4)).astype(np.float32)

  def head(f):
    return networks.PolicyValueHead(5, num_constant=2, name='head')(f)

  (policy, _), params = apply(head, features)
  assert policy.shape == (5, 5)
  assert not policy[:, 3:].any()
  assert (np.ptp(policy[:, :3], axis=0) > 0).all()
  params['head']['constant'] = jnp.array([[1.0, 2.0]])
  moved, _ = hk.without_apply_rng(hk.transform(head)).apply(params, features)
  np.testing.assert_array_equal(moved[:, :3], policy[:, :3])
  np.testing.assert_array_equal(moved[:, 3:], np.tile([1.0, 2.0], (5, 1)))
