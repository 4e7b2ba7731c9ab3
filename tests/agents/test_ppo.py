"""PPO against the papers' equations, written out, and against acting."""

import dataclasses
import functools

import haiku as hk
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from distacme import specs
from distacme import types
from distacme.agents import ppo
from distacme.kit import networks
from distacme.kit import normalization
from distacme.testing import agent_contract
from distacme.testing import environments

from . import unrolls

SPEC = specs.make_environment_spec(environments.Catch(seed=0))
SMALL = ppo.Config(
  hidden_sizes=(16,),
  batch_size=4,
  unroll_length=4,
  queue_size=4,
  num_epochs=2,
  num_minibatches=2,
)
IMAGE = SPEC._replace(
  observations=specs.BoundedArray((36, 36, 1), np.uint8, 0, 255)
)
KEY = jax.random.key_data(jax.random.key(0))


def make(config=SMALL, spec=SPEC, network=None, **changes):
  return ppo.make_agent(dataclasses.replace(config, **changes), spec, network)


def initial(agent, seed=0):
  return jax.jit(agent.initial_learner_state)(
    jax.random.key_data(jax.random.key(seed))
  )


def assert_equal(a, b):
  jax.tree.map(np.testing.assert_array_equal, a, b)


def assert_close(a, b, tolerance=1e-4):
  jax.tree.map(
    lambda x, y: np.testing.assert_allclose(x, y, tolerance, tolerance), a, b
  )


# The contract.


@pytest.mark.parametrize(
  ('spec', 'changes'),
  [
    (SPEC, {}),
    (unrolls.continuous(SPEC), {'normalize_observations': False}),
    (IMAGE, {}),
  ],
  ids=['discrete', 'continuous', 'image'],
)
def test_it_keeps_the_contract(spec, changes):
  agent = make(
    spec=spec, batch_size=2, unroll_length=2, num_epochs=1, **changes
  )
  without_jit = spec is SPEC  # The same for all; slow.
  agent_contract.check_agent(agent, spec, without_jit=without_jit)


# Generalised advantage estimation.


def advantages_by_definition(piece, gae_lambda):
  """Eq. 16 of Schulman et al. 2016, cut where the piece is."""
  value, reward, discount, _ = piece
  delta = reward + discount * value[1:] - value[:-1]
  length = len(reward)
  return np.array(
    [
      sum(
        np.prod(discount[s:t]) * gae_lambda ** (t - s) * delta[t]
        for t in range(s, length)
      )
      for s in range(length)
    ]
  )


advantages = jax.jit(ppo.advantages)


@pytest.mark.parametrize('gae_lambda', [0.0, 0.7, 1.0])
@pytest.mark.parametrize('name', unrolls.CROSSINGS)
def test_advantages_are_those_of_each_episode_by_itself(name, gae_lambda):
  pieces = unrolls.crossing(name)
  unroll, stepped = unrolls.joined(pieces)
  result = advantages(
    *(np.float32(column) for column in unroll[:3]), stepped, gae_lambda
  )
  expected = [advantages_by_definition(piece, gae_lambda) for piece in pieces]
  np.testing.assert_allclose(
    result[stepped], np.concatenate(expected), rtol=1e-4, atol=1e-5
  )
  assert not np.asarray(result)[~stepped].any()


# The loss.


def free_network(observation, num_params):
  """Policy and value are what is observed: 3 logits and a value."""
  assert num_params == 3
  shift = hk.get_parameter('shift', (1, 4), init=jnp.zeros)
  output = observation + shift
  return output[:, :3], output[:, 3]


FREE = SPEC._replace(observations=specs.Array((4,), np.float32))


