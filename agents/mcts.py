"""MCTS: search of the environment's own states, learnt from by a network.

AlphaZero (Silver et al. 2018, Science 362): before each action a tree search tries what
may follow, guided by a network's policy and values; the network learns the searched
policy and the returns. The search steps the environment, or a copy of its state, so
this agent is for environments in JAX and for such as can be saved and restored; `muzero`
learns a model instead. In games for two, both players are this agent, and the values of
the opponent count with the opposite sign. Differences: one player's rewards and discounts
are there, and returns that end before the episode are bootstrapped by a target network;
values are learnt in the scale of Pohlen et al. 2018 and, but in games, compared within
the search like MuZero's; boards are not turned and mirrored; and all sizes are for two
cores.
"""

from __future__ import annotations

from collections.abc import Callable
import dataclasses
from typing import NamedTuple

import haiku as hk
import jax
import jax.numpy as jnp

from distacme import config_checks
from distacme import replay_spec
from distacme import specs
from distacme import types
from distacme.agents import dqn
from distacme.kit import convolutions as convolutions_lib
from distacme.kit import initializers
from distacme.kit import networks
from distacme.kit import optimizers
from distacme.kit import planner as planner_lib
from distacme.kit import returns
from distacme.kit import search as search_lib
from distacme.kit import settings

# Maps a nest of observations [B, ...] and the number of actions to the policy's logits
# [B, num_actions] and values [B], in the scale of `returns.rescale`.
Network = Callable[[types.NestedArray, int], tuple[jax.Array, jax.Array]]


@dataclasses.dataclass(frozen=True)
class Config(settings.SearchConfig, settings.LearningRateConfig):
  """Settings of MCTS."""

  searches_environment = True

  n_step: int = 10
  """Steps of rewards in a value's target, before the value of what follows. The end of
  an episode comes first: with a number above an episode's length, values are learnt
  from outcomes, as in AlphaZero."""
  batch_size: int = 256
  """Steps per learner step."""
  samples_per_insert: float = 32.0
  """Steps learnt from per environment step."""
  error_buffer: float = 0.0
  """Samples by which either side may run ahead of samples_per_insert; 0 chooses."""
  min_replay_size: int = 1_000
  """Steps collected before learning starts."""
  max_replay_size: int = 50_000
  """Steps kept."""
  learning_rate: float = 1e-3
  """Adam's first step size."""
  max_gradient_norm: float = 40.0
  """Gradients are scaled down to this global norm."""
  value_weight: float = 1.0
  """Weight of the values' squared errors beside the policy's cross-entropy."""
  l2_weight: float = 1e-5
  """Weight of the squared params."""
  target_update_period: int = 100
  """Learner steps between copies to the target network, whose values end the targets
  of episodes that go on."""
  hidden_sizes: tuple[int, ...] = (128, 128)
  """Widths of the default network's hidden layers."""
  convolutions: convolutions_lib.Convolutions = 'nature'
  """Convolutions for pictures of 36 pixels and more; see bc.Config."""
  initialization: initializers.Initialization = 'lecun'
  """First weights of the default network's torso: see kit.initializers."""

  def __post_init__(self) -> None:
    settings.SearchConfig.__post_init__(self)
    settings.LearningRateConfig.__post_init__(self)
    config_checks.check_at_least_one(
      self,
      'n_step',
      'hidden_sizes',
      'min_replay_size',
      'target_update_period',
    )
    config_checks.check_at_most(self, 'min_replay_size', 'max_replay_size')
    config_checks.check_positive(self, 'learning_rate', 'max_gradient_norm')
    config_checks.check_not_negative(self, 'value_weight', 'l2_weight')
    _ = self.replay  # checks itself

  @property
  def replay(self) -> replay_spec.ReplaySpec:
    """Spec of the replay, by these settings."""
    return replay_spec.single(
      window=replay_spec.NStep(self.n_step, self.discount),
      batch_size=self.batch_size,
      max_size=self.max_replay_size,
      min_size=self.min_replay_size,
      samples_per_insert=self.samples_per_insert,
      error_buffer=self.error_buffer,
    )


class LearnerState(NamedTuple):
  """All state that learning changes."""

  params: hk.Params
  target_params: hk.Params
  optimizer_state: optimizers.OptState
  steps: jax.Array  # int32
  key: types.Key  # of random networks


