"""MPO: a policy fitted to its own actions, weighted by their values.

Abdolmaleki et al. 2018 (arXiv:1806.06920), with the mean and the deviation bounded
apart (arXiv:1812.02256) and the penalty on actions out of bounds of Abdolmaleki et
al. 2020 (arXiv:2005.07513), as in Acme (Hoffman et al. 2020, arXiv:2006.00979). Unlike
the paper's, the critic learns from n-step returns instead of Retrace. Differences from
Acme: networks are 256-256, not 256-256-256 and 512-512-256, and the critic's output is
one value, not a mixture of Gaussians. Other defaults that differ, chosen for some tens
of thousands of learner steps, say so below.
"""

from __future__ import annotations

import dataclasses
from typing import NamedTuple

import haiku as hk
import jax
import jax.numpy as jnp
import numpy as np

from distacme import config_checks
from distacme import lazy_imports
from distacme import specs
from distacme import types
from distacme.kit import actor_critic
from distacme.kit import bounds
from distacme.kit import critics
from distacme.kit import distributions
from distacme.kit import networks
from distacme.kit import optimizers
from distacme.kit import settings

rlax = lazy_imports.module('rlax')


@dataclasses.dataclass(frozen=True)
class Config(settings.UniformConfig):
  """Settings of MPO."""

  n_step: int = 1
  """Steps between the two ends of a transition; 5 in Acme. An older policy chose the
  actions of these steps, which are noise to the critic."""
  samples_per_insert: float = 64.0
  """Transitions sampled per environment step; 32 in Acme."""
  num_action_samples: int = 20
  """Actions drawn in each state."""
  policy_learning_rate: float = 1e-3
  """Adam's first step size for the policy; 1e-4 in Acme."""
  critic_learning_rate: float = 1e-3
  """Adam's first step size for the critic; 1e-4 in Acme."""
  dual_learning_rate: float = 1e-2
  """Adam's first step size for the temperatures and the Lagrange multipliers."""
  max_gradient_norm: float = 40.0
  """Gradients of each network are scaled down to this global norm."""
  target_update_period: int = 25
  """Learner steps between two moves of the target networks; 100 in Acme."""
  target_step_size: float = 1.0
  """Tau: share of the distance that targets move each time; 1 copies."""
  epsilon: float = 0.1
  """Bound on the divergence of the weighted actions from the target policy."""
  epsilon_mean: float = 1e-2
  """Bound on the divergence of the policy's mean, in each dimension of an action;
  2.5e-3 in Acme."""
  epsilon_std: float = 1e-5
  """Bound on the divergence of the policy's deviation, in each dimension; 1e-6 in
  Acme."""
  epsilon_penalty: float = 1e-3
  """Bound for the weights that punish actions out of bounds."""
  initial_std: float = 0.7
  """Deviation of the first policy, for actions in [-1, 1]."""
  initial_temperature: float = 1.0
  """First temperature of the weights, by values and by the penalty; 10 in Acme."""
  initial_alpha_mean: float = 1.0
  """First multiplier of the mean's divergence; 10 in Acme."""
  initial_alpha_std: float = 10.0
  """First multiplier of the deviation's divergence; 1000 in Acme. The multiplier falls
  by no more than dual_learning_rate in a step."""
  hidden_sizes: tuple[int, ...] = (256, 256)
  """Widths of the default networks' hidden layers."""

  def __post_init__(self) -> None:
    super().__post_init__()
    config_checks.check_positive(
      self,
      'policy_learning_rate',
      'critic_learning_rate',
      'dual_learning_rate',
      'max_gradient_norm',
      'target_step_size',
      'epsilon',
      'epsilon_mean',
      'epsilon_std',
      'epsilon_penalty',
      'initial_std',
      'initial_temperature',
      'initial_alpha_mean',
      'initial_alpha_std',
    )
    config_checks.check_finite(
      self,
      'initial_temperature',
      'initial_alpha_mean',
      'initial_alpha_std',
    )
    config_checks.check_share(self, 'target_step_size')
    config_checks.check_at_least_one(
      self,
      'num_action_samples',
      'target_update_period',
      'hidden_sizes',
    )


