"""IMPALA against the paper's equations, written out, and against acting."""

import dataclasses
import functools

import haiku as hk
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from distacme import specs
from distacme import types
from distacme.agents import impala
from distacme.kit import networks
from distacme.kit import normalization
from distacme.kit import recurrent
from distacme.testing import agent_contract
from distacme.testing import environments

from . import unrolls

SPEC = specs.make_environment_spec(environments.Catch(seed=0))
SMALL = impala.Config(
  hidden_sizes=(16,), batch_size=4, unroll_length=5, queue_size=4
)
IMAGE = SPEC._replace(
  observations=specs.BoundedArray((36, 36, 1), np.uint8, 0, 255)
)
KEY = jax.random.key_data(jax.random.key(0))


def make(config=SMALL, spec=SPEC, network=None, **changes):
  return impala.make_agent(
    dataclasses.replace(config, **changes), spec, network
  )


def initial(agent, seed=0):
  return jax.jit(agent.initial_learner_state)(
    jax.random.key_data(jax.random.key(seed))
  )


def differs(a, b):
  pairs = zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)
  return any(np.any(x != y) for x, y in pairs)


# The contract.


@pytest.mark.parametrize(
  ('spec', 'changes'),
  [
    (SPEC, {}),
    (unrolls.continuous(SPEC, (2, 1)), {'lstm_size': 8}),
    (IMAGE, {}),
  ],
  ids=['feed-forward', 'continuous and recurrent', 'image'],
)
def test_it_keeps_the_contract(spec, changes):
  agent = make(spec=spec, batch_size=2, unroll_length=2, **changes)
  without_jit = spec is SPEC  # The same for all; slow.
  agent_contract.check_agent(agent, spec, without_jit=without_jit)


# V-trace.


def v_trace_by_definition(piece, config):
  """Eq. 1 of Espeholt et al. 2018, and the advantages of its section 4.2.

  With lambda as in remark 2, c_i = lambda min(c-bar, rho_i) with c-bar = 1.
  """
  value, reward, discount, rho = piece
  length = len(reward)
  clipped = np.minimum(config.clip_rho, rho)
  c = config.trace_decay * np.minimum(1.0, rho)
  target = np.array(value)
  for s in range(length):
    for t in range(s, length):
      delta = clipped[t] * (reward[t] + discount[t] * value[t + 1] - value[t])
      target[s] += np.prod(discount[s:t]) * np.prod(c[s:t]) * delta
  mixed = config.trace_decay * target + (1 - config.trace_decay) * value
  mixed[-1] = value[-1]
  q = reward + discount * mixed[1:]
  return target[:-1], np.minimum(config.clip_pg_rho, rho) * (q - value[:-1])


jitted_v_trace = jax.jit(impala.v_trace, static_argnums=5)


def v_trace(piece, config, stepped=None):
  if stepped is None:
    stepped = np.ones(len(piece.reward), bool)
  columns = (np.float32(column) for column in piece)
  return jitted_v_trace(*columns, stepped, config)


CLIPS = [
  {},
  {'clip_rho': 2.5},
  {'clip_rho': 0.7, 'clip_pg_rho': 3.0},
  {'trace_decay': 0.8},
  {'trace_decay': 0.0, 'clip_pg_rho': 0.5},
  {'clip_rho': np.inf, 'clip_pg_rho': np.inf},
]


@pytest.mark.parametrize('changes', CLIPS)
@pytest.mark.parametrize('length', [1, 8])
def test_v_trace_is_its_definition(length, changes):
  config = dataclasses.replace(SMALL, **changes)
  random = np.random.default_rng(length)
  piece = unrolls.random_piece(random, length)
  piece = piece._replace(discount=random.uniform(0.0, 1.0, length))
  target, advantage = v_trace_by_definition(piece, config)
  result = v_trace(piece, config)
  np.testing.assert_allclose(result.target_tm1, target, rtol=1e-4, atol=1e-5)
  np.testing.assert_allclose(
    result.advantage_tm1, advantage, rtol=1e-4, atol=1e-5
  )


