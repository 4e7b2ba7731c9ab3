"""Copies what was rewarded: an agent of nested observations and actions."""

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from distacme import replay_spec
from distacme import types
from distacme.kit import networks


@dataclasses.dataclass(frozen=True)
class Config:
  """Settings; each one is a flag of `distacme train`."""

  learning_rate: float = 0.3
  """Step size of gradient descent."""
  exploration: float = 1.0
  """Chance of a random action while training."""
  batch_size: int = 32
  """Transitions per learner step."""


class LearnerState(NamedTuple):
  """All that learning changes."""

  params: dict[str, jax.Array]


class Copycat:
  """A linear policy for 'pick' and 'move' of the nested testing environment."""

  def __init__(self, config, spec):
    self._config = config
    self._num_inputs = sum(
      int(np.prod(leaf.shape)) for leaf in jax.tree.leaves(spec.observations)
    )
    self.replay = replay_spec.single(
      window=replay_spec.NStep(1, 0.9),
      batch_size=config.batch_size,
      max_size=10_000,
      min_size=100,
      samples_per_insert=16.0,
    )

  def initial_learner_state(self, key):
    del key  # Zero is a good start for a linear function.
    shapes = {'pick': (self._num_inputs, 3), 'move': (self._num_inputs, 2)}
    return LearnerState({k: jnp.zeros(shape) for k, shape in shapes.items()})

  def initial_actor_state(self, batch_size, streams):
    chance = 0.0 if streams is None else self._config.exploration
    return np.full(batch_size, chance, np.float32)

  def act(self, params, key, observation, state):
    logits, direction = self._outputs(params, observation)
    rows = logits.shape[0]
    keys = jax.random.split(key, 3)
    explore = jax.random.uniform(keys[0], (rows,)) < state
    pick = jnp.where(
      explore, jax.random.randint(keys[1], (rows,), 0, 3), logits.argmax(-1)
    )
    move = jnp.where(
      explore[:, None],
      jax.random.uniform(keys[2], (rows, 2), minval=-1.0, maxval=1.0),
      jnp.clip(direction, -1.0, 1.0),
    )
    action = {'pick': (pick.astype(jnp.int32),), 'move': move}
    extras = {'explored': (explore,)}
    return types.ActorOutput(action, state, extras=extras)

  def update(self, state, batch):
    def loss(params):
      data = batch.data
      logits, direction = self._outputs(params, data.observation)
      log_pick = jax.nn.log_softmax(logits)
      chosen = jnp.take_along_axis(log_pick, data.action['pick'][0][:, None], 1)
      distance = jnp.sum((direction - data.action['move']) ** 2, axis=-1)
      return jnp.mean(data.reward * (distance - chosen[:, 0]))

    value, gradient = jax.value_and_grad(loss)(state.params)
    rate = self._config.learning_rate
    params = jax.tree.map(lambda p, g: p - rate * g, state.params, gradient)
    explored = batch.data.extras['explored'][0].mean()
    return LearnerState(params), types.UpdateOutput(
      {'loss': value, 'explored': explored}
    )

  def actor_params(self, state):
    return state.params

  def _outputs(self, params, observation):
    image, number = observation['number']
    scaled = {**observation, 'number': (image / 255.0, number)}
    inputs = networks.flatten_observation(scaled)  # [B, num_inputs]
    return inputs @ params['pick'], inputs @ params['move']


def make_agent(config, spec, network=None):
  """Returns the agent for the nested testing environment."""
  if network is not None:
    raise ValueError('Copycat has no network to replace: leave out --network.')
  return Copycat(config, spec)
