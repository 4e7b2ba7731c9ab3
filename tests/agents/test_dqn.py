"""DQN against numbers worked by hand and the papers' formulas."""

import dataclasses

import haiku as hk
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from distacme import specs
from distacme import types
from distacme.agents import dqn
from distacme.testing import agent_contract
from distacme.testing import environments

SPEC = specs.make_environment_spec(environments.Catch(seed=0))
SMALL = dqn.Config(hidden_sizes=(16,), batch_size=8)
KEY = jax.random.key_data(jax.random.key(0))


def random_batch(seed=0, size=8, **changes):
  """Returns a batch of catch's shapes, with rewards and some terminations."""
  random = np.random.default_rng(seed)
  data = types.Transition(
    observation=random.normal(size=(size, 10, 5)).astype(np.float32),
    action=random.integers(0, 3, size).astype(np.int32),
    reward=random.normal(size=size).astype(np.float32),
    discount=random.choice([0.0, 0.97], size).astype(np.float32),
    next_observation=random.normal(size=(size, 10, 5)).astype(np.float32),
  )
  probability = random.uniform(0.001, 0.1, size).astype(np.float32)
  return types.Batch(data._replace(**changes), probability)


def make(config=SMALL, **changes):
  return dqn.make_agent(dataclasses.replace(config, **changes), SPEC)


def initial(agent, seed=0):
  return jax.jit(agent.initial_learner_state)(
    jax.random.key_data(jax.random.key(seed))
  )


def assert_equal(a, b):
  jax.tree.map(np.testing.assert_array_equal, a, b)


def differs(a, b):
  pairs = zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)
  return any(np.any(x != y) for x, y in pairs)


# The contract.


@pytest.mark.parametrize(
  'changes',
  [{}, {'dueling': True}, {'priority_exponent': 0.0}],
  ids=['default', 'dueling', 'uniform replay'],
)
def test_it_keeps_the_contract(changes):
  # The same for all; slow.
  agent_contract.check_agent(make(**changes), SPEC, without_jit=not changes)


# The error, worked by hand. The online network prefers action 2 at the window's
# end, the target network action 0: single Q-learning would bootstrap from 9.

Q_TM1 = [1.0, 2.0, 3.0]
Q_T_TARGET = [9.0, 5.0, 4.0]
Q_T_ONLINE = [0.0, 1.0, 6.0]


@pytest.mark.parametrize(
  ('action', 'reward', 'discount', 'error'),
  [
    (0, 0.0, 1.0, 0.0 + 1.0 * 4.0 - 1.0),
    (1, 0.0, 1.0, 0.0 + 1.0 * 4.0 - 2.0),
    (1, -0.5, 0.5, -0.5 + 0.5 * 4.0 - 2.0),
    (2, 1.0, 0.9, 1.0 + 0.9 * 4.0 - 3.0),
    (2, 7.0, 0.0, 7.0 - 3.0),  # terminal: the target is the reward
  ],
)
def test_target_is_the_targets_value_of_the_online_argmax(
  action, reward, discount, error
):
  result = dqn.td_error(
    jnp.array(Q_TM1),
    jnp.int32(action),
    jnp.float32(reward),
    jnp.float32(discount),
    jnp.array(Q_T_TARGET),
    jnp.array(Q_T_ONLINE),
  )
  np.testing.assert_allclose(result, error, rtol=1e-6)


def test_the_gradient_reaches_the_acted_value_only():
  gradients = jax.grad(dqn.td_error, argnums=(0, 4, 5))(
    jnp.array(Q_TM1),
    jnp.int32(1),
    jnp.float32(1.0),
    jnp.float32(0.9),
    jnp.array(Q_T_TARGET),
    jnp.array(Q_T_ONLINE),
  )
  np.testing.assert_array_equal(gradients[0], [0.0, -1.0, 0.0])
  np.testing.assert_array_equal(gradients[1:], np.zeros((2, 3)))


def value_network(observation):
  """Values of 3 actions, each a parameter, whatever is observed."""
  values = hk.get_parameter('values', (1, 3), init=jnp.zeros)
  return jnp.repeat(values, observation.shape[0], axis=0)