class MCTS:
  """MCTS for one environment spec; see `core.PlanningAgent`."""

  masks_actions = True

  def __init__(
    self,
    config: Config,
    spec: specs.EnvironmentSpec,
    network: Network | None = None,
  ):
    planner_lib.check_installed('MCTS')
    self._config = config
    self._spec = spec
    self._num_actions = dqn.num_actions(spec, 'MCTS')
    make = network or self._default_network
    self._network = hk.transform(lambda o: make(o, self._num_actions))
    networks.check_policy_and_value(
      self._network.init,
      self._network.apply,
      spec.observations,
      self._num_actions,
    )
    self.planner = planner_lib.Planner(config, self.evaluate)
    self.replay = config.replay

  def _default_network(
    self, observation: types.NestedArray, num_actions: int
  ) -> tuple[jax.Array, jax.Array]:
    config = self._config
    torso = networks.ObservationTorso(
      search_lib.without_mask(self._spec.observations),
      config.hidden_sizes,
      config.convolutions,
      config.initialization,
    )
    head = networks.PolicyValueHead(
      num_actions, initialization=config.initialization
    )
    policy, value = head(torso(search_lib.without_mask(observation)))
    return policy, value

  def initial_learner_state(self, key: types.Key) -> LearnerState:
    """Returns a state whose target network equals its network."""
    params = self._network.init(key, networks.example(self._spec.observations))
    return LearnerState(
      params,
      optimizers.first_target(params),
      self._optimizer.init(params),
      steps=jnp.int32(0),
      key=networks.network_key(key),
    )

  def initial_actor_state(
    self, batch_size: int, streams: types.Streams | None
  ) -> planner_lib.ActorState:
    """Returns the rows that explore, and steps of their episodes."""
    return planner_lib.initial_actor_state(batch_size, streams)

  def evaluate(
    self,
    params: types.Params,
    key: types.Key,
    observation: types.NestedArray,
  ) -> search_lib.Evaluation:
    """Returns the network's policy among legal actions, and its values."""
    logits, scaled = self._network.apply(params, key, observation)
    return search_lib.Evaluation(
      search_lib.mask(logits, observation), returns.unscale(scaled)
    )

  def act(
    self,
    params: types.Params,
    key: types.Key,
    observation: types.NestedArray,
    state: planner_lib.ActorState,
  ) -> types.ActorOutput:
    """Acts by the network alone; actors and evaluators search by `planner`."""
    evaluation = self.evaluate(params, networks.network_key(key), observation)
    found = planner_lib.without_search(evaluation)
    return planner_lib.act(self._config, key, found, state)

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
      period=self._config.target_update_period,
    )
    metrics = step.aux | {'gradient_norm': step.gradient_norm}
    return (
      LearnerState(
        step.params, target_params, step.optimizer_state, steps, key
      ),
      types.UpdateOutput(metrics),
    )

  def loss(
    self,
    params: hk.Params,
    target_params: hk.Params,
    batch: types.Batch,
    key: types.Key,
  ) -> tuple[jax.Array, dict[str, jax.Array]]:
    """Returns the loss of a batch (eq. 1 of the paper), and metrics.

    Consumes `key` if the network is random, which draws in each of two uses.
    """
    config = self._config
    o_tm1, _, r_t, discount_t, o_t, extras = batch.data
    keys = jax.random.split(key)
    logits_tm1, v_tm1 = self.evaluate(params, keys[0], o_tm1)
    v_t = self.evaluate(target_params, keys[1], o_t).value
    log_pi_tm1 = jax.nn.log_softmax(logits_tm1)
    policy_loss = -(extras['policy'] * log_pi_tm1).sum(axis=-1).mean()
    target_tm1 = r_t + discount_t * v_t
    error = returns.rescale(v_tm1) - returns.rescale(target_tm1)
    value_loss = jnp.mean(error**2)
    size = optimizers.global_norm(params) ** 2
    loss = (
      policy_loss + config.value_weight * value_loss + config.l2_weight * size
    )
    return loss, {
      'loss': loss,
      'policy_loss': policy_loss,
      'value_loss': value_loss,
      'entropy': -(jnp.exp(log_pi_tm1) * log_pi_tm1).sum(axis=-1).mean(),
      'mean_value': v_tm1.mean(),
    }

  def actor_params(self, state: LearnerState) -> types.Params:
    """Returns the network's params."""
    return state.params

  @property
  def _optimizer(self) -> optimizers.Optimizer:
    config = self._config
    return optimizers.adam(
      config.learning_rates.step_size(config.learning_rate),
      config.max_gradient_norm,
    )


def make_agent(
  config: Config,
  spec: specs.EnvironmentSpec,
  network: Network | None = None,
) -> MCTS:
  """Returns MCTS for an environment.

  Args:
    config: settings.
    spec: of the environment.
    network: maps a nest of observations [B, ...] and the number of actions to the
      policy's logits [B, num_actions] and values [B], and may use Haiku modules;
      values are in the scale of `returns.rescale`, and illegal actions are masked
      afterwards. By default an MLP, after convolutions
      of pictures.

  Raises:
    ValueError: if the environment's action is not a single discrete one, or mctx is
      not installed.
  """
  return MCTS(config, spec, network)
