"""Modules that agents share."""

import haiku as hk
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from distacme import networks
from distacme import specs

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
  features, params = apply(lambda o: networks.NatureTorso(name='t')(o), image)
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
      networks.NatureTorso(name='t')(image)
    return outputs[0]

  output, params = apply(first_layer, image)
  layer = jax.tree.map(np.asarray, params['t/conv2_d'])
  window = image[0, 4:12, 8:16] / 255.0  # of the output at row 1, column 2
  expected = np.einsum('hwc,hwco->o', window, layer['w']) + layer['b']
  np.testing.assert_allclose(output[0, 1, 2], expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
  'spec, answer',
  [
    (specs.Array((84, 84, 4), np.uint8), True),
    (specs.BoundedArray((36, 96, 3), np.uint8, 0, 255), True),
    (specs.Array((35, 84, 4), np.uint8), False),
    (specs.Array((84, 84, 4), np.float32), False),
    (specs.Array((84, 84), np.uint8), False),
    (specs.Array((10, 10, 4), np.bool_), False),
    ({'image': specs.Array((84, 84, 4), np.uint8)}, False),
  ],
)
def test_what_counts_as_an_image(spec, answer):
  assert networks.is_image(spec) == answer


def test_the_smallest_image_leaves_one_pixel():
  features, _ = apply(
    lambda o: networks.NatureTorso()(o), np.zeros((1, 36, 36, 1), np.uint8)
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
