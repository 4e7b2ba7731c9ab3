"""SAC: two critics and a policy that is rewarded for its entropy.

Haarnoja et al. 2018 (arXiv:1812.05905), with a learnt temperature. Differences:
networks are normalised after their first layer; the first actions, before the first
learner step, are uniform over their bounds; and step sizes are 1e-3, not 3e-4.
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
from distacme.kit import distributions
from distacme.kit import networks
from distacme.kit import optimizers
from distacme.kit import settings


@dataclasses.dataclass(frozen=True)
class Config(settings.UniformConfig):
  """Settings of SAC."""

  n_step: int = 1
  """Steps between the two ends of a transition; entropy counts at the last."""
  min_replay_size: int = 1_000
  """Transitions before learning begins; until the first learnt params a new run acts
  uniformly at random."""
  learning_rate: float = 1e-3
  """Adam's first step size, for all learnt params; 3e-4 in the paper."""
  max_gradient_norm: float = 40.0
  """Gradients of each network are scaled down to this global norm; not so in the
  paper."""
  target_update_period: int = 1
  """Learner steps between two moves of the target critics."""
  target_step_size: float = 0.005
  """Tau: share of the distance that targets move each time; 1 copies."""
  initial_temperature: float = 1.0
  """Alpha at first: the worth of a nat of entropy, in rewards."""
  target_entropy: float | None = None
  """Entropy that alpha keeps the policy at, in nats of actions in [-1, 1]; by default
  minus the size of an action."""
  hidden_sizes: tuple[int, ...] = (256, 256)
  """Widths of the default networks' hidden layers."""

  def __post_init__(self) -> None:
    super().__post_init__()
    config_checks.check_positive(
      self,
      'learning_rate',
      'max_gradient_norm',
      'target_step_size',
      'initial_temperature',
    )
    config_checks.check_share(self, 'target_step_size')
    if self.target_entropy is not None:
      config_checks.check_finite(self, 'target_entropy')
    config_checks.check_at_least_one(
      self, 'target_update_period', 'hidden_sizes'
    )


class Learnt(NamedTuple):
  """The params that follow gradients; the critic's leaves are [2, ...]."""

  policy: hk.Params
  critic: hk.Params
  log_temperature: jax.Array  # []


class LearnerState(NamedTuple):
  """All state that learning changes."""

  params: Learnt
  target_critic: hk.Params
  optimizer_state: optimizers.OptState
  steps: jax.Array  # int32
  key: types.Key  # of drawn actions, and of random networks


