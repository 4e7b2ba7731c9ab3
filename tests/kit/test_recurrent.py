"""Networks with a memory."""

import haiku as hk
import jax
import numpy as np
import pytest

from distacme.kit import networks
from distacme.kit import recurrent

KEY = jax.random.key(0)


def make_recurrent():
  return recurrent.RecurrentNetwork(
    networks.MLPTorso((8,)), hk.LSTM(6), networks.PolicyValueHead(3)
  )


def make_forgetful():
  return recurrent.RecurrentNetwork(
    networks.MLPTorso((8,)), None, networks.PolicyValueHead(3)
  )


def assert_close(a, b):
  jax.tree.map(
    lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-4, atol=1e-5), a, b
  )


@pytest.mark.parametrize('make', [make_recurrent, make_forgetful])
def test_an_unroll_is_its_steps(make):
  network = recurrent.unrolled(make)
  random = np.random.default_rng(0)
  observation = random.normal(size=(3, 5, 2)).astype(np.float32)
  first = np.zeros((3, 5), bool)
  first[0, 0] = first[1, 3] = first[2, 4] = True
  params = network.init(KEY, observation[:, 0])
  # Not the initial one: the first row may be in the midst of an episode.
  start = jax.tree.map(
    lambda leaf: random.normal(size=leaf.shape).astype(np.float32),
    network.initial_state(3),
  )
  outputs, end = network.unroll(params, None, observation, first, start)

  state, initial, steps = start, network.initial_state(3), []
  for t in range(5):
    row = first[:, t, None]
    state = jax.tree.map(lambda i, s, r=row: np.where(r, i, s), initial, state)
    output, state = network.step(params, None, observation[:, t], state)
    steps.append(output)
  by_steps = jax.tree.map(lambda *rows: np.stack(rows, axis=1), *steps)
  assert_close(outputs, by_steps)
  assert_close(end, state)
  assert outputs[1].shape == (3, 5)


def test_what_was_before_an_episode_does_not_matter():
  network = recurrent.unrolled(make_recurrent)
  random = np.random.default_rng(0)
  observation = random.normal(size=(2, 1, 4, 2)).astype(np.float32)
  observation[1, :, 2:] = observation[0, :, 2:]
  params = network.init(KEY, observation[0, :, 0])
  first = np.array([[False, False, True, False]])
  state = network.initial_state(1)
  (a, _), _ = network.unroll(params, None, observation[0], first, state)
  (b, _), _ = network.unroll(params, None, observation[1], first, state)
  assert_close(a[:, 2:], b[:, 2:])
  assert (a[:, :2] != b[:, :2]).any()
  # While without a start between, it does.
  (a, _), _ = network.unroll(params, None, observation[0], first & False, state)
  (b, _), _ = network.unroll(params, None, observation[1], first & False, state)
  assert (np.abs(a - b)[:, 2:] > 1e-6).any()


def test_the_memory_of_a_network_without_one_is_nothing():
  network = recurrent.unrolled(make_forgetful)
  assert network.initial_state(4) == ()