def test_on_policy_targets_are_n_step_returns():
  piece = unrolls.random_piece(np.random.default_rng(0), 6)
  piece = piece._replace(rho=np.ones(6))
  returns = [piece.value[-1]]
  for reward, discount in zip(
    piece.reward[::-1], piece.discount[::-1], strict=True
  ):
    returns.append(reward + discount * returns[-1])
  returns = np.array(returns[:0:-1])
  result = v_trace(piece, SMALL)
  np.testing.assert_allclose(result.target_tm1, returns, rtol=1e-5)
  np.testing.assert_allclose(
    result.advantage_tm1, returns - piece.value[:-1], rtol=1e-4, atol=1e-5
  )


MU, PI = np.array([0.7, 0.2, 0.1]), np.array([0.1, 0.3, 0.6])
REWARDS = np.array([1.0, -2.0, 4.0])


def expected_over_mu(config, which):
  """Returns the mean, over actions drawn from mu, of a bandit's V-trace."""
  total = 0.0
  for a in range(3):
    piece = unrolls.Piece(
      np.zeros(2), REWARDS[[a]], np.zeros(1), PI[[a]] / MU[[a]]
    )
    total += MU[a] * float(getattr(v_trace(piece, config), f'{which}_tm1')[0])
  return total


def test_without_clips_the_targets_are_unbiased():
  config = dataclasses.replace(SMALL, clip_rho=np.inf, clip_pg_rho=np.inf)
  expected = PI @ REWARDS
  assert expected_over_mu(config, 'target') == pytest.approx(expected, rel=1e-5)
  assert expected_over_mu(config, 'advantage') == pytest.approx(
    expected, rel=1e-5
  )


def test_with_clips_the_targets_are_those_of_the_policy_between():
  # Eq. 3 without its denominator, since the values are 0.
  config = dataclasses.replace(SMALL, clip_rho=1.0, clip_pg_rho=2.0)
  assert expected_over_mu(config, 'target') == pytest.approx(
    np.minimum(MU, PI) @ REWARDS, rel=1e-5
  )
  assert expected_over_mu(config, 'advantage') == pytest.approx(
    np.minimum(2 * MU, PI) @ REWARDS, rel=1e-5
  )


@pytest.mark.parametrize('changes', CLIPS[:4])
@pytest.mark.parametrize('name', unrolls.CROSSINGS)
def test_an_unroll_across_episodes_is_each_of_them_by_itself(name, changes):
  config = dataclasses.replace(SMALL, **changes)
  pieces = unrolls.crossing(name)
  unroll, stepped = unrolls.joined(pieces)
  apart = [v_trace_by_definition(piece, config) for piece in pieces]
  result = v_trace(unroll, config, stepped)
  for of_pieces, of_unroll in zip(
    map(np.concatenate, zip(*apart, strict=True)), result, strict=True
  ):
    np.testing.assert_allclose(
      of_unroll[stepped], of_pieces, rtol=1e-4, atol=1e-5
    )
  # Where nothing was done there is nothing to learn.
  nothing = ~stepped
  np.testing.assert_allclose(
    result.target_tm1[nothing], unroll.value[:-1][nothing], rtol=1e-6
  )
  assert not np.asarray(result.advantage_tm1)[nothing].any()


# The loss.


def table_network(num_params):
  """A policy and a value of their own for each of 20 numbers observed."""

  def torso(observation):
    return jax.nn.one_hot(observation.reshape(-1).astype(jnp.int32), 20)

  def head(row):
    init = hk.initializers.RandomNormal()
    policy = hk.get_parameter('policy', (20, num_params), init=init)
    value = hk.get_parameter('value', (20, 1), init=init)
    return row @ policy, (row @ value)[:, 0]

  return recurrent.RecurrentNetwork(torso, None, head)


