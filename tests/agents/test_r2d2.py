"""R2D2 against numbers worked by hand, and what it acts against what it learns."""

import dataclasses
import functools

import haiku as hk
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import rlax

from distacme import row_layout
from distacme import specs
from distacme import types
from distacme.acting import actor as actor_lib
from distacme.acting import params as params_lib
from distacme.acting import policy as policy_lib
from distacme.agents import dqn
from distacme.agents import r2d2
from distacme.environments import vector
from distacme.kit import recurrent
from distacme.kit import returns
from distacme.replay.writers import factory
from distacme.run import run_state
from distacme.testing import agent_contract
from distacme.testing import environments
from tests.replay import playing

FIRST, MID, LAST = 0, 1, 2

SPEC = specs.make_environment_spec(environments.Counting())
SMALL = r2d2.Config(
  discount=0.9,
  n_step=3,
  burn_in_length=2,
  trace_length=4,
  period=2,
  hidden_sizes=(8,),
  lstm_size=8,
  batch_size=6,
)
LENGTH = 7  # rows of a sequence: 2 of burn-in, 4 learnt from, 1 that bootstraps


def make(config=SMALL, network=None, **changes):
  return r2d2.make_agent(dataclasses.replace(config, **changes), SPEC, network)


def key(seed=0):
  return jax.random.key_data(jax.random.key(seed))


@functools.cache
def initial(agent, seed=0):
  return jax.jit(agent.initial_learner_state)(key(seed))


def differs(a, b):
  pairs = zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)
  return any(np.any(x != y) for x, y in pairs)


def random_batch(step_types=None, seed=0, state_size=8, **changes):
  """Returns sequences with random steps of `step_types`, by default 6 of them."""
  if step_types is None:
    step_types = [
      [FIRST] + 6 * [MID],
      7 * [MID],
      [FIRST, MID, MID, LAST, LAST, LAST, LAST],
      4 * [MID] + 3 * [LAST],
      6 * [MID] + [LAST],
      7 * [MID],
    ]
  step_type = np.array(step_types, np.int8)
  random = np.random.default_rng(seed)
  shape = step_type.shape
  acted = step_type != LAST
  state = random.normal(size=(2, shape[0], state_size)).astype(np.float32)
  data = types.Sequence(
    observation=random.normal(size=(*shape, 2)).astype(np.float32),
    action=random.integers(0, 2, shape).astype(np.int32),
    reward=random.normal(size=shape).astype(np.float32) * acted,
    discount=random.choice([0.0, 1.0], shape).astype(np.float32) * acted,
    step_type=step_type,
    start_state=hk.LSTMState(*state),
  )
  probability = random.uniform(0.001, 0.1, shape[0]).astype(np.float32)
  return types.Batch(data._replace(**changes), probability)


def replaced(batch, **changes):
  return batch._replace(data=batch.data._replace(**changes))


def changed(leaf, rows, by=5):
  """Returns a copy of [B, L, ...] with `rows` [L] or [B, L] another."""
  leaf, by = np.array(leaf), np.asarray(by, leaf.dtype)
  leaf[np.broadcast_to(rows, leaf.shape[:2])] += by
  return leaf


# The contract.


IMAGES = SPEC._replace(
  observations=specs.BoundedArray((36, 36, 1), np.uint8, 0, 255)
)

TINY = dataclasses.replace(
  SMALL, burn_in_length=1, trace_length=2, n_step=2, batch_size=3
)
UNIFORM = dataclasses.replace(
  TINY, burn_in_length=0, priority_exponent=0.0, use_start_state=False
)


@pytest.mark.parametrize(
  ('config', 'spec'),
  [(TINY, SPEC), (UNIFORM, IMAGES)],
  ids=['prioritised, of vectors', 'uniform, of images'],
)
def test_it_keeps_the_contract(config, spec):
  agent = r2d2.make_agent(config, spec)
  without_jit = spec is SPEC  # The same for all; slow.
  agent_contract.check_agent(agent, spec, without_jit=without_jit)


# Rescaled values.


@pytest.mark.parametrize(
  ('x', 'h'), [(0.0, 0.0), (3.0, 1.003), (-8.0, -2.008), (99.0, 9.099)]
)
def test_rescaling_by_hand(x, h):
  np.testing.assert_allclose(returns.rescale(jnp.float32(x)), h, rtol=1e-5)
  np.testing.assert_allclose(returns.unscale(jnp.float32(h)), x, rtol=1e-5)


