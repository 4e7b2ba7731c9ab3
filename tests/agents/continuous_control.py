"""What tests of agents for continuous control share."""

import jax
import jax.numpy as jnp
import numpy as np

from distacme import specs
from distacme import types
from distacme.agents import d4pg
from distacme.agents import ddpg
from distacme.agents import dmpo
from distacme.agents import mpo
from distacme.agents import sac
from distacme.agents import td3
from distacme.kit import actor_critic

AGENTS = {
  'ddpg': ddpg,
  'd4pg': d4pg,
  'td3': td3,
  'sac': sac,
  'mpo': mpo,
  'dmpo': dmpo,
}

# Two actions of which neither is in [-1, 1], four numbers seen.
SPEC = specs.EnvironmentSpec(
  observations=specs.Array((4,), np.float32),
  actions=specs.BoundedArray((2,), np.float32, [-2.0, 0.0], [2.0, 10.0]),
  rewards=specs.Array((), np.float32),
  discounts=specs.BoundedArray((), np.float32, 0.0, 1.0),
)
KEY = np.asarray(jax.random.key_data(jax.random.key(0)))


def make(name, spec=SPEC, network=None, **changes):
  """Returns a small agent."""
  small = {'hidden_sizes': (8,), 'batch_size': 6, 'samples_per_insert': 1.0}
  if name in ('d4pg', 'dmpo'):
    small |= {'num_atoms': 7, 'min_value': -3.0, 'max_value': 3.0}
  module = AGENTS[name]
  return module.make_agent(module.Config(**(small | changes)), spec, network)


def batch(seed=0, size=6, spec=SPEC):
  """Returns a batch of random transitions, of which every third ended."""
  random = np.random.default_rng(seed)

  def seen():
    shape = (size, *spec.observations.shape)
    return random.normal(size=shape).astype(np.float32)

  low, high = spec.actions.minimum, spec.actions.maximum
  actions = random.uniform(low, high, (size, *spec.actions.shape))
  data = types.Transition(
    observation=seen(),
    action=actions.astype(np.float32),
    reward=random.normal(size=size).astype(np.float32),
    discount=np.where(np.arange(size) % 3, 0.9, 0.0).astype(np.float32),
    next_observation=seen(),
  )
  return types.Batch(data, np.ones(size, np.float32))


def known_networks(policy, critic):
  """Returns a `network` argument of functions without params."""
  return lambda size: actor_critic.ActorCritic(policy, critic)


def same(vector):
  """Returns a policy's output that does not depend on what is seen."""
  row = jnp.asarray([vector], jnp.float32)
  return lambda observation: jnp.repeat(row, observation.shape[0], axis=0)
