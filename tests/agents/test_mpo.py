"""MPO and DMPO against numbers worked by hand."""

import haiku as hk
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from distacme.agents import mpo
from distacme.kit import actor_critic
from distacme.kit import distributions

from .continuous_control import KEY
from .continuous_control import SPEC
from .continuous_control import batch
from .continuous_control import known_networks
from .continuous_control import make
from .continuous_control import same

CONFIG = mpo.Config(epsilon=0.1, epsilon_mean=2.5e-3, epsilon_std=1e-4)
STATES, ACTIONS, SIZE = 5, 20, 2


def gaussians(seed, spread=0.1):
  """Returns an online and a target policy near each other."""
  random = np.random.default_rng(seed)
  mean = random.normal(size=(2, STATES, SIZE)) * spread
  std = np.exp(random.normal(size=(2, STATES, SIZE)) * spread)
  return (
    distributions.Normal(*map(jnp.float32, pair))
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
  p = distributions.Normal(jnp.array([0.3]), jnp.array([0.5]))
  q = distributions.Normal(jnp.array([-0.1]), jnp.array([0.9]))
  x = jnp.linspace(-5, 5, 20_001)[:, None]
  log_p, log_q = (jax.vmap(g.log_prob)(x) for g in (p, q))
  integral = np.sum(np.exp(log_p) * (log_p - log_q)) * 10 / 20_000
  np.testing.assert_allclose(p.divergence(q)[0], integral, rtol=1e-3)


def test_the_temperature_keeps_the_weights_within_their_bound():
  online, target = gaussians(0)
  vectors, q = drawn(target)
  optimizer = optax.adam(0.05)

  def step(carry, _):
    duals, state = carry
    gradient, metrics = jax.grad(
      lambda d: mpo.policy_loss(online, target, vectors, q, d, CONFIG),
      has_aux=True,
    )(duals)
    updates, state = optimizer.update(gradient, state)
    return (optax.apply_updates(duals, updates), state), metrics

  now = duals(3.0)
  _, metrics = jax.lax.scan(step, (now, optimizer.init(now)), length=1_000)
  # As a share of epsilon.
  np.testing.assert_allclose(metrics['kl_q_rel'][-1], 1.0, rtol=0.05)


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


def test_weights_sum_to_1():
  _, target = gaussians(7)
  _, q = drawn(target)
  vector = target.mean + 0.5
  gradient = jax.grad(
    lambda o: mpo.policy_loss(
      o, target, jnp.stack([vector] * ACTIONS), q, duals(), CONFIG
    )[0]
  )(target)
  # Of one action only, whose log-density is pulled by both sets of weights.
  expected = -2 * 0.5 / target.std**2 / STATES
  np.testing.assert_allclose(gradient.mean, expected, rtol=1e-4)


@pytest.mark.parametrize('part', ['mean', 'std'])
def test_mean_and_deviation_go_as_far_as_their_bounds_and_no_further(part):
  config = mpo.Config(epsilon=1.0, epsilon_mean=2.5e-3, epsilon_std=0.1)
  _, target = gaussians(6)
  vectors, _ = drawn(target)
  # One element of an action is worth more than the other.
  error = vectors - target.mean[None]
  each = vectors if part == 'mean' else -(error**2)
  q = each @ jnp.array([10.0, 9.0])
  optimizer = optax.adam(1e-2)

  def policy(learnt):
    return distributions.Normal(learnt['mean'], jnp.exp(learnt['log_std']))

  def step(carry, _):
    learnt, state = carry
    gradient, _ = jax.grad(
      lambda x: mpo.policy_loss(
        policy(x), target, vectors, q, x['duals'], config
      ),
      has_aux=True,
    )(learnt)
    updates, state = optimizer.update(gradient, state)
    return (optax.apply_updates(learnt, updates), state), None

  learnt = {
    'mean': target.mean,
    'log_std': jnp.log(target.std),
    'duals': duals(),
  }
  carry = learnt, optimizer.init(learnt)
  (learnt, _), _ = jax.lax.scan(step, carry, length=8_000)
  online = policy(learnt)
  if part == 'mean':
    shift = (online.mean - target.mean) / target.std
    divergence, bound = shift**2 / 2, config.epsilon_mean
    assert (shift > 0).all()
  else:
    ratio = target.std / online.std
    divergence = (ratio**2 - 1) / 2 - jnp.log(ratio)
    bound = config.epsilon_std
    assert (ratio > 1).all()
  np.testing.assert_allclose(divergence.mean(axis=0), bound, rtol=0.2)


def test_the_loss_is_the_papers_of_all_its_parts():
  """The whole of it, spelled out, with networks that are known."""

  def policy(observation):
    shift = hk.get_parameter('shift', [1, 1], init=jnp.zeros)
    return jnp.concatenate(
      [observation[:, :2] + shift, observation[:, 2:] / 2 + shift], axis=-1
    )

  def critic(observation, vector):
    gain = hk.get_parameter('gain', [1, 1], init=jnp.ones)
    return gain * worth(observation, vector)[..., None]

  def worth(observation, vector):
    return observation[:, 0] + 2 * vector[..., 0] - 3 * vector[..., 1] ** 2

  def params(of_policy, of_critic):
    return {'~': {'shift': jnp.full((1, 1), of_policy)}}, {
      '~': {'gain': jnp.full((1, 1), of_critic)}
    }

  bounds = {'epsilon': 0.2, 'epsilon_mean': 0.03, 'epsilon_std': 0.004}
  agent = make(
    'mpo',
    network=known_networks(policy, critic),
    num_action_samples=5,
    initial_std=0.5,
    epsilon_penalty=0.07,
    **bounds,
  )
  learnt = mpo.Learnt(
    *params(0.2, 1.5),
    mpo.Duals(
      jnp.float32(1.0),
      jnp.float32(-1.0),
      jnp.array([0.5, 0.6]),
      jnp.array([0.7, 0.8]),
    ),
  )
  target = actor_critic.Params(*params(-0.1, 0.8))
  data, stop = batch().data, jax.lax.stop_gradient
  bootstrap_key, fit_key = jax.random.split(KEY)

  def gaussian(observation, params):
    shift = params['~']['shift']
    raw = observation[:, 2:] / 2 + shift
    std = 0.5 / np.log(2.0) * jnp.log1p(jnp.exp(raw))
    return observation[:, :2] + shift, std

  def log_prob(x, mean, std):
    normal = jnp.exp(-(((x - mean) / std) ** 2) / 2) / (
      std * np.sqrt(2 * np.pi)
    )
    return jnp.log(normal).sum(-1)

  def expected(learnt):
    gain = learnt.critic['~']['gain'][0, 0]
    duals = mpo.Duals(*(jnp.log1p(jnp.exp(dual)) for dual in learnt.duals))

    def drawn(observation, key):
      mean, std = gaussian(observation, target.policy)
      vectors = [
        mean + std * jax.random.normal(one, mean.shape)
        for one in jax.random.split(key, 5)
      ]
      q = [0.8 * worth(observation, v.clip(-1.0, 1.0)) for v in vectors]
      return mean, std, jnp.stack(vectors), jnp.stack(q)

    # The critic, from actions of the target policy at the windows' ends.
    q_t = drawn(data.next_observation, bootstrap_key)[-1].mean(axis=0)
    taken = data.action / np.array([[2.0, 5.0]]) - np.array([[0.0, 1.0]])
    q_tm1 = gain * worth(data.observation, taken)
    error = data.reward + data.discount * q_t - q_tm1

    # Weights, and the temperatures whose they are.
    mean, std, vectors, q = drawn(data.observation, fit_key)
    excess = jnp.maximum(jnp.abs(vectors) - 1, 0)
    fit, dual_loss = 0.0, 0.0
    online_mean, online_std = gaussian(data.observation, learnt.policy)
    stacked = [leaf[None] for leaf in (mean, std, online_mean, online_std)]
    likely = log_prob(vectors, stacked[2], stacked[1])
    likely += log_prob(vectors, stacked[0], stacked[3])
    for values, temperature, bound in (
      (q, duals.temperature, 0.2),
      (-jnp.sqrt((excess**2).sum(-1)), duals.penalty_temperature, 0.07),
    ):
      tilted = jnp.exp(values / temperature)
      weights = stop(tilted / tilted.sum(axis=0, keepdims=True))
      fit -= (weights * likely).sum(axis=0).mean()
      dual_loss += temperature * (bound + jnp.log(tilted.mean(axis=0)).mean())
      if values is q:
        kl_q = (weights * jnp.log(5 * weights)).sum(axis=0).mean()

    # The divergences from the target to the online policy, and multipliers.
    kl_mean = ((mean - online_mean) / std) ** 2 / 2
    kl_std = jnp.log(online_std / std) + (std / online_std) ** 2 / 2 - 0.5
    held = 0.0
    for kl, alpha, bound in (
      (kl_mean, duals.alpha_mean, 0.03),
      (kl_std, duals.alpha_std, 0.004),
    ):
      held += (stop(alpha)[None] * kl).sum(axis=-1).mean()
      held += (alpha[None] * (bound - stop(kl))).sum(axis=-1).mean()
    critic_loss = (error**2).mean() / 2
    return critic_loss + fit + dual_loss + held, {
      'critic_loss': critic_loss,
      'mean_q': q_tm1.mean(),
      'mean_abs_td_error': jnp.abs(error).mean(),
      'policy_loss': fit,
      'temperature': duals.temperature,
      'kl_q_rel': kl_q / 0.2,
      'kl_mean_rel': kl_mean.mean() / 0.03,
      'kl_std_rel': kl_std.mean() / 0.004,
      'mean_std': online_std.mean(),
    }

  def found(learnt):
    return agent.loss(learnt, target, data, KEY)

  results = [
    jax.jit(jax.value_and_grad(loss, has_aux=True))(learnt)
    for loss in (found, expected)
  ]
  assert results[0][0][1].keys() == results[1][0][1].keys()
  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5),
    *results,
  )


