"""DQN as Ape-X runs it: double Q, n steps, prioritised replay, many actors.

Mnih et al. 2015 (Nature 518) with van Hasselt et al. 2016 (double Q-learning),
Schaul et al. 2016 (prioritised replay) and, optionally, Wang et al. 2016 (dueling
heads), distributed as in Horgan et al. 2018 (Ape-X, arXiv:1803.00933). Differences:
importance weights are scaled by their maximum over the sampled batch rather than over
the table, and the exploration ladder is defined for one and two environments as well.
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
from distacme.kit import initializers
from distacme.kit import networks
from distacme.kit import optimizers
from distacme.kit import settings

rlax = lazy_imports.module('rlax')

# Maps a nest of observations [B, ...] to action values [B, num_actions]; may use
# Haiku modules.
Network = Callable[[types.NestedArray], jax.Array]


@dataclasses.dataclass(frozen=True)
class LearningConfig(settings.EpsilonGreedyConfig):
  """Settings of how action values are learnt, which R2D2 has, too."""

  learning_rate: float = 1e-3
  """Adam's first step size; 6.25e-5 in Atari's preset."""
  adam_epsilon: float = 1e-5
  """Adam's epsilon."""
  max_gradient_norm: float = 10.0
  """Gradients are scaled down to this global norm."""
  target_update_period: int = 50
  """Learner steps between copies to the target network."""

  def __post_init__(self) -> None:
    super().__post_init__()
    config_checks.check_positive(
      self, 'learning_rate', 'adam_epsilon', 'max_gradient_norm'
    )
    config_checks.check_at_least_one(self, 'target_update_period')


@dataclasses.dataclass(frozen=True)
class Config(LearningConfig):
  """Settings of DQN."""

  discount: float = 0.99
  """Gamma, per environment step."""
  n_step: int = 3
  """Steps between the two ends of a transition."""
  reward_scale: float = 1.0
  """Factor of rewards for learning."""
  max_abs_reward: float = float('inf')
  """Rewards are clipped to this size after they are scaled, 1 in Mnih et al. 2015;
  evaluation reports raw ones."""
  huber_delta: float = 1.0
  """TD error beyond which the loss is linear."""
  hidden_sizes: tuple[int, ...] = (256, 256)
  """Widths of the default network's hidden layers; (512,) in Mnih et al. 2015."""
  dueling: bool = False
  """Whether the default network has a dueling head."""
  initialization: initializers.Initialization = 'lecun'
  """First weights of the default network's torso: see kit.initializers."""
  batch_size: int = 64
  """Transitions per learner step."""
  samples_per_insert: float = 32.0
  """Transitions learnt from per environment step."""
  error_buffer: float = 0.0
  """Samples by which either side may run ahead of samples_per_insert; 0 chooses."""
  min_replay_size: int = 1_000
  """Transitions collected before learning starts."""
  max_replay_size: int = 100_000
  """Transitions kept."""
  priority_exponent: float = 0.6
  """Alpha of prioritised replay; 0 samples uniformly."""
  importance_exponent: float = 0.4
  """Beta of prioritised replay; 1 corrects the bias in full."""
  block_size: int = 1
  """Transitions stored and drawn as one item; above 1 only uniform replay."""

  def __post_init__(self) -> None:
    super().__post_init__()
    config_checks.check_positive(
      self,
      'reward_scale',
      'max_abs_reward',
      'huber_delta',
    )
    config_checks.check_at_least_one(
      self, 'n_step', 'hidden_sizes', 'min_replay_size'
    )
    config_checks.check_at_most(self, 'min_replay_size', 'max_replay_size')
    config_checks.check_share(self, 'importance_exponent')
    if self.dueling and not self.hidden_sizes:
      raise ValueError('dueling needs at least one of hidden_sizes, got ().')
    _ = self.replay  # checks itself

  @property
  def replay(self) -> replay_spec.ReplaySpec:
    """Spec of the replay, by these settings."""
    return replay_spec.single(
      window=replay_spec.NStep(
        self.n_step, self.discount, self.reward_scale, self.max_abs_reward
      ),
      batch_size=self.batch_size,
      max_size=self.max_replay_size,
      min_size=self.min_replay_size,
      samples_per_insert=self.samples_per_insert,
      error_buffer=self.error_buffer,
      priority_exponent=self.priority_exponent,
      block_size=self.block_size,
    )


