"""What every agent for continuous control must hold to."""

import haiku as hk
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from distacme import specs
from distacme import types
from distacme.kit import actor_critic
from distacme.testing import agent_contract

from .continuous_control import AGENTS
from .continuous_control import KEY
from .continuous_control import SPEC
from .continuous_control import batch
from .continuous_control import known_networks
from .continuous_control import make
from .continuous_control import same

NAMES = list(AGENTS)
FIRST_EVEN = ['ddpg', 'd4pg', 'td3', 'sac']


def initial(agent):
  return jax.jit(agent.initial_learner_state)(KEY)


def acting(agent, rows=64, evaluated=False, learnt=True):
  """Returns what an agent does where all rows see the same."""
  state = initial(agent)
  if learnt and hasattr(state, 'steps'):
    state = state._replace(steps=jnp.int32(1))
  streams = None if evaluated else types.Streams(np.arange(rows), rows)
  observation = jnp.ones((rows, 4))
  return jax.jit(agent.act)(
    agent.actor_params(state),
    KEY,
    observation,
    agent.initial_actor_state(rows, streams),
  ).action


@pytest.mark.parametrize('name', NAMES)
def test_it_keeps_the_contract(name):
  # What is not compiled takes longest, and is much the same for all.
  agent_contract.check_agent(make(name), SPEC, without_jit=name == 'sac')


def test_actions_may_have_any_shape_and_images_be_seen():
  spec = SPEC._replace(
    observations=specs.BoundedArray((36, 36, 1), np.uint8, 0, 255),
    actions=specs.BoundedArray((2, 1), np.float64, -3.0, 1.0),
  )
  agent = make('ddpg', spec, batch_size=2)
  agent_contract.check_agent(agent, spec, without_jit=False)


def test_actions_keep_to_bounds_that_float32_cannot_hold():
  bounds = specs.BoundedArray((2,), np.float64, -0.3, 0.4)
  spec = SPEC._replace(actions=bounds)
  agent = make('mpo', spec, initial_std=9.0)  # nearly all are clipped
  agent_contract.check_agent(agent, spec, without_jit=False)


@pytest.mark.parametrize('name', NAMES)
def test_updates_change_every_parameter_and_the_critic_learns(name):
  rate = 'learning_rate' if name == 'sac' else 'critic_learning_rate'
  agent = make(name, target_update_period=2, **{rate: 1e-2})
  update = jax.jit(agent.update)
  first = state = initial(agent)
  losses = []
  for _ in range(60):
    state, output = update(state, batch())
    losses.append(float(output.metrics['critic_loss']))
  assert np.mean(losses[-5:]) < 0.9 * np.mean(losses[:5])
  changed = jax.tree.map(lambda a, b: np.any(a != b), first, state)
  for path, leaf in jax.tree_util.tree_leaves_with_path(changed.params):
    assert leaf, jax.tree_util.keystr(path)


def first_step(agent, data):
  """Returns how far a first update moves each part of the params, at most."""
  state = initial(agent)
  after, _ = jax.jit(agent.update)(state, data)
  moved = jax.tree.map(
    lambda a, b: float(np.abs(a - b).max()), after.params, state.params
  )
  return {
    part: max(jax.tree.leaves(getattr(moved, part))) for part in moved._fields
  }


def rates(name):
  """Returns settings of step sizes, and the step size of each part by them."""
  if name == 'sac':
    parts = ('policy', 'critic', 'log_temperature')
    return {'learning_rate': 0.02}, dict.fromkeys(parts, 0.02)
  parts = {'policy': 0.01, 'critic': 0.02}
  if name in ('mpo', 'dmpo'):
    parts['dual'] = 0.05
  changes = {f'{part}_learning_rate': rate for part, rate in parts.items()}
  if 'dual' in parts:
    parts['duals'] = parts.pop('dual')
  return changes | {'target_update_period': 1}, parts


