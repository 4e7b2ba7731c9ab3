"""IMPALA: actor-critic on unrolls of many actors, corrected by V-trace.

Espeholt et al. 2018 (arXiv:1802.01561). Differences: losses are means over steps, where
the paper has sums, so that learning rates do not depend on the size of a batch; Adam
without momentum replaces RMSProp; rewards are divided by the running size of returns,
as in our PPO; and actions may be continuous.
"""

from __future__ import annotations

from collections.abc import Callable
import dataclasses
from typing import NamedTuple

import haiku as hk
import jax
import jax.numpy as jnp
import numpy as np

from distacme import config_checks
from distacme import lazy_imports
from distacme import replay_spec
from distacme import specs
from distacme import types
from distacme.kit import convolutions as convolutions_lib
from distacme.kit import distributions
from distacme.kit import initializers
from distacme.kit import networks
from distacme.kit import normalization
from distacme.kit import optimizers
from distacme.kit import recurrent
from distacme.kit import settings

rlax = lazy_imports.module('rlax')

# Makes the parts of a network, given the number of params of the distribution over
# actions. The network's outputs are these params [B, num_params], and state values [B].
Network = Callable[[int], recurrent.RecurrentNetwork]


@dataclasses.dataclass(frozen=True)
class Config(settings.LearningRateConfig):
  """Settings of IMPALA."""

  discount: float = 0.99
  """Gamma, per environment step."""
  unroll_length: int = 20
  """Steps of an unroll."""
  batch_size: int = 16
  """Unrolls per learner step."""
  queue_size: int = 32
  """Unrolls that may wait for the learner; bounds the age of their policy."""
  off_policy_correction: bool = True
  """Whether V-trace corrects for the age of the policy that acted."""
  clip_rho: float = 1.0
  """Rho-bar: limit of the importance weights in the values' targets."""
  clip_pg_rho: float = 1.0
  """Limit of the importance weights in the policy's gradient."""
  trace_decay: float = 1.0
  """Lambda: share of the trace that is kept from step to step."""
  reward_scale: float = 1.0
  """Factor of rewards for learning; values of about 1 learn best."""
  max_abs_reward: float = float('inf')
  """Clips scaled rewards for learning to this size; evaluation reports raw rewards."""
  normalize_returns: bool = True
  """Whether clipped rewards are divided by the running size of returns, so that
  values and advantages are of size 1."""
  value_weight: float = 0.5
  """Weight of the values' loss, against the policy's."""
  entropy_weight: float = 0.01
  """Weight of the policy's entropy."""
  learning_rate: float = 1e-3
  """Adam's first step size."""
  adam_epsilon: float = 1e-5
  """Adam's epsilon."""
  max_gradient_norm: float = 40.0
  """Gradients are scaled down to this global norm."""
  hidden_sizes: tuple[int, ...] = (64, 64)
  """Widths of the default network's hidden layers; (256,) in the paper."""
  convolutions: convolutions_lib.Convolutions = 'shallow'
  """Convolutions for pictures of 36 pixels and more: the paper's shallow or deep ones,
  or Mnih's; smaller pictures go through `kit.convolutions.SmallTorso`."""
  lstm_size: int = 0
  """Width of the default network's memory; 0 for none, 256 in the paper."""
  initialization: initializers.Initialization = 'orthogonal'
  """First weights of the default network: see kit.initializers."""
  evaluate_greedily: bool = True
  """Whether the evaluated policy takes the likeliest action instead of drawing it."""

  def __post_init__(self) -> None:
    super().__post_init__()
    config_checks.check_positive(
      self,
      'learning_rate',
      'adam_epsilon',
      'max_gradient_norm',
      'reward_scale',
      'max_abs_reward',
      'clip_rho',
      'clip_pg_rho',
    )
    config_checks.check_share(self, 'discount', 'trace_decay')
    config_checks.check_not_negative(
      self, 'value_weight', 'entropy_weight', 'lstm_size'
    )
    config_checks.check_at_least_one(
      self, 'unroll_length', 'batch_size', 'hidden_sizes'
    )
    # Else a batch would never be complete.
    config_checks.check_at_most(self, 'batch_size', 'queue_size')
    _ = self.replay  # checks itself

  @property
  def replay(self) -> replay_spec.ReplaySpec:
    """Spec of the replay, by these settings."""
    return replay_spec.queue(
      replay_spec.Sequences(
        self.unroll_length + 1, self.unroll_length, across_episodes=True
      ),
      batch_size=self.batch_size,
      max_size=self.queue_size,
    )


class LearnerState(NamedTuple):
  """All state that learning changes."""

  params: hk.Params
  returns: normalization.Statistics  # of returns before normalisation
  optimizer_state: optimizers.OptState
  key: types.Key  # of random networks