class LearnerState(NamedTuple):
  """All state that learning changes."""

  params: hk.Params
  target_params: hk.Params
  optimizer_state: optimizers.OptState
  steps: jax.Array  # int32
  key: types.Key  # of random networks


class ActorState(NamedTuple):
  """Exploration, constant over a run."""

  epsilon: jax.Array | np.ndarray  # [B], before any learner step
  explores: jax.Array | np.ndarray  # [B] bool; False for a constant epsilon


def td_error(
  q_tm1: jax.Array,
  a_tm1: jax.Array,
  r_t: jax.Array,
  discount_t: jax.Array,
  q_t_target: jax.Array,
  q_t_online: jax.Array,
) -> jax.Array:
  """Returns the double Q-learning error of one transition.

  Eq. 4 of van Hasselt et al. 2016 over an n-step window: the online network chooses the
  action at the window's end and the target network gives the action's value.

  Args:
    q_tm1: [num_actions] values at the window's start.
    a_tm1: the action taken at the window's start.
    r_t: discounted return over the window.
    discount_t: factor of the value at the window's end; 0 if terminal.
    q_t_target: [num_actions] target network's values at the window's end.
    q_t_online: [num_actions] online network's values at the window's end.

  Returns:
    The error, target minus estimate; the gradient reaches `q_tm1` only.
  """
  return rlax.double_q_learning(
    q_tm1, a_tm1, r_t, discount_t, q_t_target, q_t_online
  )


def importance_weights(probability: jax.Array, exponent: float) -> jax.Array:
  """Returns weights [B] in (0, 1] (Schaul et al. 2016, section 3.4).

  Args:
    probability: [B] chance of drawing each item.
    exponent: beta; 0 weighs all items equally.
  """
  return (probability.min() / probability) ** exponent


def exploration_ladder(
  streams: types.Streams, base: float, exponent: float
) -> np.ndarray:
  """Returns epsilon [B]: base ** (1 + exponent * i / (N - 1)) for stream i of N.

  Section 4.1 of Horgan et al. 2018. One or two environments cannot span the ladder, and
  the ladder's ends are a bad choice for so few (nearly random, nearly greedy). Two
  environments take the middles of the ladder's halves, and one environment explores
  like the first of two.
  """
  if streams.total < 3:
    position = (streams.indices + 0.5) / 2
  else:
    position = streams.indices / (streams.total - 1)
  return (base ** (1 + exponent * position)).astype(np.float32)


def initial_exploration(
  batch_size: int,
  streams: types.Streams | None,
  config: settings.EpsilonGreedyConfig,
) -> ActorState:
  """Returns each row's epsilon on the ladder, or the epsilon of evaluation."""
  if streams is None:
    epsilon = np.full(batch_size, config.evaluation_epsilon, np.float32)
  else:
    epsilon = exploration_ladder(
      streams, config.epsilon_base, config.epsilon_exponent
    )
  return ActorState(epsilon, np.full(batch_size, streams is not None))


def current_epsilon(state: ActorState, share: jax.Array) -> jax.Array:
  """Returns the chance [B] of a random action, after `share` [] of the schedule."""
  return jnp.where(state.explores, share * state.epsilon, state.epsilon)


def epsilon_greedy(
  key: types.Key, q: jax.Array, epsilon: jax.Array | np.ndarray
) -> jax.Array:
  """Returns actions [B] int32: random with chance `epsilon` [B], else the best.

  Args:
    key: consumed.
    q: [B, num_actions] action values.
    epsilon: [B] chance of a random action.
  """
  explore, choice = jax.random.uniform(key, (2, q.shape[0]))
  return jnp.where(
    explore < epsilon,
    (choice * q.shape[1]).astype(jnp.int32),
    jnp.argmax(q, axis=-1).astype(jnp.int32),
  )


