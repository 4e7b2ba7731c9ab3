"""R2D2: deep Q-learning with a memory, from sequences, by many actors.

Kapturowski et al. 2019 (openreview r1lyTjAqYX): double Q-learning with a dueling LSTM
network, n steps and rescaled values, on overlapping sequences. Their first steps only
warm the stored start state up ("burn-in"). Differences: a sequence that starts with its
episode has a correct start state, so all of its steps are learnt from; returns are cut
at a sequence's end, which bootstraps, and do not reach beyond it; importance weights
are scaled by their maximum over the sampled batch; the network gets the last action and
reward only if the observation holds them (`wrappers.ObservationActionReward`); and
steps, batches and networks are by default of a size for two cores. Exploration is that
of our DQN.
"""

from __future__ import annotations

from collections.abc import Callable
import dataclasses
from types import ModuleType
from typing import NamedTuple, TypeVar

import haiku as hk
import jax
import jax.numpy as jnp
import numpy as np

from distacme import config_checks
from distacme import replay_spec
from distacme import specs
from distacme import types
from distacme.agents import dqn
from distacme.kit import convolutions as convolutions_lib
from distacme.kit import initializers
from distacme.kit import networks
from distacme.kit import recurrent
from distacme.kit import returns as returns_lib

# Makes the parts of a network with action values [B, num_actions] as outputs.
Network = Callable[[], recurrent.RecurrentNetwork]


# The actor computes first priorities in numpy, the learner computes targets in JAX.
Array = TypeVar('Array', np.ndarray, jax.Array)


@dataclasses.dataclass(frozen=True)
class Config(dqn.LearningConfig):
  """Settings of R2D2; the paper's, where they differ, stand beside them."""

  discount: float = 0.997
  """Gamma, per environment step."""
  n_step: int = 5
  """Steps between an action and the value that bootstraps its return."""
  burn_in_length: int = 8
  """Steps that only warm up the memory, unless an episode starts there; 40."""
  trace_length: int = 40
  """Steps of a sequence that are learnt from; 80."""
  period: int = 20
  """Steps between the starts of two sequences; 40."""
  use_start_state: bool = True
  """Whether sequences start with the state that the actor had, or with zeros."""
  value_rescaling: bool = True
  """Whether returns are squashed, so that rewards need no clipping."""
  reward_scale: float = 1.0
  """Factor of rewards for learning."""
  max_abs_reward: float = float('inf')
  """Clips scaled rewards for learning to this size; evaluation reports raw rewards."""
  learning_rate: float = 1e-3
  """Adam's first step size; 1e-4."""
  adam_epsilon: float = 1e-3
  """Adam's epsilon, for losses that are summed over a sequence."""
  max_gradient_norm: float = 40.0
  """Gradients are scaled down to this global norm."""
  target_update_period: int = 100
  """Learner steps between copies to the target network; 2500."""
  hidden_sizes: tuple[int, ...] = (64,)
  """Widths of the default network's layers before the memory; (512,)."""
  convolutions: convolutions_lib.Convolutions = 'nature'
  """Convolutions for pictures of 36 pixels and more: Mnih's, or IMPALA's shallow or
  deep ones; smaller pictures go through `kit.convolutions.SmallTorso`."""
  lstm_size: int = 64
  """Width of the memory and of the dueling head; 512."""
  initialization: initializers.Initialization = 'lecun'
  """First weights of the default network's torso: see kit.initializers."""
  batch_size: int = 32
  """Sequences per learner step; 64."""
  samples_per_insert: float = 4.0
  """Sequences learnt from for each sequence added."""
  error_buffer: float = 0.0
  """Samples by which either side may run ahead of samples_per_insert; 0 chooses."""
  min_replay_size: int = 50
  """Sequences collected before learning starts."""
  max_replay_size: int = 10_000
  """Sequences kept; 100,000."""
  priority_exponent: float = 0.9
  """Alpha of prioritised replay; 0 samples uniformly."""
  importance_exponent: float = 0.6
  """Beta of prioritised replay; 1 corrects the bias in full."""
  max_priority_weight: float = 0.9
  """Eta: weight of a sequence's largest TD error in its priority, against the
  mean."""

  def __post_init__(self) -> None:
    super().__post_init__()
    config_checks.check_positive(
      self,
      'reward_scale',
      'max_abs_reward',
    )
    config_checks.check_at_least_one(
      self,
      'n_step',
      'trace_length',
      'lstm_size',
      'hidden_sizes',
      'min_replay_size',
    )
    config_checks.check_at_most(self, 'min_replay_size', 'max_replay_size')
    config_checks.check_not_negative(self, 'burn_in_length')
    config_checks.check_share(
      self, 'discount', 'importance_exponent', 'max_priority_weight'
    )
    if not 1 <= self.period <= self.trace_length:
      raise ValueError(
        f'period must be from 1 to trace_length={self.trace_length}, or steps '
        f'between two sequences would never be learnt from, got {self.period}.'
      )
    _ = self.replay  # checks itself

  @property
  def replay(self) -> replay_spec.ReplaySpec:
    """Spec of the replay, by these settings."""
    return replay_spec.single(
      window=replay_spec.Sequences(
        self.burn_in_length + self.trace_length + 1, self.period
      ),
      batch_size=self.batch_size,
      max_size=self.max_replay_size,
      min_size=self.min_replay_size,
      samples_per_insert=self.samples_per_insert,
      error_buffer=self.error_buffer,
      priority_exponent=self.priority_exponent,
    )