def test_the_critic_bootstraps_from_the_mean_over_actions():
  agent = make('mpo')
  data = batch().data
  random = np.random.default_rng(0)
  taken = jnp.float32(random.normal(size=(6, 1)))
  sampled = jnp.float32(random.normal(size=(20, 6, 1)))
  loss, metrics = agent.critic_loss(taken, data.reward, data.discount, sampled)
  target = data.reward + data.discount * np.mean(sampled, axis=0)[:, 0]
  error = target - np.asarray(taken)[:, 0]
  np.testing.assert_allclose(loss, np.mean(error**2) / 2, rtol=1e-5)
  np.testing.assert_allclose(
    metrics['mean_abs_td_error'], np.abs(error).mean(), rtol=1e-5
  )


def settled(**changes):
  """Returns the policy that a fixed target leads to, and the temperature.

  There is one state, whose actions have known values.
  """

  def policy(observation):
    raw = hk.get_parameter('raw', [1, 4], init=jnp.zeros)
    return jnp.repeat(raw, observation.shape[0], axis=0)

  def critic(observation, vector):
    best = jnp.array([[0.2, 0.0]])
    return -4 * ((vector - best) ** 2).sum(axis=-1)[..., None]

  agent = make(
    'mpo',
    network=known_networks(policy, critic),
    initial_std=0.2,  # hardly an action is out of bounds
    num_action_samples=300,
    epsilon_mean=1.0,  # out of reach
    epsilon_std=1.0,
    policy_learning_rate=1e-2,
    target_update_period=10_000,
    **changes,
  )
  data = batch()

  def step(state, _):
    return agent.update(state, data)[0], None

  state, _ = jax.lax.scan(step, agent.initial_learner_state(KEY), length=2_500)
  found = agent.policy(state.params.policy, KEY, data.data.observation[:1])
  return found.mean[0], found.std[0], mpo.positive(state.params.duals[0])