NUMBERED = SPEC._replace(observations=specs.Array((), np.float32))


@functools.cache
def table_agent(**changes):
  """Returns an agent's settings, params, and the loss with its gradient.

  Of unrolls of 9 rows, as `CROSSINGS` has them.
  """
  changes = {'normalize_returns': False, **changes}
  config = dataclasses.replace(
    SMALL, unroll_length=8, batch_size=1, discount=0.9, **changes
  )
  agent = impala.make_agent(config, NUMBERED, table_network)
  params = initial(agent).params
  returns = normalization.initial_of_returns()

  def loss(params, data):
    loss, (metrics, _) = agent.loss(params, data, returns, KEY)
    return loss, metrics

  return config, params, jax.jit(jax.value_and_grad(loss, has_aux=True))


@pytest.mark.parametrize('correction', [True, False])
@pytest.mark.parametrize('name', unrolls.CROSSINGS)
def test_the_loss_is_what_the_paper_says(name, correction):
  pieces = unrolls.crossing(name)
  _, stepped = unrolls.joined(pieces)
  data = unrolls.numbered(pieces, 3)
  config, params, function = table_agent(
    value_weight=0.3, entropy_weight=0.2, off_policy_correction=correction
  )
  (loss, metrics), _ = function(params, data)
  table = {name: np.asarray(leaf) for name, leaf in params['~'].items()}

  length = len(stepped)
  logits = table['policy'][:length].astype(np.float64)
  log_probs = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
  sample = data.extras['sample'][0, :length]
  log_prob = log_probs[np.arange(length), sample]
  rho = np.exp(log_prob - data.extras['log_prob'][0, :length])
  start, policy_loss, value_loss = 0, 0.0, 0.0
  for piece in pieces:
    rows = slice(start, start + len(piece.reward))
    ratio = rho[rows] if correction else np.ones_like(rho[rows])
    value = table['value'][start : rows.stop + 1, 0].astype(np.float64)
    target, advantage = v_trace_by_definition(
      piece._replace(value=value, rho=ratio), config
    )
    policy_loss -= log_prob[rows] @ advantage / stepped.sum()
    value_loss += ((target - value[:-1]) ** 2).sum() / 2 / stepped.sum()
    start = rows.stop + 1
  entropy = -(np.exp(log_probs) * log_probs).sum(-1)[stepped].mean()
  assert 0 < entropy < np.log(3)  # its sign: that of an entropy
  expected = {
    'policy_loss': policy_loss,
    'value_loss': value_loss,
    'entropy': entropy,
    'mean_value': table['value'][:length, 0][stepped].mean(),
    'mean_rho': rho[stepped].mean(),
    'loss': policy_loss + 0.3 * value_loss - 0.2 * entropy,
    'size_of_returns': 1.0,
  }
  assert metrics.keys() == expected.keys()
  for key, value in expected.items():
    assert metrics[key] == pytest.approx(value, rel=1e-4, abs=1e-5), key
  assert loss == metrics['loss']


def loss_and_gradient(data, **changes):
  _, params, function = table_agent(**changes)
  (loss, _), gradient = function(params, data)
  return float(loss), gradient


@pytest.mark.parametrize('name', unrolls.CROSSINGS)
def test_steps_get_a_gradient_and_other_rows_none(name):
  pieces = unrolls.crossing(name)
  _, stepped = unrolls.joined(pieces)
  data = unrolls.numbered(pieces, 3)
  _, gradient = loss_and_gradient(data)
  rows = np.append(stepped, False)  # the last one only bootstraps
  for leaf in jax.tree.leaves(gradient):
    leaf = np.asarray(leaf)[: len(rows)]
    assert leaf[rows].any(axis=1).all()
    assert not leaf[~rows].any()