def random_steps(size=8, seed=0, **changes):
  random = np.random.default_rng(seed)
  steps = ppo.Steps(
    o_tm1=random.normal(size=(size, 4)).astype(np.float32),
    sample_tm1=random.integers(3, size=size).astype(np.int32),
    log_mu_tm1=np.log(random.uniform(0.2, 0.5, size)).astype(np.float32),
    advantage_tm1=random.normal(size=size).astype(np.float32),
    v_tm1=random.normal(size=size).astype(np.float32),
    target_tm1=random.normal(size=size).astype(np.float32),
    weight_tm1=(np.arange(size) % 4 != 1).astype(np.float32),
  )
  return steps._replace(**changes)


@functools.cache
def loss_of(**changes):
  """Returns loss and metrics, and the gradient, as functions of the steps.

  The gradient is that by each step's logits and value, [N, 4].
  """
  agent = make(spec=FREE, network=free_network, **changes)
  params, clip_ratio = initial(agent).params, agent._config.clip_ratio

  def by_observation(observation, steps):
    return agent.loss(
      params, steps._replace(o_tm1=observation), clip_ratio, KEY
    )

  function = jax.jit(jax.value_and_grad(by_observation, has_aux=True))
  return lambda steps: function(steps.o_tm1, steps)


def log_probs_of(observation):
  logits = observation[:, :3].astype(np.float64)
  return logits - np.log(np.exp(logits).sum(-1, keepdims=True))


@pytest.mark.parametrize('normalize', [True, False])
def test_the_loss_is_what_the_papers_say(normalize):
  steps = random_steps()
  (loss, metrics), _ = loss_of(
    value_weight=0.3,
    entropy_weight=0.2,
    clip_ratio=0.1,
    normalize_advantages=normalize,
  )(steps)
  done = steps.weight_tm1 == 1
  log_probs = log_probs_of(steps.o_tm1)
  log_prob = log_probs[np.arange(8), steps.sample_tm1]
  ratio = np.exp(log_prob - steps.log_mu_tm1)[done]
  advantage = steps.advantage_tm1[done]
  if normalize:
    advantage = (advantage - advantage.mean()) / advantage.std()
  # Eq. 7 of Schulman et al. 2017.
  clipped = np.minimum(ratio * advantage, ratio.clip(0.9, 1.1) * advantage)
  value = steps.o_tm1[:, 3]
  entropy = -(np.exp(log_probs) * log_probs).sum(-1)[done].mean()
  expected = {
    'policy_loss': -clipped.mean(),
    'value_loss': ((value - steps.target_tm1)[done] ** 2).mean() / 2,
    'entropy': entropy,
    'mean_value': value[done].mean(),
    'approximate_kl': (ratio - 1 - np.log(ratio)).mean(),
    'share_clipped': (np.abs(ratio - 1) > 0.1).mean(),
  }
  expected['loss'] = (
    expected['policy_loss'] + 0.3 * expected['value_loss'] - 0.2 * entropy
  )
  assert 0 < expected['share_clipped'] < 1
  assert metrics.keys() == expected.keys()
  for key, value in expected.items():
    assert metrics[key] == pytest.approx(value, rel=1e-4, abs=1e-5), key
  assert loss == metrics['loss']


def test_values_are_held_back_like_the_ratio_if_asked_for():
  steps = random_steps()
  (_, metrics), _ = loss_of(clip_values=True, clip_ratio=0.1)(steps)
  done = steps.weight_tm1 == 1
  value, old = steps.o_tm1[:, 3], steps.v_tm1
  near = old + (value - old).clip(-0.1, 0.1)
  errors = np.maximum(
    (value - steps.target_tm1) ** 2, (near - steps.target_tm1) ** 2
  )
  assert metrics['value_loss'] == pytest.approx(
    errors[done].mean() / 2, rel=1e-4
  )


