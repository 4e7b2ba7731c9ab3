"""Loops of steps: the numbers of plain loops, with convolutions in form."""

import re

import haiku as hk
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from distacme.kit import loops

RATE = 1e-2


def pictures(*shape):
  return np.random.default_rng(0).normal(size=shape).astype(np.float32)


def descending(network, example):
  """Returns params, and a step down the gradient of a network's outputs."""
  network = hk.without_apply_rng(hk.transform(network))
  params = network.init(jax.random.key(0), example)

  def step(params, image):
    def loss(params):
      return jnp.mean(network.apply(params, image) ** 2)

    value, gradient = jax.value_and_grad(loss)(params)
    moved = jax.tree.map(lambda p, g: p - RATE * g, params, gradient)
    return moved, value

  return params, step


def strided(image):
  features = jax.nn.relu(hk.Conv2D(5, 4, 2, padding='VALID')(image))
  return hk.Conv2D(3, 3, rate=2)(features)


def channels_first(image):
  image = image.transpose(0, 3, 1, 2)
  return hk.Conv2D(4, (2, 3), data_format='NCHW')(image)


def in_groups(image):
  return hk.Conv2D(4, 3, feature_group_count=2)(image)


def transposed(image):
  return hk.Conv2DTranspose(2, 3, stride=2)(image)


def of_one_axis(image):
  return hk.Conv1D(3, 2)(image.reshape(len(image), -1, 2))


def in_functions(image):
  return jax.jit(jax.nn.relu)(hk.Conv2D(2, 3)(jnp.tanh(image)))


NETWORKS = [
  strided,
  channels_first,
  in_groups,
  transposed,
  of_one_axis,
  in_functions,
]


@pytest.mark.parametrize('network', NETWORKS)
def test_a_loop_is_the_plain_loop(network):
  images = pictures(3, 2, 9, 8, 2)
  params, step = descending(network, images[0])
  expected = jax.lax.scan(step, params, images)
  result = jax.jit(lambda p, x: loops.scan(step, p, x))(params, images)
  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5),
    result,
    expected,
  )


def dimension_numbers(loop, *arguments):
  program = jax.jit(loop).lower(*arguments).as_text()
  return set(re.findall(r'dim_numbers = (.*?), window', program))


def test_convolutions_of_gradients_are_in_the_form_of_fast_kernels():
  images = pictures(3, 2, 9, 8, 2)
  params, step = descending(strided, images[0])
  plain = dimension_numbers(lambda: jax.lax.scan(step, params, images))
  assert len(plain) > 1
  assert dimension_numbers(lambda: loops.scan(step, params, images)) == {
    '[b, 0, 1, f]x[0, 1, i, o]->[b, 0, 1, f]'
  }


def test_a_step_may_branch_and_draw():
  def step(key, number):
    key, own = jax.random.split(key)
    drawn = jax.lax.cond(
      number > 1, lambda: jax.random.normal(own), lambda: number
    )
    return key, {'drawn': drawn, 'as it was': number}

  numbers = jnp.arange(4.0)
  for key in (jax.random.key(1), jax.random.PRNGKey(1)):
    result = loops.scan(step, key, numbers)
    expected = jax.lax.scan(step, key, numbers)
    assert jax.tree.structure(result) == jax.tree.structure(expected)
    np.testing.assert_array_equal(result[1]['drawn'], expected[1]['drawn'])