def test_without_the_correction_it_does_not_matter_who_acted():
  data = unrolls.numbered(unrolls.crossing('several'), 3)
  other = {**data.extras, 'log_prob': data.extras['log_prob'] - 1.0}
  other = data._replace(extras=other)
  for corrects in (False, True):
    changes = {'off_policy_correction': corrects}
    loss, gradient = loss_and_gradient(data, **changes)
    other_loss, other_gradient = loss_and_gradient(other, **changes)
    assert (loss != other_loss) == corrects
    assert differs(gradient, other_gradient) == corrects


def test_rewards_are_scaled_then_clipped_to_learn_from():
  data = unrolls.numbered(unrolls.crossing('several'), 3)
  changed = data._replace(reward=(data.reward * 2).clip(-0.5, 0.5))
  loss, _ = loss_and_gradient(data, reward_scale=2.0, max_abs_reward=0.5)
  assert loss == pytest.approx(loss_and_gradient(changed)[0])
  assert loss_and_gradient(data)[0] != pytest.approx(loss)


def test_the_size_of_rewards_does_not_matter_if_returns_are_normalised():
  data = unrolls.numbered(unrolls.crossing('several'), 3)
  larger = data._replace(reward=100 * data.reward)

  def gradients(**changes):
    # Values of 0, as a new network's nearly are: else they are sizes themselves.
    config, params, _ = table_agent(**changes)
    agent = impala.make_agent(config, NUMBERED, table_network)
    params['~']['value'] = jnp.zeros_like(params['~']['value'])
    gradient = jax.jit(jax.grad(agent.loss, has_aux=True))
    returns = normalization.initial_of_returns()
    return [gradient(params, d, returns, KEY) for d in (data, larger)]

  (one, (_, small)), (hundred, (metrics, large)) = gradients(
    normalize_returns=True, entropy_weight=0.0
  )
  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-5),
    one,
    hundred,
  )
  assert normalization.root_mean_square(large) == pytest.approx(
    100 * float(normalization.root_mean_square(small)), rel=1e-3
  )
  assert metrics['size_of_returns'] == normalization.root_mean_square(large)
  (one, _), (hundred, _) = gradients(entropy_weight=0.0)
  assert differs(one, hundred)


# Acting, and what is stored of it.


def own_network(lstm_size):
  """Returns a network that tests can apply themselves."""

  def network(num_params):
    return recurrent.RecurrentNetwork(
      networks.MLPTorso((8,)),
      hk.LSTM(lstm_size) if lstm_size else None,
      networks.PolicyValueHead(num_params),
    )

  return network


COUNTING = specs.make_environment_spec(environments.Counting())


@functools.cache
def acted(lstm_size):
  """Returns an agent with large weights, and two batches of its own acting.

  Episodes of 2, 3 and 4 steps end within the unrolls of 5.
  """
  agent = make(spec=COUNTING, network=own_network(lstm_size), batch_size=2)
  state = initial(agent)
  # The first policy is nearly even, whatever is observed.
  random = np.random.default_rng(0)
  params = jax.tree.map(
    lambda leaf: random.normal(size=leaf.shape).astype(np.float32) / 2,
    state.params,
  )
  games = [
    environments.Counting((2, 3, 4), (True, False), first_episode=first)
    for first in (0, 1)
  ]
  state = state._replace(params=params)
  return agent, params, unrolls.played(agent, games, state, num_batches=3)


