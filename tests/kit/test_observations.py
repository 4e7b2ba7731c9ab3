"""What default networks make of observations."""

import haiku as hk
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from distacme import specs
from distacme.kit import networks
from distacme.kit import observations


def bounded(shape, dtype, low, high):
  return specs.BoundedArray(shape, dtype, low, high)


@pytest.mark.parametrize(
  ('spec', 'size'),
  [
    (specs.Array((84, 84, 4), np.uint8), (84, 84)),
    (bounded((36, 96, 3), np.uint8, 0, 255), (36, 96)),
    (bounded((3, 64, 48), np.uint8, 0, 255), (64, 48)),  # channels first
    (bounded((4, 84, 84), np.float32, 0.0, 1.0), (84, 84)),  # stacked first
    (bounded((84, 84), np.uint8, 0, 255), (84, 84)),  # grey
    (bounded((84, 84, 3, 4), np.uint8, 0, 255), (84, 84)),  # our FrameStack
    (bounded((4, 84, 80, 3), np.uint8, 0, 255), (84, 80)),  # Gymnasium's
    (bounded((4, 3, 84, 84), np.uint8, 0, 255), (84, 84)),
    (specs.Array((10, 10, 4), np.bool_), (10, 10)),  # MinAtar
    (specs.Array((10, 10, 10), np.bool_), (10, 10)),
    (bounded((7, 7, 3), np.uint8, 0, 255), (7, 7)),
    (bounded((5, 5, 2), np.int32, 0, 10), (5, 5)),
    (
      bounded((8, 8, 12), np.uint8, 0, 255),
      (8, 8),
    ),  # more channels than pixels
    (bounded((12, 8, 8), np.uint8, 0, 255), (8, 8)),
    (specs.Array((10, 10, 16), np.bool_), (10, 10)),
    (bounded((8, 9, 12), np.uint8, 0, 255), (9, 12)),
    (bounded((0, 5, 5), np.uint8, 0, 255), None),
    (specs.BoundedArray((0,), np.float32, np.zeros(0), np.ones(0)), None),
    # Without bounds, or too small, or a table, or a vector.
    (specs.Array((84, 84, 3), np.float32), None),
    (bounded((84, 84, 3), np.float32, -np.inf, np.inf), None),
    (specs.Array((84, 84, 3), np.int32), None),
    (bounded((4, 4, 3), np.uint8, 0, 255), None),
    (bounded((10, 5), np.float32, 0.0, 1.0), None),
    (bounded((3, 64, 3), np.uint8, 0, 255), None),
    (bounded((128,), np.uint8, 0, 255), None),
    (specs.DiscreteArray(5), None),
    ({'image': specs.Array((84, 84, 4), np.uint8)}, None),
  ],
)
def test_what_counts_as_a_picture(spec, size):
  assert observations.is_image(spec) == (size is not None)
  if size:
    assert observations.image_size(spec) == size


@pytest.mark.parametrize('order', ['hwc', 'chw', 'hwsc', 'shwc', 'schw'])
def test_channels_come_last_wherever_they_are(order):
  sizes = {'h': 8, 'w': 9, 'c': 3, 's': 2}
  shape = tuple(sizes[axis] for axis in order)
  leaf = np.random.default_rng(0).integers(256, size=(2, *shape))
  spec = bounded(shape, np.uint8, 0, 255)
  image = observations.as_image(spec, jnp.asarray(leaf, jnp.uint8))
  assert image.shape == (2, 8, 9, 6 if 's' in order else 3)
  others = ''.join(axis for axis in order if axis not in 'hw')
  moved = np.einsum(f'b{order}->bhw{others}', leaf) / 255
  np.testing.assert_allclose(image, moved.reshape(image.shape), rtol=1e-6)


@pytest.mark.parametrize(
  ('spec', 'value', 'expected'),
  [
    (bounded((6, 6, 1), np.uint8, 0, 255), 51, 0.2),
    (specs.Array((6, 6, 1), np.uint8), 51, 0.2),
    (bounded((6, 6, 1), np.float32, 0.0, 1.0), 0.2, 0.2),
    (bounded((6, 6, 1), np.float32, -1.0, 1.0), 0.5, 0.75),
    (bounded((6, 6, 1), np.float32, 0.0, 255.0), 51.0, 0.2),
    (bounded((6, 6, 1), np.int32, 0, 10), 2, 0.2),
    (specs.Array((6, 6, 1), np.bool_), True, 1.0),
  ],
)
def test_pictures_are_scaled_by_their_bounds(spec, value, expected):
  leaf = np.full((1, *spec.shape), value, spec.dtype)
  image = observations.as_image(spec, leaf)
  assert image.dtype == np.float32
  np.testing.assert_allclose(image, expected, rtol=1e-6)


