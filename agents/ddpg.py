"""DDPG: a deterministic policy that climbs the gradient of its critic.

Lillicrap et al. 2016 (arXiv:1509.02971). Differences: returns of n steps are possible;
networks are normalised after their first layer, and inputs are not batch-normalised;
weights do not decay; both networks step at once; the first actions, before the first
learner step, are uniform over their bounds, as in later work. Batches are of 256, not
64, and networks 256-256, not 400-300. Other defaults that differ say so below.
"""

from __future__ import annotations

import dataclasses
from typing import NamedTuple

import haiku as hk
import jax
import jax.numpy as jnp
import numpy as np

from distacme import config_checks
from distacme import specs
from distacme import types
from distacme.kit import actor_critic
from distacme.kit import bounds
from distacme.kit import critics
from distacme.kit import networks
from distacme.kit import optimizers
from distacme.kit import settings


@dataclasses.dataclass(frozen=True)
class Config(settings.UniformConfig):
  """Settings of DDPG."""

  min_replay_size: int = 1_000
  """Transitions before learning begins; until the first learnt params a new run acts
  uniformly at random."""
  policy_learning_rate: float = 1e-3
  """Adam's first step size for the policy; 1e-4 in DDPG's paper."""
  critic_learning_rate: float = 1e-3
  """Adam's first step size for the critic."""
  max_gradient_norm: float = 40.0
  """Gradients of each network are scaled down to this global norm; not so in
  DDPG's paper."""
  target_update_period: int = 1
  """Learner steps between two moves of the target networks."""
  target_step_size: float = 0.02
  """Tau: share of the distance that targets move each time; 0.001 in DDPG's paper,
  1 copies."""
  noise_std: float = 0.2
  """Sigma: deviation of the noise on actions in [-1, 1], at every step."""
  noise_reversion: float = 1.0
  """Theta: share of the noise that is dropped at every step. 1 draws new noise; less
  is an Ornstein-Uhlenbeck process, 0.15 in DDPG's paper."""
  hidden_sizes: tuple[int, ...] = (256, 256)
  """Widths of the default networks' hidden layers."""

  def __post_init__(self) -> None:
    super().__post_init__()
    config_checks.check_positive(
      self,
      'policy_learning_rate',
      'critic_learning_rate',
      'max_gradient_norm',
      'target_step_size',
      'noise_reversion',
    )
    config_checks.check_share(self, 'target_step_size', 'noise_reversion')
    config_checks.check_not_negative(self, 'noise_std')
    config_checks.check_finite(self, 'noise_std')
    config_checks.check_at_least_one(
      self, 'target_update_period', 'hidden_sizes'
    )


class LearnerState(NamedTuple):
  """All state that learning changes."""

  params: actor_critic.Params
  target_params: actor_critic.Params
  policy_optimizer_state: optimizers.OptState
  critic_optimizer_state: optimizers.OptState
  steps: jax.Array  # int32
  key: types.Key  # of random networks


class ActorState(NamedTuple):
  """State of exploration."""

  noise: jax.Array | np.ndarray  # [B, size], of the last action
  explores: jax.Array | np.ndarray  # [B] bool, constant


def explore(
  vector: jax.Array,
  key: types.Key,
  state: ActorState,
  learnt: jax.Array,
  config: Config,
) -> tuple[jax.Array, ActorState]:
  """Returns action vectors [B, size] with noise, and the new state.

  Args:
    vector: [B, size] in [-1, 1], the policy's actions.
    key: consumed; decides the noise.
    state: of exploration.
    learnt: [] bool; if False, actions are uniform over [-1, 1].
    config: has `noise_std` and `noise_reversion`.
  """
  noise_key, even_key = jax.random.split(key)
  noise = (1 - config.noise_reversion) * state.noise
  noise += config.noise_std * jax.random.normal(noise_key, vector.shape)
  even = jax.random.uniform(even_key, vector.shape, minval=-1.0)
  noisy = jnp.where(learnt, (vector + noise).clip(-1.0, 1.0), even)
  return (
    jnp.where(state.explores[:, None], noisy, vector),
    state._replace(noise=noise),
  )


