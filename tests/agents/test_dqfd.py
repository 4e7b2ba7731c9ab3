"""DQfD against numbers worked by hand, and what replay gives it."""

import dataclasses

import haiku as hk
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import distacme
from distacme import specs
from distacme import types
from distacme.agents import dqfd
from distacme.replay import in_process
from distacme.testing import agent_contract
from distacme.testing import demonstrations
from distacme.testing import environments

SPEC = specs.make_environment_spec(environments.Catch(seed=0))
SMALL = dqfd.Config(hidden_sizes=(16,), batch_size=4, n_step=3)
KEY = jax.random.key_data(jax.random.key(0))
OWN, DEMONSTRATION = 0, 1


def make(network=None, **changes):
  config = dataclasses.replace(SMALL, **changes)
  return dqfd.make_agent(config, SPEC, network)


def test_it_keeps_the_contract():
  # Without jit it is DQN.
  agent_contract.check_agent(make(), SPEC, without_jit=False)


# The large margin: max_a [q(a) + 0.8 (a is another)] - q(a_E).


@pytest.mark.parametrize(
  ('q', 'action', 'loss'),
  [
    ([1.0, 2.0, 3.0], 2, 0.0),  # 2.8 < 3: better by more than the margin
    ([1.0, 2.3, 3.0], 2, 0.1),
    ([1.0, 2.2, 3.0], 2, 0.0),  # by the margin exactly
    ([1.0, 2.0, 3.0], 0, 2.8),
    ([0.0, 0.0, 0.0], 1, 0.8),
  ],
)
def test_the_margin_by_hand(q, action, loss):
  result = dqfd.large_margin_loss(
    jnp.array([q]), jnp.array([action], jnp.int32), 0.8
  )
  np.testing.assert_allclose(result, [loss], atol=1e-6)


def test_the_margin_raises_the_demonstrated_action_and_lowers_the_best_other():
  def loss(q):
    return dqfd.large_margin_loss(q, jnp.array([0], jnp.int32), 0.8)[0]

  gradient = jax.grad(loss)(jnp.array([[1.0, 2.0, 3.0]]))
  np.testing.assert_allclose(gradient, [[-1.0, 0.0, 1.0]])


# All four losses, of a network whose values are its params, whatever it sees.


def fixed(observation):
  values = hk.get_parameter('values', (1, 3), init=jnp.zeros)
  return jnp.repeat(values, observation.shape[0], axis=0)


PARAMS = {'~': {'values': jnp.array([[1.0, 0.5, 0.0]])}}
TARGET = {'~': {'values': jnp.array([[2.0, 3.0, 4.0]])}}  # action 0 is worth 2


def batch_of(tables, actions, probability=None):
  """Returns transitions with rewards 0.1 and 0.3, after one step and after 3."""
  size = len(tables)
  board = np.zeros((size, 10, 5), np.float32)
  data = types.Transition(
    observation=board,
    action=np.array(actions, np.int32),
    reward=np.tile(np.float32([0.1, 0.3]), (size, 1)),
    discount=np.tile(np.float32([0.9, 0.0]), (size, 1)),  # the end is terminal
    next_observation=np.stack([board, board], axis=1),
  )
  if probability is None:
    probability = np.full(size, 0.25)
  return types.Batch(
    data, np.array(probability, np.float32), np.array(tables, np.int32)
  )


def loss(batch, **changes):
  agent = make(fixed, l2_weight=0.0, **changes)
  return agent.loss(PARAMS, TARGET, batch, KEY)


def huber(error):
  return error**2 / 2 if abs(error) <= 1 else abs(error) - 0.5


# Of action 1, with a value of 0.5: 0.1 + 0.9 * 2 after one step, 0.3 after three.
ONE_STEP, THREE_STEPS = 1.9 - 0.5, 0.3 - 0.5
MARGIN = 1.0 + 0.8 - 0.5


def test_losses_of_a_demonstration_by_hand():
  total, output = loss(batch_of([DEMONSTRATION] * 4, [1] * 4))
  want = huber(ONE_STEP) + huber(THREE_STEPS) + MARGIN
  np.testing.assert_allclose(total, want, rtol=1e-6)
  np.testing.assert_allclose(output.metrics['margin_loss'], MARGIN, rtol=1e-6)
  np.testing.assert_allclose(output.priorities, ONE_STEP + 1.0, rtol=1e-6)


def test_own_transitions_have_no_margin_and_a_small_bonus():
  total, output = loss(batch_of([OWN] * 4, [1] * 4))
  want = huber(ONE_STEP) + huber(THREE_STEPS)
  np.testing.assert_allclose(total, want, rtol=1e-6)
  assert output.metrics['margin_loss'] == 0.0
  np.testing.assert_allclose(output.priorities, ONE_STEP + 0.001, rtol=1e-6)


def test_each_loss_has_its_weight():
  batch = batch_of([OWN, DEMONSTRATION, OWN, OWN], [1] * 4)
  total, _ = loss(batch, n_step_weight=0.5, margin_weight=3.0)
  want = huber(ONE_STEP) + 0.5 * huber(THREE_STEPS) + 3.0 * MARGIN / 4
  np.testing.assert_allclose(total, want, rtol=1e-6)


def test_the_size_of_the_params_is_a_loss():
  batch = batch_of([OWN] * 4, [1] * 4)
  without, _ = loss(batch)
  total, _ = make(fixed, l2_weight=0.1).loss(PARAMS, TARGET, batch, KEY)
  np.testing.assert_allclose(total - without, 0.1 * 1.25, rtol=1e-5)