class ActorState(NamedTuple):
  """An actor's exploration and memory."""

  exploration: dqn.ActorState
  memory: recurrent.Memory


def targets(
  v_t: Array, data: types.Sequence, config: Config, xp: ModuleType = jnp
) -> Array:
  """Returns the targets [..., T] of action values, for sequences of T + 1 rows.

  Section 2.3 of the paper: the target of a step is h of the n-step return, which is
  bootstrapped with h^-1 of a value.

  Args:
    v_t: [..., T] values of the observations that the steps led to.
    data: rewards, discounts and step types [..., T + 1].
    config: settings.
    xp: the module of the arrays.
  """
  if config.value_rescaling:
    v_t = returns_lib.unscale(v_t, xp)
  returns = returns_lib.n_step_returns(
    replay_spec.learnt_reward(
      data.reward[..., :-1], config.reward_scale, config.max_abs_reward
    ),
    config.discount * data.discount[..., :-1],
    v_t,
    data.step_type[..., 1:] != types.LAST,
    config.n_step,
    xp,
  )
  return returns_lib.rescale(returns, xp) if config.value_rescaling else returns


def td_errors(
  q: jax.Array, q_target: jax.Array, data: types.Sequence, config: Config
) -> jax.Array:
  """Returns the double Q-learning errors [B, T] of sequences of T + 1 rows.

  The target network gives the values of the online network's actions. Errors of rows
  without an action have no meaning.

  Args:
    q: [B, T + 1, num_actions] online network's values.
    q_target: [B, T + 1, num_actions] target network's values.
    data: leaves [B, T + 1, ...].
    config: settings.

  Returns:
    Target minus estimate; the gradient reaches the estimate only.
  """
  q_tm1, q_t = q[:, :-1], q[:, 1:]
  target = targets(at(q_target[:, 1:], q_t.argmax(axis=-1)), data, config)
  return jax.lax.stop_gradient(target) - at(q_tm1, data.action[:, :-1])


def at(q: jax.Array, action: jax.Array) -> jax.Array:
  """Returns the values [...] of actions [...], given q [..., num_actions]."""
  return jnp.take_along_axis(q, action[..., None], axis=-1)[..., 0]


def sequence_priority(error: Array, learnt: Array, max_weight: float) -> Array:
  """Returns eta max |error| + (1 - eta) mean |error| over the learnt steps.

  Args:
    error: [B, T].
    learnt: [B, T] 0 or 1.
    max_weight: eta.
  """
  size = abs(error) * learnt
  mean = size.sum(-1) / learnt.sum(-1).clip(1.0)
  mixed = max_weight * size.max(-1) + (1 - max_weight) * mean
  return mixed + dqn.LEAST_PRIORITY


