"""DQN as Ape-X runs it: double Q, n steps, prioritised replay, many actors.

Mnih et al. 2015 (Nature 518) with van Hasselt et al. 2016 (double Q-learning),
Schaul et al. 2016 (prioritised replay) and, by choice, Wang et al. 2016 (dueling
heads), distributed as in Horgan et al. 2018 (Ape-X, arXiv:1803.00933). What
differs: losses are scaled by importance weights over the sampled batch rather
than over the table, and the exploration ladder is defined for one and two
environments as well.
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
from distacme.kit import networks
from distacme.kit import optimizers

optax = lazy_imports.module('optax')
rlax = lazy_imports.module('rlax')

# Maps a nest of observations [B, ...] to action values [B, num_actions]; may use
# Haiku modules.
Network = Callable[[types.NestedArray], jax.Array]


@dataclasses.dataclass(frozen=True)
class Config:
  """Settings of DQN."""

  discount: float = 0.99
  """Gamma, per environment step."""
  n_step: int = 3
  """Steps between the two ends of a transition."""
  reward_scale: float = 1.0
  """Rewards are multiplied by this to learn from."""
  max_abs_reward: float = float('inf')
  """Rewards are clipped to this size after that, 1 in Mnih et al. 2015; nothing of
  it is evaluated."""
  learning_rate: float = 1e-3
  """Adam's step size; 6.25e-5 in Atari's preset."""
  adam_epsilon: float = 1e-5
  """Adam's epsilon."""
  max_gradient_norm: float = 10.0
  """Gradients are scaled down to this global norm."""
  huber_delta: float = 1.0
  """TD error beyond which the loss is linear."""
  target_update_period: int = 50
  """Learner steps between copies to the target network."""
  hidden_sizes: tuple[int, ...] = (256, 256)
  """Widths of the default network's hidden layers; (512,) in Mnih et al. 2015."""
  dueling: bool = False
  """Whether the default network has a dueling head."""
  initialization: networks.Initialization = 'lecun'
  """First weights of its torso: see networks.weights."""
  batch_size: int = 64
  """Transitions per learner step."""
  samples_per_insert: float = 32.0
  """Transitions learnt from per environment step."""
  error_buffer: float = 0.0
  """Samples by which either side may run ahead of that ratio; 0 chooses."""
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
      'huber_delta',
    )
    config_checks.check_at_least_one(
      self, 'n_step', 'hidden_sizes', 'target_update_period', 'min_replay_size'
    )
    config_checks.check_at_most(self, 'min_replay_size', 'max_replay_size')
    config_checks.check_not_negative(self, 'epsilon_exponent')
    config_checks.check_share(
      self, 'epsilon_base', 'evaluation_epsilon', 'importance_exponent'
    )
    if self.dueling and not self.hidden_sizes:
      raise ValueError('dueling needs at least one of hidden_sizes, got ().')
    _ = self.replay  # checks itself

  @property
  def replay(self) -> replay_spec.ReplaySpec:
    """What these settings ask of replay."""
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
  """All that learning changes."""

  params: hk.Params
  target_params: hk.Params
  optimizer_state: Any
  steps: jax.Array  # int32


class ActorState(NamedTuple):
  """Exploration, constant over a run."""

  epsilon: jax.Array | np.ndarray  # [B]


def td_error(
  q_tm1: jax.Array,
  a_tm1: jax.Array,
  r_t: jax.Array,
  discount_t: jax.Array,
  q_t_target: jax.Array,
  q_t_online: jax.Array,
) -> jax.Array:
  """Returns the double Q-learning error of one transition.

  Eq. 4 of van Hasselt et al. 2016 over an n-step window: the online network
  chooses the action at the window's end and the target network values it.

  Args:
    q_tm1: [num_actions] values at the window's start.
    a_tm1: the action taken there.
    r_t: discounted return over the window.
    discount_t: what multiplies the value at the window's end; 0 if terminal.
    q_t_target: [num_actions] target network's values at the window's end.
    q_t_online: [num_actions] online network's values at the window's end.

  Returns:
    The error, target minus estimate; its gradient reaches `q_tm1` only.
  """
  return rlax.double_q_learning(
    q_tm1, a_tm1, r_t, discount_t, q_t_target, q_t_online
  )


