"""IMPALA: actor-critic on unrolls of many actors, corrected by V-trace.

Espeholt et al. 2018 (arXiv:1802.01561). What differs: losses are means over steps
where the paper has sums, so that learning rates do not depend on the size of a
batch; Adam without momentum stands for RMSProp; rewards are divided by the running
size of returns, as PPO's are; and actions may be continuous.
"""

from __future__ import annotations

from collections.abc import Callable
import dataclasses
from typing import Any, NamedTuple

import haiku as hk
import jax
import jax.numpy as jnp
import numpy as np

from distacme import config_checks
from distacme import lazy_imports
from distacme import replay_spec
from distacme import specs
from distacme import types
from distacme.kit import distributions
from distacme.kit import networks
from distacme.kit import normalization
from distacme.kit import optimizers
from distacme.kit import recurrent

optax = lazy_imports.module('optax')
rlax = lazy_imports.module('rlax')

# Makes the parts of a network, given how many parameters the distribution over
# actions has. Its outputs are those [B, num_params], and state values [B].
Network = Callable[[int], recurrent.RecurrentNetwork]


@dataclasses.dataclass(frozen=True)
class Config:
  """Settings of IMPALA."""

  discount: float = 0.99
  """Gamma, per environment step."""
  unroll_length: int = 20
  """Steps of an unroll."""
  batch_size: int = 16
  """Unrolls per learner step."""
  queue_size: int = 32
  """Unrolls that may wait for the learner; bounds how old their policy is."""
  off_policy_correction: bool = True
  """Whether V-trace corrects for the age of the policy that acted."""
  clip_rho: float = 1.0
  """Rho-bar: how far importance weights of the values' targets may go."""
  clip_pg_rho: float = 1.0
  """The same for the policy's gradient."""
  trace_decay: float = 1.0
  """Lambda: how much of the trace is kept from step to step."""
  reward_scale: float = 1.0
  """Rewards are multiplied by this to learn from; values of about 1 learn best."""
  max_abs_reward: float = float('inf')
  """Rewards are clipped to this size after that; nothing of it is evaluated."""
  normalize_returns: bool = True
  """Whether rewards are then divided by the running size of returns, so that values
  and advantages are of size 1."""
  value_weight: float = 0.5
  """Weight of the values' loss, against the policy's."""
  entropy_weight: float = 0.01
  """Weight of the policy's entropy."""
  learning_rate: float = 1e-3
  """Adam's step size."""
  annealing_steps: int = 0
  """Learner steps in which that falls to 0, evenly; 0 keeps it."""
  adam_epsilon: float = 1e-5
  """Adam's epsilon."""
  max_gradient_norm: float = 40.0
  """Gradients are scaled down to this global norm."""
  hidden_sizes: tuple[int, ...] = (64, 64)
  """Widths of the default network's hidden layers; (256,) in the paper."""
  convolutions: networks.Convolutions = 'shallow'
  """What images of 36 pixels and more go through: the paper's shallow or deep ones, or
  Mnih's; smaller ones have `kit.networks.SmallTorso`."""
  lstm_size: int = 0
  """Width of the default network's memory; 0 for none, 256 in the paper."""
  initialization: networks.Initialization = 'orthogonal'
  """First weights of the default network: see networks.weights."""
  evaluate_greedily: bool = True
  """Whether what is evaluated takes the likeliest action, or draws it."""

  def __post_init__(self) -> None:
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
      self, 'value_weight', 'entropy_weight', 'lstm_size', 'annealing_steps'
    )
    config_checks.check_at_least_one(
      self, 'unroll_length', 'batch_size', 'hidden_sizes'
    )
    # Or a batch would never be complete.
    config_checks.check_at_most(self, 'batch_size', 'queue_size')
    _ = self.replay  # checks itself

  @property
  def replay(self) -> replay_spec.ReplaySpec:
    """What these settings ask of replay."""
    return replay_spec.queue(
      replay_spec.Sequences(
        self.unroll_length + 1, self.unroll_length, across_episodes=True
      ),
      batch_size=self.batch_size,
      max_size=self.queue_size,
    )


class LearnerState(NamedTuple):
  """All that learning changes."""

  params: hk.Params
  returns: normalization.Statistics  # before they are normalised
  optimizer_state: Any


class ActorState(NamedTuple):
  """What an actor remembers."""

  memory: Any  # of the network's core
  explores: jax.Array | np.ndarray  # [B] bool, constant: or takes the mode


class VTrace(NamedTuple):
  """What V-trace makes of an unroll, [T] each, gradients stopped.

  Attributes:
    target: of the values, v_s (eq. 1).
    advantage: what the policy's gradient is weighted with (eq. 4, with rho).
  """

  target: jax.Array
  advantage: jax.Array