def loss_and_gradient(errors, probability, **changes):
  """Returns loss, priorities and d loss / d q for transitions of given errors.

  Item i takes action i from values of 0 and ends with reward errors[i].
  """
  size = len(errors)
  config = dataclasses.replace(SMALL, batch_size=size, **changes)
  agent = dqn.make_agent(config, SPEC, value_network)
  batch = random_batch(
    size=size,
    action=np.arange(size, dtype=np.int32),
    reward=np.array(errors, np.float32),
    discount=np.zeros(size, np.float32),
  )._replace(probability=np.array(probability, np.float32))
  params = initial(agent).params
  (loss, output), gradient = jax.value_and_grad(agent.loss, has_aux=True)(
    params, params, batch, KEY
  )
  return float(loss), output, jax.tree.leaves(gradient)[0][0]


def test_huber_loss_is_quadratic_within_delta_and_linear_beyond():
  loss, _, gradient = loss_and_gradient([0.5, -3.0, 2.0], [0.1] * 3)
  np.testing.assert_allclose(loss, (0.125 + 2.5 + 1.5) / 3)
  # Of the mean over 3 items: minus the error, cut at delta.
  np.testing.assert_allclose(gradient, np.array([-0.5, 1, -1]) / 3, rtol=1e-6)


def test_huber_delta_is_where_the_loss_turns_linear():
  loss, _, gradient = loss_and_gradient(
    [0.5, -3.0, 2.0], [0.1] * 3, huber_delta=2.0
  )
  np.testing.assert_allclose(loss, (0.125 + 4.0 + 2.0) / 3)
  np.testing.assert_allclose(gradient, np.array([-0.5, 2, -2]) / 3, rtol=1e-6)


def test_items_are_weighted_by_how_rarely_they_are_drawn():
  # min p / p = 1, 1/4, 1/16; to the power 1/2 that is 1, 1/2, 1/4.
  loss, _, gradient = loss_and_gradient(
    [1.0, 1.0, 1.0], [0.01, 0.04, 0.16], importance_exponent=0.5
  )
  np.testing.assert_allclose(loss, 0.5 * (1 + 0.5 + 0.25) / 3, rtol=1e-6)
  np.testing.assert_allclose(gradient, -np.array([1, 0.5, 0.25]) / 3, rtol=1e-6)


def test_priorities_are_the_errors_sizes_without_weights():
  _, output, _ = loss_and_gradient([0.5, -3.0, 0.0], [0.01, 0.04, 0.16])
  np.testing.assert_allclose(output.priorities, [0.5, 3.0, 0.0], atol=2e-6)
  assert (output.priorities > 0).all()  # so that every item stays drawable


def test_uniform_replay_gets_no_priorities():
  _, output, _ = loss_and_gradient([1.0], [0.1], priority_exponent=0.0)
  assert output.priorities is None


@pytest.mark.parametrize('exponent', [0.0, 0.4, 1.0])
def test_the_largest_importance_weight_is_one(exponent):
  probability = np.random.default_rng(0).uniform(1e-6, 1, 100)
  weights = dqn.importance_weights(probability.astype(np.float32), exponent)
  assert weights.max() == 1.0
  assert weights.min() > 0.0
  if exponent == 0.0:
    assert (weights == 1.0).all()


def test_full_correction_weighs_by_one_over_probability():
  weights = dqn.importance_weights(jnp.array([0.1, 0.2, 0.4]), 1.0)
  np.testing.assert_allclose(weights, [1.0, 0.5, 0.25], rtol=1e-6)


# Learning.


def test_the_target_network_starts_as_the_online_network():
  state = initial(make())
  assert_equal(state.target_params, state.params)
  assert differs(state.params, initial(make(), seed=1).params)


def test_the_target_network_is_copied_every_period_and_only_then():
  agent = make(target_update_period=3)
  update, state = jax.jit(agent.update), initial(agent)
  for step in range(1, 8):
    before = state.target_params
    state, _ = update(state, random_batch(step))
    if step % 3:
      assert_equal(state.target_params, before)
      assert differs(state.target_params, state.params)
    else:
      assert_equal(state.target_params, state.params)
  assert int(state.steps) == 7


@pytest.mark.parametrize('dueling', [False, True])
def test_updates_change_every_parameter_and_lower_the_loss(dueling):
  agent = make(dueling=dueling, learning_rate=1e-3)
  update, state = jax.jit(agent.update), initial(agent)
  batch, first = random_batch(), state.params
  losses = []
  for _ in range(30):
    state, output = update(state, batch)
    losses.append(float(output.metrics['loss']))
  assert losses[-1] < 0.5 * losses[0]
  jax.tree.map(lambda a, b: np.testing.assert_(np.any(a != b)), first, state[0])