@pytest.mark.parametrize(
  ('ratio', 'advantage', 'is_held_back'),
  [
    (1.0, 1.0, False),
    (1.0, -1.0, False),
    (1.19, 1.0, False),
    (1.21, 1.0, True),  # far enough towards what was good
    (1.21, -1.0, False),
    (0.81, -1.0, False),
    (0.79, -1.0, True),  # far enough from what was bad
    (0.79, 1.0, False),
  ],
)
def test_the_gradient_ends_where_the_ratio_went_far_enough(
  ratio, advantage, is_held_back
):
  steps = random_steps(weight_tm1=np.ones(8, np.float32))
  log_probs = log_probs_of(steps.o_tm1)[np.arange(8), steps.sample_tm1]
  steps = steps._replace(
    log_mu_tm1=np.float32(log_probs - np.log(ratio)),
    advantage_tm1=np.full(8, advantage, np.float32),
  )
  _, gradient = loss_of(normalize_advantages=False, value_weight=0.0)(steps)
  chosen = np.asarray(gradient)[np.arange(8), steps.sample_tm1]
  if is_held_back:
    assert not np.asarray(gradient).any()
  else:
    # What was good becomes likelier, what was bad less so.
    assert (np.sign(chosen) == -np.sign(advantage)).all()


def test_what_was_no_step_gets_no_gradient_and_does_not_count():
  function = loss_of(entropy_weight=0.1)
  steps = random_steps()
  (loss, _), gradient = function(steps)
  done = steps.weight_tm1 == 1
  assert np.asarray(gradient)[done].any(axis=1).all()
  assert not np.asarray(gradient)[~done].any()
  other = random_steps(seed=1)
  mixed = jax.tree.map(
    lambda a, b: np.where(done.reshape(-1, *[1] * (a.ndim - 1)), a, b),
    steps,
    other,
  )._replace(weight_tm1=steps.weight_tm1)
  assert function(mixed)[0][0] == pytest.approx(float(loss), rel=1e-5)


def test_the_size_and_mean_of_advantages_do_not_matter_if_normalised():
  steps = random_steps()
  moved = steps._replace(advantage_tm1=100 * steps.advantage_tm1 + 7)
  assert_close(loss_of()(moved)[1], loss_of()(steps)[1], 1e-3)
  apart = loss_of(normalize_advantages=False)
  assert not np.allclose(apart(moved)[1], apart(steps)[1], 1e-3)


def test_a_minibatch_without_steps_teaches_nothing():
  steps = random_steps(weight_tm1=np.zeros(8, np.float32))
  (loss, _), gradient = loss_of()(steps)
  assert loss == 0.0
  assert not np.asarray(gradient).any()


# Epochs and minibatches.


def recorded(agent, state, batch):
  """Returns the minibatches that an update goes through, and what it returns."""
  minibatches = []
  loss = agent.loss

  def record(params, steps, *others):
    jax.debug.callback(lambda s: minibatches.append(s), steps, ordered=True)
    return loss(params, steps, *others)

  agent.loss = record
  output = jax.jit(agent.update)(state, batch)
  jax.effects_barrier()
  return minibatches, output


COUNTING = specs.make_environment_spec(environments.Counting())


@functools.cache
def acted(normalize=True):
  """Returns an agent, its state, and two batches of its acting.

  Episodes of 2, 3 and 4 steps end within the unrolls of 5. The state has
  statistics of something else than the batch, and large weights.
  """
  agent = make(
    spec=COUNTING,
    unroll_length=5,
    batch_size=2,
    normalize_returns=False,
    normalize_observations=normalize,
    num_minibatches=1,
  )
  state = initial(agent)
  random = np.random.default_rng(0)
  seen = random.normal(size=(50, 2), scale=3.0).astype(np.float32)
  state = state._replace(
    params=jax.tree.map(
      lambda leaf: random.normal(size=leaf.shape).astype(np.float32) / 2,
      state.params,
    ),
    statistics=normalization.updated(
      state.statistics, seen, np.ones(50, np.float32)
    ),
  )
  games = [
    environments.Counting((2, 3, 4), (True, False), first_episode=first)
    for first in (0, 1)
  ]
  return agent, state, unrolls.played(agent, games, state, num_batches=2)


def batch_of(data):
  return types.Batch(data, np.ones(len(data.reward), np.float32))


