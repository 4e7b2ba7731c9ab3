"""Networks that draw: noise of their own to act, to evaluate and to learn."""

import haiku as hk
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from distacme import specs
from distacme import types
from distacme.agents import dqn
from distacme.agents import impala
from distacme.agents import ppo
from distacme.agents import r2d2
from distacme.kit import actor_critic
from distacme.kit import networks
from distacme.kit import recurrent
from distacme.testing import agent_contract
from distacme.testing import environments

from . import continuous_control

SPEC = specs.make_environment_spec(environments.Catch(seed=0))
KEY = jax.random.key_data(jax.random.key(0))
OTHER_KEY = jax.random.key_data(jax.random.key(1))
RATE = 0.5


class NoisyLinear(hk.Module):
  """A layer whose weights have noise of a learnt size (Fortunato et al. 2018)."""

  def __init__(self, size, name=None):
    super().__init__(name)
    self._size = size

  def __call__(self, features):
    shape = (features.shape[-1], self._size)
    w = hk.get_parameter('w', shape, init=hk.initializers.RandomNormal(0.1))
    sigma = hk.get_parameter('sigma', shape, init=hk.initializers.Constant(0.1))
    noise = jax.random.normal(hk.next_rng_key(), shape)
    return features @ (w + sigma * noise)


def dropout(features):
  return hk.dropout(hk.next_rng_key(), RATE, features)


def noisy_values(observation):
  features = networks.MLPTorso((8,))(observation)
  return NoisyLinear(3)(features)


def noisy_memory():
  return recurrent.RecurrentNetwork(
    networks.MLPTorso((8,)), hk.GRU(4), NoisyLinear(3)
  )


def policy_and_value(observation, num_params):
  features = dropout(networks.MLPTorso((8,))(observation))
  return hk.Linear(num_params)(features), hk.Linear(1)(features)[:, 0]


def dropped_memory(num_params):
  head = networks.PolicyValueHead(num_params, initialization='orthogonal')
  return recurrent.RecurrentNetwork(
    networks.MLPTorso((8,)), None, lambda features: head(dropout(features))
  )


def dropped_actor_critic(num_values):
  def make(num_params):
    return actor_critic.ActorCritic(
      lambda o: hk.Linear(num_params)(dropout(hk.Linear(8)(o))),
      lambda o, a: hk.Linear(num_values)(
        dropout(hk.Linear(8)(jnp.concatenate([o, a], axis=-1)))
      ),
    )

  return make


UNROLLS = {'batch_size': 2, 'unroll_length': 2, 'queue_size': 2}
MINIBATCHES = {**UNROLLS, 'num_epochs': 1, 'num_minibatches': 2}
MAKERS = {
  'dqn': lambda: dqn.make_agent(
    dqn.Config(batch_size=4, epsilon_base=0.0), SPEC, noisy_values
  ),
  'r2d2': lambda: r2d2.make_agent(
    r2d2.Config(
      batch_size=3, burn_in_length=1, trace_length=2, period=1, epsilon_base=0.0
    ),
    SPEC,
    noisy_memory,
  ),
  'impala': lambda: impala.make_agent(
    impala.Config(**UNROLLS), SPEC, dropped_memory
  ),
  'ppo': lambda: ppo.make_agent(
    ppo.Config(**MINIBATCHES), SPEC, policy_and_value
  ),
}
MAKERS |= {
  name: lambda name=name: continuous_control.make(
    name,
    network=dropped_actor_critic(7 if name in ('d4pg', 'dmpo') else 1),
  )
  for name in continuous_control.AGENTS
}


def observations(agent, rows):
  shape = agent._spec.observations.shape
  return np.random.default_rng(0).normal(size=(rows, *shape)).astype(np.float32)


def differs(a, b):
  pairs = zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)
  return any(np.any(x != y) for x, y in pairs)


@pytest.mark.parametrize('name', ['dqn', 'ppo', 'sac'])
def test_it_keeps_the_contract(name):
  agent = MAKERS[name]()
  agent_contract.check_agent(agent, agent._spec, without_jit=False)


@pytest.mark.parametrize('name', MAKERS)
def test_every_key_acts_in_its_own_way_also_evaluated(name):
  agent = MAKERS[name]()
  params = agent.actor_params(agent.initial_learner_state(KEY))
  if 'steps' in params:
    params['steps'] += 1  # or nothing is learnt as yet, and all is chance
  act, seen = jax.jit(agent.act), observations(agent, 500)
  state = agent.initial_actor_state(500, None)
  first, again, other = (
    act(params, key, seen, state).action for key in (KEY, KEY, OTHER_KEY)
  )
  assert not differs(first, again)
  assert differs(first, other)


@pytest.mark.parametrize('name', MAKERS)
def test_every_update_draws_anew(name):
  agent = MAKERS[name]()
  state = agent.initial_learner_state(KEY)
  batch = agent_contract._Check(agent, agent._spec, 0)._batch()
  update = jax.jit(agent.update)
  after, _ = update(state, batch)
  assert differs(after.key, state.key)
  # The same step of learning, from the key that the next step would have.
  other, _ = update(state._replace(key=after.key), batch)
  assert differs(after.params, other.params)


@pytest.mark.parametrize('name', ['dqn', 'ppo'])
def test_noise_is_independent_between_the_uses_of_a_network(name):
  # An update draws noise once for each call of the network, by different keys.
  drawn = []

  def noisy(observation, *num_params):
    key = hk.next_rng_key()
    jax.debug.callback(lambda k: drawn.append(tuple(np.asarray(k))), key)
    if name == 'dqn':
      return noisy_values(observation)
    return policy_and_value(observation, *num_params)

  module = {'dqn': dqn, 'ppo': ppo}[name]
  settings = {'batch_size': 4} if name == 'dqn' else MINIBATCHES
  agent = module.make_agent(module.Config(**settings), SPEC, noisy)
  state = agent.initial_learner_state(KEY)
  batch = agent_contract._Check(agent, SPEC, 0)._batch()
  jax.effects_barrier()
  drawn.clear()
  jax.jit(agent.update)(state, batch)
  jax.effects_barrier()
  # Three batches of action values; the values of all rows, and two minibatches.
  assert len(drawn) == len(set(drawn)) == 3


def test_a_network_that_draws_nothing_leaves_all_other_chance_as_it_is():
  streams = types.Streams(np.arange(500), 500)
  config = dqn.Config(epsilon_base=0.5)

  def actions(network):
    agent = dqn.make_agent(config, SPEC, network)
    return agent.act(
      agent.actor_params(agent.initial_learner_state(KEY)),
      KEY,
      observations(agent, 500),
      agent.initial_actor_state(500, streams),
    ).action

  def values(observation):
    return jnp.zeros((observation.shape[0], 3))

  def values_and_noise(observation):
    return values(observation) + 0 * jax.random.normal(hk.next_rng_key())

  np.testing.assert_array_equal(actions(values), actions(values_and_noise))