@pytest.mark.parametrize('name', NAMES)
def test_each_part_goes_at_its_own_rate_whatever_the_critics_error(name):
  changes, parts = rates(name)
  agent = make(name, **changes)
  # Scaled down together with this critic's gradients, others would be nothing.
  data = batch().data._replace(reward=np.full(6, 1e12, np.float32))
  found = first_step(agent, types.Batch(data, np.ones(6, np.float32)))
  # Adam's first step is as long as its rate.
  assert found == pytest.approx(parts, rel=0.01)


@pytest.mark.parametrize('name', NAMES)
def test_gradients_of_each_network_are_clipped(name):
  changes, parts = rates(name)
  agent = make(name, max_gradient_norm=1e-10, **changes)
  found = first_step(agent, batch())
  for part in ('policy', 'critic'):
    # Adam's epsilon is a hundred times as large as what is left.
    assert 0 < found[part] < 0.02 * parts[part]


def online_and_target(name, state):
  """Returns the params of the networks that have a target, and the target's."""
  if name == 'sac':
    return state.params.critic, state.target_critic
  policy, critic, *_ = state.params
  return actor_critic.Params(policy, critic), state.target_params


@pytest.mark.parametrize('name', NAMES)
def test_targets_begin_as_the_networks_and_move_by_tau_every_period(name):
  agent = make(name, target_update_period=3, target_step_size=0.25)
  update = jax.jit(agent.update)
  state = initial(agent)
  online, first = online_and_target(name, state)
  jax.tree.map(np.testing.assert_array_equal, online, first)
  for step in range(1, 4):
    state, _ = update(state, batch())
    online, target = online_and_target(name, state)
    share = 0.25 if step == 3 else 0.0

    def check(found, old, new, share=share):
      expected = (1 - share) * old + share * new
      np.testing.assert_allclose(found, expected, atol=1e-6)

    jax.tree.map(check, target, first, online)
  moved = jax.tree.map(lambda a, b: np.abs(a - b).max(), target, first)
  assert max(jax.tree.leaves(moved)) > 1e-5


@pytest.mark.parametrize('name', NAMES)
def test_actors_follow_the_policy_that_learns_and_not_its_target(name):
  agent = make(name)
  state = initial(agent)

  def action(state):
    return agent.act(
      agent.actor_params(state),
      KEY,
      jnp.ones((1, 4)),
      agent.initial_actor_state(1, None),
    ).action

  def other(params):
    return jax.tree.map(lambda leaf: 1.5 * leaf + 0.3, params)

  part = 'target_critic' if name == 'sac' else 'target_params'
  with_target = state._replace(**{part: other(getattr(state, part))})
  np.testing.assert_array_equal(action(with_target), action(state))
  policy = other(state.params.policy)
  with_policy = state._replace(params=state.params._replace(policy=policy))
  assert np.abs(action(with_policy) - action(state)).max() > 0.01


@pytest.mark.parametrize('name', NAMES)
def test_what_is_evaluated_does_not_explore(name):
  assert np.ptp(acting(make(name), evaluated=True), axis=0).max() < 1e-5
  assert np.ptp(acting(make(name)), axis=0).min() > 0.1


@pytest.mark.parametrize('name', FIRST_EVEN)
def test_first_actions_are_even_over_their_bounds(name):
  actions = acting(make(name), rows=4_000, learnt=False)
  for element, low, high in ((0, -2.0, 2.0), (1, 0.0, 10.0)):
    share, _ = np.histogram(actions[:, element], 4, (low, high))
    np.testing.assert_allclose(share / 4_000, 0.25, atol=0.03)
  # Then they are those of a policy.
  later = acting(make(name), rows=4_000)
  share, _ = np.histogram(later[:, 0], 4, (-2.0, 2.0))
  assert abs(share[1] + share[2] - 2_000) > 300


