"""DDPG against numbers worked by hand, and D4PG's and TD3's parts of it."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from distacme import actor_critic
from distacme import critics
from distacme.agents import ddpg

from .continuous_control import KEY
from .continuous_control import batch
from .continuous_control import known_networks
from .continuous_control import make
from .continuous_control import same

ATOMS = np.linspace(-3.0, 3.0, 7, dtype=np.float32)


def linear_q(observation, vector):
  """Q = o_0 + 2 a_0 - 3 a_1."""
  return (observation[:, :1] + vector @ jnp.array([[2.0], [-3.0]])).astype(
    float
  )


def test_the_critics_target_is_the_paper_equation():
  agent = make('ddpg', network=known_networks(same([0.3, -0.7]), linear_q))
  data = batch().data
  a_t = agent.act_vector({}, data.next_observation)
  loss, metrics = agent.critic_loss({}, {}, data, a_t)
  vector = data.action / np.array([2.0, 5.0]) - np.array([0.0, 1.0])
  q_tm1 = data.observation[:, 0] + vector @ np.array([2.0, -3.0])
  next_q = data.next_observation[:, 0] + np.tanh([0.3, -0.7]) @ [2.0, -3.0]
  error = data.reward + data.discount * next_q - q_tm1
  np.testing.assert_allclose(loss, np.mean(error**2) / 2, rtol=1e-5)
  np.testing.assert_allclose(
    metrics['mean_abs_td_error'], np.abs(error).mean(), rtol=1e-5
  )
  np.testing.assert_allclose(metrics['mean_q'], q_tm1.mean(), rtol=1e-4)


def test_the_policy_climbs_the_gradient_of_the_value():
  agent = make('ddpg')
  params = agent.initial_learner_state(KEY).params
  observation = batch().data.observation

  def value(policy):
    vector = jnp.tanh(agent._policy.apply(policy, observation))
    return agent.q(params.critic, observation, vector).mean()

  gradient = jax.grad(agent.policy_loss, has_aux=True)(
    params.policy, params.critic, observation
  )[0]
  step = jax.tree.map(lambda g: -0.01 * g / 2, gradient)
  moved = [
    value(
      jax.tree.map(lambda p, s, sign=sign: p + sign * s, params.policy, step)
    )
    for sign in (1, -1)
  ]
  # The rise along the gradient, by differences, is its squared norm.
  squared = sum(jnp.sum(g**2) for g in jax.tree.leaves(gradient))
  np.testing.assert_allclose(moved[0] - moved[1], 0.01 * squared, rtol=0.02)


@pytest.mark.parametrize('name', ['ddpg', 'd4pg'])
def test_each_network_follows_its_own_loss(name):
  agent = make(name)
  state = agent.initial_learner_state(KEY)
  params, data = state.params, batch().data
  a_t = agent.act_vector(params.policy, data.next_observation)
  gradient = actor_critic.ActorCritic(
    jax.grad(agent.policy_loss, has_aux=True)(
      params.policy, params.critic, data.observation
    )[0],
    jax.grad(agent.critic_loss, has_aux=True)(
      params.critic, state.target_params.critic, data, a_t
    )[0],
  )
  after, _ = jax.jit(agent.update)(state, batch())
  moved = jax.tree.map(jnp.subtract, after.params, params)
  # Adam's first step has the sign of the gradient that it is given.
  for step, slope in zip(*map(jax.tree.leaves, (moved, gradient)), strict=True):
    known = np.abs(slope) > 1e-6
    assert known.any()
    np.testing.assert_array_equal(np.sign(step)[known], -np.sign(slope)[known])


@pytest.mark.parametrize('name', ['ddpg', 'd4pg', 'td3'])
def test_an_update_raises_the_value_of_what_the_policy_does(name):
  rates = {'policy_learning_rate': 1e-4, 'critic_learning_rate': 1e-9}
  agent = make(name, target_update_period=1, **rates)
  state = agent.initial_learner_state(KEY)
  # What the target critic holds of it does not count.
  opposite = jax.tree.map(lambda leaf: -leaf, state.target_params)
  state = state._replace(target_params=opposite)
  observation = batch().data.observation

  def value(policy):
    vector = agent.act_vector(policy, observation)
    return agent.q(state.params.critic, observation, vector).mean()

  now, slope = jax.value_and_grad(value)(state.params.policy)
  after, _ = jax.jit(agent.update)(state, batch())
  # Adam's first step is as long as its rate, in every parameter.
  rise = 1e-4 * sum(jnp.abs(leaf).sum() for leaf in jax.tree.leaves(slope))
  np.testing.assert_allclose(value(after.params.policy) - now, rise, rtol=0.1)


def test_targets_move_by_tau_every_period():
  agent = make('ddpg', target_update_period=3, target_step_size=0.25)
  update = jax.jit(agent.update)
  first = state = agent.initial_learner_state(KEY)
  for step in range(1, 4):
    state, _ = update(state, batch())
    share = 0.25 if step == 3 else 0.0
    for target, old, new in zip(
      *map(
        jax.tree.leaves,
        (state.target_params, first.target_params, state.params),
      ),
      strict=True,
    ):
      np.testing.assert_allclose(
        target, (1 - share) * old + share * new, atol=1e-6
      )


def noise(config, steps=4_000):
  """Returns the noise [steps] of one element over steps."""
  state = ddpg.ActorState(jnp.zeros((1, 1)), jnp.array([True]))

  def step(state, key):
    _, state = ddpg.explore(jnp.zeros((1, 1)), key, state, True, config)
    return state, state.noise[0, 0]

  keys = jax.random.split(jax.random.key(1), steps)
  return np.asarray(jax.lax.scan(step, state, keys)[1])


@pytest.mark.parametrize('theta', [1.0, 0.15])
def test_noise_forgets_theta_of_itself_at_every_step(theta):
  x = noise(ddpg.Config(noise_std=0.2, noise_reversion=theta))[100:]
  kept = 1 - theta
  expected = 0.2 / np.sqrt(1 - kept**2)
  np.testing.assert_allclose(x.std(), expected, rtol=0.15)
  np.testing.assert_allclose(np.corrcoef(x[1:], x[:-1])[0, 1], kept, atol=0.05)


def test_noise_is_added_and_what_is_out_of_bounds_clipped():
  config = ddpg.Config(noise_std=5.0)
  state = ddpg.ActorState(jnp.zeros((500, 2)), jnp.full(500, True))
  vector, state = ddpg.explore(
    jnp.full((500, 2), 0.3), jax.random.key(0), state, True, config
  )
  np.testing.assert_allclose(vector, (0.3 + state.noise).clip(-1, 1), atol=1e-6)
  assert np.mean(np.abs(vector) == 1.0) > 0.7


# D4PG.


def test_the_value_is_the_mean_of_the_distribution():
  share = np.array([0.5, 0.1, 0.0, 0.1, 0.0, 0.0, 0.3])

  def critic(observation, vector):
    # What is added to all of them changes nothing.
    return jnp.log(jnp.float32(share) + 1e-12)[None] + observation[:, :1]

  agent = make('d4pg', network=known_networks(same([0.0, 0.0]), critic))
  q = agent.q({}, batch().data.observation, jnp.zeros((6, 2)))
  mean = -3 * 0.5 - 2 * 0.1 + 3 * 0.3
  np.testing.assert_allclose(q, np.full(6, mean), rtol=1e-5)


def projected(atoms, r, discount, probability):
  """Returns a distribution moved to r + discount * atoms, on the same atoms."""
  result = np.zeros(len(atoms))
  width = atoms[1] - atoms[0]
  for atom, mass in zip(atoms, probability, strict=True):
    place = (
      np.clip(r + discount * atom, atoms[0], atoms[-1]) - atoms[0]
    ) / width
    low = int(np.floor(place))
    result[low] += mass * (low + 1 - place)
    if place > low:
      result[low + 1] += mass * (place - low)
  return result


@pytest.mark.parametrize('discount', [0.0, 0.5])
def test_the_categorical_target_is_the_projection(discount):
  random, atoms = np.random.default_rng(0), critics.Atoms(-3.0, 3.0, 7)
  probability = random.dirichlet(np.ones(7), 6).astype(np.float32)
  logits = random.normal(size=(6, 7)).astype(np.float32)
  data = batch().data
  data = data._replace(
    reward=data.reward.clip(-1.5, 1.5),
    discount=np.full(6, discount, np.float32),
  )
  loss, _ = atoms.loss(jnp.array(logits), probability, data)
  log_p = jax.nn.log_softmax(logits)
  expected = []
  for i in range(6):
    target = projected(ATOMS, data.reward[i], discount, probability[i])
    np.testing.assert_allclose(target.sum(), 1.0, rtol=1e-5)
    # Nothing reaches beyond the atoms here, so the mean is kept.
    mean = data.reward[i] + discount * probability[i] @ ATOMS
    np.testing.assert_allclose(target @ ATOMS, mean, rtol=1e-4, atol=1e-5)
    expected.append(-target @ log_p[i])
  np.testing.assert_allclose(loss, np.mean(expected), rtol=1e-5)


def test_a_terminal_target_lies_on_the_atom_of_the_reward():
  data = batch().data._replace(
    reward=np.full(6, 2.0, np.float32), discount=np.zeros(6, np.float32)
  )
  sure = np.where(ATOMS == 2.0, 40.0, 0.0).astype(np.float32)
  even = np.full((6, 7), 1 / 7, np.float32)
  loss, _ = critics.Atoms(-3.0, 3.0, 7).loss(np.tile(sure, (6, 1)), even, data)
  np.testing.assert_allclose(loss, 0.0, atol=1e-5)


def test_the_share_at_the_ends_and_the_mean_are_told():
  logits = np.log(np.array([[0.25, 0.25, 0, 0, 0, 0, 0.5]]) + 1e-12)
  data = jax.tree.map(lambda leaf: leaf[:1], batch().data)
  even = jnp.full((1, 7), 1 / 7)
  _, metrics = critics.Atoms(-3.0, 3.0, 7).loss(jnp.float32(logits), even, data)
  np.testing.assert_allclose(metrics['share_at_ends'], 0.75, rtol=1e-5)
  np.testing.assert_allclose(
    metrics['mean_q'], -3 * 0.25 - 2 * 0.25 + 3 * 0.5, rtol=1e-4
  )


# TD3.


def test_both_critics_learn_from_the_lower_target():
  agent = make('td3', smoothing_std=0.0)
  state = agent.initial_learner_state(KEY)
  data = batch().data
  a_t = agent.act_vector(state.params.policy, data.next_observation)
  q_t = agent._critic.apply(state.params.critic, data.next_observation, a_t)
  assert q_t.shape == (2, 6, 1)
  assert np.abs(q_t[0] - q_t[1]).max() > 1e-3  # they start apart
  target = data.reward + data.discount * np.min(q_t, axis=0)[:, 0]
  vector = agent._bounds.vector(data.action)
  q_tm1 = agent._critic.apply(state.params.critic, data.observation, vector)
  error = target[None] - np.asarray(q_tm1)[..., 0]
  loss, _ = agent.critic_loss(
    state.params.critic, state.target_params.critic, data, a_t
  )
  np.testing.assert_allclose(loss, (error**2).mean(1).sum() / 2, rtol=1e-5)


def test_targets_are_smoothed_by_clipped_noise():
  def critic(observation, vector):
    return vector[:, :1]

  agent = make(
    'td3',
    network=known_networks(same([0.0, 0.0]), critic),
    smoothing_std=10.0,
    smoothing_clip=0.5,
  )
  data = batch(size=200).data
  q_tm1 = agent._bounds.vector(data.action)[:, 0]
  data = data._replace(
    reward=np.asarray(q_tm1), discount=np.ones(200, np.float32)
  )
  a_t = agent.smoothed_vector({}, data.next_observation, KEY)
  _, metrics = agent.critic_loss({}, {}, data, a_t)
  # Errors are the noise, of which nearly all is clipped to 0.5.
  assert 0.45 < metrics['mean_abs_td_error'] <= 0.5


def test_policy_and_targets_move_less_often_than_the_critics():
  agent = make('td3', target_update_period=3)
  update = jax.jit(agent.update)
  state = agent.initial_learner_state(KEY)
  moved = []
  for _ in range(6):
    before = state
    state, _ = update(state, batch())
    moved.append(
      [
        any(
          np.any(a != b)
          for a, b in zip(*map(jax.tree.leaves, pair), strict=True)
        )
        for pair in (
          (before.params.critic, state.params.critic),
          (before.params.policy, state.params.policy),
          (before.target_params, state.target_params),
        )
      ]
    )
  often, seldom = [True] * 6, [False, False, True] * 2
  assert [list(row) for row in zip(*moved, strict=True)] == [
    often,
    seldom,
    seldom,
  ]


def test_the_first_critic_leads_the_policy():
  agent = make('td3')
  params = agent.initial_learner_state(KEY).params
  observation = batch().data.observation
  vector = jnp.zeros((6, 2))
  both = agent._critic.apply(params.critic, observation, vector)
  np.testing.assert_allclose(
    agent.q(params.critic, observation, vector), both[0, :, 0]
  )