class Duals(NamedTuple):
  """Temperatures and Lagrange multipliers, before `positive`."""

  temperature: jax.Array  # []
  penalty_temperature: jax.Array  # []
  alpha_mean: jax.Array  # [size]
  alpha_std: jax.Array  # [size]


def positive(dual: jax.Array) -> jax.Array:
  """Maps a dual, which follows gradients, to a positive number."""
  return jax.nn.softplus(dual) + 1e-8


# At this dual `positive` is nearly 0, but still has a gradient.
_LEAST_DUAL = -18.0


def initial_duals(config: Config, size: int) -> Duals:
  """Returns the duals of a policy of `size` dimensions before it learns."""

  def dual(value: float, *shape: int) -> jax.Array:
    inverse = value + np.log(-np.expm1(-value))  # of softplus
    return jnp.full(shape, max(inverse, _LEAST_DUAL), jnp.float32)

  return Duals(
    temperature=dual(config.initial_temperature),
    penalty_temperature=dual(config.initial_temperature),
    alpha_mean=dual(config.initial_alpha_mean, size),
    alpha_std=dual(config.initial_alpha_std, size),
  )


class Learnt(NamedTuple):
  """The params that follow gradients."""

  policy: hk.Params
  critic: hk.Params
  duals: Duals


class LearnerState(NamedTuple):
  """All state that learning changes."""

  params: Learnt
  target_params: actor_critic.Params
  optimizer_state: optimizers.OptState
  steps: jax.Array  # int32
  key: types.Key  # of drawn actions, and of random networks


def policy_loss(
  online: distributions.Normal,
  target: distributions.Normal,
  vectors: jax.Array,
  q: jax.Array,
  duals: Duals,
  config: Config,
) -> tuple[jax.Array, dict[str, jax.Array]]:
  """Returns the loss of policy and duals, a mean over states.

  The expectation (1806.06920, eq. 7 to 9) weights the actions. The maximisation fits
  the online policy to the weighted actions: the mean with the target's deviation and
  the deviation with the target's mean (1812.02256, eq. 12 to 14), both held back by a
  divergence.

  Args:
    online: policy [B, size].
    target: policy [B, size] that drew the actions.
    vectors: [N, B, size] drawn actions.
    q: [N, B] values of the drawn actions.
    duals: temperatures and multipliers.
    config: has the bounds.
  """

  # `rlax.mpo_loss` has these parts, but for the weights of the penalty. A call needs
  # these weights beside it and one state at a time for the multipliers, and would be
  # no shorter.
  def weigh(
    values: jax.Array, dual: jax.Array, bound: float
  ) -> tuple[jax.Array, jax.Array]:
    loss, weights, _ = rlax.mpo_compute_weights_and_temperature_loss(
      values, rlax.LagrangePenalty(dual, jnp.float32(bound)), positive
    )
    return loss.mean(), jax.lax.stop_gradient(weights)

  q = jax.lax.stop_gradient(q)
  temperature_loss, weights = weigh(q, duals.temperature, config.epsilon)
  excess = jnp.linalg.norm(vectors - vectors.clip(-1.0, 1.0), axis=-1)
  penalty_loss, penalty_weights = weigh(
    -excess, duals.penalty_temperature, config.epsilon_penalty
  )
  with_mean = distributions.Normal(online.mean, target.std)
  with_std = distributions.Normal(target.mean, online.std)
  log_prob = jax.vmap(with_mean.log_prob)(vectors)
  log_prob += jax.vmap(with_std.log_prob)(vectors)
  fit_loss = -((weights + penalty_weights) * log_prob).sum(axis=0).mean()
  divergence_mean = target.divergence(with_mean)
  divergence_std = target.divergence(with_std)

  def hold(divergence: jax.Array, dual: jax.Array, bound: float) -> jax.Array:
    penalty = rlax.LagrangePenalty(dual, jnp.float32(bound), True)
    losses = jax.vmap(
      lambda of_state: rlax.compute_parametric_kl_penalty_and_dual_loss(
        [(of_state, penalty)], positive
      )
    )(divergence)
    return sum(losses).mean()

  loss = (
    fit_loss
    + temperature_loss
    + penalty_loss
    + hold(divergence_mean, duals.alpha_mean, config.epsilon_mean)
    + hold(divergence_std, duals.alpha_std, config.epsilon_std)
  )
  uneven = (weights * jnp.log(weights * len(weights) + 1e-8)).sum(axis=0)
  return loss, {
    'policy_loss': fit_loss,
    'temperature': positive(duals.temperature),
    # Divergences, as shares of their bounds.
    'kl_q_rel': uneven.mean() / config.epsilon,
    'kl_mean_rel': divergence_mean.mean() / config.epsilon_mean,
    'kl_std_rel': divergence_std.mean() / config.epsilon_std,
    'mean_std': online.std.mean(),
  }