@pytest.mark.parametrize('lstm_size', [0, 6])
def test_the_learner_sees_what_the_actor_saw(lstm_size):
  # One statement about the stored state, the reset within an unroll, the order of
  # rows and the chances stored: the policies of both are the same, row by row.
  _, params, batches = acted(lstm_size)
  network = recurrent.unrolled(lambda: own_network(lstm_size)(2))
  log_probs = []
  for data in batches:
    (policy, _), _ = network.unroll(
      params,
      None,
      data.observation,
      data.step_type == types.FIRST,
      data.start_state,
    )
    chosen = jax.nn.log_softmax(policy)
    chosen = np.take_along_axis(
      np.asarray(chosen), data.extras['sample'][..., None], -1
    )[..., 0]
    np.testing.assert_allclose(
      chosen[:, :-1], data.extras['log_prob'][:, :-1], rtol=1e-4, atol=1e-5
    )
    np.testing.assert_array_equal(data.action, data.extras['sample'])
    log_probs.append(chosen)
    started = data.step_type[:, 1:] == types.FIRST
    assert started.any()
    assert (data.step_type == types.LAST).any()
  assert np.std(log_probs) > 0.1  # else this would say nothing


def test_an_unroll_carries_on_with_the_memory_of_the_one_before():
  _, params, batches = acted(lstm_size=6)
  first, second = batches[0], batches[1]
  assert not any(leaf.any() for leaf in jax.tree.leaves(first.start_state))
  assert all(leaf.any() for leaf in jax.tree.leaves(second.start_state))
  network = recurrent.unrolled(lambda: own_network(6)(2))
  _, state = network.unroll(
    params,
    None,
    first.observation[:, :-1],
    first.step_type[:, :-1] == 0,
    first.start_state,
  )
  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5),
    state,
    second.start_state,
  )
  # The last row of an unroll is the first of the next.
  np.testing.assert_array_equal(
    first.observation[:, -1], second.observation[:, 0]
  )


@pytest.mark.parametrize('lstm_size', [0, 6])
def test_on_policy_the_ratio_is_one(lstm_size):
  agent, params, batches = acted(lstm_size)
  loss = jax.jit(agent.loss)
  for data in batches:
    _, (metrics, _) = loss(
      params, data, normalization.initial_of_returns(), KEY
    )
    assert metrics['mean_rho'] == pytest.approx(1.0, abs=1e-4)


def fixed_network(num_params):
  """Chances of 0.2, 0.5 and 0.3, whatever is observed."""
  assert num_params == 3

  def head(features):
    rows = features.shape[0]
    logits = hk.get_parameter(
      'logits', (1, 3), init=hk.initializers.Constant(np.log([[0.2, 0.5, 0.3]]))
    )
    return jnp.repeat(logits, rows, axis=0), jnp.zeros(rows)

  return recurrent.RecurrentNetwork(networks.flatten_observation, None, head)


def act(rows, explores):
  agent = make(network=fixed_network)
  streams = types.Streams(np.arange(rows), rows) if explores else None
  return agent.act(
    initial(agent).params,
    KEY,
    np.zeros((rows, 10, 5), np.float32),
    agent.initial_actor_state(rows, streams),
  )


def test_actions_are_drawn_from_the_policy():
  output = act(30_000, explores=True)
  counts = np.bincount(output.action, minlength=3)
  expected = 30_000 * np.array([0.2, 0.5, 0.3])
  # Chi-square with 2 degrees of freedom, p = 0.001.
  assert np.sum((counts - expected) ** 2 / expected) < 13.8
  np.testing.assert_allclose(
    np.exp(output.extras['log_prob']),
    np.array([0.2, 0.5, 0.3])[output.action],
    rtol=1e-5,
  )


def test_the_evaluated_policy_takes_the_likeliest_action():
  assert (act(100, explores=False).action == 1).all()


def test_continuous_actions_are_within_their_bounds_and_samples_are_not():
  spec = unrolls.continuous(SPEC)
  agent = make(spec=spec)
  state = agent.initial_actor_state(500, types.Streams(np.arange(500), 500))
  output = agent.act(
    initial(agent).params, KEY, np.zeros((500, 10, 5), np.float32), state
  )
  for action in np.asarray(output.action):
    spec.actions.validate(action)
  assert np.abs(output.extras['sample']).max() > 1.0
  assert (output.action == np.float32(2.0)).any()


# Learning.