@pytest.mark.parametrize('size', [1e-2, 1.0, 300.0])
def test_rescaling_and_its_inverse_cancel(size):
  x = jnp.linspace(-size, size, 41)
  for one, other in (
    (returns.rescale, returns.unscale),
    (returns.unscale, returns.rescale),
  ):
    np.testing.assert_allclose(other(one(x)), x, rtol=1e-5, atol=1e-6)


def test_rescaling_is_that_of_rlax():
  x = jnp.linspace(-300.0, 300.0, 41)
  np.testing.assert_allclose(
    returns.rescale(x), rlax.signed_hyperbolic(x, 1e-3), rtol=1e-5
  )
  np.testing.assert_allclose(
    returns.unscale(x / 10), rlax.signed_parabolic(x / 10, 1e-3), rtol=1e-3
  )


def test_the_actors_rescaling_is_the_learners():
  x = np.linspace(-300.0, 300.0, 41, dtype=np.float32)
  for function in (returns.rescale, returns.unscale):
    on_actor = function(x, np)
    assert isinstance(on_actor, np.ndarray) and on_actor.dtype == np.float32
    np.testing.assert_allclose(on_actor, function(jnp.array(x)), rtol=1e-5)


# The error, worked by hand. The online network prefers actions 0, 1, 0, 1, 0; the
# target network always action 1: single Q-learning would bootstrap from others.

Q = [[1.0, 0.0], [0.0, 1.0], [1.0, 0.0], [0.0, 1.0], [1.0, 0.0]]
Q_TARGET = [[1.0, 2.0], [3.0, 4.0], [5.0, 6.0], [7.0, 8.0], [9.0, 10.0]]
#  bootstraps from:  1          4          5          8          9


def errors(step_type, reward, discount, n_step, q=Q, q_target=Q_TARGET):
  """Returns errors of actions that are worth 1, 0, 0, 1; gamma is a half."""
  data = types.Sequence(
    observation=(),
    action=jnp.array([0, 0, 1, 1, 0]),
    reward=jnp.array(reward),
    discount=jnp.array(discount),
    step_type=jnp.array(step_type),
  )
  config = dataclasses.replace(
    SMALL, discount=0.5, n_step=n_step, value_rescaling=False
  )
  return one_error(jnp.array(q), jnp.array(q_target), data, config)


def one_error(q, q_target, data, config):
  """Returns the errors [T] of one sequence, a batch of one."""
  q, q_target, data = jax.tree.map(lambda x: x[None], (q, q_target, data))
  return r2d2.td_errors(q, q_target, data, config)[0]


def test_returns_bootstrap_from_the_targets_value_of_the_online_argmax():
  result = errors(5 * [MID], [1.0, 2.0, 3.0, 4.0, 0.0], 5 * [1.0], n_step=1)
  targets = [1 + 4 / 2, 2 + 5 / 2, 3 + 8 / 2, 4 + 9 / 2]
  np.testing.assert_allclose(result, np.array(targets) - [1, 0, 0, 1])


def test_returns_sum_n_steps_and_are_cut_by_the_sequences_end():
  result = errors(5 * [MID], [1.0, 2.0, 3.0, 4.0, 0.0], 5 * [1.0], n_step=2)
  targets = [1 + 2 / 2 + 5 / 4, 2 + 3 / 2 + 8 / 4, 3 + 4 / 2 + 9 / 4]
  cut = 4 + 9 / 2
  np.testing.assert_allclose(result, np.array([*targets, cut]) - [1, 0, 0, 1])


OVER = [MID, MID, MID, LAST, LAST]  # row 4 is padding


@pytest.mark.parametrize('n_step', [2, 3, 9])
def test_returns_end_with_the_reward_of_a_terminal_step(n_step):
  result = errors(
    OVER, [1.0, 2.0, 3.0, 0.0, 0.0], [1.0, 1.0, 0.0, 0.0, 0.0], n_step
  )
  first = 1 + 2 / 2 + (5 / 4 if n_step == 2 else 3 / 4)
  targets = [first, 2 + 3 / 2, 3]
  np.testing.assert_allclose(result[:3], np.array(targets) - [1, 0, 0])