class MPO:
  """MPO for one environment spec; see `core.Agent`."""

  name = 'MPO'
  num_values = 1  # outputs of the critic for an action

  def __init__(
    self,
    config: Config,
    spec: specs.EnvironmentSpec,
    network: actor_critic.MakeActorCritic | None = None,
  ):
    self._config = config
    self._spec = spec
    self._bounds = bounds.Bounds(spec.actions, self.name)
    make = network or self._default_network
    self._policy, self._critic = actor_critic.transformed(
      lambda: make(2 * self._bounds.size),
      spec.observations,
      self._bounds.size,
      2 * self._bounds.size,
      self.num_values,
    )
    self.replay = config.replay

  def initial_learner_state(self, key: types.Key) -> LearnerState:
    """Returns a state whose target networks equal the online ones."""
    policy_key, critic_key, key = jax.random.split(key, 3)
    size = self._bounds.size
    observation = networks.example(self._spec.observations)
    params = Learnt(
      self._policy.init(policy_key, observation),
      self._critic.init(critic_key, observation, jnp.zeros((1, size))),
      initial_duals(self._config, size),
    )
    return LearnerState(
      params,
      optimizers.first_target(
        actor_critic.Params(params.policy, params.critic)
      ),
      self._optimizer.init(params),
      jnp.int32(0),
      key,
    )

  def initial_actor_state(
    self, batch_size: int, streams: types.Streams | None
  ) -> distributions.Exploration:
    """Returns a mask of exploring rows: none for an evaluated policy."""
    return distributions.initial_exploration(batch_size, streams)

  def act(
    self,
    params: hk.Params,
    key: types.Key,
    observation: types.NestedArray,
    state: distributions.Exploration,
  ) -> types.ActorOutput:
    """Draws actions from the policy, or takes the policy's means."""
    pi = self.policy(params, networks.network_key(key), observation)
    vector = jnp.where(state.explores[:, None], pi.sample(key), pi.mean)
    return types.ActorOutput(self._bounds.action(vector), state)

  def policy(
    self, params: hk.Params, key: types.Key, observation: types.NestedArray
  ) -> distributions.Normal:
    """Returns the policy [B, size] in a batch of observations."""
    output = self._policy.apply(params, key, observation)
    mean, raw = jnp.split(output, 2, axis=-1)
    scale = self._config.initial_std / np.log(2.0)  # softplus(0) is log(2)
    return distributions.Normal(mean, scale * jax.nn.softplus(raw) + 1e-6)

  def update(
    self, state: LearnerState, batch: types.Batch
  ) -> tuple[LearnerState, types.UpdateOutput]:
    """Takes one step of Adam with all learnt params, and moves the targets."""
    key, loss_key = jax.random.split(state.key)
    step = optimizers.gradient_step(
      self.loss,
      self._optimizer,
      state.params,
      state.optimizer_state,
      state.target_params,
      batch.data,
      loss_key,
    )
    params = step.params._replace(
      duals=jax.tree.map(lambda x: x.clip(_LEAST_DUAL), step.params.duals)
    )
    steps = state.steps + 1
    target_params = optimizers.moved_target(
      actor_critic.Params(params.policy, params.critic),
      state.target_params,
      steps,
      period=self._config.target_update_period,
      step_size=self._config.target_step_size,
    )
    return (
      LearnerState(params, target_params, step.optimizer_state, steps, key),
      types.UpdateOutput(step.aux),
    )

  def loss(
    self,
    params: Learnt,
    target_params: actor_critic.Params,
    data: types.Transition,
    key: types.Key,
  ) -> tuple[jax.Array, dict[str, jax.Array]]:
    """Returns the sum of critic's, policy's and duals' losses; consumes `key`."""
    o_tm1, a_tm1, r_t, discount_t, o_t, _ = data
    t_key, tm1_key = jax.random.split(key)
    critic_key, policy_key = networks.network_keys(key, 2)
    _, _, outputs_t = self._sampled(target_params, t_key, o_t)
    output_tm1 = self._critic.apply(
      params.critic, critic_key, o_tm1, self._bounds.vector(a_tm1)
    )
    critic_loss, critic_metrics = self.critic_loss(
      output_tm1, r_t, discount_t, outputs_t
    )
    target, vectors, outputs = self._sampled(target_params, tm1_key, o_tm1)
    online = self.policy(params.policy, policy_key, o_tm1)
    loss, policy_metrics = policy_loss(
      online, target, vectors, self.q(outputs), params.duals, self._config
    )
    return critic_loss + loss, critic_metrics | policy_metrics

  def _sampled(
    self,
    target_params: actor_critic.Params,
    key: types.Key,
    observation: types.NestedArray,
  ) -> tuple[distributions.Normal, jax.Array, jax.Array]:
    """Returns the target policy, actions of the policy, and the actions' values.

    The policy is [B, size], the actions are [N, B, size], and the values, outputs of
    the target critic, are [N, B, num_values]. Consumes `key`.
    """
    policy_key, critic_key = networks.network_keys(key, 2)
    pi = self.policy(target_params.policy, policy_key, observation)
    keys = jax.random.split(key, self._config.num_action_samples)
    vectors = jax.vmap(pi.sample)(keys)
    outputs = jax.vmap(self._critic.apply, (None, None, None, 0))(
      target_params.critic, critic_key, observation, vectors.clip(-1.0, 1.0)
    )
    return pi, vectors, outputs

  def critic_loss(
    self,
    output_tm1: jax.Array,
    r_t: jax.Array,
    discount_t: jax.Array,
    outputs_t: jax.Array,
  ) -> tuple[jax.Array, dict[str, jax.Array]]:
    """Returns half the mean squared error of the critic.

    Args:
      output_tm1: [B, 1] values of the stored actions.
      r_t: [B] discounted returns over the windows.
      discount_t: [B] multiply the values at the windows' ends.
      outputs_t: [N, B, 1] target values of drawn actions at the ends.
    """
    q_t = self.q(outputs_t).mean(axis=0)
    return critics.td_loss(self.q(output_tm1)[None], r_t, discount_t, q_t)

  def q(self, output: jax.Array) -> jax.Array:
    """Returns values [...] from the critic's outputs [..., num_values]."""
    return output[..., 0]

  def actor_params(self, state: LearnerState) -> types.Params:
    """Returns the policy's params."""
    return state.params.policy

  @property
  def _optimizer(self) -> optimizers.Optimizer:
    config = self._config
    step_size, limit = config.learning_rates.step_size, config.max_gradient_norm
    return optimizers.by_part(
      Learnt,
      policy=optimizers.adam(step_size(config.policy_learning_rate), limit),
      critic=optimizers.adam(step_size(config.critic_learning_rate), limit),
      duals=optimizers.adam(step_size(config.dual_learning_rate)),
    )

  def _default_network(self, num_params: int) -> actor_critic.ActorCritic:
    return actor_critic.layer_norm_actor_critic(
      self._spec.observations,
      self._config.hidden_sizes,
      num_params,
      self.num_values,
    )


def make_agent(
  config: Config,
  spec: specs.EnvironmentSpec,
  network: actor_critic.MakeActorCritic | None = None,
) -> MPO:
  """Returns MPO for an environment.

  Args:
    config: settings.
    spec: of the environment.
    network: makes policy and critic, given the number of the policy's outputs; see
      `ActorCritic`. The policy's outputs [B, 2 * size] are means, and deviations
      before softplus and a scale, so that 0 means `initial_std`. The critic's
      outputs are [B, 1]. By default two normalised MLPs.

  Raises:
    ValueError: if the environment's actions are not bounded floats.
  """
  return MPO(config, spec, network)