def vector(spec, leaf):
  """Returns the features of a leaf, and the params that they need."""
  function = hk.without_apply_rng(
    hk.transform(lambda o: observations.as_vector(spec, o))
  )
  leaf = np.asarray(leaf, spec.dtype)
  params = function.init(jax.random.key(0), leaf)
  return np.asarray(function.apply(params, leaf)), params


def test_an_integer_becomes_a_one_hot_vector():
  features, params = vector(specs.DiscreteArray(4), [2, 0])
  assert features.tolist() == [[0, 0, 1, 0], [1, 0, 0, 0]]
  assert not params


def test_each_of_several_integers_has_its_own():
  spec = specs.BoundedArray((2,), np.int32, [1, 0], [3, 1])
  features, _ = vector(spec, [[3, 1], [1, 0]])
  assert features.tolist() == [[0, 0, 1, 0, 1], [1, 0, 0, 1, 0]]


def test_hundreds_of_integers_are_one_comparison():
  spec = bounded((300,), np.int8, 0, 1)
  jaxpr = jax.make_jaxpr(lambda o: observations.as_vector(spec, o))(
    np.zeros((1, 300), np.int8)
  )
  assert len(jaxpr.eqns) < 20
  features, _ = vector(spec, np.arange(300)[None] % 2)
  assert features.tolist() == [[1, 0, 0, 1] * 150]
  features, _ = vector(bounded((0,), np.int32, 0, 3), np.zeros((2, 0)))
  assert features.shape == (2, 0)


def test_one_of_many_values_is_looked_up_in_a_table():
  features, params = vector(specs.DiscreteArray(5_000), [7, 4_999, 7])
  (table,) = jax.tree.leaves(params)
  assert table.shape == (5_000, 64)
  np.testing.assert_array_equal(features, table[np.array([7, 4_999, 7])])


def test_too_many_values_are_refused_with_what_to_do():
  spec = specs.DiscreteArray(2**31 - 1, name='seed')
  with pytest.raises(
    ValueError, match="'seed' has 2147483647 values.*Wrap the environment"
  ):
    vector(spec, [0])


def test_integers_of_wide_ranges_are_scaled_by_them():
  ram = bounded((128,), np.uint8, 0, 255)
  features, _ = vector(ram, np.full((1, 128), 51))
  np.testing.assert_allclose(features, 0.2, rtol=1e-6)
  whole = np.iinfo(np.int32)
  features, _ = vector(
    bounded((2,), np.int32, whole.min, whole.max), [[-5, 2**30]]
  )
  assert features.tolist() == [[-5.0, 2.0**30]]


def test_floats_and_bools_stay_what_they_are():
  features, _ = vector(specs.Array((2, 2), np.float32), [[[1.5, 2], [3, 4]]])
  assert features.tolist() == [[1.5, 2, 3, 4]]
  features, _ = vector(specs.Array((2,), np.bool_), [[True, False]])
  assert features.tolist() == [[1.0, 0.0]]


def test_a_torso_sees_each_leaf_as_what_it_is():
  spec = {
    'grid': specs.Array((10, 10, 4), np.bool_),
    'screen': bounded((3, 40, 40), np.uint8, 0, 255),
    'screen2': bounded((40, 40), np.uint8, 0, 255),
    'place': specs.DiscreteArray(16),
    'speed': specs.Array((2,), np.float32),
  }
  torso = hk.without_apply_rng(
    hk.transform(lambda o: networks.ObservationTorso(spec, (7,))(o))
  )
  params = jax.eval_shape(torso.init, jax.random.key(0), networks.example(spec))
  shapes = {name: leaf['w'].shape for name, leaf in params.items()}
  assert shapes['observation_torso/small_torso/conv2_d'] == (3, 3, 4, 16)
  for torso_name, channels in (('nature_torso', 3), ('nature_torso_1', 1)):
    layers = [shapes[n] for n in shapes if f'{torso_name}/conv2_d' in n]
    assert len(layers) == 3
    assert layers[0] == (8, 8, channels, 32)
  (mlp,) = [shape for name, shape in shapes.items() if 'mlp' in name]
  assert mlp == (16 + 8 * 8 * 16 + 64 + 64 + 2, 7)


def test_what_looks_like_a_picture_and_is_taken_as_numbers_is_said():
  spec = {'screen': specs.Array((64, 64, 3), np.float32, 'screen')}
  assert observations.describe_flattened(spec).startswith(
    'screen (float32 of shape (64, 64, 3)) is taken as numbers in a row'
  )
  seen = {
    'screen': bounded((64, 64, 3), np.float32, 0, 1),
    'table': specs.Array((10, 5), np.float32),
  }
  assert not observations.describe_flattened(seen)