@pytest.mark.parametrize('n_step', [1, 2, 3, 9])
def test_returns_bootstrap_from_the_last_observation_of_a_truncated_episode(
  n_step,
):
  result = errors(
    OVER, [1.0, 2.0, 3.0, 0.0, 0.0], [1.0, 1.0, 1.0, 0.0, 0.0], n_step
  )
  last = 3 + 8 / 2
  targets = {
    1: [1 + 4 / 2, 2 + 5 / 2, last],
    2: [1 + 2 / 2 + 5 / 4, 2 + last / 2, last],
  }.get(n_step, [1 + (2 + last / 2) / 2, 2 + last / 2, last])
  np.testing.assert_allclose(result[:3], np.array(targets) - [1, 0, 0])


def test_rescaled_values_bootstrap_and_are_rescaled_again():
  # h(3) = 1.003, h(-8) = -2.008.
  data = types.Sequence(
    observation=(),
    action=jnp.array([0, 0, 0]),
    reward=jnp.array([1.5, -8.0, 0.0]),
    discount=jnp.array([1.0, 0.0, 0.0]),
    step_type=jnp.array([MID, MID, LAST]),
  )
  q = jnp.zeros((3, 1))
  q_target = jnp.array([[7.0], [1.003], [9.0]])
  config = dataclasses.replace(SMALL, discount=0.5, n_step=1)
  result = one_error(q, q_target, data, config)
  np.testing.assert_allclose(result, [1.003, -2.008], rtol=1e-4)


def test_the_gradient_reaches_the_acted_values_only():
  def total(q, q_target):
    return errors(
      5 * [MID], [1.0, 2.0, 3.0, 4.0, 0.0], 5 * [1.0], 2, q, q_target
    ).sum()

  of_q, of_target = jax.grad(total, (0, 1))(jnp.array(Q), jnp.array(Q_TARGET))
  np.testing.assert_array_equal(
    of_q, [[-1, 0], [-1, 0], [0, -1], [0, -1], [0, 0]]
  )
  np.testing.assert_array_equal(of_target, np.zeros((5, 2)))


@pytest.mark.parametrize('steps', [1, 2, 3, 6])
@pytest.mark.parametrize('n_step', [1, 2, 5, 9])
@pytest.mark.parametrize('xp', [np, jnp], ids=['actor', 'learner'])
def test_returns_are_those_of_rlax(steps, n_step, xp):
  random = np.random.default_rng(0)
  shape = (4, steps)
  r_t, v_t = random.normal(size=(2, *shape)).astype(np.float32)
  discount_t = random.choice([0.0, 0.9], shape).astype(np.float32)
  goes_on_t = random.choice([True, False], shape)
  found = returns.n_step_returns(
    *map(xp.asarray, (r_t, discount_t, v_t, goes_on_t)), n_step, xp
  )
  expected = jax.vmap(rlax.n_step_bootstrapped_returns, (0, 0, 0, None, 0))(
    r_t, discount_t, v_t, n_step, goes_on_t.astype(np.float32)
  )
  assert isinstance(found, np.ndarray) == (xp is np)
  np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


# What is learnt from, and how much it counts.


def test_burn_in_and_padding_are_not_learnt_from():
  step_type = np.array([
    7 * [MID],
    [FIRST] + 6 * [MID],
    4 * [MID] + 3 * [LAST],
    [FIRST] + 6 * [LAST],
  ])  # fmt: skip
  np.testing.assert_array_equal(
    recurrent.learnt_steps(step_type, 2),
    [
      [0, 0, 1, 1, 1, 1],
      [1, 1, 1, 1, 1, 1],
      [0, 0, 1, 1, 0, 0],
      [1, 0, 0, 0, 0, 0],
    ],
  )


def test_a_sequences_priority_mixes_the_largest_and_the_mean_error():
  error = np.array([[9.0, 1.0, -2.0, -6.0], [5.0, 5.0, 5.0, 4.0]])
  learnt = np.array([[0.0, 1.0, 1.0, 1.0], [0.0, 0.0, 0.0, 1.0]])
  np.testing.assert_allclose(
    r2d2.sequence_priority(error, learnt, 0.9),
    [0.9 * 6 + 0.1 * 3, 0.9 * 4 + 0.1 * 4],
    rtol=1e-6,
  )


def fixed_values():
  """Makes a network that says 0 of action 0 and 2 of action 1, whatever it sees."""

  def head(features):
    values = hk.get_parameter('values', (1, 2), init=jnp.zeros)
    return jnp.repeat(values, features.shape[0], axis=0)

  return recurrent.RecurrentNetwork(lambda observation: observation, None, head)


