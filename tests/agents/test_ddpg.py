"""DDPG against numbers worked by hand, and D4PG's and TD3's parts of it."""

import haiku as hk
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from distacme import specs
from distacme import types
from distacme.agents import ddpg
from distacme.kit import actor_critic
from distacme.kit import critics

from .continuous_control import KEY
from .continuous_control import SPEC
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
  a_t = agent.act_vector({}, KEY, data.next_observation)
  loss, metrics = agent.critic_loss({}, {}, data, a_t, KEY)
  vector = data.action / np.array([2.0, 5.0]) - np.array([0.0, 1.0])
  q_tm1 = data.observation[:, 0] + vector @ np.array([2.0, -3.0])
  next_q = data.next_observation[:, 0] + np.tanh([0.3, -0.7]) @ [2.0, -3.0]
  error = data.reward + data.discount * next_q - q_tm1
  np.testing.assert_allclose(loss, np.mean(error**2) / 2, rtol=1e-5)
  np.testing.assert_allclose(
    metrics['mean_abs_td_error'], np.abs(error).mean(), rtol=1e-5
  )
  np.testing.assert_allclose(metrics['mean_q'], q_tm1.mean(), rtol=1e-4)


def test_the_critics_target_in_a_process_of_three_states():
  # 0 -> 1 pays 1, 1 -> 2 pays 2, 2 ends and pays 10; gamma is 0.9.
  spec = SPEC._replace(
    observations=specs.Array((3,), np.float32),
    actions=specs.BoundedArray((1,), np.float32, -2.0, 2.0),
  )
  states = np.eye(3, dtype=np.float32)
  data = types.Transition(
    observation=states,
    action=np.array([[0.0], [0.5], [-1.0]], np.float32),
    reward=np.array([1.0, 2.0, 10.0], np.float32),
    discount=np.array([0.9, 0.9, 0.0], np.float32),
    next_observation=states[[1, 2, 0]],
  )

  def policy(observation):
    return observation @ hk.get_parameter('raw', [3, 1], init=jnp.zeros)

  def critic(observation, vector):
    value, slope = (
      hk.get_parameter(name, [3, 1], init=jnp.zeros)
      for name in ('value', 'slope')
    )
    return observation @ value + (observation @ slope) * vector

  def params(action, value, slope):
    columns = [np.array(x, np.float32)[:, None] for x in (action, value, slope)]
    return actor_critic.Params(
      {'~': {'raw': np.arctanh(columns[0])}},
      {'~': {'value': columns[1], 'slope': columns[2]}},
    )

  agent = make('ddpg', spec, known_networks(policy, critic))
  state = agent.initial_learner_state(KEY)._replace(
    params=params([0.9, 0.9, 0.9], [0.0, 0.0, 0.0], [1.0, 1.0, 1.0]),
    target_params=params([0.5, -0.5, 0.1], [4.0, 5.0, 6.0], [1.0, 2.0, 3.0]),
  )
  _, output = agent.update(state, types.Batch(data, np.ones(3, np.float32)))
  # Actions in [-1, 1], which are what was done by half, are worth themselves.
  errors = np.array(
    [
      1.0 + 0.9 * (5.0 + 2.0 * -0.5) - 0.0,
      2.0 + 0.9 * (6.0 + 3.0 * 0.1) - 0.25,
      10.0 + 0.5,
    ]
  )
  np.testing.assert_allclose(errors, [4.6, 7.42, 10.5])
  np.testing.assert_allclose(
    output.metrics['critic_loss'], np.mean(errors**2) / 2, rtol=1e-5
  )
  np.testing.assert_allclose(
    output.metrics['mean_abs_td_error'], errors.mean(), rtol=1e-5
  )


