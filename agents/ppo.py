"""PPO: several epochs on each batch of unrolls, held back by a clipped ratio.

Schulman et al. 2017 (arXiv:1707.06347), with generalised advantage estimation
(Schulman et al. 2016, arXiv:1506.02438), and with what implementations have beside
(Huang et al. 2022, "The 37 implementation details"): normalised observations,
returns and advantages, orthogonal weights, a network apart for the values, small last
layers, and by choice a step size that falls, and values that are clipped. What
differs: unrolls come from a queue, so that in a program they are some updates old
(`data_age`); the ratio is taken to the policy that acted; and returns are normalised by
the root of their mean square in what was learnt from so far, bootstrapped, rather than
by the deviation of each environment's running return.
"""

from __future__ import annotations

from collections.abc import Callable
import dataclasses
import functools
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
from distacme.kit import observations
from distacme.kit import optimizers

optax = lazy_imports.module('optax')
rlax = lazy_imports.module('rlax')

# Maps a nest of observations [B, ...], and how many parameters the distribution
# over actions has, to those [B, num_params] and state values [B].
Network = Callable[[types.NestedArray, int], tuple[jax.Array, jax.Array]]


@dataclasses.dataclass(frozen=True)
class Config:
  """Settings of PPO."""

  discount: float = 0.99
  """Gamma, per environment step."""
  unroll_length: int = 128
  """Steps of an unroll."""
  batch_size: int = 8
  """Unrolls per learner step, which goes through them in several epochs."""
  queue_size: int = 8
  """Unrolls that may wait for the learner; bounds how old their policy is."""
  num_epochs: int = 4
  """Passes over each batch."""
  num_minibatches: int = 4
  """Gradient steps in a pass, each on an equal share of the batch's steps."""
  gae_lambda: float = 0.95
  """Lambda of generalised advantage estimation."""
  clip_ratio: float = 0.2
  """How far the policy may leave the one that acted before it is held back."""
  value_weight: float = 0.5
  """Weight of the values' loss, against the policy's."""
  entropy_weight: float = 0.0
  """Weight of the policy's entropy."""
  reward_scale: float = 1.0
  """Rewards are multiplied by this to learn from; values of about 1 learn best."""
  max_abs_reward: float = float('inf')
  """Rewards are clipped to this size after that; nothing of it is evaluated."""
  normalize_returns: bool = True
  """Whether rewards are then divided by the running size of returns, so that values
  are of size 1, and their gradient does not crowd the policy's out."""
  normalize_observations: bool = True
  """Whether floats are observed in deviations from their running mean."""
  normalize_advantages: bool = True
  """Whether each minibatch's advantages get mean 0 and deviation 1."""
  clip_values: bool = False
  """Whether values are held back by clip_ratio, too."""
  learning_rate: float = 1e-3
  """Adam's step size."""
  annealing_steps: int = 0
  """Learner steps in which that falls to 0, evenly; 0 keeps it."""
  adam_epsilon: float = 1e-5
  """Adam's epsilon."""
  max_gradient_norm: float = 0.5
  """Gradients are scaled down to this global norm."""
  hidden_sizes: tuple[int, ...] = (64, 64)
  """Widths of the default network's hidden layers; (512,) for Atari."""
  convolutions: networks.Convolutions = 'nature'
  """What images of 36 pixels and more go through: Mnih's, or IMPALA's shallow or deep
  ones; smaller ones have `kit.networks.SmallTorso`."""
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
      'clip_ratio',
    )
    config_checks.check_share(self, 'discount', 'gae_lambda')
    config_checks.check_not_negative(
      self, 'value_weight', 'entropy_weight', 'annealing_steps'
    )
    config_checks.check_at_least_one(
      self,
      'unroll_length',
      'batch_size',
      'num_epochs',
      'num_minibatches',
      'hidden_sizes',
    )
    # Or a batch would never be complete.
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
  statistics: normalization.Statistics  # of observations
  returns: normalization.Statistics  # before they are normalised
  optimizer_state: Any
  key: types.Key  # of the shuffling


class Steps(NamedTuple):
  """Single steps of a batch's unrolls, [N, ...] each.

  Attributes:
    observation: normalised.
    sample: what stands for the action, see `distributions`.
    log_prob: of it, when it was drawn.
    advantage: of it.
    value: of the state, when the batch came.
    target: of that value.
    weight: 1; or 0 where nothing was done.
  """

  observation: types.NestedArray
  sample: jax.Array
  log_prob: jax.Array
  advantage: jax.Array
  value: jax.Array
  target: jax.Array
  weight: jax.Array


