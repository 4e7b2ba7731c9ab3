"""BC: behavioural cloning, acting as recorded (needs --demonstrations).

Pomerleau 1991 (Neural Computation 3). The policy is fitted to the recorded actions by
their likelihood or, where they are continuous, by squared errors. It may have a memory,
and then learns from sequences. Some episodes are kept apart: the params of the smallest
loss on these are the ones that act, and learning ends when that loss has not fallen for
a while. Nobody acts in the environment but the evaluator.
"""

from __future__ import annotations

from collections.abc import Callable
import dataclasses
from typing import Any, Literal, NamedTuple

import haiku as hk
import jax
import jax.numpy as jnp

from distacme import config_checks
from distacme import replay_spec
from distacme import specs
from distacme import types
from distacme.kit import bounds as bounds_lib
from distacme.kit import convolutions as convolutions_lib
from distacme.kit import distributions
from distacme.kit import initializers
from distacme.kit import networks
from distacme.kit import optimizers
from distacme.kit import recurrent
from distacme.kit import settings
from distacme.kit import validation as validation_lib

# Without a memory: maps a nest of observations [B, ...] and the number of outputs to
# [B, num_outputs]. With one: makes the parts of such a network, given the number.
Network = Callable[..., Any]

_VALIDATION = 1  # index of that table
_LEAST_LOG_STD = -3.0  # of actions in [-1, 1]; less would fit noise
_SQUARED_ERROR_LOG_STD = -1.0  # of sampled actions; squared errors tell none