def test_multipliers_come_down_in_time_to_fit_mean_and_deviation():
  mean, std, temperature = settled()
  # Normal densities times exponentials of parabolas are normal.
  variance = 1 / (1 / 0.2**2 + 8 / temperature)
  weighted = 8 / temperature * np.array([0.2, 0.0]) * variance
  # One half of all weights are the penalty's, which are even.
  np.testing.assert_allclose(mean, weighted / 2, atol=0.003)
  square = (variance + weighted**2 + 0.2**2) / 2
  np.testing.assert_allclose(std, np.sqrt(square), rtol=0.01)
  assert std[1] < 0.19  # which is not where it began
  assert temperature < 0.9  # nor this


def test_a_multiplier_of_1000_keeps_the_deviation_as_it_was():
  _, std, _ = settled(initial_alpha_std=1_000.0)
  np.testing.assert_allclose(std, 0.2, rtol=1e-3)


def test_the_duals_begin_at_what_the_settings_say():
  agent = make(
    'mpo',
    initial_temperature=0.3,
    initial_alpha_mean=2.0,
    initial_alpha_std=1_000.0,
  )
  duals = agent.initial_learner_state(KEY).params.duals
  found = jax.tree.map(mpo.positive, duals)
  expected = mpo.Duals(0.3, 0.3, np.full(2, 2.0), np.full(2, 1_000.0))
  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6), found, expected
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


