"""Behavioural cloning against numbers worked by hand, and when it ends."""

import dataclasses

import haiku as hk
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from distacme import learner_loop
from distacme import specs
from distacme import status
from distacme import types
from distacme.agents import bc
from distacme.run import run_state
from distacme.testing import agent_contract
from distacme.testing import demonstrations
from distacme.testing import environments

FIRST, MID, LAST = 0, 1, 2
CATCH = specs.make_environment_spec(environments.Catch(seed=0))
PUSH = CATCH._replace(
  observations=specs.Array((2,), np.float32),
  actions=specs.BoundedArray((2,), np.float32, -2.0, 4.0),
)
SMALL = bc.Config(hidden_sizes=(8,), batch_size=4, validation_share=0.25)
KEY = jax.random.key_data(jax.random.key(0))


def make(spec=CATCH, network=None, **changes):
  return bc.make_agent(dataclasses.replace(SMALL, **changes), spec, network)


@pytest.mark.parametrize(
  ('spec', 'changes'),
  [
    (CATCH, {}),
    (CATCH, {'lstm_size': 4, 'burn_in_length': 2, 'trace_length': 3}),
    (PUSH, {'validation_share': 0.0}),
    (PUSH, {'continuous_loss': 'log_likelihood'}),
  ],
  ids=['discrete', 'with a memory', 'squared errors', 'likelihood'],
)
def test_it_keeps_the_contract(spec, changes):
  agent_contract.check_agent(
    make(spec, **changes), spec, without_jit=not changes
  )


# Losses, of a network with the same outputs whatever it sees.


def fixed(observation, num_outputs):
  outputs = hk.get_parameter('outputs', (1, num_outputs), init=jnp.zeros)
  return jnp.repeat(outputs, jax.tree.leaves(observation)[0].shape[0], axis=0)


def outputs(*values):
  return {'~': {'outputs': jnp.array([values], jnp.float32)}}


def steps(actions, tables=(0,) * 4, spec=CATCH):
  """Returns sequences of one step each."""
  size = len(actions)
  actions = np.asarray(actions, spec.actions.dtype)
  data = types.Sequence(
    observation=np.zeros((size, 2, *spec.observations.shape), np.float32),
    action=np.stack([actions, np.zeros_like(actions)], axis=1),
    reward=np.zeros((size, 2), np.float32),
    discount=np.ones((size, 2), np.float32),
    step_type=np.full((size, 2), MID, np.int8),
  )
  probability = np.full(size, 0.01, np.float32)
  return types.Batch(data, probability, np.array(tables, np.int32))


def test_the_loss_of_discrete_actions_is_the_cross_entropy():
  agent = make(network=fixed)
  chances = np.array([0.7, 0.2, 0.1])
  loss, losses = agent.loss(outputs(*np.log(chances)), steps([0, 1, 2, 0]), KEY)
  want = -np.log(chances[[0, 1, 2, 0]]).mean()
  np.testing.assert_allclose(loss, want, rtol=1e-5)
  np.testing.assert_allclose(losses.agreement, 0.5)


def test_a_stochastic_teacher_leaves_its_entropy():
  """No policy has a smaller loss than the one that draws like the teacher."""
  agent = make(network=fixed)
  batch = steps([0] * 5 + [1] * 3 + [2] * 2, (0,) * 10)

  def loss(logits):
    return agent.loss({'~': {'outputs': logits}}, batch, KEY)[0]

  logits = jnp.zeros((1, 3))
  for _ in range(300):
    logits = logits - 2.0 * jax.grad(loss)(logits)
  chances = np.array([0.5, 0.3, 0.2])
  entropy = -(chances * np.log(chances)).sum()
  np.testing.assert_allclose(loss(logits), entropy, rtol=1e-5)
  np.testing.assert_allclose(jax.nn.softmax(logits)[0], chances, atol=1e-3)


# In [-1, 1]: -2 is -1, 1 is 0, 4 is 1.
PUSHES = [[-2.0, 1.0], [4.0, 1.0], [1.0, 1.0], [1.0, 4.0]]


def test_the_loss_of_continuous_actions_is_the_squared_error():
  agent = make(PUSH, fixed)
  loss, losses = agent.loss(outputs(0.5, 0.0), steps(PUSHES, spec=PUSH), KEY)
  want = (1.5**2 + 0.5**2 + 0.5**2 + (0.5**2 + 1.0)) / 4
  np.testing.assert_allclose(loss, want, rtol=1e-6)
  assert losses.agreement is None


def test_or_minus_the_logarithm_of_a_density():
  agent = make(PUSH, fixed, continuous_loss='log_likelihood')
  # The second deviation is less than may be: exp(-3).
  params = outputs(0.5, 0.0, np.log(2.0), -9.0)
  loss, _ = agent.loss(params, steps(PUSHES[:3] * 2, (0,) * 6, PUSH), KEY)
  of_first = ((1.5**2 + 0.5**2 + 0.5**2) / 3) / 8 + np.log(2.0)
  want = of_first - 3.0 + np.log(2 * np.pi)
  np.testing.assert_allclose(loss, want, rtol=1e-5)


def test_validation_steps_are_not_fitted_to():
  agent = make(network=fixed)
  batch = steps([0, 0, 1, 2], tables=(0, 0, 1, 1))

  def loss(params):
    return agent.loss(params, batch, KEY)

  chances = np.array([0.7, 0.2, 0.1])
  params = outputs(*np.log(chances))
  (value, losses), gradient = jax.value_and_grad(loss, has_aux=True)(params)
  np.testing.assert_allclose(value, -np.log(0.7), rtol=1e-5)
  np.testing.assert_allclose(
    losses.validation, -np.log(0.2) - np.log(0.1), rtol=1e-5
  )
  assert losses.validation_steps == 2
  np.testing.assert_allclose(
    gradient['~']['outputs'], [chances - [1, 0, 0]], rtol=1e-5, atol=1e-6
  )