def advantages(
  value: jax.Array,
  reward: jax.Array,
  discount: jax.Array,
  stepped: jax.Array,
  gae_lambda: float,
) -> jax.Array:
  """Returns the generalised advantages [T] of one unroll.

  Args:
    value: [T + 1] of all rows; the last one bootstraps.
    reward: [T].
    discount: [T] gamma times the environment's.
    stepped: [T] bool; where not, nothing was done: the observation is the last
      of an episode, and its value what a truncated one is bootstrapped with.
    gae_lambda: lambda.
  """
  # Such a row's TD error, and so its advantage, is zero, which ends the trace.
  reward = jnp.where(stepped, reward, value[:-1])
  return rlax.truncated_generalized_advantage_estimation(
    reward, discount * stepped, gae_lambda, value
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
    self._policy = distributions.for_actions(spec.actions, 'PPO')
    self._network = self._transformed(network or self._default_network)
    # XLA's CPU compiler is many times slower on convolutions in a loop. There the
    # default network has matrix products; of a user's network the loop is unrolled.
    self._in_loop = self._transformed(
      network or functools.partial(self._default_network, in_loop=True)
    )
    self._unrolls = network is not None and observations.has_image(
      spec.observations
    )
    self.replay = config.replay
    networks.check_policy_and_value(
      self._network.init,
      self._network.apply,
      spec.observations,
      self._policy.num_params,
    )

  def _transformed(self, make: Network) -> hk.Transformed:
    """Returns the pure functions of a network."""
    return hk.without_apply_rng(
      hk.transform(lambda o: make(o, self._policy.num_params))
    )

  def initial_learner_state(self, key: types.Key) -> LearnerState:
    """Returns params, and an optimiser that has seen nothing."""
    params_key, key = jax.random.split(key)
    params = self._network.init(
      params_key, networks.example(self._spec.observations)
    )
    return LearnerState(
      params,
      normalization.initial(self._spec.observations),
      normalization.initial_of_returns(),
      self._optimizer.init(params),
      key,
    )

  def initial_actor_state(
    self, batch_size: int, streams: types.Streams | None
  ) -> distributions.Exploration:
    """Returns who draws actions: whoever is not evaluated greedily."""
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
    """Draws actions from the policy, or takes the likeliest."""
    policy, _ = self._network.apply(
      params['network'], self._observed(params['statistics'], observation)
    )
    sample = distributions.draw(self._policy, policy, key, state.explores)
    extras = {
      'sample': sample,
      'log_prob': self._policy.log_prob(policy, sample),
    }
    return types.ActorOutput(self._policy.action(sample), state, extras)

  def update(
    self, state: LearnerState, batch: types.Batch
  ) -> tuple[LearnerState, types.UpdateOutput]:
    """Goes through the unrolls in several epochs of minibatches."""
    config = self._config
    steps, statistics, returns = self._steps(state, batch.data)
    key, shuffle_key = jax.random.split(state.key)
    shares = jax.vmap(
      lambda k: jax.random.permutation(k, steps.weight.shape[0])
    )(jax.random.split(shuffle_key, config.num_epochs))
    shares = shares.reshape(config.num_epochs * config.num_minibatches, -1)

    def learn(carry: Any, share: jax.Array) -> tuple[Any, Any]:
      params, optimizer_state = carry
      minibatch = jax.tree.map(lambda leaf: leaf[share], steps)
      gradient, metrics = jax.grad(self.loss, has_aux=True)(params, minibatch)
      updates, optimizer_state = self._optimizer.update(
        gradient, optimizer_state
      )
      metrics['gradient_norm'] = optax.tree.norm(gradient)
      return (optax.apply_updates(params, updates), optimizer_state), metrics

    (params, optimizer_state), metrics = jax.lax.scan(
      learn,
      (state.params, state.optimizer_state),
      shares,
      unroll=self._unrolls,
    )
    metrics = {name: x.mean() for name, x in metrics.items()}
    metrics['size_of_returns'] = normalization.root_mean_square(returns)
    return (
      LearnerState(params, statistics, returns, optimizer_state, key),
      types.UpdateOutput(metrics),
    )

  def _steps(
    self, state: LearnerState, data: types.Sequence
  ) -> tuple[Steps, normalization.Statistics, normalization.Statistics]:
    """Returns what is learnt from unrolls [B, T + 1], and statistics with them.

    They are learnt from with the statistics before, as they were acted; but the
    first ones with their own, since there are none before.
    """
    config = self._config
    stepped = data.step_type[:, :-1] != types.LAST
    weight = stepped.reshape(-1).astype(jnp.float32)
    rows = np.s_[:-1]
    statistics = state.statistics
    if config.normalize_observations:
      statistics = normalization.updated(
        statistics, _flat(data.observation, rows), weight
      )
    observation = self._observed(
      normalization.before_or_own(state.statistics, statistics),
      data.observation,
    )
    _, value = hk.BatchApply(lambda o: self._network.apply(state.params, o))(
      observation
    )
    size = normalization.root_mean_square(state.returns)
    advantage = jax.vmap(advantages, (0, 0, 0, 0, None))(
      size * value,
      replay_spec.learnt_reward(
        data.reward[:, :-1], config.reward_scale, config.max_abs_reward
      ),
      config.discount * data.discount[:, :-1],
      stepped,
      config.gae_lambda,
    )
    target = (advantage + size * value[:, :-1]).reshape(-1)
    returns = state.returns
    if config.normalize_returns:
      returns = normalization.updated(returns, target, weight)
      size = normalization.root_mean_square(
        normalization.before_or_own(state.returns, returns)
      )
    return (
      Steps(
        _flat(observation, rows),
        _flat(data.extras['sample'], rows),
        _flat(data.extras['log_prob'], rows),
        advantage.reshape(-1) / size,
        value[:, :-1].reshape(-1),
        target / size,
        weight,
      ),
      statistics,
      returns,
    )

  def loss(
    self, params: hk.Params, steps: Steps
  ) -> tuple[jax.Array, dict[str, jax.Array]]:
    """Returns the loss of a minibatch (eq. 9, with its sign turned)."""
    config = self._config
    policy, value = self._in_loop.apply(params, steps.observation)
    log_ratio = self._policy.log_prob(policy, steps.sample) - steps.log_prob
    ratio = jnp.exp(log_ratio)
    advantage = steps.advantage
    if config.normalize_advantages:
      advantage -= weighted_mean(advantage, steps.weight)
      variance = weighted_mean(advantage**2, steps.weight)
      advantage /= jnp.sqrt(variance + 1e-8)
    errors = (value - steps.target) ** 2
    if config.clip_values:
      near = steps.value + (value - steps.value).clip(
        -config.clip_ratio, config.clip_ratio
      )
      errors = jnp.maximum(errors, (near - steps.target) ** 2)
    clipped = ratio.clip(1 - config.clip_ratio, 1 + config.clip_ratio)

    def mean(x: jax.Array) -> jax.Array:
      return weighted_mean(x, steps.weight)

    policy_loss = -mean(jnp.minimum(ratio * advantage, clipped * advantage))
    value_loss = mean(errors) / 2
    entropy = mean(self._policy.entropy(policy))
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
      'mean_value': mean(value),
      # Schulman's estimator of the divergence from the policy that acted.
      'approximate_kl': mean(ratio - 1 - log_ratio),
      'share_clipped': mean((jnp.abs(ratio - 1) > config.clip_ratio) * 1.0),
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
  def _optimizer(self) -> Any:
    config = self._config
    steps = config.num_epochs * config.num_minibatches
    return optimizers.adam(
      optimizers.annealed(config.learning_rate, config.annealing_steps * steps),
      config.max_gradient_norm,
      eps=config.adam_epsilon,
    )

  def _default_network(
    self,
    observation: types.NestedArray,
    num_params: int,
    in_loop: bool = False,
  ) -> tuple[jax.Array, jax.Array]:
    config, spec = self._config, self._spec.observations
    head = networks.PolicyValueHead(
      num_params, self._policy.num_constant, config.initialization
    )

    def torso(activation: Any, name: str) -> networks.ObservationTorso:
      return networks.ObservationTorso(
        spec,
        config.hidden_sizes,
        config.convolutions,
        config.initialization,
        activation,
        in_loop,
        name,
      )

    if observations.has_image(spec):  # Convolutions are shared: they cost most.
      return head(torso(jax.nn.relu, 'torso')(observation))
    return head(
      torso(jnp.tanh, 'policy_torso')(observation),
      torso(jnp.tanh, 'value_torso')(observation),
    )


def _flat(nest: types.NestedArray, rows: slice) -> types.NestedArray:
  """Returns some rows of leaves [B, L, ...], as [B * rows, ...]."""
  return jax.tree.map(
    lambda leaf: leaf[:, rows].reshape(-1, *leaf.shape[2:]), nest
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
    network: maps a nest of observations [B, ...], and how many parameters the
      distribution over actions has, to those [B, num_params] and state values
      [B], and may use Haiku modules; by default two MLPs, or convolutions that
      both share if an image is observed.

  Raises:
    ValueError: if the environment's actions are neither one discrete one nor
      bounded floats.
  """
  return PPO(config, spec, network)