VALUES = {'~': {'values': jnp.array([[0.0, 2.0]])}}


def loss_by_hand(probability=(0.1, 0.1), **changes):
  """Returns what two sequences come to, whose steps all are terminal.

  The first one's action 0 brings 9, 9, 1, 2, 3, 4, of which the first two are
  burn-in; the other one starts its episode, and its action 1 brings 3, 4.
  """
  agent = make(network=fixed_values, value_rescaling=False, **changes)
  batch = random_batch(
    [7 * [MID], [FIRST, MID] + 5 * [LAST]],
    action=np.array([7 * [0], 7 * [1]], np.int32),
    reward=np.array([[9, 9, 1, 2, 3, 4, 9], [3, 4, 0, 0, 0, 0, 0]], np.float32),
    discount=np.zeros((2, 7), np.float32),
    start_state=(),
  )._replace(probability=np.array(probability, np.float32))
  (loss, output), gradient = jax.value_and_grad(agent.loss, has_aux=True)(
    VALUES, VALUES, batch, key()
  )
  return float(loss), output, gradient['~']['values'][0]


def test_the_loss_is_half_the_squared_errors_summed_over_the_learnt_steps():
  loss, _, gradient = loss_by_hand()
  squares = [1 + 4 + 9 + 16, 1**2 + 2**2]
  np.testing.assert_allclose(loss, np.mean(squares) / 2, rtol=1e-6)
  slopes = [-(1 + 2 + 3 + 4) / 2, -(1 + 2) / 2]
  np.testing.assert_allclose(gradient, slopes, rtol=1e-6)


def test_sequences_are_weighted_by_how_rarely_they_are_drawn():
  # min p / p = 1/4, 1; to the power 1/2 that is 1/2, 1.
  loss, output, _ = loss_by_hand((0.16, 0.04), importance_exponent=0.5)
  squares = [(1 + 4 + 9 + 16) / 2, 1 + 4]
  np.testing.assert_allclose(loss, np.mean(squares) / 2, rtol=1e-6)
  np.testing.assert_allclose(  # of which priorities know nothing
    output.priorities, [0.9 * 4 + 0.1 * 2.5, 0.9 * 2 + 0.1 * 1.5], rtol=1e-5
  )


def test_uniform_replay_gets_no_priorities():
  _, output, _ = loss_by_hand(priority_exponent=0.0)
  assert output.priorities is None


def test_metrics_have_the_sign_and_size_of_their_names():
  loss, output, _ = loss_by_hand()
  assert {name: float(value) for name, value in output.metrics.items()} == {
    'loss': pytest.approx(loss),
    'mean_q': pytest.approx(1.0),
    'mean_abs_td_error': pytest.approx((1 + 2 + 3 + 4 + 1 + 2) / 6),
    'learnt_steps': pytest.approx((4 + 2) / 2),
  }
  agent, batch = make(network=fixed_values), random_batch(start_state=())
  params = jax.tree.map(jnp.negative, VALUES)
  _, output = agent.loss(params, params, batch, key())
  assert output.metrics['mean_q'] == pytest.approx(-1.0)


def test_a_batch_without_a_step_to_learn_from_has_no_loss():
  agent = make(network=fixed_values)
  batch = random_batch([2 * [MID] + 5 * [LAST]], start_state=())
  state, output = jax.jit(agent.update)(initial(agent), batch)
  assert output.metrics['loss'] == 0
  assert output.metrics['gradient_norm'] == 0
  assert output.priorities > 0  # still drawable


# Padding and burn-in, through the network.


AGENT = make()
loss_and_gradient = jax.jit(jax.value_and_grad(AGENT.loss, has_aux=True))


def evaluate(batch, function=loss_and_gradient):
  """Returns loss, priorities and the gradient."""
  params, target_params = initial(AGENT).params, initial(AGENT, seed=1).params
  (loss, output), gradient = function(params, target_params, batch, key())
  return loss, output.priorities, gradient


def test_padding_has_no_part_in_loss_priority_and_gradient():
  batch = random_batch([4 * [MID] + 3 * [LAST]])
  # Truncated, so that the last observation counts, as a control.
  last = np.arange(7) == 4
  batch.data.discount[0, 3] = 1.0

  def with_others(rows):
    data = batch.data
    return replaced(
      batch,
      observation=changed(data.observation, rows),
      action=np.where(rows, 1 - data.action, data.action),
    )

  loss, priorities, gradient = evaluate(batch)
  other = evaluate(with_others(np.arange(7) > 4))
  assert other[0] == loss
  np.testing.assert_array_equal(other[1], priorities)
  assert not differs(other[2], gradient)
  assert evaluate(with_others(last))[0] != loss