class SAC:
  """SAC for one environment spec; see `core.Agent`."""

  def __init__(
    self,
    config: Config,
    spec: specs.EnvironmentSpec,
    network: actor_critic.MakeActorCritic | None = None,
  ):
    self._config = config
    self._spec = spec
    self._bounds = bounds.Bounds(spec.actions, 'SAC')
    self._distribution = distributions.TanhGaussian(self._bounds)
    make = network or self._default_network
    self._policy, critic = actor_critic.transformed(
      lambda: make(self._distribution.num_params),
      spec.observations,
      self._bounds.size,
      self._distribution.num_params,
    )
    self._critic = actor_critic.twin(critic)
    self.replay = config.replay

  def initial_learner_state(self, key: types.Key) -> LearnerState:
    """Returns a state whose target critics equal the online ones."""
    policy_key, critic_key, key = jax.random.split(key, 3)
    observation = networks.example(self._spec.observations)
    action = jnp.zeros((1, self._bounds.size))
    params = Learnt(
      self._policy.init(policy_key, observation),
      self._critic.init(critic_key, observation, action),
      jnp.float32(np.log(self._config.initial_temperature)),
    )
    return LearnerState(
      params,
      optimizers.first_target(params.critic),
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
    params: types.Params,
    key: types.Key,
    observation: types.NestedArray,
    state: distributions.Exploration,
  ) -> types.ActorOutput:
    """Draws actions from the policy, or takes the likeliest ones.

    Before the first learner step, actions are uniform over their bounds.
    """
    draw_key, even_key = jax.random.split(key)
    pi = self._policy.apply(
      params['policy'], networks.network_key(key), observation
    )
    mode = self._distribution.mode(pi)
    drawn = jnp.where(
      params['steps'] > 0,
      self._distribution.sample(pi, draw_key),
      jnp.arctanh(jax.random.uniform(even_key, mode.shape, minval=-1.0)),
    )
    sample = jnp.where(state.explores[:, None], drawn, mode)
    return types.ActorOutput(self._distribution.action(sample), state)

  def update(
    self, state: LearnerState, batch: types.Batch
  ) -> tuple[LearnerState, types.UpdateOutput]:
    """Takes one step of Adam with all learnt params; moves the target critics."""
    key, loss_key = jax.random.split(state.key)
    step = optimizers.gradient_step(
      self.loss,
      self._optimizer,
      state.params,
      state.optimizer_state,
      state.target_critic,
      batch.data,
      loss_key,
    )
    steps = state.steps + 1
    target_critic = optimizers.moved_target(
      step.params.critic,
      state.target_critic,
      steps,
      period=self._config.target_update_period,
      step_size=self._config.target_step_size,
    )
    return (
      LearnerState(
        step.params, target_critic, step.optimizer_state, steps, key
      ),
      types.UpdateOutput(step.aux),
    )

  def loss(
    self,
    params: Learnt,
    target_critic: hk.Params,
    data: types.Transition,
    key: types.Key,
  ) -> tuple[jax.Array, dict[str, jax.Array]]:
    """Returns the sum of critics', policy's and temperature's losses.

    Each loss has a gradient for its own params only, as if the losses were minimised
    one by one. Consumes `key`.
    """
    o_tm1, a_tm1, r_t, discount_t, o_t, _ = data
    fixed = jax.lax.stop_gradient(params)
    temperature = jnp.exp(fixed.log_temperature)
    t_key, tm1_key = jax.random.split(key)
    critic_keys = networks.network_keys(key, 3)

    # The critics (eq. 5), from the lower of the two targets.
    vector_t, log_pi_t = self._drawn(fixed.policy, t_key, o_t)
    q_t = self._q(target_critic, critic_keys[0], o_t, vector_t).min(axis=0)
    q_tm1 = self._q(
      params.critic, critic_keys[1], o_tm1, self._bounds.vector(a_tm1)
    )
    critic_loss, critic_metrics = critics.td_loss(
      q_tm1, r_t, discount_t, q_t - temperature * log_pi_t
    )

    # The policy (eq. 9), at newly drawn actions, not the stored ones.
    vector_tm1, log_pi_tm1 = self._drawn(params.policy, tm1_key, o_tm1)
    q = self._q(fixed.critic, critic_keys[2], o_tm1, vector_tm1).min(axis=0)
    policy_loss = (temperature * log_pi_tm1 - q).mean()

    # The temperature (eq. 18); its logarithm is learnt.
    entropy = -jax.lax.stop_gradient(log_pi_tm1).mean()
    excess = entropy - self._target_entropy
    temperature_loss = params.log_temperature * excess
    return critic_loss + policy_loss + temperature_loss, {
      **critic_metrics,
      'policy_loss': policy_loss,
      'entropy': entropy,
      'temperature': temperature,
    }

  def _drawn(
    self, policy: hk.Params, key: types.Key, observation: types.NestedArray
  ) -> tuple[jax.Array, jax.Array]:
    """Returns action vectors [B, size] and their log-densities [B]."""
    pi = self._policy.apply(policy, networks.network_key(key), observation)
    sample = self._distribution.sample(pi, key)
    return jnp.tanh(sample), self._distribution.log_prob(pi, sample)

  def _q(
    self,
    critic: hk.Params,
    key: types.Key,
    observation: types.NestedArray,
    vector: jax.Array,
  ) -> jax.Array:
    """Returns both critics' values [2, B]."""
    return self._critic.apply(critic, key, observation, vector)[..., 0]

  def actor_params(self, state: LearnerState) -> types.Params:
    """Returns the policy's params, and the number of their updates."""
    return {'policy': state.params.policy, 'steps': state.steps}

  @property
  def _target_entropy(self) -> float:
    given = self._config.target_entropy
    return -float(self._bounds.size) if given is None else given

  @property
  def _optimizer(self) -> optimizers.Optimizer:
    config = self._config
    adam = optimizers.adam(
      config.learning_rates.step_size(config.learning_rate),
      config.max_gradient_norm,
    )
    return optimizers.by_part(
      Learnt, policy=adam, critic=adam, log_temperature=adam
    )

  def _default_network(self, num_params: int) -> actor_critic.ActorCritic:
    return actor_critic.layer_norm_actor_critic(
      self._spec.observations, self._config.hidden_sizes, num_params
    )


def make_agent(
  config: Config,
  spec: specs.EnvironmentSpec,
  network: actor_critic.MakeActorCritic | None = None,
) -> SAC:
  """Returns SAC for an environment.

  Args:
    config: settings.
    spec: of the environment.
    network: makes policy and critic, given the number of the policy's outputs; see
      `ActorCritic`. There are two such critics. The policy's outputs [B, 2 * size]
      are means and logarithms of deviations before tanh, the critic's are [B, 1]; by
      default normalised MLPs.

  Raises:
    ValueError: if the environment's actions are not bounded floats.
  """
  return SAC(config, spec, network)