def test_dmpo_with_one_action_has_the_loss_of_d4pg():
  action = np.array([0.5, -0.3])

  def network(policy):
    def make_both(size):
      _, critic = actor_critic.layer_norm_actor_critic(
        SPEC.observations, (8,), size, 7
      )
      return actor_critic.ActorCritic(policy, critic)

    return make_both

  dmpo = make(
    'dmpo', network=network(same([*action, -50.0, -50.0])), num_action_samples=1
  )
  d4pg = make('d4pg', network=network(same(np.arctanh(action))))
  params = dmpo.initial_learner_state(KEY).params
  target = jax.tree.map(lambda leaf: 1.5 * leaf + 0.1, params.critic)
  data = batch().data
  _, metrics = dmpo.loss(params, actor_critic.Params({}, target), data, KEY)
  a_t = d4pg.act_vector({}, KEY, data.next_observation)
  expected, others = d4pg.critic_loss(params.critic, target, data, a_t, KEY)
  np.testing.assert_allclose(metrics['critic_loss'], expected, rtol=1e-4)
  np.testing.assert_allclose(metrics['mean_q'], others['mean_q'], rtol=1e-5)
  # The action counts: with another it is another loss.
  other, _ = d4pg.critic_loss(params.critic, target, data, -a_t, KEY)
  assert abs(other - expected) > 1e-3


def test_dmpo_learns_from_the_mixture_over_actions():
  agent = make('dmpo')
  random = np.random.default_rng(0)
  taken = jnp.float32(random.normal(size=(6, 7)))
  sampled = jnp.float32(random.normal(size=(20, 6, 7)) * 3)
  data = batch().data
  rest = data.reward, data.discount
  loss, _ = agent.critic_loss(taken, *rest, sampled)
  # The projection is linear: a mixture's is the mixture of projections.
  each = [
    agent._atoms.loss(taken, *rest, jax.nn.softmax(one))[0] for one in sampled
  ]
  np.testing.assert_allclose(loss, np.mean(each), rtol=1e-5)
  assert np.ptp(each) > 0.05
  # So does Acme: https://github.com/google-deepmind/acme, agents/jax/mpo.
  acme = jax.nn.logsumexp(jax.nn.log_softmax(sampled), axis=0)
  np.testing.assert_allclose(
    jax.nn.softmax(acme), jax.nn.softmax(sampled).mean(axis=0), rtol=1e-5
  )
