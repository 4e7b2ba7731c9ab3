"""R2D2: deep Q-learning with a memory, from sequences, by many actors.

Kapturowski et al. 2019 (openreview r1lyTjAqYX): double Q-learning with a dueling
LSTM network, n steps and rescaled values, on overlapping sequences whose stored
start state is warmed up ("burn-in") before anything is learnt. What differs: a
sequence that starts where its episode does has a start state that is right, so
that all of its steps are learnt from; returns are cut at a sequence's end, which
bootstraps, rather than reaching beyond it; importance weights are scaled over the
sampled batch; the memory is told the last action and reward only where the
observation holds them (`wrappers.ObservationActionReward`); and steps, batches
and networks are by default of a size for two cores. Exploration and the step of
learning are those of our DQN, whose file has all that is not here.
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
from distacme.agents import dqn
from distacme.kit import networks
from distacme.kit import recurrent

rlax = lazy_imports.module('rlax')

_LEAST_PRIORITY = 1e-6  # keeps every sequence drawable

# Makes the parts of a network whose outputs are action values [B, num_actions].
Network = Callable[[], recurrent.RecurrentNetwork]


@dataclasses.dataclass(frozen=True)
class Config:
  """Settings of R2D2; the paper's, where they differ, stand beside them."""

  discount: float = 0.997
  """Gamma, per environment step."""
  n_step: int = 5
  """Steps between an action and the value that bootstraps it."""
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
  """Rewards are multiplied by this to learn from."""
  max_abs_reward: float = float('inf')
  """Rewards are clipped to this size after that; nothing of it is evaluated."""
  learning_rate: float = 1e-3
  """Adam's step size; 1e-4."""
  adam_epsilon: float = 1e-3
  """Adam's epsilon, for losses that are summed over a sequence."""
  max_gradient_norm: float = 40.0
  """Gradients are scaled down to this global norm."""
  target_update_period: int = 100
  """Learner steps between copies to the target network; 2500."""
  hidden_sizes: tuple[int, ...] = (64,)
  """Widths of the default network's layers before the memory; (512,)."""
  convolutions: networks.Convolutions = 'nature'
  """What images of 36 pixels and more go through: Mnih's, or IMPALA's shallow or deep
  ones; smaller ones have `kit.networks.SmallTorso`."""
  lstm_size: int = 64
  """Width of the memory and of the dueling head; 512."""
  initialization: networks.Initialization = 'lecun'
  """First weights of the default network's torso: see networks.weights."""
  batch_size: int = 32
  """Sequences per learner step; 64."""
  samples_per_insert: float = 4.0
  """Sequences learnt from for each one that is added."""
  error_buffer: float = 0.0
  """Samples by which either side may run ahead of that ratio; 0 chooses."""
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
  epsilon_base: float = 0.4
  """Base of the exploration ladder."""
  epsilon_exponent: float = 7.0
  """Length of the exploration ladder, in powers of its base."""
  evaluation_epsilon: float = 0.0
  """Chance of a random action while evaluated."""

  def __post_init__(self) -> None:
    config_checks.check_positive(
      self,
      'reward_scale',
      'max_abs_reward',
      'learning_rate',
      'adam_epsilon',
      'max_gradient_norm',
    )
    config_checks.check_at_least_one(
      self,
      'n_step',
      'trace_length',
      'target_update_period',
      'lstm_size',
      'hidden_sizes',
      'min_replay_size',
    )
    config_checks.check_at_most(self, 'min_replay_size', 'max_replay_size')
    config_checks.check_not_negative(self, 'burn_in_length', 'epsilon_exponent')
    config_checks.check_share(
      self,
      'discount',
      'importance_exponent',
      'max_priority_weight',
      'epsilon_base',
      'evaluation_epsilon',
    )
    if not 1 <= self.period <= self.trace_length:
      raise ValueError(
        f'period must be from 1 to trace_length={self.trace_length}, or steps '
        f'between two sequences would never be learnt from, got {self.period}.'
      )
    _ = self.replay  # checks itself

  @property
  def replay(self) -> replay_spec.ReplaySpec:
    """What these settings ask of replay."""
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
  """What an actor remembers."""

  epsilon: jax.Array | np.ndarray  # [B], constant over a run
  memory: Any  # of the network's core


def rescale(x: Any, xp: Any = jnp) -> Any:
  """Returns h(x) = sign(x)(sqrt(|x| + 1) - 1) + 1e-3 x (Pohlen et al. 2018).

  Args:
    x: any shape.
    xp: numpy on the actor, jax.numpy on the learner; as in the next one.
  """
  return xp.sign(x) * (xp.sqrt(abs(x) + 1) - 1) + _RESCALING * x