def test_importance_weights_span_both_kinds():
  batch = batch_of(
    [OWN, DEMONSTRATION, OWN, OWN], [1] * 4, [0.1, 0.4, 0.1, 0.4]
  )
  total, _ = loss(batch, importance_exponent=0.5, margin_weight=0.0)
  each = huber(ONE_STEP) + huber(THREE_STEPS)
  np.testing.assert_allclose(total, each * (1 + 0.5 + 1 + 0.5) / 4, rtol=1e-6)


def test_both_ends_are_seen_by_the_network():
  def sum_of_board(observation):
    weight = hk.get_parameter('weight', (1, 1), init=jnp.ones)
    sums = observation.sum(axis=(1, 2))[:, None]
    return weight * jnp.concatenate([sums, -sums, 0 * sums], axis=1)

  agent = make(sum_of_board)
  boards = np.zeros((2, 2, 10, 5), np.float32)
  boards[:, :, 0, 0] = [[1, 2], [3, 4]]
  params = agent._network.init(KEY, boards[:, 0])
  values = agent._at_both_ends(params, KEY, boards)
  np.testing.assert_array_equal(values[..., 0], [[1, 2], [3, 4]])


# Priorities on the actor.


def test_first_priorities_are_of_one_step():
  agent = make()
  window = types.Transition(
    observation=(),
    action=np.array([0, 1]),
    reward=np.float32([[0.5, 9.0], [0.0, 9.0]]),
    discount=np.float32([[0.9, 0.7], [0.0, 0.0]]),
    next_observation=(),
  )
  values = [
    {'chosen_q': np.float32([1.0, 2.0]), 'max_q': np.float32([5.0, 5.0])},
    {'chosen_q': np.float32([0.0, 0.0]), 'max_q': np.float32([2.0, 8.0])},
    {'chosen_q': np.float32([7.0, 7.0]), 'max_q': np.float32([7.0, 7.0])},
  ]
  priority = agent.first_priority(window, values)
  want = np.array([0.5 + 0.9 * 2 - 1.0, 2.0]) + 0.001
  np.testing.assert_allclose(priority, want, atol=1e-5)


# Replay.


def loop_of(num_steps=0, **changes):
  settings = {'pretraining_steps': 30, 'min_replay_size': 20, 'batch_size': 16}
  agent = make(**settings | changes)
  loop = distacme.EnvironmentLoop(
    environments.Catch(seed=0),
    agent,
    demonstrations=demonstrations.played(
      environments.Catch(seed=1), lambda board: 1, num_episodes=2
    ),
  )
  steps = 0
  while steps < num_steps:
    steps += loop.step()
  return loop


def test_it_first_learns_from_demonstrations_alone():
  loop = loop_of()
  acted = [loop.step() for _ in range(30)]
  assert not any(acted)
  assert loop.learner.steps == 30
  metrics = loop.replay.metrics()
  assert metrics['demonstrations/sampled'] == 30 * 16
  assert not metrics['experience/sampled']
  assert loop.step() == 1


def test_demonstrations_stay_and_their_share_settles_by_the_priorities():
  # More of its own than there is room for.
  loop = loop_of(num_steps=300, max_replay_size=100)
  metrics = loop.replay.metrics()
  assert metrics['experience/size'] == 100
  assert metrics['experience/inserted'] >= 295
  assert metrics['demonstrations/size'] == 18
  held = loop.replay.held()
  weights = {
    name: table.arrays['weights'] for name, table in held.tables.items()
  }
  # Of 18 demonstrations and 100 others, each at its priority to the power 0.4.
  assert weights['demonstrations'].min() >= 1.0
  expected = weights['demonstrations'].sum()
  expected /= expected + weights['experience'].sum()
  assert 18 / 118 < expected < 0.9
  # Drawn from as long as no actor limits it.
  config = dataclasses.replace(
    SMALL,
    max_replay_size=100,
    min_replay_size=20,
    pretraining_steps=0,
    error_buffer=1e6,
  )
  replay = in_process.InProcessReplay(config.replay, loop.replay._layout, 0)
  replay.load(held)
  tables = np.concatenate([replay.sample()[1].table for _ in range(200)])
  assert tables.mean() == pytest.approx(expected, abs=0.06)


def test_updates_per_step_of_the_environment_count_both_kinds():
  loop = loop_of(num_steps=300, samples_per_insert=8.0)
  learnt = loop.learner.steps - 30
  assert learnt == pytest.approx((300 - 20) * 8 / 16, rel=0.1)


def test_a_demonstration_that_ends_does_not_bootstrap():
  loop = loop_of()
  for _ in range(20):
    data, _ = loop.replay.sample()
    # Catch is over when the ball is in the last row.
    boards = data.next_observation[:, 0, :-1]
    ended = ~boards.any(axis=(1, 2)) | (data.reward[:, 0] != 0)
    np.testing.assert_array_equal(data.discount[ended, 0], 0.0)
    np.testing.assert_allclose(data.discount[~ended, 0], 0.99)


@pytest.mark.parametrize(
  ('changes', 'message'),
  [
    ({'n_step': 1}, 'n_step must be at least 2, .* got 1'),
    ({'demonstration_bonus': 0.0}, 'demonstration_bonus must be positive'),
    ({'priority_exponent': 0.0}, "mixture='priorities' compares"),
    ({'block_size': 4}, 'block_size=4 needs uniform sampling'),
  ],
)
def test_settings_that_make_no_sense_are_refused(changes, message):
  with pytest.raises(ValueError, match=message):
    dataclasses.replace(SMALL, **changes)