@pytest.mark.parametrize(
  ('rows', 'burn_in_length'), [(3, 0), (5, 2), (2, 2), (3, 4)]
)
def test_padding_that_is_cut_off_is_not_missed(rows, burn_in_length):
  # The first two episodes end terminally, the others are truncated.
  batch = random_batch(
    [
      [FIRST] + (steps - 1) * [MID] + (7 - steps) * [LAST]
      for steps in (rows - 1, 1, rows - 1, max(1, rows - 2))
    ],
    discount=np.array([[0], [0], [0.5], [0.5]], np.float32).repeat(7, axis=1),
  )
  if rows > burn_in_length + 1:  # one in the midst of its episode
    batch.data.step_type[0, 0] = MID
  start_state = batch.data.start_state
  cut = jax.tree.map(
    lambda leaf: leaf[:, :rows], batch.data._replace(start_state=())
  )
  function = loss_and_gradient
  if burn_in_length != SMALL.burn_in_length:
    agent = make(burn_in_length=burn_in_length)
    function = jax.jit(jax.value_and_grad(agent.loss, has_aux=True))
  whole = evaluate(batch, function)
  assert whole[0] > 0
  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6),
    evaluate(
      batch._replace(data=cut._replace(start_state=start_state)), function
    ),
    whole,
  )


BURN_IN = np.array([1, 1, 0, 0, 0, 0, 0], bool)
MIDST = random_batch([7 * [MID]])
START = random_batch([[FIRST] + 6 * [MID]])


def test_what_happened_in_the_burn_in_has_no_loss():
  reward = MIDST.data.reward
  loss, priorities, gradient = evaluate(MIDST)
  other = evaluate(replaced(MIDST, reward=changed(reward, BURN_IN)))
  assert other[0] == loss
  np.testing.assert_array_equal(other[1], priorities)
  assert not differs(other[2], gradient)
  assert evaluate(replaced(MIDST, reward=changed(reward, ~BURN_IN)))[0] != loss


def test_an_episodes_first_steps_have_a_loss():
  loss, priorities, _ = evaluate(START)
  other = evaluate(replaced(START, reward=changed(START.data.reward, BURN_IN)))
  assert other[0] != loss
  assert other[1] != priorities


@jax.jit
def later_values_gradient(data):
  """Returns the gradient [L] of values after the burn-in, by what was seen."""

  def total(observation):
    seen = data._replace(observation=observation)
    return AGENT.action_values(initial(AGENT).params, seen, key())[
      :, 2:, 0
    ].sum()

  return jnp.abs(jax.grad(total)(data.observation)).sum((0, 2))


def test_no_gradient_flows_through_the_burn_in():
  gradient = later_values_gradient(MIDST.data)
  np.testing.assert_array_equal(gradient > 0, [0, 0, 1, 1, 1, 1, 1])


def test_the_gradient_flows_through_an_episodes_first_steps():
  gradient = later_values_gradient(START.data)
  np.testing.assert_array_equal(gradient > 0, np.ones(7))


def test_the_burn_in_warms_up_the_memory():
  loss, _, _ = evaluate(MIDST)
  observation = changed(MIDST.data.observation, BURN_IN)
  assert evaluate(replaced(MIDST, observation=observation))[0] != loss


def with_other_start(batch):
  return replaced(
    batch,
    start_state=jax.tree.map(lambda leaf: leaf + 1, batch.data.start_state),
  )


def test_the_stored_state_is_where_the_memory_starts():
  assert evaluate(with_other_start(MIDST))[0] != evaluate(MIDST)[0]


def test_the_memory_is_empty_where_an_episode_starts():
  assert evaluate(with_other_start(START))[0] == evaluate(START)[0]


def test_the_memory_starts_from_zeros_on_demand():
  agent, params = make(use_start_state=False), initial(AGENT).params
  q = agent.action_values(params, MIDST.data, key())
  zeros = jax.tree.map(np.zeros_like, MIDST.data.start_state)
  empty = AGENT.action_values(
    params, MIDST.data._replace(start_state=zeros), key()
  )
  np.testing.assert_allclose(q, empty, rtol=1e-5, atol=1e-6)


