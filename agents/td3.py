"""TD3: DDPG with two critics, late policy updates and smoothed targets.

Fujimoto et al. 2018 (arXiv:1802.09477). Differences: networks are normalised after
their first layer, and 256-256, not 400-300; batches are of 256, not 100; gradients are
clipped; exploration and first actions are those of our DDPG. The file of DDPG has all
parts that are not here. The policy climbs the critic after the critic's step
(algorithm 1).
"""

from __future__ import annotations

import dataclasses

import haiku as hk
import jax

from distacme import config_checks
from distacme import specs
from distacme import types
from distacme.agents import ddpg
from distacme.kit import actor_critic
from distacme.kit import critics
from distacme.kit import networks
from distacme.kit import optimizers


@dataclasses.dataclass(frozen=True)
class Config(ddpg.Config):
  """Settings of TD3."""

  noise_std: float = 0.1
  """Sigma: deviation of the noise on actions in [-1, 1], at every step."""
  target_update_period: int = 2
  """Updates of the critics for each update of policy and target networks."""
  target_step_size: float = 0.005
  """Tau: share of the distance that targets move each time; 1 copies."""
  smoothing_std: float = 0.2
  """Deviation of the noise on the targets' actions in [-1, 1]."""
  smoothing_clip: float = 0.5
  """Size that the noise on the targets' actions is clipped to."""

  def __post_init__(self) -> None:
    super().__post_init__()
    config_checks.check_not_negative(self, 'smoothing_std', 'smoothing_clip')


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
    self._config: Config = config
    self._critic = actor_critic.twin(self._critic)

  def initial_learner_state(self, key: types.Key) -> ddpg.LearnerState:
    """Returns a state whose target networks equal the online ones."""
    params_key, key = jax.random.split(key)
    return super().initial_learner_state(params_key)._replace(key=key)

  def update(
    self, state: ddpg.LearnerState, batch: types.Batch
  ) -> tuple[ddpg.LearnerState, types.UpdateOutput]:
    """Takes one step with the critics; every period also with policy and targets."""
    key, smoothing_key = jax.random.split(state.key)
    critic_key, policy_key = networks.network_keys(state.key, 2)
    a_t = self.smoothed_vector(
      state.target_params.policy, batch.data.next_observation, smoothing_key
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
    steps = state.steps + 1

    # The policy's loss is not logged: it is known every period only, and would cost a
    # forward pass of all networks at other steps.
    def learn(
      policy: hk.Params, optimizer_state: optimizers.OptState
    ) -> tuple[hk.Params, optimizers.OptState]:
      step = optimizers.gradient_step(
        self.policy_loss,
        self._policy_optimizer,
        policy,
        optimizer_state,
        critic.params,
        batch.data.observation,
        policy_key,
      )
      return step.params, step.optimizer_state

    policy, policy_optimizer_state = jax.lax.cond(
      steps % self._config.target_update_period == 0,
      learn,
      lambda *unchanged: unchanged,
      state.params.policy,
      state.policy_optimizer_state,
    )
    params = actor_critic.Params(policy, critic.params)
    return (
      ddpg.LearnerState(
        params,
        self._moved_target(params, state.target_params, steps),
        policy_optimizer_state,
        critic.optimizer_state,
        steps,
        key,
      ),
      types.UpdateOutput(critic.aux),
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
    vector = self.act_vector(policy, networks.network_key(key), observation)
    noise = config.smoothing_std * jax.random.normal(key, vector.shape)
    noise = noise.clip(-config.smoothing_clip, config.smoothing_clip)
    return (vector + noise).clip(-1.0, 1.0)

  def critic_loss(
    self,
    critic: hk.Params,
    target_critic: hk.Params,
    data: types.Transition,
    a_t: jax.Array,
    key: types.Key,
  ) -> tuple[jax.Array, dict[str, jax.Array]]:
    """Returns half the mean squared error, summed over both critics (sec. 4.2).

    Both learn from the lower of the two targets.
    """
    o_tm1, a_tm1, r_t, discount_t, o_t, _ = data
    tm1_key, t_key = jax.random.split(key)
    q_tm1 = self._critic.apply(
      critic, tm1_key, o_tm1, self._bounds.vector(a_tm1)
    )
    q_t = self._critic.apply(target_critic, t_key, o_t, a_t)
    return critics.td_loss(
      q_tm1[..., 0], r_t, discount_t, q_t[..., 0].min(axis=0)
    )

  def q(
    self,
    critic: hk.Params,
    key: types.Key,
    observation: types.NestedArray,
    vector: jax.Array,
  ) -> jax.Array:
    """Returns the first critic's values [B] of action vectors [B, size]."""
    return self._critic.apply(critic, key, observation, vector)[0, :, 0]

  @property
  def _policy_optimizer(self) -> optimizers.Optimizer:
    config = self._config
    return optimizers.adam(
      config.learning_rates.step_size(
        config.policy_learning_rate, 1 / config.target_update_period
      ),
      config.max_gradient_norm,
    )


def make_agent(
  config: Config,
  spec: specs.EnvironmentSpec,
  network: actor_critic.MakeActorCritic | None = None,
) -> TD3:
  """Returns TD3 for an environment.

  Args:
    config: settings.
    spec: of the environment.
    network: makes policy and critic, given the number of the policy's outputs; see
      `ActorCritic`. There are two such critics. The policy's outputs [B, size] are
      squashed to [-1, 1] by tanh, the critic's are [B, 1]; by default normalised
      MLPs.

  Raises:
    ValueError: if the environment's actions are not bounded floats.
  """
  return TD3(config, spec, network)
