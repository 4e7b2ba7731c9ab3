"""MuZero: unrolls, targets and the end of episodes, against models made by hand."""

import haiku as hk
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from distacme import specs
from distacme import types
from distacme.agents import muzero
from distacme.kit import learnt_model
from distacme.kit import returns
from distacme.testing import agent_contract
from distacme.testing import environments

SPEC = specs.make_environment_spec(environments.Catch(seed=0))
KEY = jax.random.PRNGKey(0)


def test_keeps_the_contract():
  config = muzero.Config(num_simulations=4, trace_length=6, unroll_steps=2)
  # Each function of a search that is not compiled is compiled by itself, for minutes.
  agent_contract.check_agent(
    muzero.make_agent(config, SPEC), SPEC, without_jit=False
  )


class Counter:
  """A model whose state is the sum of the actions so far, plus ten for each step."""

  def __call__(self, num_actions):
    actions = jnp.arange(num_actions, dtype=jnp.float32)[None]

    def represent(observation):
      return observation.reshape(observation.shape[0], -1)[:, :1]

    def step(state, action):
      after = state + (action * actions).sum(axis=-1, keepdims=True) + 10.0
      return learnt_model.Dynamics(after, after[:, 0] * 2, after[:, 0] * 3)

    def predict(state):
      one = hk.get_parameter('one', (), init=jnp.ones)
      return learnt_model.Prediction(
        jnp.repeat(state, num_actions, axis=1), one * state[:, 0]
      )

    return learnt_model.ModelNetwork(represent, step, predict)


def sequence(length, ends_at=None, terminal=True, rows=1):
  """Returns sequences of random numbers; the row `ends_at` is LAST, and padding."""
  random = np.random.default_rng(0)
  step_type = np.full((rows, length), types.MID)
  reward = random.normal(size=(rows, length)).astype(np.float32)
  discount = np.ones((rows, length), np.float32)
  if ends_at is not None:
    step_type[:, ends_at:] = types.LAST
    reward[:, ends_at:] = discount[:, ends_at:] = 0.0
    if terminal:
      discount[:, ends_at - 1] = 0.0
  return types.Sequence(
    random.normal(size=(rows, length, 10, 5)).astype(np.float32),
    random.integers(3, size=(rows, length)).astype(np.int32),
    reward,
    discount,
    step_type,
    {
      'policy': random.dirichlet(np.ones(3), (rows, length)).astype(np.float32),
      'value': random.normal(size=(rows, length)).astype(np.float32),
    },
  )


def make_agent(**changed):
  config = muzero.Config(
    **({'unroll_steps': 3, 'n_step': 3, 'discount': 0.9} | changed)
  )
  return muzero.make_agent(config, SPEC, Counter())


def test_unrolls_follow_the_actions_that_were_taken():
  agent = make_agent()
  params = agent.initial_learner_state(KEY).params
  data = sequence(8, rows=2)
  unrolled = agent.unroll(params, data, KEY)
  for row in range(2):
    for start in range(7):
      state = data.observation[row, start, 0, 0]
      assert unrolled.value[0, row, start] == state
      for k in range(3):
        if start + k >= 7:
          break  # the last row has no action
        state = np.float32(state + data.action[row, start + k] + 10)
        found = [leaf[k, row, start] for leaf in unrolled[2:]]
        np.testing.assert_allclose(found, [state * 2, state * 3], rtol=1e-5)
        np.testing.assert_allclose(
          unrolled.value[k + 1, row, start], state, rtol=1e-5
        )


@pytest.mark.parametrize(
  ('ends_at', 'terminal'), [(None, True), (5, True), (5, False)]
)
def test_values_are_returns_bootstrapped_by_the_search(ends_at, terminal):
  agent = make_agent()
  params = agent.initial_learner_state(KEY).params
  data = sequence(8, ends_at, terminal)
  found = np.asarray(agent.value_targets(params, data, KEY))[0]
  last = 7 if ends_at is None else ends_at
  for start in range(last):
    expected, factor = 0.0, 1.0
    for step in range(start, min(start + 3, last)):
      expected += factor * data.reward[0, step]
      factor *= 0.9 * data.discount[0, step]
    end = min(start + 3, last)
    value = data.extras['value'][0, end]
    if end == last:  # nobody searched there
      value = returns.unscale(data.observation[0, end, 0, 0], np)
    np.testing.assert_allclose(
      found[start], expected + factor * value, rtol=1e-4, atol=1e-5
    )