@pytest.mark.parametrize('name', NAMES)
def test_a_discount_of_0_does_not_bootstrap(name):
  agent = make(name)
  data = batch().data._replace(discount=np.zeros(6, np.float32))
  other = data._replace(next_observation=data.next_observation + 1.0)
  update = jax.jit(agent.update)
  results = [
    update(initial(agent), types.Batch(d, np.ones(6, np.float32)))[1].metrics
    for d in (data, other)
  ]
  first, second = (float(m['critic_loss']) for m in results)
  np.testing.assert_allclose(first, second, rtol=1e-6)


POSITIVE = 'positive'  # a metric of which only the sign is foreseen here


def foreseen_metrics(name, agent, state, data):
  """Returns what each metric of a first update must be, or its sign."""
  params = state.params
  outputs = agent._critic.apply(
    params.critic, KEY, data.observation, agent._bounds.vector(data.action)
  )
  if name in ('d4pg', 'dmpo'):
    atoms = np.linspace(-3.0, 3.0, 7)
    share = np.exp(outputs) / np.exp(outputs).sum(axis=-1, keepdims=True)
    found = {
      'critic_loss': POSITIVE,
      'mean_q': (share @ atoms).mean(),
      'share_at_ends': (share[:, 0] + share[:, 6]).mean(),
    }
  else:
    found = {
      'critic_loss': POSITIVE,
      'mean_q': np.mean(outputs),
      'mean_abs_td_error': POSITIVE,
    }
  if name in ('ddpg', 'td3'):
    target = state.target_params
    a_t = agent.act_vector(target.policy, KEY, data.next_observation)
    q_t = agent._critic.apply(target.critic, KEY, data.next_observation, a_t)
    q_t = np.asarray(q_t)[..., 0].reshape(-1, 6).min(axis=0)
    error = data.reward + data.discount * q_t - np.asarray(outputs)[..., 0]
    # TD3's two errors are added.
    found['critic_loss'] = (error**2).sum() / 2 / 6
    found['mean_abs_td_error'] = np.abs(error).mean()
  if name in ('ddpg', 'd4pg'):
    vector = agent.act_vector(params.policy, KEY, data.observation)
    q = agent.q(params.critic, KEY, data.observation, vector)
    found['policy_loss'] = -np.mean(q)
  if name == 'sac':
    _, key = jax.random.split(jax.random.split(state.key)[1])
    vector, log_prob = agent._drawn(params.policy, key, data.observation)
    q = agent._q(params.critic, KEY, data.observation, vector).min(axis=0)
    found |= {
      'policy_loss': np.mean(0.7 * log_prob - q),
      'entropy': -np.mean(log_prob),
      'temperature': 0.7,
    }
  if name in ('mpo', 'dmpo'):  # whose test of the loss has the others' values
    found |= {
      'policy_loss': POSITIVE,
      'temperature': 0.7,
      'kl_q_rel': POSITIVE,
      'kl_mean_rel': 0.0,  # online and target policy are the same as yet
      'kl_std_rel': 0.0,
      'mean_std': np.mean(
        agent.policy(params.policy, KEY, data.observation).std
      ),
    }
  return found


@pytest.mark.parametrize('name', NAMES)
def test_every_metric_is_what_its_name_says(name):
  changes = {
    'td3': {'smoothing_std': 0.0},
    'sac': {'initial_temperature': 0.7},
    'mpo': {'initial_temperature': 0.7},
    'dmpo': {'initial_temperature': 0.7},
  }
  agent = make(name, **changes.get(name, {}))
  state = initial(agent)
  _, output = jax.jit(agent.update)(state, batch())
  foreseen = foreseen_metrics(name, agent, state, batch().data)
  assert output.metrics.keys() == foreseen.keys()
  for metric, value in output.metrics.items():
    if isinstance(foreseen[metric], str):
      assert value > 0, metric
    else:
      np.testing.assert_allclose(
        value, foreseen[metric], rtol=1e-4, atol=1e-6, err_msg=metric
      )