@pytest.mark.parametrize('normalize', [True, False])
def test_at_first_the_policy_is_the_one_that_acted(normalize):
  agent, state, batches = acted(normalize)
  update = jax.jit(
    make(agent._config, COUNTING, num_epochs=1, learning_rate=1e-9).update
  )
  for data in batches:
    assert (data.step_type == types.LAST).any()
    log_prob = data.extras['log_prob'][data.step_type != types.LAST]
    assert np.std(log_prob) > 0.1  # else this would say nothing
    _, output = update(state, batch_of(data))
    assert output.metrics['approximate_kl'] == pytest.approx(0.0, abs=1e-6)
    assert output.metrics['share_clipped'] == 0.0


def test_later_it_is_another():
  agent, state, (data, _) = acted()
  agent = make(agent._config, COUNTING, num_epochs=4, learning_rate=1e-2)
  _, output = jax.jit(agent.update)(state, batch_of(data))
  assert output.metrics['approximate_kl'] > 1e-4


def test_every_epoch_goes_through_every_row_once_in_another_order():
  _, state, (data, _) = acted()
  agent = make(acted()[0]._config, COUNTING, num_epochs=3, num_minibatches=5)
  minibatches, (new_state, _) = recorded(agent, state, batch_of(data))
  assert len(minibatches) == 15
  assert all(len(steps.weight_tm1) == 2 for steps in minibatches)
  # Rewards of 1 and observations that repeat: advantages tell rows apart.
  epochs = [
    np.concatenate([s.advantage_tm1 for s in minibatches[i : i + 5]])
    for i in (0, 5, 10)
  ]
  first = np.sort(epochs[0])
  for epoch in epochs[1:]:
    np.testing.assert_array_equal(np.sort(epoch), first)
    assert (epoch != epochs[0]).any()
  # And the next update shuffles in its own way.
  again, _ = recorded(agent, state._replace(key=new_state.key), batch_of(data))
  assert any(
    (a.advantage_tm1 != b.advantage_tm1).any()
    for a, b in zip(minibatches, again, strict=True)
  )


def test_only_steps_have_weight_and_their_targets_are_values_plus_advantages():
  _, state, (data, _) = acted()
  agent = make(acted()[0]._config, COUNTING, num_epochs=1)
  (steps,), _ = recorded(agent, state, batch_of(data))
  assert steps.weight_tm1.sum() == (data.step_type[:, :-1] != 2).sum() < 10
  observed = normalization.normalized(state.statistics, data.observation)
  _, value = hk.BatchApply(
    lambda o: agent._network.apply(state.params, None, o)
  )(observed)
  expected = [
    ppo.advantages(
      value[row],
      data.reward[row, :-1],
      0.99 * data.discount[row, :-1],
      data.step_type[row, :-1] != 2,
      0.95,
    )
    for row in range(2)
  ]
  assert_close(np.sort(steps.advantage_tm1), np.sort(np.concatenate(expected)))
  targets = np.concatenate(expected) + np.asarray(value[:, :-1]).reshape(-1)
  assert_close(np.sort(steps.target_tm1), np.sort(targets))


def test_rewards_are_scaled_then_clipped_to_learn_from():
  _, state, (data, _) = acted()
  config = acted()[0]._config

  def learnt(reward, **changes):
    agent = make(config, COUNTING, num_epochs=1, **changes)
    changed = data._replace(reward=np.float32(reward))
    steps, *_ = agent._steps(state, changed, KEY)
    return steps.target_tm1

  reward = np.random.default_rng(0).normal(size=data.reward.shape)
  assert_close(
    learnt(reward, reward_scale=0.5, max_abs_reward=0.3),
    learnt((reward * 0.5).clip(-0.3, 0.3)),
  )
  assert not np.allclose(learnt(reward), learnt(reward, reward_scale=0.5))


# Statistics of returns and observations.


