"""TD3: DDPG with two critics, late policy updates and smoothed targets.

Fujimoto et al. 2018 (arXiv:1802.09477). What differs: networks are normalised after
their first layer, and 256-256, not 400-300; batches are of 256, not 100; gradients are
clipped; exploration and first actions are those of our DDPG, whose file has all that
is not here. The policy climbs the critic as its step has left it (algorithm 1).
"""

from __future__ import annotations

import dataclasses
from typing import Any, NamedTuple

import haiku as hk
import jax
import jax.numpy as jnp

from distacme import config_checks
from distacme import lazy_imports
from distacme import specs
from distacme import types
from distacme.agents import ddpg
from distacme.kit import actor_critic
from distacme.kit import critics
from distacme.kit import optimizers

optax = lazy_imports.module('optax')


@dataclasses.dataclass(frozen=True)
class Config(ddpg.Config):
  """Settings of TD3."""

  noise_std: float = 0.1
  """Sigma: deviation of what is added to actions in [-1, 1], at every step."""
  target_update_period: int = 2
  """Updates of the critics for each one of policy and target networks."""
  target_step_size: float = 0.005
  """Tau: how far the targets move each time; 1 copies."""
  smoothing_std: float = 0.2
  """Deviation of the noise on the targets' actions in [-1, 1]."""
  smoothing_clip: float = 0.5
  """That noise is clipped to this size."""

  def __post_init__(self) -> None:
    super().__post_init__()
    config_checks.check_not_negative(self, 'smoothing_std', 'smoothing_clip')


class LearnerState(NamedTuple):
  """All that learning changes."""

  params: actor_critic.ActorCritic  # the critic's leaves are [2, ...]
  target_params: actor_critic.ActorCritic
  policy_optimizer_state: Any
  critic_optimizer_state: Any
  steps: jax.Array  # int32
  key: types.Key  # of the smoothing


class TD3(ddpg.DDPG):
  """TD3 for one environment spec; see `core.Agent`."""

  name = 'TD3'

  def __init__(
    self,
    config: Config,
    spec: specs.EnvironmentSpec,
    network: actor_critic.MakeActorCritic | None = None,
  ):
    super().__init__(config, spec, network)
    self._critic = actor_critic.twin(self._critic)

  @property
  def _policy_optimizer(self) -> Any:
    config = self._config
    return optimizers.adam(
      config.policy_learning_rate, config.max_gradient_norm
    )

  @property
  def _critic_optimizer(self) -> Any:
    config = self._config
    return optimizers.adam(
      config.critic_learning_rate, config.max_gradient_norm
    )

  def initial_learner_state(self, key: types.Key) -> LearnerState:
    """Returns a state whose target networks equal the online ones."""
    params_key, key = jax.random.split(key)
    params = self._initial_params(params_key)
    return LearnerState(
      params,
      # A copy: the learner donates its state, and no buffer may be given twice.
      jax.tree.map(jnp.copy, params),
      self._policy_optimizer.init(params.policy),
      self._critic_optimizer.init(params.critic),
      jnp.int32(0),
      key,
    )

  def update(
    self, state: LearnerState, batch: types.Batch
  ) -> tuple[LearnerState, types.UpdateOutput]:
    """Takes a step with the critics, and when it is due with all else."""
    config = self._config
    key, smoothing_key = jax.random.split(state.key)
    a_t = self.smoothed_vector(
      state.target_params.policy, batch.data.next_observation, smoothing_key
    )
    gradient, metrics = jax.grad(self.critic_loss, has_aux=True)(
      state.params.critic, state.target_params.critic, batch.data, a_t
    )
    updates, critic_optimizer_state = self._critic_optimizer.update(
      gradient, state.critic_optimizer_state
    )
    critic = optax.apply_updates(state.params.critic, updates)
    steps = state.steps + 1

    # The loss of the policy is not logged: it is known every period only, and
    # would cost a forward pass of all networks at other steps.
    def learn(policy: Any, optimizer_state: Any) -> Any:
      gradient, _ = jax.grad(self.policy_loss, has_aux=True)(
        policy, critic, batch.data.observation
      )
      updates, optimizer_state = self._policy_optimizer.update(
        gradient, optimizer_state
      )
      return optax.apply_updates(policy, updates), optimizer_state

    policy, policy_optimizer_state = jax.lax.cond(
      steps % config.target_update_period == 0,
      learn,
      lambda *unchanged: unchanged,
      state.params.policy,
      state.policy_optimizer_state,
    )
    params = actor_critic.ActorCritic(policy, critic)
    target_params = optimizers.moved_target(
      params,
      state.target_params,
      steps,
      period=config.target_update_period,
      step_size=config.target_step_size,
    )
    return (
      LearnerState(
        params,
        target_params,
        policy_optimizer_state,
        critic_optimizer_state,
        steps,
        key,
      ),
      types.UpdateOutput(metrics),
    )

  def smoothed_vector(
    self,
    policy: hk.Params,
    observation: types.NestedArray,
    key: types.Key,
  ) -> jax.Array:
    """Returns action vectors [B, size] with clipped noise (sec. 5.3).

    Consumes `key`.
    """
    config = self._config
    vector = self.act_vector(policy, observation)
    noise = config.smoothing_std * jax.random.normal(key, vector.shape)
    noise = noise.clip(-config.smoothing_clip, config.smoothing_clip)
    return (vector + noise).clip(-1.0, 1.0)

  def critic_loss(
    self,
    critic: hk.Params,
    target_critic: hk.Params,
    data: types.Transition,
    a_t: jax.Array,
  ) -> tuple[jax.Array, dict[str, jax.Array]]:
    """Returns half the mean squared errors of both critics, added (sec. 4.2).

    Both learn from the lower of the two targets.
    """
    taken = self._bounds.vector(data.action)
    q_tm1 = self._critic.apply(critic, data.observation, taken)
    q_t = self._critic.apply(target_critic, data.next_observation, a_t)
    return critics.td_loss(q_tm1[..., 0], q_t[..., 0].min(axis=0), data)

  def q(
    self,
    critic: hk.Params,
    observation: types.NestedArray,
    vector: jax.Array,
  ) -> jax.Array:
    """Returns the first critic's values [B] of action vectors [B, size]."""
    return self._critic.apply(critic, observation, vector)[0, :, 0]


def make_agent(
  config: Config,
  spec: specs.EnvironmentSpec,
  network: actor_critic.MakeActorCritic | None = None,
) -> TD3:
  """Returns TD3 for an environment.

  Args:
    config: settings.
    spec: of the environment.
    network: makes policy and critic, of which there will be two, given how many
      outputs the policy must have; see `ActorCritic`. The policy's outputs
      [B, size] are squashed to [-1, 1] by tanh, the critic's are [B, 1]; by
      default normalised MLPs.

  Raises:
    ValueError: if the environment's actions are not bounded floats.
  """
  return TD3(config, spec, network)