def told_apart(num_values):
  """Returns linear networks of which the critic's params count at the end only.

  Observations end on 0 at a window's start and on 1 at its end; values of the
  start are known.
  """

  def critic(observation, vector):
    inputs = jnp.concatenate([observation[:, :3], vector], axis=-1)
    known = jnp.linspace(0.0, 2.0, num_values)[None]
    return known + observation[:, 3:] * hk.Linear(num_values)(inputs)

  def network(size):
    return actor_critic.ActorCritic(lambda o: hk.Linear(size)(o), critic)

  return network


@pytest.mark.parametrize('name', NAMES)
def test_the_target_is_made_by_the_target_networks_at_the_windows_end(name):
  num_values = 7 if name in ('d4pg', 'dmpo') else 1
  agent = make(name, network=told_apart(num_values))
  state, data = initial(agent), batch().data
  data.observation[:, 3], data.next_observation[:, 3] = 0.0, 1.0
  update = jax.jit(agent.update)

  def loss(state=state, **changes):
    changed = types.Batch(data._replace(**changes), np.ones(6, np.float32))
    return float(update(state, changed)[1].metrics['critic_loss'])

  def moved(part, **changed):
    return state._replace(**{part: getattr(state, part)._replace(**changed)})

  def other(params):
    return jax.tree.map(lambda leaf: 1.5 * leaf + 0.3, params)

  aside = np.array([0.3, -0.2, 0.5, 0.0], np.float32)
  of_start = [
    loss(moved('params', critic=other(state.params.critic))),
    loss(observation=data.observation + aside),
    loss(action=SPEC.actions.minimum + 0 * data.action),
  ]
  of_end = [loss(next_observation=data.next_observation + aside)]
  online = loss(moved('params', policy=other(state.params.policy)))
  if name == 'sac':  # which has no target policy
    of_end += [
      online,
      loss(state._replace(target_critic=other(state.target_critic))),
    ]
  else:
    of_start.append(online)
    target = state.target_params
    of_end += [
      loss(moved('target_params', policy=other(target.policy))),
      loss(moved('target_params', critic=other(target.critic))),
    ]
  np.testing.assert_allclose(of_start, loss(), rtol=1e-6)
  assert np.abs(np.array(of_end) - loss()).min() > 1e-3


@pytest.mark.parametrize('name', NAMES)
@pytest.mark.parametrize('wrong', ['policy', 'critic'])
def test_a_network_of_another_output_is_refused_by_name(name, wrong):
  def give(width):
    return lambda observation, *_: jnp.zeros((observation.shape[0], width))

  params = 2 if name in ('ddpg', 'd4pg', 'td3') else 4
  values = 7 if name in ('d4pg', 'dmpo') else 1
  widths = (99, values) if wrong == 'policy' else (params, 99)
  network = known_networks(*map(give, widths))
  with pytest.raises(
    ValueError, match=rf'the {wrong} must map .* \(1, \d\), got .*99'
  ):
    make(name, network=network)


@pytest.mark.parametrize('name', ['ddpg', 'd4pg', 'td3'])
def test_a_users_network_is_the_one_that_acts(name):
  def critic(observation, action):
    return jnp.zeros((len(action), 7 if name == 'd4pg' else 1))

  network = known_networks(same([np.arctanh(0.5), -50.0]), critic)
  action = acting(make(name, network=network), rows=3, evaluated=True)
  np.testing.assert_allclose(action, [[1.0, 0.0]] * 3, atol=1e-5)


@pytest.mark.parametrize('name', NAMES)
def test_unbounded_actions_are_refused_before_anything_starts(name):
  actions = specs.BoundedArray((2,), np.float32, -np.inf, np.inf)
  with pytest.raises(ValueError, match=f'{name.upper()} needs .* minimum=-inf'):
    make(name, SPEC._replace(actions=actions))


