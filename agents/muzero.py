"""MuZero: search of a learnt model (MCTS where the environment cannot be stepped).

Schrittwieser et al. 2020 (Nature 588; arXiv:1911.08265). A network makes a state of its
own of an observation; a second one steps that state by an action and predicts the
reward and whether the episode goes on; a third one predicts policy and value. All are
learnt by unrolling them along recorded actions. The search is that of `mcts`, in the
learnt states. Differences: the end of an episode is predicted, by layers of its own, and
rows beyond the end are not learnt from, instead of being absorbing states; every step
of a sequence starts an unroll; rewards and values are numbers in the scale of Pohlen et
al. 2018, not categories; states have a bound, and are not scaled to [0, 1]; nothing is
searched anew when learnt from (no reanalysis); and all sizes are for two cores.
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
from distacme.kit import learnt_model
from distacme.kit import networks
from distacme.kit import optimizers
from distacme.kit import planner as planner_lib
from distacme.kit import returns
from distacme.kit import search as search_lib
from distacme.kit import settings

# Makes the parts of a model, given the number of actions; may use Haiku modules.
Network = Callable[[int], learnt_model.ModelNetwork]


@dataclasses.dataclass(frozen=True)
class Config(settings.SearchConfig, settings.LearningRateConfig):
  """Settings of MuZero."""

  unroll_steps: int = 5
  """Steps that the model is unrolled in learning; K in the paper."""
  n_step: int = 10
  """Steps of rewards in a value's target, before the search's value of what follows."""
  trace_length: int = 20
  """Steps of a sequence, each of which starts an unroll."""
  batch_size: int = 16
  """Sequences per learner step."""
  samples_per_insert: float = 8.0
  """Sequences learnt from for each one inserted."""
  error_buffer: float = 0.0
  """Samples by which either side may run ahead of samples_per_insert; 0 chooses."""
  min_replay_size: int = 50
  """Sequences collected before learning starts."""
  max_replay_size: int = 10_000
  """Sequences kept."""
  learning_rate: float = 1e-3
  """Adam's first step size."""
  max_gradient_norm: float = 40.0
  """Gradients are scaled down to this global norm."""
  value_weight: float = 0.25
  """Weight of the values' squared errors beside the policy's cross-entropy."""
  l2_weight: float = 1e-5
  """Weight of the squared params."""
  state_size: int = 64
  """Width of the learnt states."""
  hidden_sizes: tuple[int, ...] = (128,)
  """Widths of the hidden layers of each part of the default network."""
  convolutions: convolutions_lib.Convolutions = 'nature'
  """Convolutions for pictures of 36 pixels and more; see bc.Config."""
  initialization: initializers.Initialization = 'lecun'
  """First weights of the default network's torso: see kit.initializers."""

  def __post_init__(self) -> None:
    settings.SearchConfig.__post_init__(self)
    settings.LearningRateConfig.__post_init__(self)
    config_checks.check_at_least_one(
      self,
      'unroll_steps',
      'n_step',
      'trace_length',
      'state_size',
      'hidden_sizes',
      'min_replay_size',
    )
    config_checks.check_at_most(self, 'min_replay_size', 'max_replay_size')
    config_checks.check_positive(self, 'learning_rate', 'max_gradient_norm')
    config_checks.check_not_negative(self, 'value_weight', 'l2_weight')
    _ = self.replay  # checks itself

  @property
  def replay(self) -> replay_spec.ReplaySpec:
    """Spec of the replay, by these settings."""
    return replay_spec.single(
      window=replay_spec.Sequences(self.trace_length + 1, self.trace_length),
      batch_size=self.batch_size,
      max_size=self.max_replay_size,
      min_size=self.min_replay_size,
      samples_per_insert=self.samples_per_insert,
      error_buffer=self.error_buffer,
    )


class LearnerState(NamedTuple):
  """All state that learning changes."""

  params: hk.Params
  optimizer_state: optimizers.OptState
  steps: jax.Array  # int32
  key: types.Key  # of random networks


class Unrolled(NamedTuple):
  """Predictions along unrolls of K steps that start at every row.

  Attributes:
    logits: [K + 1, B, T, num_actions] of the policy after k steps.
    value: [K + 1, B, T], scaled.
    reward: [K, B, T] of step k, scaled.
    goes_on: [K, B, T] logits.
  """

  logits: jax.Array
  value: jax.Array
  reward: jax.Array
  goes_on: jax.Array