def steps_of(state, data, **changes):
  """Returns what an update of one epoch learns from, and the state after it."""
  agent = make(acted()[0]._config, COUNTING, num_epochs=1, **changes)
  (steps,), (new_state, _) = recorded(agent, state, batch_of(data))
  return steps, new_state


def test_values_are_learnt_in_sizes_of_the_returns_before():
  _, state, (data, _) = acted()
  seen = np.float32([30.0, 50.0])  # the root of their mean square is 41.2
  state = state._replace(
    returns=normalization.updated(state.returns, seen, np.ones(2, np.float32))
  )
  size = np.sqrt((30**2 + 50**2) / 2)
  steps, new_state = steps_of(state, data, normalize_returns=True)
  # The network's values are in sizes: raw, they are that much larger.
  larger = jax.tree.map(np.array, state.params)
  for name in larger:
    if name.endswith('value'):
      larger[name] = {k: leaf * size for k, leaf in larger[name].items()}
  raw, _ = steps_of(
    state._replace(params=larger, returns=normalization.initial_of_returns()),
    data,
  )
  for column in ('advantage_tm1', 'target_tm1', 'v_tm1'):
    assert_close(
      np.sort(getattr(steps, column)),
      np.sort(getattr(raw, column)) / size,
      1e-3,
    )
  done = raw.weight_tm1 == 1
  expected = np.mean(np.concatenate([seen, raw.target_tm1[done]]) ** 2) ** 0.5
  assert normalization.root_mean_square(new_state.returns) == pytest.approx(
    expected, 1e-4
  )


def test_the_first_batch_is_learnt_from_with_its_own_statistics():
  _, state, (data, _) = acted()
  state = state._replace(
    params=jax.tree.map(np.zeros_like, state.params),  # values of 0
    statistics=normalization.initial(COUNTING.observations),
  )
  for scale in (1.0, 1000.0):
    larger = data._replace(reward=data.reward * np.float32(scale))
    steps, _ = steps_of(state, larger, normalize_returns=True)
    done = steps.weight_tm1 == 1
    assert np.mean(steps.target_tm1[done] ** 2) == pytest.approx(1.0, rel=1e-3)
    np.testing.assert_allclose(steps.o_tm1[done].mean(0), 0, atol=1e-4)


def test_statistics_of_returns_stay_empty_where_none_are_wanted():
  _, state, (data, _) = acted()
  _, new_state = steps_of(state, data)
  assert_equal(new_state.returns, state.returns)
  assert normalization.root_mean_square(new_state.returns) == 1.0


def test_statistics_count_the_steps_of_every_batch():
  agent, state, batches = acted()
  update = jax.jit(agent.update)
  seen = []
  before = state.statistics
  for data in batches:
    state, _ = update(state, batch_of(data))
    stepped = data.step_type[:, :-1] != 2
    seen.append(data.observation[:, :-1][stepped])
  expected = before
  for observation in seen:
    expected = normalization.updated(
      expected, observation, np.ones(len(observation), np.float32)
    )
  assert_close(state.statistics, expected)
  assert state.statistics['count'] == 50 + sum(map(len, seen))


def test_statistics_are_those_that_the_batch_was_acted_with():
  # What is learnt of a batch does not depend on the statistics after it.
  agent, state, (data, _) = acted()
  (steps, *_), (new_state, _) = recorded(
    make(agent._config, COUNTING), state, batch_of(data)
  )
  observed = normalization.normalized(
    state.statistics, data.observation[:, :-1].reshape(-1, 2)
  )
  assert_close(
    np.sort(steps.o_tm1, axis=0), np.sort(np.asarray(observed), axis=0)
  )
  published = agent.actor_params(new_state)
  assert_equal(published['statistics'], new_state.statistics)
  assert published['statistics']['count'] > state.statistics['count']


def test_without_normalisation_nothing_is_counted():
  agent, state, (data, _) = acted(normalize=False)
  new_state, _ = jax.jit(agent.update)(state, batch_of(data))
  assert_equal(new_state.statistics, state.statistics)


