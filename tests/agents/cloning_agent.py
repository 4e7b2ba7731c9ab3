"""Behavioural cloning, linear: an agent without actors, for tests."""

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

  learning_rate: float = 2.0
  """Step size of gradient descent."""
  batch_size: int = 64
  """Transitions per learner step."""


class LearnerState(NamedTuple):
  """All that learning changes."""

  params: dict[str, jax.Array]


class Cloning:
  """Learns to act as recorded; see `core.Agent`."""

  def __init__(self, config, spec):
    self._config = config
    self._num_actions = spec.actions.num_values
    self._num_inputs = sum(
      int(np.prod(leaf.shape)) for leaf in jax.tree.leaves(spec.observations)
    )
    table = replay_spec.Table(
      'demonstrations',
      window=replay_spec.NStep(1, 1.0),
      max_size=10_000,
      min_size=1,
      samples_per_insert=None,
      evicts=False,
      filled_by='demonstrations',
    )
    self.replay = replay_spec.ReplaySpec((table,), config.batch_size)

  def initial_learner_state(self, key):
    del key
    shape = (self._num_inputs, self._num_inputs, self._num_actions)
    return LearnerState({'weights': jnp.zeros(shape)})

  def initial_actor_state(self, batch_size, streams):
    return ()

  def act(self, params, key, observation, state):
    logits = self._logits(params, observation)
    return types.ActorOutput(logits.argmax(axis=-1).astype(jnp.int32), state)

  def update(self, state, batch):
    def loss(params):
      log_pi = jax.nn.log_softmax(self._logits(params, batch.data.observation))
      actions = batch.data.action[:, None]
      return -jnp.take_along_axis(log_pi, actions, axis=-1).mean()

    value, gradient = jax.value_and_grad(loss)(state.params)
    rate = self._config.learning_rate
    params = jax.tree.map(lambda p, g: p - rate * g, state.params, gradient)
    return LearnerState(params), types.UpdateOutput({'loss': value})

  def actor_params(self, state):
    return state.params

  def _logits(self, params, observation):
    inputs = networks.flatten_observation(observation)
    return jnp.einsum('bi,bj,ija->ba', inputs, inputs, params['weights'])


def make_agent(config, spec, network=None):
  """Returns the agent for an environment."""
  del network
  return Cloning(config, spec)