class ActorState(NamedTuple):
  """An actor's memory and exploration."""

  memory: recurrent.Memory
  explores: (
    jax.Array | np.ndarray
  )  # [B] bool, constant; other rows take the mode


class VTrace(NamedTuple):
  """V-trace targets and advantages of an unroll, without gradient.

  Attributes:
    target_tm1: [T] targets of the values, v_s (eq. 1).
    advantage_tm1: [T] weights of the policy's gradient (eq. 4, with rho).
  """

  target_tm1: jax.Array
  advantage_tm1: jax.Array


def v_trace(
  v: jax.Array,
  r_t: jax.Array,
  discount_t: jax.Array,
  rho_tm1: jax.Array,
  stepped_tm1: jax.Array,
  config: Config,
) -> VTrace:
  """Returns the targets and advantages of one unroll.

  Args:
    v: [T + 1] values of all rows: v_tm1, and v_t from the second row on.
    r_t: [T].
    discount_t: [T] gamma times the environment's discount.
    rho_tm1: [T] pi(a|o) / mu(a|o).
    stepped_tm1: [T] bool; False in rows without an action: the observation is an
      episode's last one, and its value bootstraps a truncated episode.
    config: has the clips and lambda.
  """
  # With a weight of 0, a row without an action has its own value as target, and cuts
  # the trace.
  rho_tm1 = jax.lax.stop_gradient(rho_tm1 * stepped_tm1)
  v_tm1, v_t = jax.lax.stop_gradient((v[:-1], v[1:]))
  out = rlax.vtrace_td_error_and_advantage(
    v_tm1,
    v_t,
    r_t,
    discount_t,
    rho_tm1,
    config.trace_decay,
    config.clip_rho,
    config.clip_pg_rho,
  )
  return VTrace(out.errors + v_tm1, out.pg_advantage)