# Acting and learning.


def fixed_network(observation, num_params):
  """Chances of 0.2, 0.5 and 0.3, whatever is observed."""
  assert num_params == 3
  logits = hk.get_parameter(
    'logits', (1, 3), init=hk.initializers.Constant(np.log([[0.2, 0.5, 0.3]]))
  )
  rows = observation.shape[0]
  return jnp.repeat(logits, rows, axis=0), jnp.zeros(rows)


def act(rows, explores, **changes):
  agent = make(network=fixed_network, **changes)
  streams = types.Streams(np.arange(rows), rows) if explores else None
  return agent.act(
    agent.actor_params(initial(agent)),
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


def test_the_evaluated_policy_draws_if_asked_to():
  drawn = act(100, explores=False, evaluate_greedily=False).action
  assert set(np.asarray(drawn).tolist()) == {0, 1, 2}


def test_updates_change_every_parameter_and_values_come_near_their_targets():
  agent, state, (data, _) = acted()
  agent = make(agent._config, COUNTING, learning_rate=1e-2, gae_lambda=1.0)
  update, first = jax.jit(agent.update), state.params
  losses = []
  for _ in range(20):
    state, output = update(state, batch_of(data))
    losses.append(float(output.metrics['value_loss']))
  assert losses[-1] < 0.3 * losses[0]
  jax.tree.map(lambda a, b: np.testing.assert_(np.any(a != b)), first, state[0])


@pytest.mark.parametrize(
  ('kind', 'shares'),
  [('linear', [1.0, 0.75, 0.5, 0.5]), ('cosine', [1.0, 0.75, 0.5, 0.5])],
)
def test_the_clip_ratio_follows_its_schedule(kind, shares):
  _, state, (data, _) = acted()
  agent = make(
    acted()[0]._config,
    COUNTING,
    clip_ratio=0.4,
    clip_ratio_schedule=kind,
    clip_ratio_steps=2,
    clip_ratio_end_share=0.5,
  )
  found, loss = [], agent.loss

  def record(params, steps, clip_ratio, key):
    jax.debug.callback(found.append, clip_ratio)
    return loss(params, steps, clip_ratio, key)

  agent.loss = record
  update = jax.jit(agent.update)
  for _ in range(4):
    state, _ = update(state, batch_of(data))
  jax.effects_barrier()
  expected = 0.4 * np.repeat(shares, len(found) // 4)
  np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_the_gradients_norm_is_bounded_before_adam():
  _, state, (data, _) = acted()
  moments = {}
  for bound in (0.01, 1e9):
    agent = make(
      acted()[0]._config, COUNTING, num_epochs=1, max_gradient_norm=bound
    )
    new_state, output = jax.jit(agent.update)(state, batch_of(data))
    assert output.metrics['gradient_norm'] > 0.01  # measured before it is cut
    first_moment = new_state.optimizer_state[1][0].mu
    squares = [np.sum(np.square(m)) for m in jax.tree.leaves(first_moment)]
    moments[bound] = np.sqrt(np.sum(squares)) / 0.1  # Adam keeps a tenth of it
  np.testing.assert_allclose(moments[0.01], 0.01, rtol=1e-4)
  np.testing.assert_allclose(
    moments[1e9], output.metrics['gradient_norm'], rtol=1e-4
  )


# Networks, specs and settings.


def test_the_policy_and_the_values_have_networks_of_their_own():
  agent = make()
  params = initial(agent).params
  observation = np.ones((1, 10, 5), np.float32)
  for output, of in ((0, 'policy'), (1, 'value')):
    gradient = jax.grad(
      lambda p, i=output: agent._network.apply(p, None, observation)[i][0].sum()
    )(params)
    touched = {
      name
      for name, leaves in gradient.items()
      if any(np.any(leaf) for leaf in leaves.values())
    }
    assert touched
    assert all(of in name for name in touched)


def test_the_first_policy_is_nearly_even():
  agent = make()
  observation = np.random.default_rng(0).normal(size=(9, 10, 5))
  logits, _ = agent._network.apply(
    initial(agent).params, None, observation.astype(np.float32)
  )
  assert np.abs(logits).max() < 0.1


@pytest.mark.parametrize('nested', [False, True])
def test_an_images_convolutions_are_shared(nested):
  image = IMAGE.observations
  seen = {'image': image, 'speed': SPEC.observations} if nested else image
  agent = make(spec=IMAGE._replace(observations=seen))
  params = jax.eval_shape(agent.initial_learner_state, KEY).params
  convolutions = [name for name in params if 'conv2_d' in name]
  assert len(convolutions) == 3


@pytest.mark.parametrize('own', [False, True])
def test_convolutions_of_minibatches_stand_in_one_loop(own):
  # Unrolled, 16 minibatches of them took over 100 s to compile.
  def network(observation, num_params):
    features = hk.Conv2D(4, 3)(observation.astype(np.float32))
    return networks.PolicyValueHead(num_params)(hk.Flatten()(features))

  def count(**settings):
    agent = make(spec=IMAGE, network=network if own else None, **settings)
    state = jax.eval_shape(agent.initial_learner_state, KEY)
    batch = agent_contract._Check(agent, IMAGE, 0)._batch()
    program = jax.jit(agent.update).lower(state, batch).as_text()
    return program.count('stablehlo.convolution')

  assert count(num_minibatches=4) == count(num_minibatches=2) >= 3


def test_a_network_of_another_output_is_refused():
  def network(observation, num_params):
    policy = jnp.zeros((observation.shape[0], num_params))
    return policy, policy

  with pytest.raises(
    ValueError, match=r'shape \(1, 3\), and values, shape \(1,\), got .*1, 3'
  ):
    make(network=network)


def test_other_actions_are_refused_with_what_to_do():
  actions = specs.BoundedArray((2,), np.int32, 0, 3, 'keys')
  with pytest.raises(
    ValueError, match=r"PPO needs one discrete action .* got .*name='keys'"
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
    ({'clip_ratio': 0}, 'clip_ratio must be positive, got 0'),
    ({'discount': 1.1}, r'discount must be in \[0, 1\], got 1\.1'),
    ({'gae_lambda': -0.1}, r'gae_lambda must be in \[0, 1\], got -0\.1'),
    ({'value_weight': -1}, 'value_weight must not be negative, got -1'),
    ({'entropy_weight': -1}, 'entropy_weight must not be negative, got -1'),
    ({'unroll_length': 0}, 'unroll_length must be at least 1, got 0'),
    ({'num_epochs': 0}, 'num_epochs must be at least 1, got 0'),
    ({'num_minibatches': 0}, 'num_minibatches must be at least 1, got 0'),
    ({'hidden_sizes': (8, 0)}, r'hidden_sizes must be .* got \(8, 0\)'),
    (
      {'num_minibatches': 3},
      'num_minibatches=3 does not divide the 1024 steps of batch_size=8 '
      'unrolls of unroll_length=128',
    ),
    (
      {'num_minibatches': 1024},
      'num_minibatches=1024 leaves one step in each, whose advantage',
    ),
    # What replay refuses is refused here already, before there is an agent.
    ({'batch_size': 0}, 'batch_size must be at least 1, got 0'),
    ({'queue_size': 4}, 'batch_size must not be more than queue_size=4, got 8'),
  ],
)
def test_an_impossible_setting_is_refused_by_name(changes, message):
  with pytest.raises(ValueError, match=message):
    ppo.Config(**changes)


def test_settings_reach_replay():
  replay = make(batch_size=3, unroll_length=8, queue_size=9).replay
  (table,) = replay.tables
  assert table.used_once
  assert replay.window.across_episodes
  assert (replay.window.length, replay.window.period) == (9, 8)
  assert (replay.batch_size, table.max_size) == (3, 9)