def v_trace(
  value: jax.Array,
  reward: jax.Array,
  discount: jax.Array,
  rho: jax.Array,
  stepped: jax.Array,
  config: Config,
) -> VTrace:
  """Returns the targets and advantages of one unroll.

  Args:
    value: [T + 1] of all rows; the last one bootstraps.
    reward: [T].
    discount: [T] gamma times the environment's.
    rho: [T] pi(a|o) / mu(a|o).
    stepped: [T] bool; where not, nothing was done: the observation is the last
      of an episode, and its value what a truncated one is bootstrapped with.
    config: whose clips and lambda to use.
  """
  # With a weight of 0 such a row keeps its value as its target, and cuts the
  # trace.
  rho = rho * stepped
  value = jax.lax.stop_gradient(value)
  out = rlax.vtrace_td_error_and_advantage(
    value[:-1],
    value[1:],
    reward,
    discount,
    jax.lax.stop_gradient(rho),
    config.trace_decay,
    config.clip_rho,
    config.clip_pg_rho,
  )
  return VTrace(out.errors + value[:-1], out.pg_advantage)


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
    self._policy = distributions.for_actions(spec.actions, 'IMPALA')
    make = network or self._default_network
    self._network = recurrent.unrolled(lambda: make(self._policy.num_params))
    self.replay = config.replay
    memory = self._network.initial_state(1)
    networks.check_policy_and_value(
      self._network.init,
      lambda params, o: self._network.step(params, o, memory)[0],
      spec.observations,
      self._policy.num_params,
    )

  def initial_learner_state(self, key: types.Key) -> LearnerState:
    """Returns params and an optimiser that has seen nothing."""
    params = self._network.init(key, networks.example(self._spec.observations))
    return LearnerState(
      params, normalization.initial_of_returns(), self._optimizer.init(params)
    )

  def initial_actor_state(
    self, batch_size: int, streams: types.Streams | None
  ) -> ActorState:
    """Returns an empty memory, and who draws actions."""
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
    """Draws actions from the policy, or takes the likeliest."""
    (policy, _), memory = self._network.step(params, observation, state.memory)
    sample = distributions.draw(self._policy, policy, key, state.explores)
    extras = {
      'sample': sample,
      'log_prob': self._policy.log_prob(policy, sample),
    }
    return types.ActorOutput(
      self._policy.action(sample),
      state._replace(memory=memory),
      extras,
      start_state=state.memory,
    )

  def update(
    self, state: LearnerState, batch: types.Batch
  ) -> tuple[LearnerState, types.UpdateOutput]:
    """Takes one step of Adam."""
    gradient, (metrics, returns) = jax.grad(self.loss, has_aux=True)(
      state.params, batch.data, state.returns
    )
    updates, optimizer_state = self._optimizer.update(
      gradient, state.optimizer_state
    )
    params = optax.apply_updates(state.params, updates)
    metrics['gradient_norm'] = optax.tree.norm(gradient)
    return (
      LearnerState(params, returns, optimizer_state),
      types.UpdateOutput(metrics),
    )

  def loss(
    self,
    params: hk.Params,
    data: types.Sequence,
    returns: normalization.Statistics,
  ) -> tuple[jax.Array, tuple[dict[str, jax.Array], normalization.Statistics]]:
    """Returns the loss of unrolls [B, T + 1], a mean over their steps.

    Args:
      params: of the network.
      data: the unrolls.
      returns: statistics of those before.

    Returns:
      The loss; and metrics, and the statistics with these unrolls' returns.
    """
    config = self._config
    (policy, value), _ = self._network.unroll(
      params, data.observation, data.step_type == types.FIRST, data.start_state
    )
    # The last row bootstraps, and is the first one of the next unroll.
    policy, sample, behaviour, reward, discount, step_type = jax.tree.map(
      lambda leaf: leaf[:, :-1],
      (
        policy,
        data.extras['sample'],
        data.extras['log_prob'],
        data.reward,
        data.discount,
        data.step_type,
      ),
    )
    stepped = step_type != types.LAST
    log_prob = self._policy.log_prob(policy, sample)
    rho = jnp.exp(log_prob - behaviour)
    corrected = rho if config.off_policy_correction else jnp.ones_like(rho)
    size = normalization.root_mean_square(returns)
    target, advantage = jax.vmap(v_trace, (0, 0, 0, 0, 0, None))(
      size * value,
      replay_spec.learnt_reward(
        reward, config.reward_scale, config.max_abs_reward
      ),
      config.discount * discount,
      corrected,
      stepped,
      config,
    )

    if config.normalize_returns:
      before = returns
      returns = normalization.updated(
        before, target.reshape(-1), stepped.reshape(-1).astype(target.dtype)
      )
      # The first unrolls have no statistics but their own.
      size = normalization.root_mean_square(
        normalization.before_or_own(before, returns)
      )

    def mean(x: jax.Array) -> jax.Array:
      return (x * stepped).sum() / stepped.sum().clip(1)

    policy_loss = -mean(log_prob * advantage / size)
    value_loss = mean((target / size - value[:, :-1]) ** 2) / 2
    entropy = mean(self._policy.entropy(policy))
    loss = (
      policy_loss
      + config.value_weight * value_loss
      - config.entropy_weight * entropy
    )
    metrics = {
      'loss': loss,
      'policy_loss': policy_loss,
      'value_loss': value_loss,
      'entropy': entropy,
      'mean_value': mean(value[:, :-1]),
      'mean_rho': mean(rho),
      'size_of_returns': normalization.root_mean_square(returns),
    }
    return loss, (metrics, returns)

  def actor_params(self, state: LearnerState) -> hk.Params:
    """Returns the network's params."""
    return state.params

  @property
  def _optimizer(self) -> Any:
    config = self._config
    return optimizers.adam(
      optimizers.annealed(config.learning_rate, config.annealing_steps),
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
        num_params, self._policy.num_constant, config.initialization
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
    network: makes the parts of a network, given how many parameters the
      distribution over actions has: (num_params) to `RecurrentNetwork`. Its
      outputs are those [B, num_params], and values [B]; by default an MLP, after
      convolutions of what is an image, and an LSTM if asked for.

  Raises:
    ValueError: if the environment's actions are neither one discrete one nor
      bounded floats.
  """
  return IMPALA(config, spec, network)