def importance_weights(probability: jax.Array, exponent: float) -> jax.Array:
  """Returns weights [B] in (0, 1] (Schaul et al. 2016, section 3.4).

  Args:
    probability: [B] chance with which each item was drawn.
    exponent: beta; 0 weighs all alike.
  """
  return (probability.min() / probability) ** exponent


def exploration_ladder(
  streams: types.Streams, base: float, exponent: float
) -> np.ndarray:
  """Returns epsilon [B]: base ** (1 + exponent * i / (N - 1)) for stream i of N.

  Section 4.1 of Horgan et al. 2018. One or two environments cannot span the
  ladder, and its ends are a bad choice for them (nearly random, nearly greedy):
  two take the middle of its halves, and one explores like the first of two.
  """
  if streams.total < 3:
    position = (streams.indices + 0.5) / 2
  else:
    position = streams.indices / (streams.total - 1)
  return (base ** (1 + exponent * position)).astype(np.float32)


def epsilon_greedy(
  key: types.Key, q: jax.Array, epsilon: jax.Array | np.ndarray
) -> jax.Array:
  """Returns actions [B] int32: random with chance `epsilon` [B], else the best.

  Consumes `key`; `q` is [B, num_actions].
  """
  explore, choice = jax.random.uniform(key, (2, q.shape[0]))
  return jnp.where(
    explore < epsilon,
    (choice * q.shape[1]).astype(jnp.int32),
    jnp.argmax(q, axis=-1).astype(jnp.int32),
  )


_LEAST_PRIORITY = 1e-6  # keeps every item drawable