def random_batch(seed=0, size=4, length=6):
  """Returns a batch of catch's shapes."""
  random = np.random.default_rng(seed)
  sample = random.integers(0, 3, (size, length)).astype(np.int32)
  step_type = np.ones((size, length), np.int8)
  step_type[::2, 2:4] = 2, 0
  stepped = step_type != types.LAST
  data = types.Sequence(
    observation=random.normal(size=(size, length, 10, 5)).astype(np.float32),
    action=sample,
    reward=random.normal(size=(size, length)).astype(np.float32) * stepped,
    discount=np.float32(stepped),
    step_type=step_type,
    extras={
      'sample': sample,
      'log_prob': np.full((size, length), -np.log(3), np.float32),
    },
  )
  return types.Batch(data, np.ones(size, np.float32))


def test_updates_change_every_parameter_and_values_come_near_their_targets():
  agent = make(learning_rate=1e-2, entropy_weight=0.0)
  update, state = jax.jit(agent.update), initial(agent)
  batch, first = random_batch(), state.params
  losses = []
  for _ in range(60):
    state, output = update(state, batch)
    losses.append(float(output.metrics['value_loss']))
  assert losses[-1] < 0.3 * losses[0]
  jax.tree.map(lambda a, b: np.testing.assert_(np.any(a != b)), first, state[0])


def test_what_earned_more_becomes_likelier():
  # Action 2 earns 1 and the others nothing, in episodes of one step.
  agent = make(network=fixed_network, learning_rate=0.01, entropy_weight=0.0)
  state = initial(agent)
  batch = random_batch()
  data = batch.data._replace(
    step_type=np.where(np.arange(6) % 2, 2, 0).astype(np.int8)
    * np.ones((4, 1), np.int8),
    discount=np.zeros((4, 6), np.float32),
    reward=np.float32(batch.data.extras['sample'] == 2)
    * (np.arange(6) % 2 < 1),
  )
  data.extras['log_prob'] = np.log([0.2, 0.5, 0.3])[
    data.extras['sample']
  ].astype(np.float32)
  new, _ = agent.update(state, batch._replace(data=data))
  change = new.params['~']['logits'] - state.params['~']['logits']
  assert change[0, 2] > 0 > change[0, :2].max()


def test_the_evaluated_policy_draws_if_asked_to():
  agent = make(network=fixed_network, evaluate_greedily=False)
  assert agent.initial_actor_state(2, None).explores.all()
  assert not make().initial_actor_state(2, None).explores.any()


def test_the_entropy_weight_draws_the_policy_to_even_chances():
  agent = make(network=fixed_network, learning_rate=0.01, entropy_weight=10.0)
  update, state = jax.jit(agent.update), initial(agent)
  entropies = []
  for _ in range(20):
    state, output = update(state, random_batch())
    entropies.append(float(output.metrics['entropy']))
  assert entropies == sorted(entropies)
  assert entropies[0] == pytest.approx(1.0297, abs=1e-4)  # of 0.2, 0.5, 0.3
  assert entropies[-1] > 1.05


def test_the_gradients_norm_is_bounded_before_adam():
  batch = random_batch()
  moments = {}
  for bound in (0.01, 1e9):
    agent = make(max_gradient_norm=bound)
    state, output = jax.jit(agent.update)(initial(agent), batch)
    assert output.metrics['gradient_norm'] > 0.01  # measured before it is cut
    first_moment = state.optimizer_state[1][0].mu
    squares = [np.sum(np.square(m)) for m in jax.tree.leaves(first_moment)]
    moments[bound] = np.sqrt(np.sum(squares))  # Adam keeps nothing of before
  np.testing.assert_allclose(moments[0.01], 0.01, rtol=1e-4)
  np.testing.assert_allclose(
    moments[1e9], output.metrics['gradient_norm'], rtol=1e-4
  )


# Networks, specs and settings.


