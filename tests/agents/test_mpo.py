"""MPO and DMPO against numbers worked by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from distacme.agents import d4pg
from distacme.agents import mpo

from .continuous_control import KEY
from .continuous_control import batch
from .continuous_control import make

CONFIG = mpo.Config(epsilon=0.1, epsilon_mean=2.5e-3, epsilon_std=1e-4)
STATES, ACTIONS, SIZE = 5, 20, 2


def gaussians(seed, spread=0.1):
  """Returns an online and a target policy near each other."""
  random = np.random.default_rng(seed)
  mean = random.normal(size=(2, STATES, SIZE)) * spread
  std = np.exp(random.normal(size=(2, STATES, SIZE)) * spread)
  return (
    mpo.MeanAndStd(*map(jnp.float32, pair))
    for pair in zip(mean, std, strict=True)
  )


def duals(value=1.0):
  one, each = jnp.float32(value), jnp.full(SIZE, value)
  return mpo.Duals(one, one, each, each)


def drawn(target, seed=0):
  """Returns actions [ACTIONS, STATES, SIZE] of a policy, and values."""
  keys = jax.random.split(jax.random.key(seed), ACTIONS)
  vectors = jax.vmap(target.sample)(keys)
  q = np.random.default_rng(seed).normal(size=(ACTIONS, STATES)) * 3
  return vectors, jnp.float32(q)


def test_divergence_is_the_integral_of_its_definition():
  p = mpo.MeanAndStd(jnp.array([0.3]), jnp.array([0.5]))
  q = mpo.MeanAndStd(jnp.array([-0.1]), jnp.array([0.9]))
  x = jnp.linspace(-5, 5, 20_001)[:, None]
  log_p, log_q = (jax.vmap(g.log_prob)(x) for g in (p, q))
  integral = np.sum(np.exp(log_p) * (log_p - log_q)) * 10 / 20_000
  np.testing.assert_allclose(p.divergence(q)[0], integral, rtol=1e-3)


def test_the_temperature_keeps_the_weights_within_their_bound():
  online, target = gaussians(0)
  vectors, q = drawn(target)
  optimizer = optax.adam(0.05)

  @jax.jit
  def step(duals, state):
    gradient, metrics = jax.grad(
      lambda d: mpo.policy_loss(online, target, vectors, q, d, CONFIG),
      has_aux=True,
    )(duals)
    updates, state = optimizer.update(gradient, state)
    return optax.apply_updates(duals, updates), state, metrics

  now = duals(3.0)
  state = optimizer.init(now)
  for _ in range(1_000):
    now, state, metrics = step(now, state)
  # As a share of epsilon.
  np.testing.assert_allclose(metrics['kl_q_rel'], 1.0, rtol=0.05)


def test_mean_and_deviation_are_fitted_apart():
  online, target = gaussians(1)
  vectors, q = drawn(target)

  def gradient(online, target):
    return jax.grad(
      lambda o: mpo.policy_loss(o, target, vectors, q, duals(), CONFIG)[0]
    )(online)

  before = gradient(online, target)
  # What the mean is pulled by does not depend on the online deviation.
  wider = gradient(online._replace(std=online.std * 2), target)
  np.testing.assert_allclose(before.mean, wider.mean, rtol=1e-4, atol=1e-6)
  assert np.abs(before.std - wider.std).max() > 0.01
  moved = gradient(online._replace(mean=online.mean + 1), target)
  np.testing.assert_allclose(before.std, moved.std, rtol=1e-4, atol=1e-6)
  assert np.abs(before.mean - moved.mean).max() > 0.01


def test_actions_that_are_worth_more_become_likelier():
  _, target = gaussians(2)
  vectors, _ = drawn(target)
  q = vectors[..., 0] * 10  # the first element is worth something
  gradient = jax.grad(
    lambda o: mpo.policy_loss(o, target, vectors, q, duals(-5.0), CONFIG)[0]
  )(target)
  assert (gradient.mean[:, 0] < 0).all()
  first, second = gradient.mean.mean(axis=0)
  assert -first > 3 * abs(second)


def test_actions_out_of_bounds_are_punished():
  _, target = gaussians(3)
  target = target._replace(mean=target.mean + 1.0)
  vectors, _ = drawn(target)
  gradient = jax.grad(
    lambda o: mpo.policy_loss(
      o, target, vectors, jnp.zeros((ACTIONS, STATES)), duals(-5.0), CONFIG
    )[0]
  )(target)
  assert (gradient.mean > 0).all()  # and Adam steps against it


@pytest.mark.parametrize('far', [False, True])
def test_multipliers_rise_where_a_bound_is_broken(far):
  _, target = gaussians(4)
  online = target._replace(
    mean=target.mean + (1.0 if far else 1e-3),
    std=target.std * (1.5 if far else 1.0001),
  )
  vectors, q = drawn(target)
  gradient, metrics = jax.grad(
    lambda d: mpo.policy_loss(online, target, vectors, q, d, CONFIG),
    has_aux=True,
  )(duals())
  for part, metric in (
    (gradient.alpha_mean, 'kl_mean_rel'),
    (gradient.alpha_std, 'kl_std_rel'),
  ):
    assert ((part < 0) == far).all()
    assert (metrics[metric] > 1) == far


def test_the_divergence_is_per_dimension_of_an_action():
  _, target = gaussians(5)
  online = target._replace(mean=target.mean + jnp.array([[1.0, 0.0]]))
  vectors, q = drawn(target)
  gradient = jax.grad(
    lambda d: mpo.policy_loss(online, target, vectors, q, d, CONFIG)[0]
  )(duals())
  assert gradient.alpha_mean[0] < 0 < gradient.alpha_mean[1]


def test_the_mean_goes_as_far_as_its_bound_and_no_further():
  _, target = gaussians(6)
  vectors, _ = drawn(target)
  q = 10 * vectors[..., 0]  # the first element of an action is worth something
  optimizer = optax.adam(1e-2)

  @jax.jit
  def step(learnt, state):
    gradient, _ = jax.grad(
      lambda x: mpo.policy_loss(
        target._replace(mean=x[0]), target, vectors, q, x[1], CONFIG
      ),
      has_aux=True,
    )(learnt)
    updates, state = optimizer.update(gradient, state)
    return optax.apply_updates(learnt, updates), state

  learnt = (target.mean, duals())
  state = optimizer.init(learnt)
  for _ in range(8_000):
    learnt, state = step(learnt, state)
  divergence = target.divergence(target._replace(mean=learnt[0])).mean(axis=0)
  np.testing.assert_allclose(divergence[0], CONFIG.epsilon_mean, rtol=0.2)


def test_the_critic_bootstraps_from_the_mean_over_actions():
  agent = make('mpo')
  data = batch().data
  random = np.random.default_rng(0)
  taken = jnp.float32(random.normal(size=(6, 1)))
  sampled = jnp.float32(random.normal(size=(20, 6, 1)))
  loss, metrics = agent.critic_loss(taken, sampled, data)
  target = data.reward + data.discount * np.mean(sampled, axis=0)[:, 0]
  error = target - np.asarray(taken)[:, 0]
  np.testing.assert_allclose(loss, np.mean(error**2) / 2, rtol=1e-5)
  np.testing.assert_allclose(
    metrics['mean_abs_td_error'], np.abs(error).mean(), rtol=1e-5
  )


def test_the_duals_stay_where_they_have_a_gradient():
  agent = make('mpo')
  state = agent.initial_learner_state(KEY)
  low = jax.tree.map(lambda x: jnp.full_like(x, -99.0), state.params.duals)
  state = state._replace(params=state.params._replace(duals=low))
  after, _ = jax.jit(agent.update)(state, batch())
  for leaf in jax.tree.leaves(after.params.duals):
    np.testing.assert_array_equal(leaf, -18.0)


# DMPO.


def test_dmpos_value_is_the_mean_of_the_distribution():
  share = np.array([0.5, 0.1, 0.0, 0.1, 0.0, 0.0, 0.3])
  logits = np.tile(np.log(share + 1e-12) + 5.0, (4, 6, 1))
  q = make('dmpo').q(jnp.float32(logits))
  mean = -3 * 0.5 - 2 * 0.1 + 3 * 0.3
  np.testing.assert_allclose(q, np.full((4, 6), mean), rtol=1e-5)


def test_dmpo_with_one_action_has_d4pgs_target():
  agent = make('dmpo')
  random = np.random.default_rng(0)
  taken = jnp.float32(random.normal(size=(6, 7)))
  sampled = jnp.float32(random.normal(size=(1, 6, 7)))
  data = batch().data
  loss, _ = agent.critic_loss(taken, sampled, data)
  expected = d4pg.categorical_loss(
    agent._atoms, taken, jax.nn.softmax(sampled[0]), data
  )
  np.testing.assert_allclose(loss, expected, rtol=1e-6)


def test_dmpo_learns_from_the_mixture_over_actions():
  agent = make('dmpo')
  random = np.random.default_rng(0)
  taken = jnp.float32(random.normal(size=(6, 7)))
  sampled = jnp.float32(random.normal(size=(20, 6, 7)) * 3)
  data = batch().data
  loss, _ = agent.critic_loss(taken, sampled, data)
  # The projection is linear: a mixture's is the mixture of projections.
  each = [
    d4pg.categorical_loss(agent._atoms, taken, jax.nn.softmax(one), data)
    for one in sampled
  ]
  np.testing.assert_allclose(loss, np.mean(each), rtol=1e-5)
  assert np.ptp(each) > 0.05
  # So does Acme: https://github.com/google-deepmind/acme, agents/jax/mpo.
  acme = jax.nn.logsumexp(jax.nn.log_softmax(sampled), axis=0)
  np.testing.assert_allclose(
    jax.nn.softmax(acme), jax.nn.softmax(sampled).mean(axis=0), rtol=1e-5
  )