@dataclasses.dataclass(frozen=True)
class Config(settings.LearningRateConfig):
  """Settings of behavioural cloning."""

  continuous_loss: Literal['squared_error', 'log_likelihood'] = 'squared_error'
  """Loss of continuous actions: squared errors of the mean, or minus the logarithm of
  the density of a Gaussian. That of discrete actions is the cross-entropy."""
  learning_rate: float = 1e-3
  """Adam's first step size."""
  max_gradient_norm: float = 40.0
  """Gradients are scaled down to this global norm."""
  validation_share: float = 0.1
  """Share of the episodes, and of each batch, that the policy is not fitted to; 0
  keeps none, and the newest params act."""
  validation_period: int = 100
  """Learner steps over which the loss on these episodes is averaged."""
  patience: int = 20
  """Such periods without a smaller loss after which learning ends; 0 never ends it."""
  batch_size: int = 256
  """Steps per learner step; a policy with a memory learns from as many sequences as
  have that many steps."""
  max_demonstrations: int = 1_000_000
  """Steps, or sequences, of demonstrations that there is room for."""
  hidden_sizes: tuple[int, ...] = (256, 256)
  """Widths of the default network's layers before the memory."""
  convolutions: convolutions_lib.Convolutions = 'nature'
  """Convolutions for pictures of 36 pixels and more: Mnih's, or IMPALA's shallow or
  deep ones; smaller pictures go through `kit.convolutions.SmallTorso`."""
  initialization: initializers.Initialization = 'lecun'
  """First weights of the default network's torso: see kit.initializers."""
  lstm_size: int = 0
  """Width of the policy's memory; 0 for none."""
  burn_in_length: int = 20
  """Steps of a sequence that only warm the memory up, unless an episode starts there;
  for policies with a memory."""
  trace_length: int = 20
  """Steps of a sequence that are learnt from; for policies with a memory."""
  evaluate_greedily: bool = True
  """Whether the evaluated policy takes the likeliest action instead of drawing it."""

  def __post_init__(self) -> None:
    super().__post_init__()
    config_checks.check_positive(self, 'learning_rate', 'max_gradient_norm')
    config_checks.check_not_negative(
      self, 'lstm_size', 'burn_in_length', 'patience'
    )
    config_checks.check_at_least_one(
      self, 'validation_period', 'trace_length', 'hidden_sizes', 'batch_size'
    )
    if not 0 <= self.validation_share < 1:
      raise ValueError(
        'validation_share must be from 0 to below 1, got '
        f'{self.validation_share}.'
      )
    if self.continuous_loss not in ('squared_error', 'log_likelihood'):
      raise ValueError(
        "continuous_loss must be 'squared_error' or 'log_likelihood', got "
        f'{self.continuous_loss!r}.'
      )
    _ = self.replay  # checks itself

  @property
  def burn_in(self) -> int:
    """Rows of a window before those that are learnt from."""
    return self.burn_in_length if self.lstm_size else 0

  @property
  def replay(self) -> replay_spec.ReplaySpec:
    """Spec of the replay, by these settings: episodes to fit, and to validate by."""
    trace = self.trace_length if self.lstm_size else 1
    sequences = max(1, self.batch_size // trace)
    share = self.validation_share
    fitted = replay_spec.Table(
      name='demonstrations',
      window=replay_spec.Sequences(self.burn_in + trace + 1, trace),
      max_size=self.max_demonstrations,
      min_size=1,
      samples_per_insert=None,
      evicts=False,
      filled_by='demonstrations',
      part=(share, 1.0),
    )
    if not share:
      return replay_spec.ReplaySpec((fitted,), sequences)
    validation = dataclasses.replace(
      fitted, name='validation', part=(0.0, share)
    )
    return replay_spec.ReplaySpec(
      (fitted, validation), sequences, (1 - share, share)
    )


class LearnerState(NamedTuple):
  """All state that learning changes."""

  params: hk.Params
  optimizer_state: optimizers.OptState
  validation: validation_lib.Validation
  steps: jax.Array  # int32
  key: types.Key  # of random networks


class ActorState(NamedTuple):
  """Exploration, if a cloned policy is sampled from, and the policy's memory."""

  exploration: distributions.Exploration
  memory: recurrent.Memory


class BC:
  """Behavioural cloning for one environment spec; see `core.Agent`."""

  def __init__(
    self,
    config: Config,
    spec: specs.EnvironmentSpec,
    network: Network | None = None,
  ):
    self._config = config
    self._spec = spec
    self._distribution = distributions.for_actions(spec.actions, 'BC')
    self._bounds: bounds_lib.Bounds | None = None
    self._num_outputs = self._distribution.num_params
    if not isinstance(self._distribution, distributions.Categorical):
      self._bounds = bounds_lib.Bounds(spec.actions, 'BC')
      if config.continuous_loss == 'squared_error':
        self._num_outputs = self._bounds.size
    self._network = recurrent.unrolled(lambda: self._parts(network))
    memory = self._network.initial_state(1)
    shape = (1, self._num_outputs)
    networks.check_outputs(
      self._network.init,
      lambda params, key, o: self._network.step(params, key, o, memory)[0],
      (networks.example(spec.observations),),
      shape,
      f'shape {shape}',
      'policy',
    )
    self.replay = config.replay

  def _parts(self, network: Network | None) -> recurrent.RecurrentNetwork:
    config = self._config
    if network is not None and config.lstm_size:
      parts: recurrent.RecurrentNetwork = network(self._num_outputs)
      return parts
    if network is not None:
      return recurrent.RecurrentNetwork(
        lambda observation: network(observation, self._num_outputs),
        None,
        lambda outputs: outputs,
      )
    return recurrent.RecurrentNetwork(
      networks.ObservationTorso(
        self._spec.observations,
        config.hidden_sizes,
        config.convolutions,
        config.initialization,
      ),
      hk.LSTM(config.lstm_size) if config.lstm_size else None,
      hk.Linear(self._num_outputs),
    )

  def initial_learner_state(self, key: types.Key) -> LearnerState:
    """Returns a state that has validated nothing."""
    params = self._network.init(key, networks.example(self._spec.observations))
    return LearnerState(
      params,
      self._optimizer.init(params),
      validation_lib.begin(params),
      steps=jnp.int32(0),
      key=networks.network_key(key),
    )

  def initial_actor_state(
    self, batch_size: int, streams: types.Streams | None
  ) -> ActorState:
    """Returns a mask of rows that draw actions, and an empty memory."""
    return ActorState(
      distributions.initial_exploration(
        batch_size, streams, self._config.evaluate_greedily
      ),
      self._network.initial_state(batch_size),
    )

  def act(
    self,
    params: types.Params,
    key: types.Key,
    observation: types.NestedArray,
    state: ActorState,
  ) -> types.ActorOutput:
    """Acts by the cloned policy."""
    outputs, memory = self._network.step(
      params, networks.network_key(key), observation, state.memory
    )
    sample = distributions.draw(
      self._distribution,
      self._distribution_params(outputs),
      key,
      state.exploration.explores,
    )
    return types.ActorOutput(
      self._distribution.action(sample),
      state._replace(memory=memory),
    )

  def update(
    self, state: LearnerState, batch: types.Batch
  ) -> tuple[LearnerState, types.UpdateOutput]:
    """Takes one step of Adam, and validates when it is due."""
    key, loss_key = jax.random.split(state.key)
    step = optimizers.gradient_step(
      self.loss,
      self._optimizer,
      state.params,
      state.optimizer_state,
      batch,
      loss_key,
    )
    losses: _Losses = step.aux
    steps = state.steps + 1
    validation = state.validation
    metrics = {'loss': losses.fitted, 'gradient_norm': step.gradient_norm}
    if losses.agreement is not None:
      metrics['agreement'] = losses.agreement
    converged = None
    if self._config.validation_share:
      validation = validation_lib.add(
        validation,
        step.params,
        losses.validation,
        losses.validation_steps,
        is_last=steps % self._config.validation_period == 0,
      )
      metrics['validation_loss'] = validation_lib.mean(
        state.validation, losses.validation, losses.validation_steps
      )
      if self._config.patience:
        converged = validation.stale_periods >= self._config.patience
    new = LearnerState(
      step.params, step.optimizer_state, validation, steps, key
    )
    return new, types.UpdateOutput(metrics, converged=converged)

  def loss(
    self, params: hk.Params, batch: types.Batch, key: types.Key
  ) -> tuple[jax.Array, _Losses]:
    """Returns the mean loss of the steps to be fitted, and the others' sum.

    Consumes `key` if the network is random.
    """
    config = self._config
    data: types.Sequence = batch.data
    learnt = recurrent.learnt_steps(data.step_type, config.burn_in)
    # The last row has no action.
    steps = data._replace(
      observation=jax.tree.map(lambda leaf: leaf[:, :-1], data.observation),
      step_type=data.step_type[:, :-1],
    )
    outputs = recurrent.unroll_after_burn_in(
      self._network,
      params,
      key,
      steps,
      config.burn_in,
      # No network acted, so that none is stored.
      self._network.initial_state(data.step_type.shape[0]),
    )
    action = jax.tree.map(lambda leaf: leaf[:, :-1], data.action)
    each = self._losses(outputs, action)
    validates = (batch.table == _VALIDATION)[:, None]
    fitted, others = learnt * ~validates, learnt * validates
    count = fitted.sum().clip(1.0)
    loss = (each * fitted).sum() / count
    agreement = None
    if self._bounds is None:
      agrees = self._distribution.mode(outputs) == action
      agreement = (agrees * fitted).sum() / count
    return loss, _Losses(loss, (each * others).sum(), others.sum(), agreement)

  def _losses(self, outputs: jax.Array, action: jax.Array) -> jax.Array:
    """Returns the loss [B, T] of each action."""
    if self._bounds is None:
      return -self._distribution.log_prob(outputs, action)
    vector = self._bounds.vector(action)
    if self._config.continuous_loss == 'squared_error':
      return jnp.sum((outputs - vector) ** 2, axis=-1)
    return -self._distribution.log_prob(
      self._distribution_params(outputs), vector
    )

  def _distribution_params(self, outputs: jax.Array) -> jax.Array:
    """Returns the params of the distribution over actions."""
    if self._bounds is None:
      return outputs
    if self._config.continuous_loss == 'squared_error':
      log_std = jnp.full_like(outputs, _SQUARED_ERROR_LOG_STD)
      return jnp.concatenate([outputs, log_std], axis=-1)
    mean, log_std = jnp.split(outputs, 2, axis=-1)
    return jnp.concatenate([mean, log_std.clip(_LEAST_LOG_STD)], axis=-1)

  def actor_params(self, state: LearnerState) -> types.Params:
    """Returns the params of the smallest validated loss."""
    if self._config.validation_share:
      return state.validation.best_params
    return state.params

  @property
  def _optimizer(self) -> optimizers.Optimizer:
    config = self._config
    return optimizers.adam(
      config.learning_rates.step_size(config.learning_rate),
      config.max_gradient_norm,
    )


class _Losses(NamedTuple):
  """Losses of a batch.

  Attributes:
    fitted: [] mean over the steps that the policy is fitted to.
    validation: [] sum over the other steps.
    validation_steps: [] number of the other steps.
    agreement: [] share of fitted steps whose likeliest action is the recorded one;
      None of continuous actions.
  """

  fitted: jax.Array
  validation: jax.Array
  validation_steps: jax.Array
  agreement: jax.Array | None


def make_agent(
  config: Config,
  spec: specs.EnvironmentSpec,
  network: Network | None = None,
) -> BC:
  """Returns behavioural cloning for an environment.

  Args:
    config: settings.
    spec: of the environment.
    network: maps a nest of observations [B, ...] and the number of outputs to
      [B, num_outputs], and may use Haiku modules: logits of discrete actions; of
      continuous ones in [-1, 1] the means and, for the log-likelihood, the
      logarithms of standard deviations. If `lstm_size` is above 0, the network
      maps the number of outputs to the parts of a `RecurrentNetwork` instead. By
      default an MLP, after convolutions of pictures.

  Raises:
    ValueError: if the environment's actions are neither one discrete one nor
      bounded floats.
  """
  return BC(config, spec, network)