def test_nothing_is_learnt_from_beyond_an_end():
  agent = make_agent()
  params = agent.initial_learner_state(KEY).params
  data = sequence(8, ends_at=5)
  other = sequence(8, ends_at=5)
  for leaf, spoiled in zip(
    (data.observation, data.extras['policy'], data.extras['value']),
    (other.observation, other.extras['policy'], other.extras['value']),
    strict=True,
  ):
    leaf[:, 6:] = 7.0
    np.testing.assert_array_equal(leaf[:, :6], spoiled[:, :6])
  probability = np.ones(1, np.float32)
  losses = [
    agent.loss(params, types.Batch(d, probability), KEY)[1]
    for d in (data, other)
  ]
  jax.tree.map(np.testing.assert_array_equal, *losses)


# The end of episodes.


def random_catches(episodes):
  """Returns sequences of whole episodes of catch by random actions."""
  random = np.random.default_rng(1)
  environment = environments.Catch(seed=0)
  data = sequence(11, ends_at=9, rows=episodes)
  data.extras['policy'][:] = 1 / 3
  data.extras['value'][:] = 0.0
  for row in range(episodes):
    timestep = environment.reset()
    for step in range(9):
      data.observation[row, step] = timestep.observation
      timestep = environment.step(int(random.integers(3)))
      data.reward[row, step] = timestep.reward
    data.observation[row, 9:] = timestep.observation
  return data


def learnt(agent, data, steps=500):
  update = jax.jit(agent.update)
  state = agent.initial_learner_state(KEY)
  random = np.random.default_rng(2)
  for _ in range(steps):
    rows = random.integers(len(data.reward), size=16)
    batch = jax.tree.map(lambda leaf, rows=rows: leaf[rows], data)
    state, _ = update(state, types.Batch(batch, np.ones(16, np.float32)))
  return state.params


def check_ends(agent, params, data):
  """Checks that the model ends an episode after its last step, and not before."""
  goes_on = jax.nn.sigmoid(agent.unroll(params, data, KEY).goes_on)
  for k in range(agent._config.unroll_steps):
    last = goes_on[k, :, 8 - k].mean()
    before = goes_on[k, :, : 8 - k].mean()
    assert last < 0.3, f'after {k + 1} steps the model goes on: {last}'
    assert before > 0.7, f'after {k + 1} steps the model ends: {1 - before}'


class NeverEnds(muzero.MuZero):
  """A model like that of Acme, whose softmax of one number is 1."""

  def unroll(self, params, data, key):
    unrolled = super().unroll(params, data, key)
    return unrolled._replace(goes_on=jnp.full_like(unrolled.goes_on, 20.0))


@pytest.mark.parametrize('kind', [muzero.MuZero, NeverEnds])
def test_the_end_of_an_episode_is_learnt(kind):
  agent = kind(muzero.Config(unroll_steps=3), SPEC)
  data = random_catches(200)
  params = learnt(agent, data)
  if kind is NeverEnds:
    with pytest.raises(AssertionError, match='the model goes on'):
      check_ends(agent, params, data)
  else:
    check_ends(agent, params, data)


def test_a_search_stops_where_the_model_ends():
  """Beyond an end a model promises 9 a step, which only one that goes on pays."""

  def network(ends):
    def make(num_actions):
      def represent(observation):
        return jnp.zeros((observation.shape[0], 1))

      def step(state, action):
        state = state + 1
        reward = jnp.where(state[:, 0] > 1, 9.0, 1.0)
        return learnt_model.Dynamics(
          state,
          returns.rescale(reward),
          jnp.full_like(reward, -30 if ends else 30),
        )

      def predict(state):
        one = hk.get_parameter('one', (), init=jnp.ones)
        zeros = jnp.zeros((state.shape[0], num_actions))
        return learnt_model.Prediction(zeros, 0.0 * one * state[:, 0])

      return learnt_model.ModelNetwork(represent, step, predict)

    return make

  config = muzero.Config(num_simulations=50, discount=1.0)
  found = {}
  for ends in (True, False):
    agent = muzero.make_agent(config, SPEC, network(ends))
    params = agent.initial_learner_state(KEY).params
    output = agent.act(
      params,
      KEY,
      np.zeros((1, 10, 5), np.float32),
      agent.initial_actor_state(1, None),
    )
    found[ends] = float(output.extras['value'][0])
  assert found[True] == pytest.approx(50 / 51, rel=1e-3)
  assert found[False] > 5
