"""PPO: several epochs on each batch of unrolls, held back by a clipped ratio.

Schulman et al. 2017 (arXiv:1707.06347), with generalised advantage estimation
(Schulman et al. 2016, arXiv:1506.02438), and with usual additions of implementations
(Huang et al. 2022, "The 37 implementation details"): normalised observations, returns
and advantages, orthogonal weights, a separate network for the values, small last
layers, and optionally a falling step size and clipped values. Differences: unrolls come
from a queue, so that in a program they are some updates old (`data_age`); the ratio is
to the policy that acted; and returns are normalised by the root of the mean square of
all bootstrapped returns so far, rather than by the deviation of each environment's
running return.
"""

from __future__ import annotations

from collections.abc import Callable
import dataclasses
from typing import NamedTuple

import haiku as hk
import jax
import jax.numpy as jnp

from distacme import config_checks
from distacme import lazy_imports
from distacme import replay_spec
from distacme import specs
from distacme import types
from distacme.kit import convolutions as convolutions_lib
from distacme.kit import distributions
from distacme.kit import initializers
from distacme.kit import loops
from distacme.kit import networks
from distacme.kit import normalization
from distacme.kit import observations
from distacme.kit import optimizers
from distacme.kit import schedules
from distacme.kit import settings

rlax = lazy_imports.module('rlax')

# Maps a nest of observations [B, ...], and the number of params of the distribution
# over actions, to these params [B, num_params] and state values [B].
Network = Callable[[types.NestedArray, int], tuple[jax.Array, jax.Array]]


@dataclasses.dataclass(frozen=True)
class Config(settings.LearningRateConfig):
  """Settings of PPO."""

  discount: float = 0.99
  """Gamma, per environment step."""
  unroll_length: int = 128
  """Steps of an unroll."""
  batch_size: int = 8
  """Unrolls per learner step, which takes several epochs on them."""
  queue_size: int = 8
  """Unrolls that may wait for the learner; bounds the age of their policy."""
  num_epochs: int = 4
  """Passes over each batch."""
  num_minibatches: int = 4
  """Gradient steps in a pass, each on an equal share of the batch's steps."""
  gae_lambda: float = 0.95
  """Lambda of generalised advantage estimation."""
  clip_ratio: float = 0.2
  """Limit of the change of the ratio to the policy that acted, in learning."""
  clip_ratio_schedule: schedules.Kind = 'constant'
  """The fall of clip_ratio: none, along a line, or along half a cosine."""
  clip_ratio_steps: int = 0
  """Learner steps in which clip_ratio falls; 0 if it is constant."""
  clip_ratio_end_share: float = 0.0
  """Share of clip_ratio that is left at the end, and stays."""
  value_weight: float = 0.5
  """Weight of the values' loss, against the policy's."""
  entropy_weight: float = 0.0
  """Weight of the policy's entropy."""
  reward_scale: float = 1.0
  """Factor of rewards for learning; values of about 1 learn best."""
  max_abs_reward: float = float('inf')
  """Clips scaled rewards for learning to this size; evaluation reports raw rewards."""
  normalize_returns: bool = True
  """Whether clipped rewards are divided by the running size of returns, so that values
  are of size 1, and their gradient does not dominate the policy's."""
  normalize_observations: bool = True
  """Whether floats are observed in deviations from their running mean."""
  normalize_advantages: bool = True
  """Whether each minibatch's advantages get mean 0 and deviation 1."""
  clip_values: bool = False
  """Whether clip_ratio limits the change of values, too."""
  learning_rate: float = 1e-3
  """Adam's first step size."""
  adam_epsilon: float = 1e-5
  """Adam's epsilon."""
  max_gradient_norm: float = 0.5
  """Gradients are scaled down to this global norm."""
  hidden_sizes: tuple[int, ...] = (64, 64)
  """Widths of the default network's hidden layers; (512,) for Atari."""
  convolutions: convolutions_lib.Convolutions = 'nature'
  """Convolutions for pictures of 36 pixels and more: Mnih's, or IMPALA's shallow or
  deep ones; smaller pictures go through `kit.convolutions.SmallTorso`."""
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
      'clip_ratio',
    )
    config_checks.check_share(self, 'discount', 'gae_lambda')
    config_checks.check_not_negative(self, 'value_weight', 'entropy_weight')
    config_checks.check_at_least_one(
      self,
      'unroll_length',
      'batch_size',
      'num_epochs',
      'num_minibatches',
      'hidden_sizes',
    )
    # Else a batch would never be complete.
    config_checks.check_at_most(self, 'batch_size', 'queue_size')
    steps = self.batch_size * self.unroll_length
    if steps % self.num_minibatches:
      raise ValueError(
        f'num_minibatches={self.num_minibatches} does not divide the {steps} '
        f'steps of batch_size={self.batch_size} unrolls of unroll_length='
        f'{self.unroll_length}. Choose numbers that do.'
      )
    if self.normalize_advantages and steps == self.num_minibatches:
      raise ValueError(
        f'num_minibatches={self.num_minibatches} leaves one step in each, whose '
        'advantage less the mean is 0: nothing would be learnt. Lower it, or set '
        'normalize_advantages=False.'
      )
    _ = self.replay, self.clip_ratios  # check themselves

  @property
  def clip_ratios(self) -> schedules.Schedule:
    """Schedule of clip_ratio."""
    return schedules.Schedule(
      'clip_ratio',
      self.clip_ratio_schedule,
      self.clip_ratio_steps,
      self.clip_ratio_end_share,
    )

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
  statistics: normalization.Statistics  # of observations
  returns: normalization.Statistics  # of returns before normalisation
  optimizer_state: optimizers.OptState
  steps: jax.Array  # int32, of the learner
  key: types.Key  # of the shuffling, and of random networks