def test_the_memory_has_the_size_asked_for():
  agent = make(lstm_size=7)
  state = agent.initial_actor_state(3, None)
  assert {leaf.shape for leaf in jax.tree.leaves(state.memory)} == {(3, 7)}
  assert make().initial_actor_state(3, None).memory == ()


@pytest.mark.parametrize(
  ('convolutions', 'first'),
  [('shallow', (8, 8, 1, 16)), ('deep', (3, 3, 1, 16))],
)
def test_images_go_through_the_papers_convolutions_which_learn(
  convolutions, first
):
  agent = make(spec=IMAGE, convolutions=convolutions, unroll_length=2)
  params = initial(agent).params
  (name,) = (k for k in params if k.endswith(f'{convolutions}_torso/conv2_d'))
  assert params[name]['w'].shape == first
  data = random_batch(size=1, length=4).data
  images = np.random.default_rng(0).integers(
    256, size=(1, 4, 36, 36, 1), dtype=np.uint8
  )
  gradient, _ = jax.jit(jax.grad(agent.loss, has_aux=True))(
    params,
    data._replace(observation=images),
    normalization.initial_of_returns(),
    KEY,
  )
  assert all(np.any(leaf) for leaf in jax.tree.leaves(gradient[name]))


def test_a_network_of_another_output_is_refused():
  def network(num_params):
    return own_network(0)(num_params + 1)

  with pytest.raises(
    ValueError, match=r'shape \(1, 3\), and values, shape \(1,\), got .*1, 4'
  ):
    make(network=network)


def test_other_actions_are_refused_with_what_to_do():
  actions = specs.BoundedArray((2,), np.int32, 0, 3, 'keys')
  with pytest.raises(
    ValueError, match=r"IMPALA needs one discrete action .* got .*name='keys'"
  ):
    make(spec=SPEC._replace(actions=actions))


@pytest.mark.parametrize(
  ('changes', 'message'),
  [
    ({'learning_rate': 0.0}, r'learning_rate must be positive, got 0\.0\.'),
    ({'adam_epsilon': 0.0}, r'adam_epsilon must be positive, got 0\.0\.'),
    ({'max_gradient_norm': -1}, 'max_gradient_norm must be positive, got -1'),
    ({'reward_scale': 0}, 'reward_scale must be positive, got 0'),
    ({'max_abs_reward': 0}, 'max_abs_reward must be positive, got 0'),
    ({'clip_rho': 0}, 'clip_rho must be positive, got 0'),
    ({'clip_pg_rho': np.nan}, 'clip_pg_rho must be positive, got nan'),
    ({'discount': 1.1}, r'discount must be in \[0, 1\], got 1\.1'),
    ({'trace_decay': -0.1}, r'trace_decay must be in \[0, 1\], got -0\.1'),
    ({'value_weight': -1}, 'value_weight must not be negative, got -1'),
    ({'entropy_weight': -1}, 'entropy_weight must not be negative, got -1'),
    ({'lstm_size': -1}, 'lstm_size must not be negative, got -1'),
    ({'hidden_sizes': (8, 0)}, r'hidden_sizes must be .* got \(8, 0\)'),
    ({'unroll_length': 0}, 'unroll_length must be at least 1, got 0'),
    # What replay refuses is refused here already, before there is an agent.
    ({'batch_size': 0}, 'batch_size must be at least 1, got 0'),
    ({'queue_size': 8}, 'batch_size must not be more than queue_size=8'),
  ],
)
def test_an_impossible_setting_is_refused_by_name(changes, message):
  with pytest.raises(ValueError, match=message):
    impala.Config(**changes)


def test_settings_reach_replay():
  replay = make(batch_size=3, unroll_length=7, queue_size=9).replay
  (table,) = replay.tables
  assert table.used_once
  assert replay.window.across_episodes
  assert (replay.window.length, replay.window.period) == (8, 7)
  assert (replay.batch_size, table.max_size) == (3, 9)
