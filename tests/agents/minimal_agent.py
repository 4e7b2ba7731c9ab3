"""Q-learning, linear in products of two inputs: all that an agent needs."""

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

  learning_rate: float = 0.5
  """Step size of gradient descent."""
  discount: float = 0.99
  """Gamma, per environment step."""
  epsilon: float = 0.1
  """Chance of a random action while training."""
  batch_size: int = 32
  """Transitions per learner step."""


class LearnerState(NamedTuple):
  """All that learning changes."""

  params: dict[str, jax.Array]


class LinearQ:
  """One-step Q-learning; see `core.Agent` for what each method promises."""

  def __init__(self, config, spec):
    self._config = config
    self._num_actions = spec.actions.num_values
    self._num_inputs = sum(
      int(np.prod(leaf.shape)) for leaf in jax.tree.leaves(spec.observations)
    )
    self.replay = replay_spec.single(
      window=replay_spec.NStep(1, config.discount),
      batch_size=config.batch_size,
      max_size=10_000,
      min_size=200,
      samples_per_insert=16.0,
    )

  def initial_learner_state(self, key):
    del key  # Zero is a good start for a linear function.
    shape = (self._num_inputs, self._num_inputs, self._num_actions)
    return LearnerState({'weights': jnp.zeros(shape)})

  def initial_actor_state(self, batch_size, streams):
    # No streams: the policy that is evaluated, which does not explore.
    epsilon = 0.0 if streams is None else self._config.epsilon
    return np.full(batch_size, epsilon, np.float32)

  def act(self, params, key, observation, state):
    q = self._q(params, observation)  # [B, num_actions]
    explore, choice = jax.random.uniform(key, (2, q.shape[0]))
    random = (choice * self._num_actions).astype(jnp.int32)
    greedy = q.argmax(axis=-1).astype(jnp.int32)
    action = jnp.where(explore < state, random, greedy)
    return types.ActorOutput(action, state)

  def update(self, state, batch):
    def loss(params):
      q_tm1 = self._q(params, batch.data.observation)
      q_t = self._q(params, batch.data.next_observation)
      target = batch.data.reward + batch.data.discount * q_t.max(axis=-1)
      actions = batch.data.action[:, None]
      q_a_tm1 = jnp.take_along_axis(q_tm1, actions, axis=-1)[:, 0]
      return jnp.mean((jax.lax.stop_gradient(target) - q_a_tm1) ** 2) / 2

    value, gradient = jax.value_and_grad(loss)(state.params)
    rate = self._config.learning_rate
    params = jax.tree.map(lambda p, g: p - rate * g, state.params, gradient)
    return LearnerState(params), types.UpdateOutput({'loss': value})

  def actor_params(self, state):
    return state.params

  def _q(self, params, observation):
    inputs = networks.flatten_observation(observation)  # [B, num_inputs]
    return jnp.einsum('bi,bj,ija->ba', inputs, inputs, params['weights'])


def make_agent(config, spec, network=None):
  """Returns the agent for an environment."""
  if network is not None:
    raise ValueError('LinearQ has no network to replace: leave out --network.')
  return LinearQ(config, spec)