def unscale(x: Any, xp: Any = jnp) -> Any:
  """Returns the inverse of `rescale`."""
  # The paper's (sqrt(1 + 4 e y) - 1) / 2 e, without a difference of near numbers:
  # in float32 that is wrong by up to 2e-4 below 1.
  y = abs(x) + 1 + _RESCALING
  root = 2 * y / (xp.sqrt(1 + 4 * _RESCALING * y) + 1)
  return xp.sign(x) * (root**2 - 1)


_RESCALING = 1e-3  # epsilon in h


def td_errors(
  q: jax.Array,
  q_target: jax.Array,
  data: types.Sequence,
  discount: float,
  n_step: int,
  rescaled: bool,
) -> jax.Array:
  """Returns the double Q-learning errors of one sequence's steps.

  Section 2.3 of the paper: the target of step t is h of the n-step return, which
  the target network bootstraps with h^-1 of what it thinks of the online network's
  choice. Returns that would reach beyond the sequence or the episode are cut
  there, and bootstrapped from the last observation.

  Args:
    q: [L, num_actions] online network's values.
    q_target: [L, num_actions] target network's values.
    data: of the sequence, leaves [L, ...].
    discount: gamma.
    n_step: steps of a return.
    rescaled: whether values are rescaled ones.

  Returns:
    [L - 1], target minus estimate; the gradient reaches the estimate only. What
    stands where nothing was done is without meaning.
  """
  value = jnp.take_along_axis(q_target, q.argmax(-1)[:, None], axis=-1)[:, 0]
  if rescaled:
    value = unscale(value)
  returns = rlax.n_step_bootstrapped_returns(
    data.reward[:-1],
    discount * data.discount[:-1],
    value[1:],
    n_step,
    # A return ends with its episode; 0 takes the value there.
    lambda_t=(data.step_type[1:] != types.LAST).astype(value.dtype),
  )
  target = rescale(returns) if rescaled else returns
  estimate = jnp.take_along_axis(q[:-1], data.action[:-1, None], axis=-1)[:, 0]
  return jax.lax.stop_gradient(target) - estimate


def learnt_steps(step_type: Any, burn_in_length: int) -> Any:
  """Returns which steps [B, L - 1] of sequences are learnt from, as 0 or 1.

  Not padding, and not the burn-in, unless the sequence starts an episode: then
  its start state is right. Like `sequence_priority` it takes arrays of numpy, on
  the actor, or of JAX, on the learner.

  Args:
    step_type: [B, L].
    burn_in_length: steps.
  """
  position = np.arange(step_type.shape[1] - 1)[None]
  warm = (position >= burn_in_length) | (step_type[:, :1] == types.FIRST)
  return (warm & (step_type[:, :-1] != types.LAST)).astype(np.float32)


def sequence_priority(abs_error: Any, learnt: Any, max_weight: float) -> Any:
  """Returns eta max |error| + (1 - eta) mean |error| over the learnt steps.

  Args:
    abs_error: [B, T].
    learnt: [B, T] 0 or 1.
    max_weight: eta.
  """
  abs_error = abs_error * learnt
  count = learnt.sum(-1).clip(1.0)
  mean = abs_error.sum(-1) / count
  return max_weight * abs_error.max(-1) + (1 - max_weight) * mean


def _n_step_returns(
  reward: np.ndarray,
  discount: np.ndarray,
  value: np.ndarray,
  goes_on: np.ndarray,
  n_step: int,
) -> np.ndarray:
  """Returns n-step returns [K, T]; all arguments but the last are [K, T].

  What `td_errors` asks of rlax, in numpy, as the actor loads no rlax. Where the
  episode does not go on, the value there bootstraps.
  """
  length = reward.shape[1]
  last = value[:, -1:].repeat(n_step - 1, axis=1)
  returns = np.concatenate([value, last], axis=1)[:, n_step - 1 :]
  # Steps beyond the sequence change nothing: the last value bootstraps.
  for step in reversed(range(min(n_step, length))):
    at, here = slice(step, length), slice(0, length - step)
    onward = np.where(goes_on[:, at], returns[:, here], value[:, at])
    returns[:, here] = reward[:, at] + discount[:, at] * onward
  return returns