@pytest.mark.parametrize(
  ('names', 'changes', 'message'),
  [
    (NAMES, {'hidden_sizes': (0,)}, r'hidden_sizes must be at least 1, got \('),
    (NAMES, {'target_update_period': 0}, 'target_update_period must be at le'),
    (NAMES, {'target_step_size': 1.5}, r'target_step_size must be in \[0, 1\]'),
    (NAMES, {'target_step_size': 0.0}, 'target_step_size must be positive'),
    (NAMES, {'max_gradient_norm': 0}, 'max_gradient_norm must be positive'),
    (NAMES, {'n_step': 0}, 'n_step must be at least 1, got 0'),
    (NAMES, {'min_replay_size': 0}, 'min_replay_size must be at least 1'),
    (NAMES, {'max_replay_size': 9}, 'min_replay_size must not be more than m'),
    (['ddpg', 'mpo'], {'policy_learning_rate': 0}, 'policy_learning_rate must'),
    (['ddpg', 'mpo'], {'critic_learning_rate': 0}, 'critic_learning_rate must'),
    (['ddpg'], {'noise_std': -1}, 'noise_std must not be negative, got -1'),
    (['ddpg'], {'noise_std': np.inf}, 'noise_std must be finite, got inf'),
    (['ddpg'], {'noise_reversion': 0}, 'noise_reversion must be positive'),
    (['ddpg'], {'noise_reversion': 2}, r'noise_reversion must be in \[0, 1\]'),
    (['td3'], {'smoothing_std': -1}, 'smoothing_std must not be negative'),
    (['td3'], {'smoothing_clip': -1}, 'smoothing_clip must not be negative'),
    (['sac'], {'initial_temperature': 0}, 'initial_temperature must be posi'),
    (['sac'], {'target_entropy': np.nan}, 'target_entropy must be finite, got'),
    (['sac'], {'target_entropy': -np.inf}, 'target_entropy must be finite, go'),
    (['sac'], {'learning_rate': 0}, 'learning_rate must be positive'),
    (['d4pg', 'dmpo'], {'num_atoms': 1}, 'num_atoms must be at least 2, got 1'),
    (['d4pg', 'dmpo'], {'max_value': -3}, 'min_value=-3.0 must be less than'),
    (['d4pg', 'dmpo'], {'min_value': -np.inf}, 'min_value must be finite, go'),
    (['d4pg', 'dmpo'], {'max_value': np.inf}, 'max_value must be finite, got'),
    (['d4pg', 'dmpo'], {'max_value': np.nan}, 'max_value must be finite, got'),
    (['mpo'], {'num_action_samples': 0}, 'num_action_samples must be at least'),
    (['mpo'], {'epsilon': 0}, 'epsilon must be positive'),
    (['mpo'], {'epsilon_mean': 0}, 'epsilon_mean must be positive'),
    (['mpo'], {'epsilon_std': 0}, 'epsilon_std must be positive'),
    (['mpo'], {'epsilon_penalty': 0}, 'epsilon_penalty must be positive'),
    (['mpo'], {'dual_learning_rate': 0}, 'dual_learning_rate must be positive'),
    (['mpo'], {'initial_std': 0}, 'initial_std must be positive'),
    (['mpo'], {'initial_temperature': 0}, 'initial_temperature must be posit'),
    (['mpo'], {'initial_temperature': np.inf}, 'initial_temperature must be f'),
    (['mpo'], {'initial_alpha_mean': 0}, 'initial_alpha_mean must be positiv'),
    (['mpo'], {'initial_alpha_mean': np.inf}, 'initial_alpha_mean must be fin'),
    (['mpo'], {'initial_alpha_std': 0}, 'initial_alpha_std must be positive'),
    (['mpo'], {'initial_alpha_std': np.inf}, 'initial_alpha_std must be fini'),
  ],
  ids=str,
)
def test_settings_out_of_range_are_refused(names, changes, message):
  for name in names:
    with pytest.raises(ValueError, match=message):
      make(name, **changes)