# What an actor plays, as the learner sees it.

LENGTHS = (9, 2, 6, 13)
TRUNCATED = (False, True, True, False)


def published(params):
  """Returns what an actor is given of a network's params."""
  return {'network': params, 'epsilon_share': jnp.float32(1.0)}


def play(agent, params, steps=60):
  """Plays in two environments; returns what replay was given, without closing."""
  params = published(params)
  rows = vector.LoopVector([
    environments.Counting(
      LENGTHS,
      TRUNCATED,
      reward=lambda episode, step: (episode + 2 * step) % 5 - 1.5,
      first_episode=first,
    )
    for first in (0, 1)
  ])  # fmt: skip
  layout = row_layout.row_layout(agent, SPEC, params=params)
  collector = playing.Collector(layout)
  source = params_lib.LocalParams()
  source.publish(0, params)
  worker = actor_lib.Actor(
    rows,
    policy_lib.CompiledPolicy(
      agent, source, 2, key(), types.Streams(np.arange(2), 2)
    ),
    lambda: factory.make_writer(agent, layout, 2, collector),
    run_state.RunState().reporter('actor/0'),
  )
  for _ in range(steps):
    worker.step()
  assert len(collector.rows) > 15
  return collector


action_values = jax.jit(AGENT.action_values)


def test_a_stored_state_gives_the_values_of_the_whole_episode():
  params, act = initial(AGENT).params, jax.jit(AGENT.act)
  acting = published(params)
  want = {}  # by episode and step, from the episode's start on
  for episode in range(8):
    state = AGENT.initial_actor_state(1, None)
    for step in range(LENGTHS[episode % 4] + 1):
      observation = np.array([[episode, step]], np.float32)
      output = act(acting, key(), observation, state)
      want[episode, step] = float(output.values['max_q'][0])
      state = output.state
  data = play(AGENT, params).data
  assert (data.step_type[:, 0] == MID).any()
  got = action_values(params, data, key()).max(axis=-1)
  for row, places in zip(got, data.observation, strict=True):
    count = int((places != 0).any(axis=1).sum())  # the rest is padding
    expected = [want[tuple(place)] for place in places[:count]]
    np.testing.assert_allclose(row[:count], expected, rtol=1e-4, atol=1e-6)


def test_the_burn_in_mends_a_state_that_older_params_stored():
  data = play(AGENT, initial(AGENT, seed=1).params).data
  midst = data.step_type[:, 0] == MID
  data = jax.tree.map(lambda leaf: leaf[midst], data)
  params = initial(AGENT).params
  right = play(AGENT, params).data  # the same steps, remembered by these params
  right = jax.tree.map(lambda leaf: leaf[midst], right)
  np.testing.assert_array_equal(right.observation, data.observation)
  error = np.abs(
    action_values(params, data, key()) - action_values(params, right, key())
  ).max(-1)
  at_start, after_burn_in = error[:, 0].mean(), error[:, 2].mean()
  assert 0 < after_burn_in < at_start


def test_first_priority_equals_the_learners_where_target_is_online():
  # With target params equal to the online params, double Q bootstraps from the
  # maximum, and the actor's values are all that the errors need.
  state = initial(AGENT)
  collector = play(AGENT, state.params)
  size = len(collector.rows)
  batch = types.Batch(collector.data, np.ones(size, np.float32))
  update = jax.jit(AGENT.update)
  _, output = update(state, batch)
  np.testing.assert_allclose(collector.priorities, output.priorities, rtol=1e-3)
  # With another target network they part, wherever a return bootstraps.
  other = state._replace(target_params=initial(AGENT, seed=1).params)
  _, output = update(other, batch)
  assert not np.isclose(collector.priorities, output.priorities).all()


@pytest.mark.parametrize(
  ('burn_in_length', 'trace_length', 'period'),
  [(2, 4, 2), (0, 3, 3), (5, 4, 4), (3, 1, 1), (1, 6, 5)],
)
def test_each_step_of_a_finished_episode_is_learnt_from(
  burn_in_length, trace_length, period
):
  agent = make(
    network=fixed_values,
    burn_in_length=burn_in_length,
    trace_length=trace_length,
    period=period,
  )
  data = play(agent, VALUES).data
  mask = recurrent.learnt_steps(data.step_type, burn_in_length) > 0
  assert mask.any(axis=1).all()  # no sequence is for nothing
  learnt = {tuple(place) for place in data.observation[:, :-1][mask]}
  for episode in range(5):  # of those that were played to their end
    length = LENGTHS[episode % 4]
    assert learnt >= {(episode, step) for step in range(length)}
    assert (episode, length) not in learnt


