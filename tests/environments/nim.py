"""A game for two that tests can compute: whoever takes the last stone wins."""

from typing import NamedTuple

import dm_env
import jax
import jax.numpy as jnp
import numpy as np

from distacme import core
from distacme import specs
from distacme.environments import jax_vector

STONES = 7


class State(NamedTuple):
  """The stones that are left, and moves made so far."""

  stones: jax.Array
  moves: jax.Array


class Nim:
  """Takes 1, 2 or 3 stones; the winner gets 1. A `core.Model`.

  Whoever is to move loses if the stones are a multiple of 4.
  """

  num_actions = 3

  def init(self, key):
    return State(jnp.int32(STONES), jnp.int32(0))

  def step(self, state, action, key):
    left = jnp.maximum(self.left(state, action, key), 0)
    after = State(left, state.moves + 1)
    reward = jnp.where((state.stones > 0) & (left == 0), 1.0, 0.0)
    discount = jnp.where(left == 0, 0.0, self.discount(state))
    return core.ModelStep(after, reward, discount)

  def left(self, state, action, key):
    return state.stones - action - 1

  def discount(self, state):
    return -1.0

  def observe(self, state):
    return {
      'stones': state.stones,
      specs.LEGAL_ACTIONS: jnp.arange(3) < state.stones,
    }


def make(num_envs, model=None):
  """Returns rows of the game."""
  model = model or Nim()
  spec = jax_vector.make_spec(model, Nim.num_actions, two_players=True)
  return jax_vector.JaxVector(model, spec, range(num_envs))


class NimByHand(dm_env.Environment):
  """The same in dm_env; a player who takes three stones moves again."""

  def __init__(self):
    self._stones = 0

  def reset(self):
    self._stones = STONES
    return dm_env.restart(self._observation())

  def step(self, action):
    if not self._stones:
      return self.reset()
    self._stones -= int(action) + 1
    if self._stones <= 0:
      return dm_env.TimeStep(
        dm_env.StepType.LAST,
        np.float32(1.0),
        np.float32(0.0),
        self._observation(),
      )
    return dm_env.transition(
      np.float32(0.0),
      self._observation(),
      np.float32(1.0 if action == 2 else -1.0),
    )

  def observation_spec(self):
    return {
      'stones': specs.Array((), np.int32),
      specs.LEGAL_ACTIONS: specs.Array((3,), np.bool_),
    }

  def action_spec(self):
    return specs.DiscreteArray(3)

  def reward_spec(self):
    return specs.BoundedArray((), np.float32, 0.0, 1.0)

  def discount_spec(self):
    return specs.BoundedArray((), np.float32, -1.0, 1.0)

  def _observation(self):
    return {
      'stones': np.int32(max(self._stones, 0)),
      specs.LEGAL_ACTIONS: np.arange(3) < self._stones,
    }


def make_by_hand(seed):
  """Returns the game in dm_env, by the name of this function."""
  del seed
  return NimByHand()