def test_the_gradients_norm_is_bounded_before_adam():
  batch = random_batch()
  batch = batch._replace(data=batch.data._replace(reward=batch.data.reward + 9))
  moments = {}
  for bound in (0.1, 1e9):
    agent = make(max_gradient_norm=bound)
    state, output = jax.jit(agent.update)(initial(agent), batch)
    assert output.metrics['gradient_norm'] > 0.1  # measured before it is cut
    first_moment = state.optimizer_state[1][0].mu
    squares = [np.sum(np.square(m)) for m in jax.tree.leaves(first_moment)]
    moments[bound] = np.sqrt(np.sum(squares)) / 0.1  # Adam keeps a tenth of it
  np.testing.assert_allclose(moments[0.1], 0.1, rtol=1e-4)
  np.testing.assert_allclose(
    moments[1e9], output.metrics['gradient_norm'], rtol=1e-4
  )


def test_the_order_of_a_batch_does_not_matter():
  agent = make()
  state, batch = initial(agent), random_batch()
  order = np.random.default_rng(0).permutation(8)
  shuffled = jax.tree.map(lambda leaf: leaf[order], batch)
  update = jax.jit(agent.update)
  (one, out), (other, shuffled_out) = (
    update(state, batch),
    update(state, shuffled),
  )
  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-6),
    one.params,
    other.params,
  )
  np.testing.assert_allclose(
    out.priorities[order], shuffled_out.priorities, rtol=1e-5
  )


def test_metrics_have_the_sign_and_size_of_their_names():
  _, output, _ = loss_and_gradient([0.5, -3.0, 2.0], [0.1] * 3)
  metrics = {name: float(value) for name, value in output.metrics.items()}
  assert metrics == {
    'loss': pytest.approx((0.125 + 2.5 + 1.5) / 3),
    'mean_q': 0.0,
    'mean_abs_td_error': pytest.approx((0.5 + 3.0 + 2.0) / 3),
  }
  agent = make()
  state = initial(agent)
  for sign in (1.0, -1.0):
    # As large a bias on every value shows as the mean of q, with its sign.
    params = jax.tree.map(lambda leaf: leaf, state.params)
    params['linear']['b'] = sign * 100.0 * jnp.ones(3)
    _, output = jax.jit(agent.update)(
      state._replace(params=params), random_batch()
    )
    assert output.metrics['mean_q'] == pytest.approx(sign * 100.0, abs=5.0)
    assert output.metrics['gradient_norm'] > 0


# Acting.


def ladder(indices, total, base=0.4, exponent=7.0):
  return dqn.exploration_ladder(
    types.Streams(np.array(indices), total), base, exponent
  )


@pytest.mark.parametrize('total', [3, 8, 256])
def test_the_exploration_ladder_is_that_of_ape_x(total):
  expected = [0.4 ** (1 + 7 * i / (total - 1)) for i in range(total)]
  np.testing.assert_allclose(ladder(range(total), total), expected, rtol=1e-6)


def test_the_ladder_of_two_is_the_middle_of_its_halves():
  expected = [0.4 ** (1 + 7 / 4), 0.4 ** (1 + 7 * 3 / 4)]
  np.testing.assert_allclose(ladder([0, 1], 2), expected, rtol=1e-6)


def test_one_environment_explores_like_the_first_of_two():
  assert ladder([0], 1) == ladder([0], 2)
  assert 0.01 < ladder([0], 1)[0] < 0.2


def test_rows_of_several_actors_take_their_own_place_on_the_ladder():
  whole = ladder(range(6), 6)
  parts = [ladder([0, 1, 2], 6), ladder([3, 4, 5], 6)]
  np.testing.assert_array_equal(whole, np.concatenate(parts))
  agent = make()
  state = agent.initial_actor_state(3, types.Streams(np.array([3, 4, 5]), 6))
  np.testing.assert_array_equal(state.epsilon, whole[3:])


def test_the_evaluated_policy_explores_as_configured():
  assert make().initial_actor_state(2, None).epsilon.tolist() == [0, 0]
  agent = make(evaluation_epsilon=0.25)
  assert agent.initial_actor_state(2, None).epsilon.tolist() == [0.25, 0.25]


