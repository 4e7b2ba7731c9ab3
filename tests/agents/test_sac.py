"""SAC against numbers worked by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from distacme.kit import bounds
from distacme.kit import distributions

from .continuous_control import KEY
from .continuous_control import SPEC
from .continuous_control import batch
from .continuous_control import known_networks
from .continuous_control import make
from .continuous_control import same

TANH = distributions.TanhGaussian(bounds.Bounds(SPEC.actions, 'a test'))


def test_densities_are_those_of_the_squashed_sample():
  params = jnp.array([0.4, -0.2, -0.3, 0.1])
  sides = np.linspace(-0.9995, 0.9995, 400)
  x, y = np.meshgrid(sides, sides)
  points = jnp.arctanh(jnp.stack([x.ravel(), y.ravel()], axis=-1))
  log_prob = jax.vmap(TANH.log_prob, (None, 0))(params, points)
  total = np.exp(log_prob).sum() * (sides[1] - sides[0]) ** 2
  np.testing.assert_allclose(total, 1.0, atol=0.01)


def test_densities_far_from_zero_stay_finite():
  params = jnp.array([30.0, -30.0, 0.0, 0.0])
  assert np.isfinite(TANH.log_prob(params, jnp.array([30.0, -30.0])))


@pytest.mark.parametrize(('asked', 'held'), [(50.0, 2.0), (-50.0, -10.0)])
def test_deviations_are_held_where_densities_tell_something(asked, held):
  wild, tame = (jnp.array([0.4, -0.2, std, std]) for std in (asked, held))
  sample = TANH.sample(tame, KEY)
  np.testing.assert_array_equal(TANH.sample(wild, KEY), sample)
  np.testing.assert_array_equal(
    TANH.log_prob(wild, sample), TANH.log_prob(tame, sample)
  )


def test_actions_are_squashed_then_scaled():
  np.testing.assert_allclose(
    TANH.action(jnp.array([np.arctanh(0.5), -40.0])), [1.0, 0.0], atol=1e-5
  )


def parts(temperature=0.7, **changes):
  """Returns the loss's gradient and metrics, and what they are of."""
  agent = make('sac', initial_temperature=temperature, **changes)
  state = agent.initial_learner_state(KEY)
  gradient, metrics = jax.grad(agent.loss, has_aux=True)(
    state.params, state.target_critic, batch().data, KEY
  )
  return agent, state, gradient, metrics


def test_the_critics_target_pays_for_entropy():
  def critic(observation, vector):
    return observation[:, :1] + vector[:, :1]

  # With a deviation of nearly 0 the density is large, and entropy costs.
  agent = make(
    'sac',
    network=known_networks(same([0.2, 0.1, -9.0, -9.0]), critic),
    initial_temperature=0.5,
  )
  state = agent.initial_learner_state(KEY)
  data = batch().data
  _, metrics = agent.loss(state.params, state.target_critic, data, KEY)
  # Of the sample at hand, close to the mean: E[log p] of a Gaussian, squashed.
  slope = np.log(1 - np.tanh([0.2, 0.1]) ** 2).sum()
  log_prob = 2 * (9.0 - np.log(2 * np.pi) / 2 - 0.5) - slope
  assert metrics['entropy'] == pytest.approx(-log_prob, abs=1.5)
  next_q = data.next_observation[:, 0] + np.tanh(0.2)
  q_tm1 = data.observation[:, 0] + data.action[:, 0] / 2
  target = data.reward + data.discount * (next_q - 0.5 * log_prob)
  error = np.abs(target - q_tm1).mean()
  assert metrics['mean_abs_td_error'] == pytest.approx(error, abs=0.7)
  assert error > 4.0  # which is mostly the entropy's cost


@pytest.mark.parametrize(
  ('target', 'rises'), [(20.0, True), (-20.0, False), (None, False)]
)
def test_temperature_rises_while_entropy_is_too_low(target, rises):
  _, _, gradient, metrics = parts(target_entropy=target)
  assert -20.0 < metrics['entropy'] < 20.0
  # Adam steps against the gradient.
  assert (gradient.log_temperature < 0) == rises
  aim = -2.0 if target is None else target
  np.testing.assert_allclose(
    gradient.log_temperature, metrics['entropy'] - aim, rtol=1e-5
  )


def critics_loss(agent, state, critic, reduce=np.min):
  """Returns the critics' loss by the paper's equation, and both errors [2, B]."""
  data = batch().data
  key, _ = jax.random.split(KEY)
  vector, log_prob = agent._drawn(
    state.params.policy, key, data.next_observation
  )
  q_t = agent._q(state.target_critic, KEY, data.next_observation, vector)
  entropy_cost = 0.7 * np.asarray(log_prob)
  target = data.reward + data.discount * (reduce(q_t, axis=0) - entropy_cost)
  taken = agent._bounds.vector(data.action)
  error = target[None] - agent._q(critic, KEY, data.observation, taken)
  return (error**2).sum() / 2 / len(target), error


def test_the_lower_of_the_two_targets_counts():
  agent, state, _, metrics = parts()
  expected, error = critics_loss(agent, state, state.params.critic)
  np.testing.assert_allclose(metrics['critic_loss'], expected, rtol=1e-5)
  np.testing.assert_allclose(
    metrics['mean_abs_td_error'], np.abs(error).mean(), rtol=1e-5
  )
  # Which is the lower differs from row to row, so neither is it alone.
  for other in (np.max, np.mean, lambda q, axis: q[0], lambda q, axis: q[1]):
    wrong, _ = critics_loss(agent, state, state.params.critic, other)
    assert abs(wrong - expected) > 1e-3


def test_each_part_follows_its_own_loss():
  agent, state, gradient, _ = parts()
  data = batch().data
  _, key = jax.random.split(KEY)
  fixed = state.params

  def of_policy(policy):
    vector, log_prob = agent._drawn(policy, key, data.observation)
    q = agent._q(fixed.critic, KEY, data.observation, vector).min(axis=0)
    return (0.7 * log_prob - q).mean()

  def of_critic(critic):
    return critics_loss(agent, state, critic)[0]

  for found, expected in (
    (gradient.policy, jax.grad(of_policy)(fixed.policy)),
    (gradient.critic, jax.grad(of_critic)(fixed.critic)),
  ):
    jax.tree.map(
      lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6),
      found,
      expected,
    )