class DQN:
  """DQN for one environment spec; see `core.Agent`."""

  name = 'DQN'

  def __init__(
    self,
    config: Any,
    spec: specs.EnvironmentSpec,
    network: Any = None,
  ):
    if not isinstance(spec.actions, specs.DiscreteArray):
      raise ValueError(
        f'{self.name} needs one discrete action (specs.DiscreteArray), got the '
        f'action spec {spec.actions}. Use an agent for such actions, or an '
        'environment with discrete ones.'
      )
    self._config = config
    self._spec = spec
    self._num_actions = int(spec.actions.num_values)
    self._network = self._transformed(network)
    self.replay = config.replay

  def _transformed(self, network: Any) -> Any:
    """Returns the pure functions of a network, or of the default one, checked."""
    pure = hk.without_apply_rng(hk.transform(network or self._default_network))
    self._check_values(pure.init, pure.apply)
    return pure

  def _check_values(self, init: Any, apply: Any) -> None:
    """Raises ValueError unless `apply` gives action values [B, num_actions]."""
    shape = (1, self._num_actions)
    networks.check_outputs(
      init,
      apply,
      (networks.example(self._spec.observations),),
      shape,
      f'action values of shape {shape}',
      hint='Its last layer needs one output per action and no squeeze.',
    )

  def initial_learner_state(self, key: types.Key) -> LearnerState:
    """Returns a state whose target network equals its online network."""
    params = self._network.init(key, networks.example(self._spec.observations))
    return LearnerState(
      params=params,
      # A copy: the learner donates its state, and no buffer may be given twice.
      target_params=jax.tree.map(jnp.copy, params),
      optimizer_state=self._optimizer.init(params),
      steps=jnp.int32(0),
    )

  def initial_actor_state(
    self, batch_size: int, streams: types.Streams | None
  ) -> ActorState:
    """Returns each row's epsilon."""
    config = self._config
    if streams is None:
      epsilon = np.full(batch_size, config.evaluation_epsilon, np.float32)
    else:
      epsilon = exploration_ladder(
        streams, config.epsilon_base, config.epsilon_exponent
      )
    return ActorState(epsilon)

  def act(
    self,
    params: hk.Params,
    key: types.Key,
    observation: types.NestedArray,
    state: ActorState,
  ) -> types.ActorOutput:
    """Acts epsilon-greedily."""
    q = self._network.apply(params, observation)
    action = epsilon_greedy(key, q, state.epsilon)
    chosen_q = jnp.take_along_axis(q, action[:, None], axis=-1)[:, 0]
    values = {'chosen_q': chosen_q, 'max_q': q.max(axis=-1)}
    return types.ActorOutput(action, state, values=values)

  def update(
    self, state: LearnerState, batch: types.Batch
  ) -> tuple[LearnerState, types.UpdateOutput]:
    """Takes one step of Adam and, when it is due, copies the target network."""
    gradient, output = jax.grad(self.loss, has_aux=True)(
      state.params, state.target_params, batch
    )
    updates, optimizer_state = self._optimizer.update(
      gradient, state.optimizer_state
    )
    params = optax.apply_updates(state.params, updates)
    steps = state.steps + 1
    target_params = optimizers.moved_target(
      params,
      state.target_params,
      steps,
      period=self._config.target_update_period,
    )
    output.metrics['gradient_norm'] = optax.tree.norm(gradient)
    return LearnerState(params, target_params, optimizer_state, steps), output

  def loss(
    self, params: hk.Params, target_params: hk.Params, batch: types.Batch
  ) -> tuple[jax.Array, types.UpdateOutput]:
    """Returns the weighted mean Huber loss of the batch, and new priorities."""
    config = self._config
    data: types.Transition = batch.data
    q_tm1 = self._network.apply(params, data.observation)
    q_t_online = self._network.apply(params, data.next_observation)
    q_t_target = self._network.apply(target_params, data.next_observation)
    error = jax.vmap(td_error)(
      q_tm1, data.action, data.reward, data.discount, q_t_target, q_t_online
    )
    weights = importance_weights(batch.probability, config.importance_exponent)
    loss = jnp.mean(weights * self.losses(q_tm1, error, data))
    priorities = None
    if self.replay.prioritized:
      priorities = jnp.abs(error) + _LEAST_PRIORITY
    metrics = {
      'loss': loss,
      'mean_q': q_tm1.mean(),
      'mean_abs_td_error': jnp.abs(error).mean(),
    }
    return loss, types.UpdateOutput(metrics, priorities)

  def first_priority(
    self, window: Any, values: dict[str, np.ndarray]
  ) -> np.ndarray:
    """Returns priorities [B], from the values [B, 2] that the actor acted with.

    The online network stands in for the target network, as the actor has no
    other (Horgan et al. 2018, section 3).
    """
    data: types.Transition = window
    target = data.reward + data.discount * values['max_q'][:, 1]
    priority: np.ndarray = np.abs(target - values['chosen_q'][:, 0])
    return priority + _LEAST_PRIORITY

  def losses(
    self, q_tm1: jax.Array, error: jax.Array, data: types.Transition
  ) -> jax.Array:
    """Returns the loss [B] of each transition, before it is weighted.

    Args:
      q_tm1: [B, num_actions] online network's values at the windows' starts.
      error: [B] their `td_error`.
      data: the transitions. What DQN leaves unused is for losses added to its own.
    """
    return rlax.huber_loss(error, self._config.huber_delta)

  def actor_params(self, state: LearnerState) -> hk.Params:
    """Returns the online network's params."""
    return state.params

  @property
  def _optimizer(self) -> Any:
    config = self._config
    return optimizers.adam(
      config.learning_rate,
      config.max_gradient_norm,
      eps=config.adam_epsilon,
    )

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
      convolutions of what is an image.

  Raises:
    ValueError: if the environment's action is not a single discrete one.
  """
  return DQN(config, spec, network)