def act(epsilon, rows, share=1.0, explores=True):
  """Acts by values of which action 1's is the highest."""
  agent = dqn.make_agent(SMALL, SPEC, value_network)
  epsilon = np.broadcast_to(epsilon, rows).astype(np.float32)
  return jax.jit(agent.act)(
    {
      'network': {'~': {'values': jnp.array([[1.0, 3.0, 2.0]])}},
      'epsilon_share': jnp.float32(share),
    },
    KEY,
    np.zeros((rows, 10, 5), np.float32),
    dqn.ActorState(epsilon, np.full(rows, explores)),
  )


def test_without_exploration_the_best_action_is_chosen():
  output = act(0.0, 1000)
  assert (output.action == 1).all()
  assert output.action.dtype == np.int32


def test_full_exploration_is_uniform_over_actions():
  counts = np.bincount(act(1.0, 30_000).action, minlength=3)
  chi_square = np.sum((counts - 10_000) ** 2 / 10_000)
  assert chi_square < 13.8  # 2 degrees of freedom, p = 0.001


def test_epsilon_is_the_chance_of_a_random_action():
  counts = np.bincount(act(0.3, 30_000).action, minlength=3)
  expected = 30_000 * np.array([0.1, 0.8, 0.1])
  assert np.sum((counts - expected) ** 2 / expected) < 13.8


def test_each_row_has_its_own_epsilon():
  action = act(np.repeat([0.0, 1.0], 1000), rows=2000).action
  assert (action[:1000] == 1).all()
  assert (action[1000:] != 1).any()


def test_act_tells_the_values_of_what_it_chose_and_of_the_best():
  output = act(1.0, 100)
  np.testing.assert_array_equal(
    output.values['chosen_q'], np.array([1.0, 3.0, 2.0])[output.action]
  )
  np.testing.assert_array_equal(output.values['max_q'], np.full(100, 3.0))


def test_first_priority_equals_the_learners_error_where_target_is_online():
  # With target params equal to the online params, double Q bootstraps from the
  # maximum, and the actor's values are all that the error needs.
  agent, batch = make(), random_batch()
  state = initial(agent)
  params = agent.actor_params(state)
  actor_state = agent.initial_actor_state(8, None)
  first = agent.act(params, KEY, batch.data.observation, actor_state)
  last = agent.act(params, KEY, batch.data.next_observation, actor_state)
  batch = batch._replace(data=batch.data._replace(action=first.action))
  values = jax.tree.map(
    lambda *leaves: np.stack(leaves, axis=1), first.values, last.values
  )
  on_actor = agent.first_priority(batch.data, values)
  _, output = jax.jit(agent.update)(state, batch)
  np.testing.assert_allclose(on_actor, output.priorities, rtol=1e-4)
  # With another target network they part, where the window goes on.
  other = state._replace(target_params=initial(agent, seed=1).params)
  _, output = jax.jit(agent.update)(other, batch)
  goes_on = batch.data.discount > 0
  assert not np.isclose(on_actor, output.priorities)[goes_on].any()
  assert np.isclose(on_actor, output.priorities, 1e-4)[~goes_on].all()


# Networks and specs.


def test_a_users_network_is_the_one_that_is_used():
  def network(observation):
    flat = observation.reshape(observation.shape[0], -1)
    return hk.Linear(3, name='mine')(flat)

  agent = dqn.make_agent(SMALL, SPEC, network)
  params = initial(agent).params
  assert {k: v.shape for k, v in params['mine'].items()} == {
    'w': (50, 3),
    'b': (3,),
  }


@pytest.mark.parametrize('dueling', [False, True])
def test_images_go_through_convolutions_that_learn(dueling):
  image = specs.BoundedArray((36, 40, 2), np.uint8, 0, 255)
  config = dataclasses.replace(SMALL, dueling=dueling)
  agent = dqn.make_agent(config, SPEC._replace(observations=image))
  images = np.random.default_rng(0).integers(
    256, size=(2, 8, 36, 40, 2), dtype=np.uint8
  )
  batch = random_batch(observation=images[0], next_observation=images[1])
  state = initial(agent)
  name = 'observation_torso/nature_torso/conv2_d'
  first = state.params[name]
  assert first['w'].shape == (8, 8, 2, 32)
  new_state, _ = jax.jit(agent.update)(state, batch)
  assert differs(first, new_state.params[name])