# Acting.


def test_each_stream_keeps_its_place_on_the_exploration_ladder():
  state = AGENT.initial_actor_state(3, types.Streams(np.array([3, 4, 5]), 6))
  expected = [0.4 ** (1 + 7 * i / 5) for i in (3, 4, 5)]
  np.testing.assert_allclose(state.exploration.epsilon, expected, rtol=1e-6)
  observation = np.ones((3, 2), np.float32)
  params = published(initial(AGENT).params)
  output = AGENT.act(params, key(), observation, state)
  assert output.state.exploration is state.exploration
  assert differs(output.state.memory, state.memory)


def test_the_evaluated_policy_explores_as_configured():
  assert AGENT.initial_actor_state(2, None).exploration.epsilon.tolist() == [
    0,
    0,
  ]
  agent = make(evaluation_epsilon=0.25)
  assert agent.initial_actor_state(2, None).exploration.epsilon.tolist() == [
    0.25,
    0.25,
  ]


@pytest.mark.parametrize(('epsilon', 'share'), [(0.0, 0.0), (1.0, 0.5)])
def test_epsilon_is_the_chance_of_a_random_action(epsilon, share):
  agent = make(network=fixed_values)
  epsilon = np.full(10_000, epsilon, np.float32)
  exploration = dqn.ActorState(epsilon, np.full(10_000, True))
  state = r2d2.ActorState(exploration, ())
  observation = np.zeros((10_000, 2), np.float32)
  output = agent.act(published(VALUES), key(), observation, state)
  assert (output.action == 0).mean() == pytest.approx(share, abs=0.02)
  np.testing.assert_array_equal(output.values['chosen_q'], 2.0 * output.action)
  np.testing.assert_array_equal(output.values['max_q'], np.full(10_000, 2.0))


def test_what_is_stored_is_the_memory_before_the_step():
  observation = np.ones((2, 2), np.float32)
  params = published(initial(AGENT).params)
  state = AGENT.initial_actor_state(2, None)
  for _ in range(3):
    output = AGENT.act(params, key(), observation, state)
    assert not differs(output.start_state, state.memory)
    state = output.state


# Learning.


def test_the_target_network_is_copied_every_period_and_only_then():
  agent = make(network=fixed_values, target_update_period=3)
  update, state = jax.jit(agent.update), initial(agent)
  assert not differs(state.target_params, state.params)
  for step in range(1, 8):
    before = state.target_params
    state, _ = update(state, random_batch(seed=step, start_state=()))
    if step % 3:
      assert not differs(state.target_params, before)
      assert differs(state.target_params, state.params)
    else:
      assert not differs(state.target_params, state.params)
  assert int(state.steps) == 7


def test_updates_change_every_parameter_and_lower_the_loss():
  agent = make(learning_rate=1e-2, adam_epsilon=1e-8)
  update, state = jax.jit(agent.update), initial(agent)
  batch, first = random_batch(), state.params
  losses = []
  for _ in range(30):
    state, output = update(state, batch)
    losses.append(float(output.metrics['loss']))
  assert losses[-1] < 0.5 * losses[0]
  jax.tree.map(
    lambda a, b: np.testing.assert_(np.any(a != b)), first, state.params
  )


def test_the_gradients_norm_is_bounded_before_adam():
  batch = random_batch(start_state=())
  agent = make(network=fixed_values, max_gradient_norm=0.01)
  state, output = jax.jit(agent.update)(initial(agent), batch)
  assert output.metrics['gradient_norm'] > 0.01  # measured before it is cut
  moment = state.optimizer_state[1][0].mu
  norm = np.sqrt(
    sum(np.sum(np.square(leaf)) for leaf in jax.tree.leaves(moment))
  )
  np.testing.assert_allclose(
    norm / 0.1, 0.01, rtol=1e-4
  )  # of which it keeps 0.1


# Networks and specs.


