"""DDPG: a deterministic policy that climbs the gradient of its critic.

Lillicrap et al. 2016 (arXiv:1509.02971). What differs: n steps may be made at once,
networks are normalised after their first layer, rather than every batch before it,
weights do not decay, both networks step at once, and the first actions, before anything
is learnt, are even over their bounds, as in later work. Batches are of 256, not 64,
networks 256-256, not 400-300; other defaults that differ say so below.
"""

from __future__ import annotations

import dataclasses
from typing import Any, NamedTuple

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
from distacme.kit import networks
from distacme.kit import optimizers
from distacme.kit import settings

optax = lazy_imports.module('optax')


@dataclasses.dataclass(frozen=True)
class Config(settings.UniformConfig):
  """Settings of DDPG."""

  min_replay_size: int = 1_000
  """Transitions before learning begins; until the first params that were learnt, a
  new run acts evenly at random."""
  policy_learning_rate: float = 1e-3
  """Adam's step size for the policy; 1e-4 in DDPG's paper."""
  critic_learning_rate: float = 1e-3
  """Adam's step size for the critic."""
  max_gradient_norm: float = 40.0
  """Gradients of each network are scaled down to this global norm; not so in
  DDPG's paper."""
  target_update_period: int = 1
  """Learner steps between two moves of the target networks."""
  target_step_size: float = 0.02
  """Tau: how far they move each time; 0.001 in DDPG's paper, 1 copies."""
  noise_std: float = 0.2
  """Sigma: deviation of what is added to actions in [-1, 1], at every step."""
  noise_reversion: float = 1.0
  """Theta: how much of the noise is forgotten from step to step. 1 draws it anew;
  less is an Ornstein-Uhlenbeck process, 0.15 in DDPG's paper."""
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
  """All that learning changes."""

  params: actor_critic.ActorCritic
  target_params: actor_critic.ActorCritic
  optimizer_state: Any
  steps: jax.Array  # int32


class ActorState(NamedTuple):
  """Exploration."""

  noise: jax.Array | np.ndarray  # [B, size], the last that was added
  explores: jax.Array | np.ndarray  # [B] bool, constant


def explore(
  vector: jax.Array,
  key: types.Key,
  state: ActorState,
  learnt: jax.Array,
  config: Any,
) -> tuple[jax.Array, ActorState]:
  """Returns action vectors [B, size] with noise, and the noise; consumes `key`.

  Args:
    vector: [B, size] in [-1, 1], the policy's.
    key: for chance.
    state: of exploration.
    learnt: [] bool; if not, actions are even over [-1, 1].
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
  num_values = 1  # that the critic gives for an action

  def __init__(
    self,
    config: Any,
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

  def initial_learner_state(self, key: types.Key) -> types.LearnerState:
    """Returns a state whose target networks equal the online ones."""
    params = self._initial_params(key)
    return LearnerState(
      params,
      # A copy: the learner donates its state, and no buffer may be given twice.
      jax.tree.map(jnp.copy, params),
      self._optimizer.init(params),
      steps=jnp.int32(0),
    )

  def _initial_params(self, key: types.Key) -> actor_critic.ActorCritic:
    policy_key, critic_key = jax.random.split(key)
    observation = networks.example(self._spec.observations)
    action = jnp.zeros((1, self._bounds.size))
    return actor_critic.ActorCritic(
      self._policy.init(policy_key, observation),
      self._critic.init(critic_key, observation, action),
    )

  def initial_actor_state(
    self, batch_size: int, streams: types.Streams | None
  ) -> ActorState:
    """Returns no noise; what is evaluated does not explore."""
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
    """Follows the policy, with noise; or anything, before it has learnt."""
    vector = self.act_vector(params['policy'], observation)
    vector, state = explore(
      vector, key, state, params['steps'] > 0, self._config
    )
    return types.ActorOutput(self._bounds.action(vector), state)

  def act_vector(
    self, policy: hk.Params, observation: types.NestedArray
  ) -> jax.Array:
    """Returns the policy's action vectors [B, size] in [-1, 1]."""
    return jnp.tanh(self._policy.apply(policy, observation))

  def update(
    self, state: types.LearnerState, batch: types.Batch
  ) -> tuple[types.LearnerState, types.UpdateOutput]:
    """Takes one step of Adam with both networks and moves their targets."""
    a_t = self.act_vector(
      state.target_params.policy, batch.data.next_observation
    )
    critic_gradient, critic_metrics = jax.grad(self.critic_loss, has_aux=True)(
      state.params.critic, state.target_params.critic, batch.data, a_t
    )
    policy_gradient, policy_metrics = jax.grad(self.policy_loss, has_aux=True)(
      state.params.policy, state.params.critic, batch.data.observation
    )
    updates, optimizer_state = self._optimizer.update(
      actor_critic.ActorCritic(policy_gradient, critic_gradient),
      state.optimizer_state,
    )
    params = optax.apply_updates(state.params, updates)
    steps = state.steps + 1
    target_params = optimizers.moved_target(
      params,
      state.target_params,
      steps,
      period=self._config.target_update_period,
      step_size=self._config.target_step_size,
    )
    return (
      LearnerState(params, target_params, optimizer_state, steps),
      types.UpdateOutput(critic_metrics | policy_metrics),
    )

  def critic_loss(
    self,
    critic: hk.Params,
    target_critic: hk.Params,
    data: types.Transition,
    a_t: jax.Array,
  ) -> tuple[jax.Array, dict[str, jax.Array]]:
    """Returns half the mean squared error of the critic (section 3, eq. 4).

    Args:
      critic: which learns.
      target_critic: which makes the target.
      data: the windows.
      a_t: [B, size] the target policy's action vectors at their ends.
    """
    taken = self._bounds.vector(data.action)
    q_tm1 = self.q(critic, data.observation, taken)
    q_t = self.q(target_critic, data.next_observation, a_t)
    return critics.td_loss(q_tm1[None], q_t, data)

  def policy_loss(
    self,
    policy: hk.Params,
    critic: hk.Params,
    observation: types.NestedArray,
  ) -> tuple[jax.Array, dict[str, jax.Array]]:
    """Returns minus the mean value of what the policy does (eq. 6)."""
    vector = self.act_vector(policy, observation)
    loss = -self.q(critic, observation, vector).mean()
    return loss, {'policy_loss': loss}

  def q(
    self,
    critic: hk.Params,
    observation: types.NestedArray,
    vector: jax.Array,
  ) -> jax.Array:
    """Returns the values [B] of action vectors [B, size]."""
    return self._critic.apply(critic, observation, vector)[:, 0]

  def actor_params(self, state: LearnerState) -> types.Params:
    """Returns the policy's params, and how often they were updated."""
    return {'policy': state.params.policy, 'steps': state.steps}

  @property
  def _optimizer(self) -> Any:
    config = self._config
    limit = config.max_gradient_norm
    return optax.multi_transform(
      {
        'policy': optimizers.adam(config.policy_learning_rate, limit),
        'critic': optimizers.adam(config.critic_learning_rate, limit),
      },
      actor_critic.ActorCritic('policy', 'critic'),
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
    network: makes policy and critic, given how many outputs the policy must have;
      see `ActorCritic`. The policy's outputs [B, size] are squashed to
      [-1, 1] by tanh, the critic's are [B, 1]; by default two normalised MLPs.

  Raises:
    ValueError: if the environment's actions are not bounded floats.
  """
  return DDPG(config, spec, network)