def acted_values(q: jax.Array, action: jax.Array) -> dict[str, jax.Array]:
  """Returns the values [B] of the chosen and of the best actions.

  Args:
    q: [B, num_actions] values of all actions.
    action: [B] chosen actions.
  """
  chosen_q = jnp.take_along_axis(q, action[:, None], axis=-1)[:, 0]
  return {'chosen_q': chosen_q, 'max_q': q.max(axis=-1)}


LEAST_PRIORITY = 1e-6  # keeps every item drawable


def num_actions(spec: specs.EnvironmentSpec, agent: str) -> int:
  """Returns the number of actions.

  Args:
    spec: of the environment.
    agent: name of the agent, for the message.

  Raises:
    ValueError: if the environment's action is not a single discrete one.
  """
  if isinstance(spec.actions, specs.DiscreteArray):
    return int(spec.actions.num_values)
  raise ValueError(
    f'{agent} needs one discrete action (specs.DiscreteArray), got the '
    f'action spec {spec.actions}. Use an agent for such actions, or an '
    'environment with discrete ones.'
  )


class QLearner:
  """Learns action values with Adam and a target network; `loss` is the agent's."""

  def __init__(
    self,
    config: LearningConfig,
    spec: specs.EnvironmentSpec,
    init: Callable[[types.Key, types.NestedArray], hk.Params],
  ):
    """Prepares to learn.

    Args:
      config: settings.
      spec: of the environment.
      init: returns the first params, given observations of one row.
    """
    self._learning = config
    self._spec = spec
    self._init = init

  def initial_learner_state(self, key: types.Key) -> LearnerState:
    """Returns a state whose target network equals its online network."""
    params = self._init(key, networks.example(self._spec.observations))
    return LearnerState(
      params,
      optimizers.first_target(params),
      self._optimizer.init(params),
      steps=jnp.int32(0),
      key=networks.network_key(key),
    )

  def update(
    self, state: LearnerState, batch: types.Batch
  ) -> tuple[LearnerState, types.UpdateOutput]:
    """Takes one step of Adam and, when it is due, copies the target network."""
    key, loss_key = jax.random.split(state.key)
    step = optimizers.gradient_step(
      self.loss,
      self._optimizer,
      state.params,
      state.optimizer_state,
      state.target_params,
      batch,
      loss_key,
    )
    steps = state.steps + 1
    target_params = optimizers.moved_target(
      step.params,
      state.target_params,
      steps,
      period=self._learning.target_update_period,
    )
    output = step.aux
    output.metrics['gradient_norm'] = step.gradient_norm
    return (
      LearnerState(
        step.params, target_params, step.optimizer_state, steps, key
      ),
      output,
    )

  def loss(
    self,
    params: hk.Params,
    target_params: hk.Params,
    batch: types.Batch,
    key: types.Key,
  ) -> tuple[jax.Array, types.UpdateOutput]:
    """Returns the loss of a batch, and what `update` does; consumes `key`."""
    raise NotImplementedError

  def actor_params(self, state: LearnerState) -> types.Params:
    """Returns the online network's params, and the schedule's share of epsilon."""
    return {
      'network': state.params,
      'epsilon_share': self._learning.epsilons.share(state.steps),
    }

  @property
  def _optimizer(self) -> optimizers.Optimizer:
    config = self._learning
    return optimizers.adam(
      config.learning_rates.step_size(config.learning_rate),
      config.max_gradient_norm,
      eps=config.adam_epsilon,
    )