class Steps(NamedTuple):
  """Single steps of a batch's unrolls, [N, ...] each.

  Attributes:
    o_tm1: observations, normalised.
    sample_tm1: the action's sample, see `distributions`.
    log_mu_tm1: logarithm of the chance of drawing the sample.
    advantage_tm1: of the sample.
    v_tm1: value of the state by the params before the update.
    target_tm1: target of the value.
    weight_tm1: 1; or 0 in rows without an action.
  """

  o_tm1: types.NestedArray
  sample_tm1: jax.Array
  log_mu_tm1: jax.Array
  advantage_tm1: jax.Array
  v_tm1: jax.Array
  target_tm1: jax.Array
  weight_tm1: jax.Array


def advantages(
  v: jax.Array,
  r_t: jax.Array,
  discount_t: jax.Array,
  stepped_tm1: jax.Array,
  gae_lambda: float,
) -> jax.Array:
  """Returns the generalised advantages [T] of one unroll.

  Args:
    v: [T + 1] values of all rows: v_tm1, and v_t from the second row on.
    r_t: [T].
    discount_t: [T] gamma times the environment's discount.
    stepped_tm1: [T] bool; False in rows without an action: the observation is an
      episode's last one, and its value bootstraps a truncated episode.
    gae_lambda: lambda.
  """
  # The TD error, and so the advantage, of a row without an action is zero, which ends
  # the trace.
  r_t = jnp.where(stepped_tm1, r_t, v[:-1])
  return rlax.truncated_generalized_advantage_estimation(
    r_t, discount_t * stepped_tm1, gae_lambda, v
  )


def weighted_mean(x: jax.Array, weight: jax.Array) -> jax.Array:
  """Returns the mean of x [N] where weight [N] is 1."""
  return (x * weight).sum() / weight.sum().clip(1.0)