@pytest.mark.parametrize(
  ('network', 'found'),
  [
    (lambda o: o.reshape(o.shape[0], -1)[:, :2], r'shape=\(1, 2\)'),
    (lambda o: o.reshape(o.shape[0], -1)[0, :3], r'shape=\(3,\)'),
    (lambda o: {'q': o}, "{'q': "),
  ],
)
def test_a_network_of_another_output_is_refused(network, found):
  with pytest.raises(
    ValueError, match=rf'action values of shape \(1, 3\), got .*{found}'
  ) as error:
    dqn.make_agent(SMALL, SPEC, network)
  assert 'one output per action and no squeeze' in str(error.value)


def test_a_continuous_action_is_refused_with_what_to_do():
  actions = specs.BoundedArray((2,), np.float32, -1.0, 1.0, 'torque')
  with pytest.raises(
    ValueError, match=r"DQN needs one discrete action .* got .*name='torque'"
  ) as error:
    dqn.make_agent(SMALL, SPEC._replace(actions=actions))
  assert 'Use an agent for such actions, or an environment' in str(error.value)


def test_a_nest_of_discrete_actions_is_refused():
  actions = {'left': SPEC.actions, 'right': SPEC.actions}
  with pytest.raises(ValueError, match='DQN needs one discrete action'):
    dqn.make_agent(SMALL, SPEC._replace(actions=actions))


def test_a_nest_of_observations_is_joined():
  observations = {
    'board': specs.Array((4, 2), np.uint8),
    'clock': specs.Array((), np.int32),
  }
  spec = SPEC._replace(observations=observations)
  agent = dqn.make_agent(SMALL, spec)
  shapes = {leaf.shape for leaf in jax.tree.leaves(initial(agent).params)}
  assert (4 * 2 + 1, 16) in shapes
  agent_contract.check_agent(agent, spec)


# Settings.


@pytest.mark.parametrize(
  ('changes', 'message'),
  [
    ({'learning_rate': 0.0}, r'learning_rate must be positive, got 0\.0\.'),
    ({'adam_epsilon': 0.0}, r'adam_epsilon must be positive, got 0\.0\.'),
    ({'max_gradient_norm': -1}, 'max_gradient_norm must be positive, got -1'),
    ({'huber_delta': 0}, 'huber_delta must be positive, got 0'),
    ({'hidden_sizes': (8, 0)}, r'hidden_sizes must be .* got \(8, 0\)'),
    (
      {'dueling': True, 'hidden_sizes': ()},
      r'dueling needs at least one of hidden_sizes, got \(\)',
    ),
    (
      {'target_update_period': 0},
      'target_update_period must be at least 1, got 0',
    ),
    ({'epsilon_base': 1.5}, r'epsilon_base must be in \[0, 1\], got 1\.5'),
    ({'epsilon_exponent': -1.0}, 'epsilon_exponent must not be negative'),
    ({'evaluation_epsilon': -0.1}, r'evaluation_epsilon must be in \[0, 1\]'),
    ({'importance_exponent': 2.0}, r'importance_exponent must be in \[0, 1\]'),
    # What replay refuses is refused here already, before there is an agent.
    ({'n_step': 0}, 'n_step must be at least 1, got 0'),
    ({'discount': 1.1}, r'discount must be in \[0, 1\], got 1\.1'),
    ({'batch_size': 0}, 'batch_size must be at least 1, got 0'),
    ({'samples_per_insert': 0}, 'samples_per_insert must be positive.* got 0'),
    (
      {'min_replay_size': 200_000},
      'min_replay_size must not be more than max_',
    ),
    ({'priority_exponent': -1}, 'priority_exponent must not be negative'),
    ({'block_size': 8}, 'Set priority_exponent=0 or block_size=1'),
    ({'error_buffer': 1.0}, r'error_buffer=1\.0 is too small'),
  ],
)
def test_an_impossible_setting_is_refused_by_name(changes, message):
  with pytest.raises(ValueError, match=message):
    dqn.Config(**changes)


def test_settings_reach_replay():
  config = dqn.Config(
    n_step=5,
    discount=0.9,
    batch_size=16,
    samples_per_insert=4.0,
    error_buffer=99.0,
    min_replay_size=50,
    max_replay_size=500,
    priority_exponent=0.0,
    block_size=2,
  )
  replay = dqn.make_agent(config, SPEC).replay
  (table,) = replay.tables
  assert (replay.window.n, replay.window.discount) == (5, 0.9)
  assert (replay.batch_size, replay.block_size) == (16, 2)
  assert (table.min_size, table.max_size) == (50, 500)
  assert (table.samples_per_insert, table.error_buffer) == (4.0, 99.0)
  assert table.priority_exponent == 0.0