class DQN(QLearner):
  """DQN for one environment spec; see `core.Agent`."""

  def __init__(
    self,
    config: Config,
    spec: specs.EnvironmentSpec,
    network: Network | None = None,
  ):
    self._config = config
    self._num_actions = num_actions(spec, type(self).__name__)
    self._network = hk.transform(network or self._default_network)
    super().__init__(config, spec, self._network.init)
    networks.check_action_values(
      self._network.init,
      self._network.apply,
      spec.observations,
      self._num_actions,
    )
    self.replay = config.replay

  def initial_actor_state(
    self, batch_size: int, streams: types.Streams | None
  ) -> ActorState:
    """Returns each row's epsilon."""
    return initial_exploration(batch_size, streams, self._config)

  def act(
    self,
    params: types.Params,
    key: types.Key,
    observation: types.NestedArray,
    state: ActorState,
  ) -> types.ActorOutput:
    """Acts epsilon-greedily."""
    q = self._network.apply(
      params['network'], networks.network_key(key), observation
    )
    action = epsilon_greedy(
      key, q, current_epsilon(state, params['epsilon_share'])
    )
    return types.ActorOutput(action, state, values=acted_values(q, action))

  def loss(
    self,
    params: hk.Params,
    target_params: hk.Params,
    batch: types.Batch,
    key: types.Key,
  ) -> tuple[jax.Array, types.UpdateOutput]:
    """Returns the weighted mean Huber loss of the batch, and new priorities.

    Consumes `key` if the network is random, which draws in each of three uses.
    """
    o_tm1, a_tm1, r_t, discount_t, o_t, _ = batch.data
    keys = jax.random.split(key, 3)
    q_tm1 = self._network.apply(params, keys[0], o_tm1)
    q_t_online = self._network.apply(params, keys[1], o_t)
    q_t_target = self._network.apply(target_params, keys[2], o_t)
    error = jax.vmap(td_error)(
      q_tm1, a_tm1, r_t, discount_t, q_t_target, q_t_online
    )
    weights = importance_weights(
      batch.probability, self._config.importance_exponent
    )
    loss = jnp.mean(weights * self.losses(q_tm1, error, batch.data))
    priorities = None
    if self.replay.prioritized:
      priorities = jnp.abs(error) + LEAST_PRIORITY
    metrics = {
      'loss': loss,
      'mean_q': q_tm1.mean(),
      'mean_abs_td_error': jnp.abs(error).mean(),
    }
    return loss, types.UpdateOutput(metrics, priorities)

  def first_priority(
    self, window: types.Transition, values: list[dict[str, np.ndarray]]
  ) -> np.ndarray:
    """Returns priorities [B], given the values [B] of the actor's policy.

    The online network stands in for the target network, as the actor has no target
    network (Horgan et al. 2018, section 3).
    """
    first, last = values
    target = window.reward + window.discount * last['max_q']
    priority: np.ndarray = np.abs(target - first['chosen_q'])
    return priority + LEAST_PRIORITY

  def losses(
    self, q_tm1: jax.Array, error: jax.Array, data: types.Transition
  ) -> jax.Array:
    """Returns the loss [B] of each transition, before it is weighted.

    Args:
      q_tm1: [B, num_actions] online network's values at the windows' starts.
      error: [B] each transition's `td_error`.
      data: the transitions; unused here, for subclasses that add losses.
    """
    return rlax.huber_loss(error, self._config.huber_delta)

  def _default_network(self, observation: types.NestedArray) -> jax.Array:
    config = self._config
    sizes = config.hidden_sizes
    head: hk.Module = hk.Linear(self._num_actions)
    if config.dueling:
      sizes, last = sizes[:-1], sizes[-1]
      head = networks.DuelingHead(self._num_actions, last)
    torso = networks.ObservationTorso(
      self._spec.observations, sizes, initialization=config.initialization
    )
    return head(torso(observation))


def make_agent(
  config: Config,
  spec: specs.EnvironmentSpec,
  network: Network | None = None,
) -> DQN:
  """Returns DQN for an environment.

  Args:
    config: settings.
    spec: of the environment.
    network: maps a nest of observations [B, ...] to action values
      [B, num_actions] and may use Haiku modules; by default an MLP, after
      convolutions of pictures.

  Raises:
    ValueError: if the environment's action is not a single discrete one.
  """
  return DQN(config, spec, network)