class PPO:
  """PPO for one environment spec; see `core.Agent`."""

  def __init__(
    self,
    config: Config,
    spec: specs.EnvironmentSpec,
    network: Network | None = None,
  ):
    self._config = config
    self._spec = spec
    self._distribution = distributions.for_actions(spec.actions, 'PPO')
    make = network or self._default_network
    self._network = hk.transform(
      lambda o: make(o, self._distribution.num_params)
    )
    self.replay = config.replay
    networks.check_policy_and_value(
      self._network.init,
      self._network.apply,
      spec.observations,
      self._distribution.num_params,
    )

  def initial_learner_state(self, key: types.Key) -> LearnerState:
    """Returns a state with new params and a new optimiser."""
    params_key, key = jax.random.split(key)
    params = self._network.init(
      params_key, networks.example(self._spec.observations)
    )
    return LearnerState(
      params,
      normalization.initial(self._spec.observations),
      normalization.initial_of_returns(),
      self._optimizer.init(params),
      jnp.int32(0),
      key,
    )

  def initial_actor_state(
    self, batch_size: int, streams: types.Streams | None
  ) -> distributions.Exploration:
    """Returns a mask of rows that draw actions: none if evaluated greedily."""
    return distributions.initial_exploration(
      batch_size, streams, self._config.evaluate_greedily
    )

  def act(
    self,
    params: types.Params,
    key: types.Key,
    observation: types.NestedArray,
    state: distributions.Exploration,
  ) -> types.ActorOutput:
    """Draws actions from the policy, or takes the likeliest ones."""
    pi, _ = self._network.apply(
      params['network'],
      networks.network_key(key),
      self._observed(params['statistics'], observation),
    )
    sample = distributions.draw(self._distribution, pi, key, state.explores)
    extras = {
      'sample': sample,
      'log_prob': self._distribution.log_prob(pi, sample),
    }
    return types.ActorOutput(self._distribution.action(sample), state, extras)

  def update(
    self, state: LearnerState, batch: types.Batch
  ) -> tuple[LearnerState, types.UpdateOutput]:
    """Takes gradient steps on the unrolls, in several epochs of minibatches."""
    config = self._config
    key, shuffle_key = jax.random.split(state.key)
    num_shares = config.num_epochs * config.num_minibatches
    value_key, *keys = networks.network_keys(shuffle_key, 1 + num_shares)
    steps, statistics, returns = self._steps(state, batch.data, value_key)
    shares = jax.vmap(
      lambda k: jax.random.permutation(k, steps.weight_tm1.shape[0])
    )(jax.random.split(shuffle_key, config.num_epochs))
    clip_ratio = config.clip_ratio * config.clip_ratios.share(state.steps)

    def learn(
      carry: tuple[hk.Params, optimizers.OptState],
      inputs: tuple[jax.Array, types.Key],
    ) -> tuple[tuple[hk.Params, optimizers.OptState], dict[str, jax.Array]]:
      share, key = inputs
      minibatch = jax.tree.map(lambda leaf: leaf[share], steps)
      step = optimizers.gradient_step(
        self.loss, self._optimizer, *carry, minibatch, clip_ratio, key
      )
      metrics = step.aux | {'gradient_norm': step.gradient_norm}
      return (step.params, step.optimizer_state), metrics

    (params, optimizer_state), metrics = loops.scan(
      learn,
      (state.params, state.optimizer_state),
      (shares.reshape(num_shares, -1), jnp.stack(keys)),
    )
    metrics = {name: x.mean() for name, x in metrics.items()}
    metrics['size_of_returns'] = normalization.root_mean_square(returns)
    return (
      LearnerState(
        params, statistics, returns, optimizer_state, state.steps + 1, key
      ),
      types.UpdateOutput(metrics),
    )

  def _steps(
    self, state: LearnerState, data: types.Sequence, key: types.Key
  ) -> tuple[Steps, normalization.Statistics, normalization.Statistics]:
    """Returns the steps of unrolls [B, T + 1], and statistics that include them.

    The steps are normalised by the earlier statistics, as the actor's were. The first
    unrolls are normalised by their own, since there are no earlier ones. Consumes
    `key` if the network is random.
    """
    config = self._config
    stepped_tm1 = data.step_type[:, :-1] != types.LAST
    weight_tm1 = stepped_tm1.reshape(-1).astype(jnp.float32)
    statistics = state.statistics
    if config.normalize_observations:
      statistics = normalization.updated(
        statistics, _flat(data.observation), weight_tm1
      )
    observation = self._observed(
      normalization.before_or_own(state.statistics, statistics),
      data.observation,
    )
    _, v = hk.BatchApply(lambda o: self._network.apply(state.params, key, o))(
      observation
    )
    size = normalization.root_mean_square(state.returns)
    advantage_tm1 = jax.vmap(advantages, (0, 0, 0, 0, None))(
      size * v,
      replay_spec.learnt_reward(
        data.reward[:, :-1], config.reward_scale, config.max_abs_reward
      ),
      config.discount * data.discount[:, :-1],
      stepped_tm1,
      config.gae_lambda,
    )
    target_tm1 = (advantage_tm1 + size * v[:, :-1]).reshape(-1)
    returns = state.returns
    if config.normalize_returns:
      returns, size = normalization.with_returns(
        returns, target_tm1, weight_tm1
      )
    steps = Steps(
      _flat(observation),
      _flat(data.extras['sample']),
      _flat(data.extras['log_prob']),
      advantage_tm1.reshape(-1) / size,
      _flat(v),
      target_tm1 / size,
      weight_tm1,
    )
    return steps, statistics, returns

  def loss(
    self,
    params: hk.Params,
    steps: Steps,
    clip_ratio: jax.Array,
    key: types.Key,
  ) -> tuple[jax.Array, dict[str, jax.Array]]:
    """Returns the loss of a minibatch (eq. 9, with its sign turned).

    Args:
      params: of the network.
      steps: [N, ...].
      clip_ratio: [] limit of the change of the ratio to the policy that acted.
      key: consumed if the network is random.
    """
    config = self._config
    pi_tm1, v_tm1 = self._network.apply(params, key, steps.o_tm1)
    log_pi_tm1 = self._distribution.log_prob(pi_tm1, steps.sample_tm1)
    log_ratio = log_pi_tm1 - steps.log_mu_tm1
    ratio = jnp.exp(log_ratio)

    def mean(x: jax.Array) -> jax.Array:
      return weighted_mean(x, steps.weight_tm1)

    advantage_tm1 = steps.advantage_tm1
    if config.normalize_advantages:
      advantage_tm1 -= mean(advantage_tm1)
      advantage_tm1 /= jnp.sqrt(mean(advantage_tm1**2) + 1e-8)
    clipped = ratio.clip(1 - clip_ratio, 1 + clip_ratio)
    gain = jnp.minimum(ratio * advantage_tm1, clipped * advantage_tm1)
    errors = (v_tm1 - steps.target_tm1) ** 2
    if config.clip_values:
      near = steps.v_tm1 + (v_tm1 - steps.v_tm1).clip(-clip_ratio, clip_ratio)
      errors = jnp.maximum(errors, (near - steps.target_tm1) ** 2)
    policy_loss = -mean(gain)
    value_loss = mean(errors) / 2
    entropy = mean(self._distribution.entropy(pi_tm1))
    loss = (
      policy_loss
      + config.value_weight * value_loss
      - config.entropy_weight * entropy
    )
    return loss, {
      'loss': loss,
      'policy_loss': policy_loss,
      'value_loss': value_loss,
      'entropy': entropy,
      'mean_value': mean(v_tm1),
      # Schulman's estimator of the KL divergence from the policy that acted.
      'approximate_kl': mean(ratio - 1 - log_ratio),
      'share_clipped': mean((jnp.abs(ratio - 1) > clip_ratio) * 1.0),
    }

  def actor_params(self, state: LearnerState) -> types.Params:
    """Returns the network's params and the observations' statistics."""
    return {'network': state.params, 'statistics': state.statistics}

  def _observed(
    self, statistics: normalization.Statistics, observation: types.NestedArray
  ) -> types.NestedArray:
    if not self._config.normalize_observations:
      return observation
    return normalization.normalized(statistics, observation)

  @property
  def _optimizer(self) -> optimizers.Optimizer:
    config = self._config
    return optimizers.adam(
      config.learning_rates.step_size(
        config.learning_rate, config.num_epochs * config.num_minibatches
      ),
      config.max_gradient_norm,
      eps=config.adam_epsilon,
    )

  def _default_network(
    self,
    observation: types.NestedArray,
    num_params: int,
  ) -> tuple[jax.Array, jax.Array]:
    config, spec = self._config, self._spec.observations
    head = networks.PolicyValueHead(
      num_params, self._distribution.num_constant, config.initialization
    )

    def torso(
      activation: Callable[[jax.Array], jax.Array], name: str
    ) -> networks.ObservationTorso:
      return networks.ObservationTorso(
        spec,
        config.hidden_sizes,
        config.convolutions,
        config.initialization,
        activation,
        name,
      )

    if observations.has_image(spec):  # Shared convolutions: they cost most.
      return head(torso(jax.nn.relu, 'torso')(observation))
    return head(
      torso(jnp.tanh, 'policy_torso')(observation),
      torso(jnp.tanh, 'value_torso')(observation),
    )


def _flat(nest: types.NestedArray) -> types.NestedArray:
  """Returns all rows but the last of leaves [B, T + 1, ...], as [B * T, ...]."""
  return jax.tree.map(
    lambda leaf: leaf[:, :-1].reshape(-1, *leaf.shape[2:]), nest
  )


def make_agent(
  config: Config,
  spec: specs.EnvironmentSpec,
  network: Network | None = None,
) -> PPO:
  """Returns PPO for an environment.

  Args:
    config: settings.
    spec: of the environment.
    network: maps a nest of observations [B, ...], and the number of params of the
      distribution over actions, to these params [B, num_params] and state values
      [B], and may use Haiku modules; by default two MLPs, with shared convolutions
      if an image is observed.

  Raises:
    ValueError: if the environment's actions are neither one discrete one nor
      bounded floats.
  """
  return PPO(config, spec, network)