def test_the_policy_climbs_the_gradient_of_the_value():
  agent = make('ddpg')
  params = agent.initial_learner_state(KEY).params
  observation = batch().data.observation

  def value(policy):
    vector = jnp.tanh(agent._policy.apply(policy, KEY, observation))
    return agent.q(params.critic, KEY, observation, vector).mean()

  gradient = jax.grad(agent.policy_loss, has_aux=True)(
    params.policy, params.critic, observation, KEY
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
  a_t = agent.act_vector(params.policy, KEY, data.next_observation)
  gradient = actor_critic.Params(
    jax.grad(agent.policy_loss, has_aux=True)(
      params.policy, params.critic, data.observation, KEY
    )[0],
    jax.grad(agent.critic_loss, has_aux=True)(
      params.critic, state.target_params.critic, data, a_t, KEY
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
    vector = agent.act_vector(policy, KEY, observation)
    return agent.q(state.params.critic, KEY, observation, vector).mean()

  now, slope = jax.value_and_grad(value)(state.params.policy)
  after, _ = jax.jit(agent.update)(state, batch())
  # Adam's first step is as long as its rate, in every parameter.
  rise = 1e-4 * sum(jnp.abs(leaf).sum() for leaf in jax.tree.leaves(slope))
  np.testing.assert_allclose(value(after.params.policy) - now, rise, rtol=0.1)


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
  q = agent.q({}, KEY, batch().data.observation, jnp.zeros((6, 2)))
  mean = -3 * 0.5 - 2 * 0.1 + 3 * 0.3
  np.testing.assert_allclose(q, np.full(6, mean), rtol=1e-5)


EVEN = np.full(7, 1 / 7)


def at(**share):
  """Returns the distribution of atoms m3 (for -3) to p3 with these shares."""
  names = ('m3', 'm2', 'm1', 'p0', 'p1', 'p2', 'p3')
  return np.array([share.get(name, 0.0) for name in names])


def learnt_from(reward, discount, share):
  """Returns what D4PG's loss of one transition pulls its critic to, [7].

  It is read off the loss's gradient, which is softmax(logits) minus that. `share`
  is the target critic's distribution at the window's end, where observations end
  on 1.
  """
  logits = jnp.linspace(-1.0, 2.0, 7)[None]

  def critic(observation, vector):
    own = hk.get_parameter('logits', [1, 7], init=jnp.zeros)
    known = jnp.log(jnp.float32(share) + 1e-12)[None]
    return jnp.where(observation[:, 3:] == 1, known, own)

  agent = make('d4pg', network=known_networks(same([0.0, 0.0]), critic))
  data = jax.tree.map(lambda leaf: leaf[:1], batch().data)._replace(
    reward=np.array([reward], np.float32),
    discount=np.array([discount], np.float32),
  )
  data.observation[:, 3], data.next_observation[:, 3] = 0.0, 1.0
  params = {'~': {'logits': logits}}
  (loss, _), gradient = jax.value_and_grad(agent.critic_loss, has_aux=True)(
    params, params, data, jnp.zeros((1, 2)), KEY
  )
  target = jax.nn.softmax(logits[0]) - gradient['~']['logits'][0]
  cross_entropy = -(target @ jax.nn.log_softmax(logits[0]))
  np.testing.assert_allclose(loss, cross_entropy, rtol=1e-4)
  return np.asarray(target)


@pytest.mark.parametrize(
  ('reward', 'discount', 'share', 'expected'),
  [
    # Between two atoms, the nearer gets more.
    (0.5, 1.0, at(p2=1.0), at(p2=0.5, p3=0.5)),
    (0.2, 0.5, at(p3=1.0), at(p1=0.3, p2=0.7)),
    # What goes beyond the last atom stays there.
    (4.0, 1.0, at(p2=1.0), at(p3=1.0)),
    (1.0, 1.0, at(m3=0.5, p3=0.5), at(m2=0.5, p3=0.5)),
    (-5.0, 0.5, EVEN, at(m3=1.0)),
    # Where the episode ended, the reward is all that there is.
    (2.0, 0.0, EVEN, at(p2=1.0)),
    (-0.25, 0.0, EVEN, at(m1=0.25, p0=0.75)),
  ],
)
def test_d4pgs_target_is_the_projection(reward, discount, share, expected):
  target = learnt_from(reward, discount, share)
  np.testing.assert_allclose(target, expected, atol=1e-5)


@pytest.mark.parametrize('reward', [-1.4, 0.3, 1.5])
def test_the_projection_keeps_mass_and_what_is_within_the_atoms_its_mean(
  reward,
):
  share = np.random.default_rng(0).dirichlet(np.ones(7))
  target = learnt_from(reward, 0.5, share)
  np.testing.assert_allclose(target.sum(), 1.0, rtol=1e-5)
  np.testing.assert_allclose(
    target @ ATOMS, reward + 0.5 * share @ ATOMS, atol=1e-4
  )


def test_the_share_at_the_ends_and_the_mean_are_told():
  logits = np.log(np.array([[0.25, 0.25, 0, 0, 0, 0, 0.5]]) + 1e-12)
  data = jax.tree.map(lambda leaf: leaf[:1], batch().data)
  even = jnp.full((1, 7), 1 / 7)
  _, metrics = critics.Atoms(-3.0, 3.0, 7).loss(
    jnp.float32(logits), data.reward, data.discount, even
  )
  np.testing.assert_allclose(metrics['share_at_ends'], 0.75, rtol=1e-5)
  np.testing.assert_allclose(
    metrics['mean_q'], -3 * 0.25 - 2 * 0.25 + 3 * 0.5, rtol=1e-4
  )


# TD3.


def test_both_critics_learn_from_the_lower_target():
  agent = make('td3', smoothing_std=0.0)
  state = agent.initial_learner_state(KEY)
  data = batch().data
  a_t = agent.act_vector(state.params.policy, KEY, data.next_observation)
  q_t = agent._critic.apply(
    state.params.critic, KEY, data.next_observation, a_t
  )
  assert q_t.shape == (2, 6, 1)
  assert np.abs(q_t[0] - q_t[1]).max() > 1e-3  # they start apart
  target = data.reward + data.discount * np.min(q_t, axis=0)[:, 0]
  vector = agent._bounds.vector(data.action)
  q_tm1 = agent._critic.apply(
    state.params.critic, KEY, data.observation, vector
  )
  error = target[None] - np.asarray(q_tm1)[..., 0]
  loss, _ = agent.critic_loss(
    state.params.critic, state.target_params.critic, data, a_t, KEY
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
  _, metrics = agent.critic_loss({}, {}, data, a_t, KEY)
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
  both = agent._critic.apply(params.critic, KEY, observation, vector)
  np.testing.assert_allclose(
    agent.q(params.critic, KEY, observation, vector), both[0, :, 0]
  )


def test_the_policy_climbs_the_first_critic_as_its_step_has_left_it():
  # The critics go first in algorithm 1 of the paper.
  agent = make('td3', target_update_period=1, critic_learning_rate=1.0)
  state = agent.initial_learner_state(KEY)
  after, _ = jax.jit(agent.update)(state, batch())

  def slopes(critic):
    gradient, _ = jax.grad(agent.policy_loss, has_aux=True)(
      state.params.policy, critic, batch().data.observation, KEY
    )
    leaves = [np.ravel(leaf) for leaf in jax.tree.leaves(gradient)]
    return np.concatenate(leaves)

  steps = jax.tree.map(jnp.subtract, after.params.policy, state.params.policy)
  steps = np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(steps)])
  new, old = slopes(after.params.critic), slopes(state.params.critic)
  # Adam's first step has the sign of the gradient that it is given.
  known = np.minimum(np.abs(new), np.abs(old)) > 1e-6
  np.testing.assert_array_equal(np.sign(steps)[known], -np.sign(new)[known])
  assert (np.sign(new) != np.sign(old))[known].any()