class R2D2(dqn.QLearner):
  """R2D2 for one environment spec; see `core.Agent`."""

  def __init__(
    self,
    config: Config,
    spec: specs.EnvironmentSpec,
    network: Network | None = None,
  ):
    self._config = config
    self._num_actions = dqn.num_actions(spec, type(self).__name__)
    self._network = recurrent.unrolled(network or self._default_parts)
    super().__init__(config, spec, self._network.init)
    memory = self._network.initial_state(1)
    networks.check_action_values(
      self._network.init,
      lambda params, key, o: self._network.step(params, key, o, memory)[0],
      spec.observations,
      self._num_actions,
    )
    self.replay = config.replay

  def initial_actor_state(
    self, batch_size: int, streams: types.Streams | None
  ) -> ActorState:
    """Returns each row's epsilon, and an empty memory."""
    return ActorState(
      dqn.initial_exploration(batch_size, streams, self._config),
      self._network.initial_state(batch_size),
    )

  def act(
    self,
    params: types.Params,
    key: types.Key,
    observation: types.NestedArray,
    state: ActorState,
  ) -> types.ActorOutput:
    """Acts epsilon-greedily."""
    q, memory = self._network.step(
      params['network'], networks.network_key(key), observation, state.memory
    )
    epsilon = dqn.current_epsilon(state.exploration, params['epsilon_share'])
    action = dqn.epsilon_greedy(key, q, epsilon)
    return types.ActorOutput(
      action,
      state._replace(memory=memory),
      start_state=state.memory,
      values=dqn.acted_values(q, action),
    )

  def loss(
    self,
    params: hk.Params,
    target_params: hk.Params,
    batch: types.Batch,
    key: types.Key,
  ) -> tuple[jax.Array, types.UpdateOutput]:
    """Returns the loss, half the squared errors, and new priorities.

    Errors are summed over the steps learnt from, as in the paper: a mean would have
    gradients far below the paper's epsilon of Adam. The loss is a weighted mean over
    sequences. Consumes `key`.
    """
    config = self._config
    data: types.Sequence = batch.data
    online_key, target_key = jax.random.split(key)
    q = self.action_values(params, data, online_key)
    q_target = self.action_values(target_params, data, target_key)
    error = td_errors(q, q_target, data, config)
    learnt = recurrent.learnt_steps(data.step_type, config.burn_in_length)
    weights = self.importance_weights(batch)
    squares = jnp.sum(learnt * error**2, axis=-1)
    loss = jnp.mean(weights * squares) / 2
    priorities = None
    if self.replay.prioritized:
      priorities = sequence_priority(error, learnt, config.max_priority_weight)
    count = learnt.sum().clip(1.0)
    metrics = {
      'loss': loss,
      'mean_q': (q[:, :-1].mean(-1) * learnt).sum() / count,
      'mean_abs_td_error': (jnp.abs(error) * learnt).sum() / count,
      'learnt_steps': learnt.sum(-1).mean(),
    }
    return loss, types.UpdateOutput(metrics, priorities)

  def importance_weights(self, batch: types.Batch) -> jax.Array:
    """Returns weights [B] in (0, 1]."""
    return dqn.importance_weights(
      batch.probability, self._config.importance_exponent
    )

  def first_priority(
    self, window: types.Sequence, values: dict[str, np.ndarray]
  ) -> np.ndarray:
    """Returns priorities [B], given the values [B, L] of the actor's policy.

    The online network stands in for the target network, as the actor has no target
    network.
    """
    config = self._config
    target = targets(values['max_q'][:, 1:], window, config, np)
    return sequence_priority(
      target - values['chosen_q'][:, :-1],
      recurrent.learnt_steps(window.step_type, config.burn_in_length),
      config.max_priority_weight,
    )

  def action_values(
    self, params: hk.Params, data: types.Sequence, key: types.Key
  ) -> jax.Array:
    """Returns action values [B, L, num_actions], with a memory from row to row.

    The gradient does not reach back into the burn-in, unless the burn-in is learnt
    from. Consumes `key`.
    """
    memory = data.start_state
    if not self._config.use_start_state:
      memory = self._network.initial_state(data.step_type.shape[0])
    return recurrent.unroll_after_burn_in(
      self._network, params, key, data, self._config.burn_in_length, memory
    )

  def _default_parts(self) -> recurrent.RecurrentNetwork:
    config = self._config
    return recurrent.RecurrentNetwork(
      networks.ObservationTorso(
        self._spec.observations,
        config.hidden_sizes,
        config.convolutions,
        config.initialization,
      ),
      hk.LSTM(config.lstm_size),
      networks.DuelingHead(self._num_actions, config.lstm_size),
    )


def make_agent(
  config: Config,
  spec: specs.EnvironmentSpec,
  network: Network | None = None,
) -> R2D2:
  """Returns R2D2 for an environment.

  Args:
    config: settings.
    spec: of the environment.
    network: makes the parts of a network with action values [B, num_actions] as
      outputs; by default an MLP, after convolutions of pictures, an LSTM and a
      dueling head.

  Raises:
    ValueError: if the environment's action is not a single discrete one.
  """
  return R2D2(config, spec, network)