class MuZero:
  """MuZero for one environment spec; see `core.Agent`."""

  masks_actions = True

  def __init__(
    self,
    config: Config,
    spec: specs.EnvironmentSpec,
    network: Network | None = None,
  ):
    planner_lib.check_installed('MuZero')
    self._config = config
    self._spec = spec
    self._num_actions = dqn.num_actions(spec, 'MuZero')
    self._sign = -1.0 if specs.has_two_players(spec) else 1.0
    make = network or self._default_network
    self._network = learnt_model.transformed(lambda: make(self._num_actions))
    self._represent, self._step, self._predict = self._network.apply
    networks.check_policy_and_value(
      self._network.init,
      lambda params, key, o: self._predict(
        params, key, self._represent(params, key, o)
      ),
      spec.observations,
      self._num_actions,
    )
    self.replay = config.replay

  def _default_network(self, num_actions: int) -> learnt_model.ModelNetwork:
    config = self._config
    network = learnt_model.mlp_network(
      search_lib.without_mask(self._spec.observations),
      num_actions,
      config.state_size,
      config.hidden_sizes,
      config.convolutions,
      config.initialization,
    )
    return network._replace(
      represent=lambda o: network.represent(search_lib.without_mask(o))
    )

  def initial_learner_state(self, key: types.Key) -> LearnerState:
    """Returns a state with new params and a new optimiser."""
    params = self._network.init(key, networks.example(self._spec.observations))
    return LearnerState(
      params,
      self._optimizer.init(params),
      steps=jnp.int32(0),
      key=networks.network_key(key),
    )

  def initial_actor_state(
    self, batch_size: int, streams: types.Streams | None
  ) -> planner_lib.ActorState:
    """Returns the rows that explore, and steps of their episodes."""
    return planner_lib.initial_actor_state(batch_size, streams)

  def act(
    self,
    params: types.Params,
    key: types.Key,
    observation: types.NestedArray,
    state: planner_lib.ActorState,
  ) -> types.ActorOutput:
    """Acts by a search of the learnt model."""
    search_key, act_key = jax.random.split(key)
    network_key = networks.network_key(key)
    root = self._represent(params, network_key, observation)
    evaluation = self._evaluation(params, network_key, root)
    evaluation = evaluation._replace(
      logits=search_lib.mask(evaluation.logits, observation)
    )

    def step(
      key: types.Key, state: jax.Array, action: jax.Array
    ) -> search_lib.ModelOutput:
      key = networks.network_key(key)
      one_hot = jax.nn.one_hot(action, self._num_actions)
      stepped = self._step(params, key, state, one_hot)
      return search_lib.ModelOutput(
        stepped.state,
        returns.unscale(stepped.reward),
        self._sign * jax.nn.sigmoid(stepped.goes_on),
        self._evaluation(params, key, stepped.state),
      )

    found = search_lib.run(
      self._config, search_key, evaluation, root, state.explores, step
    )
    output = planner_lib.act(self._config, act_key, found, state)
    return output._replace(extras={**output.extras, 'value': found.value})

  def _evaluation(
    self, params: types.Params, key: types.Key, state: jax.Array
  ) -> search_lib.Evaluation:
    prediction = self._predict(params, key, state)
    return search_lib.Evaluation(
      prediction.logits, returns.unscale(prediction.value)
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
      batch,
      loss_key,
    )
    metrics = step.aux | {'gradient_norm': step.gradient_norm}
    return (
      LearnerState(step.params, step.optimizer_state, state.steps + 1, key),
      types.UpdateOutput(metrics),
    )

  def loss(
    self, params: hk.Params, batch: types.Batch, key: types.Key
  ) -> tuple[jax.Array, dict[str, jax.Array]]:
    """Returns the loss of a batch (eq. 1 of the paper), and metrics.

    After k steps of an unroll the policy and the value of row t + k are to be
    predicted; by step k the reward and the end that its action led to. All k > 0
    together weigh as much as k = 0.
    """
    config, data = self._config, batch.data
    keys = jax.random.split(key)
    is_step = data.step_type[:, :-1] != types.LAST
    target = self.value_targets(params, data, keys[0])
    unrolled = self.unroll(params, data, keys[1])
    later = jnp.full((config.unroll_steps, 1, 1), 1 / config.unroll_steps)
    weight = jnp.concatenate([jnp.ones((1, 1, 1)), later]) * self._ahead(
      is_step
    )

    def mean(errors: jax.Array, weight: jax.Array) -> jax.Array:
      return (errors * weight).sum() / is_step.sum().clip(1)

    log_pi = jax.nn.log_softmax(unrolled.logits)
    policy = self._ahead(data.extras['policy'][:, :-1])
    value_error = unrolled.value - returns.rescale(self._ahead(target))
    reward_error = unrolled.reward - returns.rescale(
      self._ahead(data.reward[:, :-1])[:-1]
    )
    goes_on = (self._ahead(data.discount[:, :-1])[:-1] != 0.0) * 1.0
    end_loss = jax.nn.softplus(unrolled.goes_on) - goes_on * unrolled.goes_on
    # Step k is taken if row t + k - 1 has an action.
    taken = self._ahead(is_step)[:-1] / config.unroll_steps
    policy_loss = mean(-(policy * log_pi).sum(axis=-1), weight)
    value_loss = mean(value_error**2, weight)
    reward_loss = mean(reward_error**2, taken)
    end_loss = mean(end_loss, taken)
    loss = (
      policy_loss
      + config.value_weight * value_loss
      + reward_loss
      + end_loss
      + config.l2_weight * optimizers.global_norm(params) ** 2
    )
    return loss, {
      'loss': loss,
      'policy_loss': policy_loss,
      'value_loss': value_loss,
      'reward_loss': reward_loss,
      'end_loss': end_loss,
      'mean_value': mean(returns.unscale(unrolled.value[0]), is_step),
    }

  def value_targets(
    self, params: hk.Params, data: types.Sequence, key: types.Key
  ) -> jax.Array:
    """Returns n-step returns [B, T], bootstrapped by the values of the searches.

    The last row and the last observation of an episode were not searched from: the
    network's value stands for them.
    """
    own = self._evaluation(
      params, key, self._represent(params, key, _rows(data.observation))
    ).value.reshape(data.step_type.shape)
    searched = (data.step_type != types.LAST) & (
      jnp.arange(data.step_type.shape[1])[None] < data.step_type.shape[1] - 1
    )
    value = jnp.where(searched, data.extras['value'], own)
    made = returns.n_step_returns(
      data.reward[:, :-1],
      self._config.discount * data.discount[:, :-1],
      value[:, 1:],
      data.step_type[:, 1:] != types.LAST,
      self._config.n_step,
    )
    return jax.lax.stop_gradient(made)

  def unroll(
    self, params: hk.Params, data: types.Sequence, key: types.Key
  ) -> Unrolled:
    """Returns predictions along unrolls from every row but the last."""
    shape = data.action[:, :-1].shape
    key, first_key = jax.random.split(key)
    actions = jax.nn.one_hot(data.action[:, :-1], self._num_actions)
    actions = self._ahead(actions)[:-1].reshape(
      self._config.unroll_steps, -1, self._num_actions
    )
    before_last = jax.tree.map(lambda leaf: leaf[:, :-1], data.observation)
    state = self._represent(params, first_key, _rows(before_last))
    predictions = [self._predict(params, first_key, state)]
    steps = []
    for action, step_key in zip(
      actions, jax.random.split(key, len(actions)), strict=True
    ):
      stepped = self._step(params, step_key, state, action)
      # Halved, as the state passes the same function again and again.
      state = stepped.state / 2 + jax.lax.stop_gradient(stepped.state / 2)
      predictions.append(self._predict(params, step_key, state))
      steps.append(stepped)

    def stacked(leaves: list[jax.Array]) -> jax.Array:
      return jnp.stack(leaves).reshape(-1, *shape, *leaves[0].shape[1:])

    return Unrolled(
      stacked([p.logits for p in predictions]),
      stacked([p.value for p in predictions]),
      stacked([s.reward for s in steps]),
      stacked([s.goes_on for s in steps]),
    )

  def _ahead(self, rows: jax.Array) -> jax.Array:
    """Returns rows [B, T, ...] k later, [K + 1, B, T, ...]; 0 beyond the last."""
    count = self._config.unroll_steps
    pad = [(0, 0), (0, count), *[(0, 0)] * (rows.ndim - 2)]
    padded = jnp.pad(rows, pad)
    length = rows.shape[1]
    return jnp.stack([padded[:, k : k + length] for k in range(count + 1)])

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


def _rows(nest: types.NestedArray) -> types.NestedArray:
  """Returns leaves [B, L, ...] as [B * L, ...]."""
  return jax.tree.map(lambda leaf: leaf.reshape(-1, *leaf.shape[2:]), nest)


def make_agent(
  config: Config,
  spec: specs.EnvironmentSpec,
  network: Network | None = None,
) -> MuZero:
  """Returns MuZero for an environment.

  Args:
    config: settings.
    spec: of the environment.
    network: maps the number of actions to the parts of a `ModelNetwork`, which may
      use Haiku modules. By default MLPs, after convolutions of pictures.

  Raises:
    ValueError: if the environment's action is not a single discrete one, or mctx is
      not installed.
  """
  return MuZero(config, spec, network)