class R2D2(dqn.DQN):
  """R2D2 for one environment spec; see `core.Agent`."""

  name = 'R2D2'

  def _transformed(self, network: Network | None) -> recurrent.Unrolled:
    """Returns the pure functions of a network, or of the default one, checked."""
    pure = recurrent.unrolled(network or self._default_parts)
    memory = pure.initial_state(1)
    self._check_values(
      pure.init, lambda params, o: pure.step(params, o, memory)[0]
    )
    return pure

  def initial_actor_state(
    self, batch_size: int, streams: types.Streams | None
  ) -> types.ActorState:
    """Returns each row's epsilon, and an empty memory."""
    epsilon = super().initial_actor_state(batch_size, streams).epsilon
    return ActorState(epsilon, self._network.initial_state(batch_size))

  def act(
    self,
    params: hk.Params,
    key: types.Key,
    observation: types.NestedArray,
    state: types.ActorState,
  ) -> types.ActorOutput:
    """Acts epsilon-greedily."""
    q, memory = self._network.step(params, observation, state.memory)
    action = dqn.epsilon_greedy(key, q, state.epsilon)
    chosen_q = jnp.take_along_axis(q, action[:, None], axis=-1)[:, 0]
    return types.ActorOutput(
      action,
      ActorState(state.epsilon, memory),
      start_state=state.memory,
      values={'chosen_q': chosen_q, 'max_q': q.max(axis=-1)},
    )

  def loss(
    self, params: hk.Params, target_params: hk.Params, batch: types.Batch
  ) -> tuple[jax.Array, types.UpdateOutput]:
    """Returns half the squared errors, and new priorities.

    They are summed over the steps learnt from, as in the paper: a mean over them
    would have gradients far below its epsilon of Adam. Over the sequences it is
    a weighted mean.
    """
    config = self._config
    data: types.Sequence = batch.data
    q = self.action_values(params, data)
    q_target = self.action_values(target_params, data)
    error = jax.vmap(td_errors, (0, 0, 0, None, None, None))(
      q,
      q_target,
      data._replace(
        start_state=(),
        observation=(),
        reward=replay_spec.learnt_reward(
          data.reward, config.reward_scale, config.max_abs_reward
        ),
      ),
      config.discount,
      config.n_step,
      config.value_rescaling,
    )
    learnt = learnt_steps(data.step_type, config.burn_in_length)
    weights = dqn.importance_weights(
      batch.probability, config.importance_exponent
    )
    squares = jnp.sum(learnt * error**2, axis=-1)
    loss = jnp.mean(weights * squares) / 2
    priorities = None
    if self.replay.prioritized:
      priorities = _LEAST_PRIORITY + sequence_priority(
        jnp.abs(error), learnt, config.max_priority_weight
      )
    count = learnt.sum().clip(1.0)
    metrics = {
      'loss': loss,
      'mean_q': (q[:, :-1].mean(-1) * learnt).sum() / count,
      'mean_abs_td_error': (jnp.abs(error) * learnt).sum() / count,
      'learnt_steps': learnt.sum(-1).mean(),
    }
    return loss, types.UpdateOutput(metrics, priorities)

  def first_priority(
    self, window: Any, values: dict[str, np.ndarray]
  ) -> np.ndarray:
    """Returns priorities [B], from the values [B, L] that the actor acted with.

    The online network stands in for the target network, as the actor has no
    other.
    """
    config = self._config
    data: types.Sequence = window
    value = values['max_q']
    if config.value_rescaling:
      value = unscale(value, np)
    returns = _n_step_returns(
      replay_spec.learnt_reward(
        data.reward[:, :-1], config.reward_scale, config.max_abs_reward
      ),
      config.discount * data.discount[:, :-1],
      value[:, 1:],
      data.step_type[:, 1:] != types.LAST,
      config.n_step,
    )
    if config.value_rescaling:
      returns = rescale(returns, np)
    priority: np.ndarray = sequence_priority(
      np.abs(returns - values['chosen_q'][:, :-1]),
      learnt_steps(data.step_type, config.burn_in_length),
      config.max_priority_weight,
    )
    return priority + _LEAST_PRIORITY

  def action_values(self, params: hk.Params, data: types.Sequence) -> jax.Array:
    """Returns action values [B, L, num_actions], remembering from row to row.

    Their gradient does not reach back into the burn-in, unless it is learnt from.
    """
    # Shorter ones all start with their episode, as those in its midst have more
    # than their burn-in.
    length = min(self._config.burn_in_length, data.step_type.shape[1])
    first = data.step_type == types.FIRST
    memory = data.start_state
    if not self._config.use_start_state:
      memory = self._network.initial_state(first.shape[0])
    if not length:
      return self._network.unroll(params, data.observation, first, memory)[0]

    def part(rows: slice) -> tuple[Any, jax.Array]:
      return jax.tree.map(lambda leaf: leaf[:, rows], (data.observation, first))

    before, memory = self._network.unroll(params, *part(np.s_[:length]), memory)
    # What only warms up is not learnt from; see `learnt_steps`.
    warm = first[:, 0]
    memory = jax.tree.map(
      lambda leaf: jnp.where(
        warm.reshape(-1, *[1] * (leaf.ndim - 1)),
        leaf,
        jax.lax.stop_gradient(leaf),
      ),
      memory,
    )
    if length == first.shape[1]:
      return before
    after, _ = self._network.unroll(params, *part(np.s_[length:]), memory)
    return jnp.concatenate([before, after], axis=1)

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
    network: makes the parts of a network whose outputs are action values
      [B, num_actions]; by default an MLP, after convolutions of what is an image,
      an LSTM and a dueling head.

  Raises:
    ValueError: if the environment's action is not a single discrete one.
  """
  return R2D2(config, spec, network)