# Memory.


def test_a_burn_in_and_padding_are_not_learnt_from():
  agent = make(lstm_size=4, burn_in_length=2, trace_length=3)
  params = agent.initial_learner_state(KEY).params
  random = np.random.default_rng(0)
  step_type = np.array(
    [6 * [MID], [FIRST] + 5 * [MID], [FIRST, MID, LAST, LAST, LAST, LAST]],
    np.int8,
  )
  data = types.Sequence(
    observation=random.normal(size=(3, 6, 10, 5)).astype(np.float32),
    action=np.zeros((3, 6), np.int32),
    reward=np.zeros((3, 6), np.float32),
    discount=np.ones((3, 6), np.float32),
    step_type=step_type,
    start_state=agent._network.initial_state(3),
  )
  batch = types.Batch(data, np.ones(3, np.float32), np.zeros(3, np.int32))
  before, _ = agent.loss(params, batch, KEY)
  learnt = [[0, 0, 1, 1, 1], [1, 1, 1, 1, 1], [1, 1, 0, 0, 0]]
  for row, place in np.ndindex(3, 6):
    action = data.action.copy()
    action[row, place] = 1
    changed = batch._replace(data=data._replace(action=action))
    after, _ = agent.loss(params, changed, KEY)
    matters = place < 5 and learnt[row][place]
    assert (after != before) == bool(matters), (row, place)


def test_a_memory_goes_through_the_burn_in():
  agent = make(lstm_size=4, burn_in_length=2, trace_length=3, batch_size=12)
  assert agent.replay.batch_size == 4  # sequences that have so many steps
  params = agent.initial_learner_state(KEY).params
  batch = agent_contract._Check(agent, CATCH, 0)._batch()
  batch = batch._replace(table=np.zeros_like(batch.table))
  before, _ = agent.loss(params, batch, KEY)
  rows = np.flatnonzero(batch.data.step_type[:, 0] == MID)
  observation = batch.data.observation.copy()
  observation[rows, 0] += 1.0
  seen = batch._replace(data=batch.data._replace(observation=observation))
  assert agent.loss(params, seen, KEY)[0] != before


# Validation: the best params, and the end.


def validated(agent, state, losses):
  """Updates with validation losses as given, by way of a network's outputs."""
  history = []
  for loss in losses:
    # The chance of the validation's action 1 is exp(-loss).
    chance = np.exp(-loss)
    params = outputs(
      np.log((1 - chance) / 2), np.log(chance), np.log((1 - chance) / 2)
    )
    batch = steps([0, 0, 1, 1], tables=(0, 0, 1, 1))
    state, output = agent.update(state._replace(params=params), batch)
    history.append((state, output))
  return history


def test_the_params_of_the_smallest_validated_loss_act():
  agent = make(
    network=fixed, validation_period=2, patience=2, learning_rate=1e-6
  )
  state = agent.initial_learner_state(KEY)
  history = validated(agent, state, [2, 2, 1, 1, 3, 3, 1.5, 1.5])
  chance = [
    float(jax.nn.softmax(agent.actor_params(s)['~']['outputs'])[0, 1])
    for s, _ in history
  ]
  first = 1 / 3  # of zeros, before anything was validated
  best = [first, np.exp(-2), np.exp(-2), *[np.exp(-1)] * 5]
  np.testing.assert_allclose(chance, best, rtol=1e-3)
  converged = [bool(output.converged) for _, output in history]
  assert converged == [False] * 7 + [True]
  metrics = [float(o.metrics['validation_loss']) for _, o in history]
  np.testing.assert_allclose(metrics, [2, 2, 1, 1, 3, 3, 1.5, 1.5], rtol=1e-3)


def test_without_validation_the_newest_params_act_and_nothing_ends_it():
  agent = make(network=fixed, validation_share=0.0)
  assert len(agent.replay.tables) == 1
  state = agent.initial_learner_state(KEY)
  state, output = agent.update(state, steps([0] * 4))
  assert agent.actor_params(state) is state.params
  assert output.converged is None
  assert 'validation_loss' not in output.metrics


def test_it_clones_an_expert_and_says_when_there_is_no_more_to_learn():
  agent = make(
    batch_size=64, learning_rate=1e-2, validation_period=20, patience=3
  )
  state = run_state.RunState()
  loop = learner_loop.LearnerLoop(
    CATCH,
    agent,
    demonstrations=demonstrations.catch_random(),
    run_state=state,
  )
  for _ in range(5000):
    loop.step()
    if loop.has_learnt_all:
      break
  stop = state.status().stop
  assert stop.reason == status.StopReason.CONVERGED
  assert f'{loop.learner.steps} learner_steps' == stop.detail
  assert 60 < loop.learner.steps < 3000


def test_a_network_of_ones_own_has_the_outputs_it_is_asked_for():
  def wrong(observation, num_outputs):
    return hk.Linear(num_outputs + 1)(hk.Flatten()(observation))

  with pytest.raises(ValueError, match=r'shape \(1, 3\).*\(1, 4\)'):
    make(network=wrong)


@pytest.mark.parametrize(
  ('changes', 'message'),
  [
    ({'validation_share': 1.0}, 'validation_share must be from 0 to below 1'),
    ({'continuous_loss': 'mse'}, "'squared_error' or 'log_likelihood', got"),
    ({'patience': -1}, 'patience must not be negative'),
  ],
)
def test_settings_that_make_no_sense_are_refused(changes, message):
  with pytest.raises(ValueError, match=message):
    dataclasses.replace(SMALL, **changes)