class DDPG:
  """DDPG for one environment spec; see `core.Agent`."""

  name = 'DDPG'
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
      lambda: make(self._bounds.size),
      spec.observations,
      self._bounds.size,
      self._bounds.size,
      self.num_values,
    )
    self.replay = config.replay

  def initial_learner_state(self, key: types.Key) -> LearnerState:
    """Returns a state whose target networks equal the online ones."""
    policy_key, critic_key = jax.random.split(key)
    observation = networks.example(self._spec.observations)
    action = jnp.zeros((1, self._bounds.size))
    params = actor_critic.Params(
      self._policy.init(policy_key, observation),
      self._critic.init(critic_key, observation, action),
    )
    return LearnerState(
      params,
      optimizers.first_target(params),
      self._policy_optimizer.init(params.policy),
      self._critic_optimizer.init(params.critic),
      jnp.int32(0),
      networks.network_key(key),
    )

  def initial_actor_state(
    self, batch_size: int, streams: types.Streams | None
  ) -> ActorState:
    """Returns a state without noise; the evaluated policy does not explore."""
    return ActorState(
      np.zeros((batch_size, self._bounds.size), np.float32),
      np.full(batch_size, streams is not None),
    )

  def act(
    self,
    params: types.Params,
    key: types.Key,
    observation: types.NestedArray,
    state: ActorState,
  ) -> types.ActorOutput:
    """Chooses the policy's actions with noise, or random ones before learning."""
    vector = self.act_vector(
      params['policy'], networks.network_key(key), observation
    )
    vector, state = explore(
      vector, key, state, params['steps'] > 0, self._config
    )
    return types.ActorOutput(self._bounds.action(vector), state)

  def act_vector(
    self, policy: hk.Params, key: types.Key, observation: types.NestedArray
  ) -> jax.Array:
    """Returns the policy's action vectors [B, size] in [-1, 1]."""
    return jnp.tanh(self._policy.apply(policy, key, observation))

  def update(
    self, state: LearnerState, batch: types.Batch
  ) -> tuple[LearnerState, types.UpdateOutput]:
    """Takes one step of Adam with both networks and moves the target networks."""
    key, target_key, critic_key, policy_key = jax.random.split(state.key, 4)
    a_t = self.act_vector(
      state.target_params.policy, target_key, batch.data.next_observation
    )
    critic = optimizers.gradient_step(
      self.critic_loss,
      self._critic_optimizer,
      state.params.critic,
      state.critic_optimizer_state,
      state.target_params.critic,
      batch.data,
      a_t,
      critic_key,
    )
    policy = optimizers.gradient_step(
      self.policy_loss,
      self._policy_optimizer,
      state.params.policy,
      state.policy_optimizer_state,
      state.params.critic,
      batch.data.observation,
      policy_key,
    )
    params = actor_critic.Params(policy.params, critic.params)
    steps = state.steps + 1
    return (
      LearnerState(
        params,
        self._moved_target(params, state.target_params, steps),
        policy.optimizer_state,
        critic.optimizer_state,
        steps,
        key,
      ),
      types.UpdateOutput(critic.aux | policy.aux),
    )

  def critic_loss(
    self,
    critic: hk.Params,
    target_critic: hk.Params,
    data: types.Transition,
    a_t: jax.Array,
    key: types.Key,
  ) -> tuple[jax.Array, dict[str, jax.Array]]:
    """Returns half the mean squared error of the critic (section 3, eq. 4).

    Args:
      critic: params that learn.
      target_critic: params that make the target.
      data: the windows.
      a_t: [B, size] the target policy's action vectors at the windows' ends.
      key: consumed if the network is random.
    """
    o_tm1, a_tm1, r_t, discount_t, o_t, _ = data
    tm1_key, t_key = jax.random.split(key)
    q_tm1 = self.q(critic, tm1_key, o_tm1, self._bounds.vector(a_tm1))
    q_t = self.q(target_critic, t_key, o_t, a_t)
    return critics.td_loss(q_tm1[None], r_t, discount_t, q_t)

  def policy_loss(
    self,
    policy: hk.Params,
    critic: hk.Params,
    o_tm1: types.NestedArray,
    key: types.Key,
  ) -> tuple[jax.Array, dict[str, jax.Array]]:
    """Returns minus the mean value of the policy's actions (eq. 6).

    Consumes `key` if the networks are random.
    """
    policy_key, critic_key = jax.random.split(key)
    vector = self.act_vector(policy, policy_key, o_tm1)
    loss = -self.q(critic, critic_key, o_tm1, vector).mean()
    return loss, {'policy_loss': loss}

  def q(
    self,
    critic: hk.Params,
    key: types.Key,
    observation: types.NestedArray,
    vector: jax.Array,
  ) -> jax.Array:
    """Returns the values [B] of action vectors [B, size]."""
    return self._critic.apply(critic, key, observation, vector)[:, 0]

  def actor_params(self, state: LearnerState) -> types.Params:
    """Returns the policy's params, and the number of their updates."""
    return {'policy': state.params.policy, 'steps': state.steps}

  def _moved_target(
    self,
    params: actor_critic.Params,
    target_params: actor_critic.Params,
    steps: jax.Array,
  ) -> actor_critic.Params:
    return optimizers.moved_target(
      params,
      target_params,
      steps,
      period=self._config.target_update_period,
      step_size=self._config.target_step_size,
    )

  @property
  def _policy_optimizer(self) -> optimizers.Optimizer:
    config = self._config
    return optimizers.adam(
      config.learning_rates.step_size(config.policy_learning_rate),
      config.max_gradient_norm,
    )

  @property
  def _critic_optimizer(self) -> optimizers.Optimizer:
    config = self._config
    return optimizers.adam(
      config.learning_rates.step_size(config.critic_learning_rate),
      config.max_gradient_norm,
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
) -> DDPG:
  """Returns DDPG for an environment.

  Args:
    config: settings.
    spec: of the environment.
    network: makes policy and critic, given the number of the policy's outputs; see
      `ActorCritic`. The policy's outputs [B, size] are squashed to [-1, 1] by tanh,
      the critic's are [B, 1]; by default two normalised MLPs.

  Raises:
    ValueError: if the environment's actions are not bounded floats.
  """
  return DDPG(config, spec, network)