def test_a_users_network_is_the_one_that_is_used():
  def network():
    return recurrent.RecurrentNetwork(
      hk.Linear(5, name='mine'), hk.GRU(3), hk.Linear(2, name='values')
    )

  agent = make(network=network)
  params = initial(agent).params
  assert params['mine']['w'].shape == (2, 5)
  assert params['values']['w'].shape == (3, 2)
  assert agent.initial_actor_state(4, None).memory.shape == (4, 3)


def network_with(head):
  return lambda: recurrent.RecurrentNetwork(lambda x: x, None, head)


@pytest.mark.parametrize(
  ('head', 'found'),
  [
    (lambda x: x[:, :1], r'shape=\(1, 1\)'),
    (lambda x: x[0], r'shape=\(2,\)'),
    (lambda x: {'q': x}, "{'q': "),
  ],
)
def test_a_network_of_another_output_is_refused(head, found):
  with pytest.raises(
    ValueError, match=rf'action values of shape \(1, 2\), got .*{found}'
  ) as error:
    make(network=network_with(head))
  assert 'one output per action and no squeeze' in str(error.value)


def test_a_continuous_action_is_refused_with_what_to_do():
  actions = specs.BoundedArray((2,), np.float32, -1.0, 1.0, 'torque')
  with pytest.raises(
    ValueError, match=r"R2D2 needs one discrete action .* got .*name='torque'"
  ) as error:
    r2d2.make_agent(SMALL, SPEC._replace(actions=actions))
  assert 'Use an agent for such actions, or an environment' in str(error.value)


# Settings.


@pytest.mark.parametrize(
  ('changes', 'message'),
  [
    ({'learning_rate': 0.0}, r'learning_rate must be positive, got 0\.0\.'),
    ({'adam_epsilon': 0.0}, r'adam_epsilon must be positive, got 0\.0\.'),
    ({'max_gradient_norm': -1}, 'max_gradient_norm must be positive, got -1'),
    ({'n_step': 0}, 'n_step must be at least 1, got 0'),
    ({'trace_length': 0}, 'trace_length must be at least 1, got 0'),
    ({'target_update_period': 0}, 'target_update_period must be at least 1'),
    ({'lstm_size': 0}, 'lstm_size must be at least 1, got 0'),
    ({'burn_in_length': -1}, 'burn_in_length must not be negative, got -1'),
    ({'epsilon_exponent': -1.0}, 'epsilon_exponent must not be negative'),
    ({'discount': 1.1}, r'discount must be in \[0, 1\], got 1\.1'),
    ({'importance_exponent': 2.0}, r'importance_exponent must be in \[0, 1\]'),
    ({'max_priority_weight': -1}, r'max_priority_weight must be in \[0, 1\]'),
    ({'epsilon_base': 1.5}, r'epsilon_base must be in \[0, 1\], got 1\.5'),
    ({'evaluation_epsilon': -0.1}, r'evaluation_epsilon must be in \[0, 1\]'),
    ({'hidden_sizes': (8, 0)}, r'hidden_sizes must be .* got \(8, 0\)'),
    ({'period': 0}, 'period must be from 1 to trace_length=40, .* got 0'),
    ({'period': 41}, 'steps between two sequences would never be learnt from'),
    # What replay refuses is refused here already, before there is an agent.
    ({'batch_size': 0}, 'batch_size must be at least 1, got 0'),
    ({'samples_per_insert': 0}, 'samples_per_insert must be positive.* got 0'),
    ({'min_replay_size': 20_000}, 'min_replay_size must not be more than max_'),
    ({'priority_exponent': -1}, 'priority_exponent must not be negative'),
    ({'error_buffer': 1.0}, r'error_buffer=1\.0 is too small'),
  ],
)
def test_an_impossible_setting_is_refused_by_name(changes, message):
  with pytest.raises(ValueError, match=message):
    r2d2.Config(**changes)


def test_settings_reach_replay():
  config = r2d2.Config(
    burn_in_length=3,
    trace_length=10,
    period=5,
    batch_size=16,
    samples_per_insert=2.0,
    error_buffer=99.0,
    min_replay_size=50,
    max_replay_size=500,
    priority_exponent=0.5,
  )
  replay = r2d2.make_agent(config, SPEC).replay
  (table,) = replay.tables
  assert (replay.window.length, replay.window.period) == (14, 5)
  assert not replay.window.across_episodes
  assert (replay.batch_size, table.samples_per_insert) == (16, 2.0)
  assert (table.min_size, table.max_size) == (50, 500)
  assert (table.error_buffer, table.priority_exponent) == (99.0, 0.5)