class IMPALA:
  """IMPALA for one environment spec; see `core.Agent`."""

  def __init__(
    self,
    config: Config,
    spec: specs.EnvironmentSpec,
    network: Network | None = None,
  ):
    self._config = config
    self._spec = spec
    self._distribution = distributions.for_actions(spec.actions, 'IMPALA')
    make = network or self._default_network
    num_params = self._distribution.num_params
    self._network = recurrent.unrolled(lambda: make(num_params))
    self.replay = config.replay
    memory = self._network.initial_state(1)
    networks.check_policy_and_value(
      self._network.init,
      lambda params, key, o: self._network.step(params, key, o, memory)[0],
      spec.observations,
      num_params,
    )

  def initial_learner_state(self, key: types.Key) -> LearnerState:
    """Returns a state with new params and a new optimiser."""
    params = self._network.init(key, networks.example(self._spec.observations))
    return LearnerState(
      params,
      normalization.initial_of_returns(),
      self._optimizer.init(params),
      networks.network_key(key),
    )

  def initial_actor_state(
    self, batch_size: int, streams: types.Streams | None
  ) -> ActorState:
    """Returns an empty memory, and a mask of rows that draw actions."""
    exploration = distributions.initial_exploration(
      batch_size, streams, self._config.evaluate_greedily
    )
    return ActorState(
      self._network.initial_state(batch_size), exploration.explores
    )

  def act(
    self,
    params: hk.Params,
    key: types.Key,
    observation: types.NestedArray,
    state: ActorState,
  ) -> types.ActorOutput:
    """Draws actions from the policy, or takes the likeliest ones."""
    (pi, _), memory = self._network.step(
      params, networks.network_key(key), observation, state.memory
    )
    sample = distributions.draw(self._distribution, pi, key, state.explores)
    extras = {
      'sample': sample,
      'log_prob': self._distribution.log_prob(pi, sample),
    }
    return types.ActorOutput(
      self._distribution.action(sample),
      state._replace(memory=memory),
      extras,
      start_state=state.memory,
    )

  def update(
    self, state: LearnerState, batch: types.Batch
  ) -> tuple[LearnerState, types.UpdateOutput]:
    """Takes one step of Adam."""
    key, loss_key = jax.random.split(state.key)
    step = optimizers.gradient_step(
      self.loss,
      self._optimizer,
      state.params,
      state.optimizer_state,
      batch.data,
      state.returns,
      loss_key,
    )
    metrics, returns = step.aux
    metrics['gradient_norm'] = step.gradient_norm
    return (
      LearnerState(step.params, returns, step.optimizer_state, key),
      types.UpdateOutput(metrics),
    )

  def loss(
    self,
    params: hk.Params,
    data: types.Sequence,
    returns: normalization.Statistics,
    key: types.Key,
  ) -> tuple[jax.Array, tuple[dict[str, jax.Array], normalization.Statistics]]:
    """Returns the loss of unrolls [B, T + 1], a mean over steps.

    Args:
      params: of the network.
      data: the unrolls.
      returns: statistics of earlier unrolls' returns.
      key: consumed if the network is random.

    Returns:
      The loss; and metrics, and the statistics with these unrolls' returns.
    """
    (pi, v), _ = self._network.unroll(
      params,
      key,
      data.observation,
      data.step_type == types.FIRST,
      data.start_state,
    )
    # The last row bootstraps, and is the first one of the next unroll.
    pi_tm1, sample_tm1, log_mu_tm1, step_type_tm1 = jax.tree.map(
      lambda leaf: leaf[:, :-1],
      (pi, data.extras['sample'], data.extras['log_prob'], data.step_type),
    )
    stepped_tm1 = step_type_tm1 != types.LAST
    log_pi_tm1 = self._distribution.log_prob(pi_tm1, sample_tm1)
    rho_tm1 = jnp.exp(log_pi_tm1 - log_mu_tm1)
    v_trace_tm1, size, returns = self.targets(
      v, rho_tm1, stepped_tm1, data, returns
    )

    def mean(x: jax.Array) -> jax.Array:
      return (x * stepped_tm1).sum() / stepped_tm1.sum().clip(1)

    v_tm1 = v[:, :-1]
    policy_loss = -mean(log_pi_tm1 * v_trace_tm1.advantage_tm1 / size)
    value_loss = mean((v_trace_tm1.target_tm1 / size - v_tm1) ** 2) / 2
    entropy = mean(self._distribution.entropy(pi_tm1))
    loss = (
      policy_loss
      + self._config.value_weight * value_loss
      - self._config.entropy_weight * entropy
    )
    metrics = {
      'loss': loss,
      'policy_loss': policy_loss,
      'value_loss': value_loss,
      'entropy': entropy,
      'mean_value': mean(v_tm1),
      'mean_rho': mean(rho_tm1),
      'size_of_returns': normalization.root_mean_square(returns),
    }
    return loss, (metrics, returns)

  def targets(
    self,
    v: jax.Array,
    rho_tm1: jax.Array,
    stepped_tm1: jax.Array,
    data: types.Sequence,
    returns: normalization.Statistics,
  ) -> tuple[VTrace, jax.Array, normalization.Statistics]:
    """Returns V-trace of unrolls [B, T + 1], in the units of rewards.

    Args:
      v: [B, T + 1] values, in units of the size of returns.
      rho_tm1: see `v_trace`, as `stepped_tm1`; [B, T].
      stepped_tm1: [B, T].
      data: the unrolls.
      returns: statistics of the unrolls before.

    Returns:
      Targets and advantages, the size of returns to divide them by, and the
      statistics with these unrolls' returns.
    """
    config = self._config
    size = normalization.root_mean_square(returns)
    corrects = config.off_policy_correction
    made = jax.vmap(v_trace, (0, 0, 0, 0, 0, None))(
      size * v,
      replay_spec.learnt_reward(
        data.reward[:, :-1], config.reward_scale, config.max_abs_reward
      ),
      config.discount * data.discount[:, :-1],
      rho_tm1 if corrects else jnp.ones_like(rho_tm1),
      stepped_tm1,
      config,
    )
    if config.normalize_returns:
      returns, size = normalization.with_returns(
        returns,
        made.target_tm1.reshape(-1),
        stepped_tm1.reshape(-1).astype(made.target_tm1.dtype),
      )
    return made, size, returns

  def actor_params(self, state: LearnerState) -> hk.Params:
    """Returns the network's params."""
    return state.params

  @property
  def _optimizer(self) -> optimizers.Optimizer:
    config = self._config
    return optimizers.adam(
      config.learning_rates.step_size(config.learning_rate),
      config.max_gradient_norm,
      b1=0.0,
      b2=0.99,
      eps=config.adam_epsilon,
    )

  def _default_network(self, num_params: int) -> recurrent.RecurrentNetwork:
    config = self._config
    return recurrent.RecurrentNetwork(
      networks.ObservationTorso(
        self._spec.observations,
        config.hidden_sizes,
        config.convolutions,
        config.initialization,
      ),
      hk.LSTM(config.lstm_size) if config.lstm_size else None,
      networks.PolicyValueHead(
        num_params, self._distribution.num_constant, config.initialization
      ),
    )


def make_agent(
  config: Config,
  spec: specs.EnvironmentSpec,
  network: Network | None = None,
) -> IMPALA:
  """Returns IMPALA for an environment.

  Args:
    config: settings.
    spec: of the environment.
    network: makes the parts of a network, given the number of params of the
      distribution over actions: (num_params) to `RecurrentNetwork`. The network's
      outputs are these params [B, num_params], and values [B]. By default an MLP,
      after convolutions of pictures, and an LSTM if `lstm_size` is above 0.

  Raises:
    ValueError: if the environment's actions are neither one discrete one nor
      bounded floats.
  """
  return IMPALA(config, spec, network)
