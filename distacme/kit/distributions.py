"""Distributions over actions, for agents with a stochastic policy.

rlax and distrax have these too, but importing rlax or distrax costs an actor seconds
and a hundred megabytes.
"""

from __future__ import annotations

from typing import NamedTuple, Protocol

import jax
import jax.numpy as jnp
import numpy as np

from distacme import specs
from distacme import types
from distacme.kit import bounds as bounds_lib


class Distribution(Protocol):
  """A family of distributions over the actions of one spec.

  `sample` draws samples. Densities are of samples, and replay stores samples.
  `action` maps a sample to the action for the environment, without chance.
  """

  num_params: int  # outputs of a network for each state
  num_constant: int  # number of the last params, which all states may share

  def sample(self, params: jax.Array, key: types.Key) -> jax.Array:
    """Draws from the distributions of params [..., num_params]."""

  def mode(self, params: jax.Array) -> jax.Array:
    """Returns the likeliest samples."""

  def log_prob(self, params: jax.Array, sample: jax.Array) -> jax.Array:
    """Returns the logarithm of the chance, or density, of samples [...]."""

  def entropy(self, params: jax.Array) -> jax.Array:
    """Returns entropies [...], in nats."""

  def action(self, sample: jax.Array) -> jax.Array:
    """Returns the actions of samples."""


# The difference of two such logits is still finite.
_LEAST_LOGIT = float(np.finfo(np.float32).min) / 4


class Categorical:
  """One discrete action; params are logits [..., num_values].

  A logit of minus infinity, with which a network masks an action, is raised to the
  least float, so that entropies and gradients stay finite.
  """

  def __init__(self, spec: specs.DiscreteArray):
    self.num_params = int(spec.num_values)
    self.num_constant = 0

  def sample(self, params: jax.Array, key: types.Key) -> jax.Array:
    """Draws actions, int32 [...]."""
    return jax.random.categorical(key, params).astype(jnp.int32)

  def mode(self, params: jax.Array) -> jax.Array:
    """Returns the likeliest actions."""
    return jnp.argmax(params, axis=-1).astype(jnp.int32)

  def log_prob(self, params: jax.Array, sample: jax.Array) -> jax.Array:
    """Returns the logarithm of the chance of actions [...]."""
    log_probs = self._log_probs(params)
    return jnp.take_along_axis(log_probs, sample[..., None], axis=-1)[..., 0]

  def entropy(self, params: jax.Array) -> jax.Array:
    """Returns entropies [...]."""
    log_probs = self._log_probs(params)
    return -jnp.sum(jnp.exp(log_probs) * log_probs, axis=-1)

  def action(self, sample: jax.Array) -> jax.Array:
    """Returns the samples, which are the actions."""
    return sample

  def _log_probs(self, params: jax.Array) -> jax.Array:
    return jax.nn.log_softmax(params.clip(_LEAST_LOGIT))


class Normal(NamedTuple):
  """Normal distributions of vectors with independent elements.

  Attributes:
    mean: [..., size].
    std: [..., size] standard deviations.
  """

  mean: jax.Array
  std: jax.Array

  def sample(self, key: types.Key) -> jax.Array:
    """Draws vectors [..., size]."""
    return self.mean + self.std * jax.random.normal(key, self.mean.shape)

  def log_prob(self, vector: jax.Array) -> jax.Array:
    """Returns the logarithm of the density [...] of vectors [..., size]."""
    error = (vector - self.mean) / self.std
    each = -(error**2) / 2 - jnp.log(self.std) - np.log(2 * np.pi) / 2
    return each.sum(axis=-1)

  def entropy(self) -> jax.Array:
    """Returns entropies [...]."""
    each = jnp.log(self.std) + np.log(2 * np.pi * np.e) / 2
    return each.sum(axis=-1)

  def divergence(self, other: Normal) -> jax.Array:
    """Returns KL(self || other) in each dimension [..., size]."""
    ratio = self.std / other.std
    error = (self.mean - other.mean) / other.std
    return (ratio**2 + error**2 - 1) / 2 - jnp.log(ratio)


class Gaussian:
  """Bounded continuous actions with independent elements.

  Params are means and logarithms of standard deviations, [..., 2 * size]. Samples
  [..., size] are mostly in [-1, 1]; `action` clips a sample and scales it to the
  bounds. Densities are those of samples before clipping, as is usual: clipping
  changes the environment's action, not the gradient.

  Deviations are best the same in all states (Schulman et al. 2015, PPO after it). A
  policy with deviations of its own in each state finds that clipped noise acts as
  well as a mean, and unlearns.
  """

  def __init__(self, bounds: bounds_lib.Bounds):
    self._bounds = bounds
    self._size = bounds.size
    self.num_params = 2 * self._size
    self.num_constant = self._size

  def sample(self, params: jax.Array, key: types.Key) -> jax.Array:
    """Draws samples [..., size]."""
    return self._normal(params).sample(key)

  def mode(self, params: jax.Array) -> jax.Array:
    """Returns the means."""
    return self._normal(params).mean

  def log_prob(self, params: jax.Array, sample: jax.Array) -> jax.Array:
    """Returns the logarithm of the density of samples [..., size]."""
    return self._normal(params).log_prob(sample)

  def entropy(self, params: jax.Array) -> jax.Array:
    """Returns entropies [...]."""
    return self._normal(params).entropy()

  def action(self, sample: jax.Array) -> jax.Array:
    """Returns actions within the bounds, in the spec's shape and dtype."""
    return self._bounds.action(sample)

  def _normal(self, params: jax.Array) -> Normal:
    mean, log_std = jnp.split(params, 2, axis=-1)
    return Normal(mean, jnp.exp(log_std))


class TanhGaussian(Gaussian):
  """A Gaussian squashed by tanh instead of clipped (Haarnoja et al. 2018, app. C).

  Densities are those of the squashed samples, in [-1, 1]. The methods draw and take
  samples before tanh, for which densities are exact.
  """

  _LOG_STD = (-10.0, 2.0)  # beyond these, densities are noise, or all alike

  def log_prob(self, params: jax.Array, sample: jax.Array) -> jax.Array:
    """Returns the logarithm of the density of tanh(samples [..., size])."""
    # log(1 - tanh(x)^2), without cancellation.
    log_slope = 2 * (np.log(2.0) - sample - jax.nn.softplus(-2 * sample))
    return super().log_prob(params, sample) - log_slope.sum(axis=-1)

  def entropy(self, params: jax.Array) -> jax.Array:
    """Raises NotImplementedError, as this entropy has no formula."""
    raise NotImplementedError(
      'the entropy of TanhGaussian has no formula: average -log_prob over '
      'samples.'
    )

  def action(self, sample: jax.Array) -> jax.Array:
    """Returns actions within the bounds, in the spec's shape and dtype."""
    return super().action(jnp.tanh(sample))

  def _normal(self, params: jax.Array) -> Normal:
    mean, log_std = jnp.split(params, 2, axis=-1)
    return Normal(mean, jnp.exp(log_std.clip(*self._LOG_STD)))


def for_actions(spec: types.NestedSpec, agent: str) -> Distribution:
  """Returns the distribution for an action spec.

  Args:
    spec: of the actions.
    agent: name of the agent, for the message.

  Raises:
    ValueError: if actions are neither one discrete action nor bounded floats.
  """
  if isinstance(spec, specs.DiscreteArray):
    return Categorical(spec)
  if specs.is_bounded(spec):
    return Gaussian(bounds_lib.Bounds(spec, agent))
  need = (
    f'{agent} needs one discrete action (specs.DiscreteArray) or '
    f'{bounds_lib.NEEDED}'
  )
  raise ValueError(bounds_lib.refusal(spec, need))


class Exploration(NamedTuple):
  """An actor's state that holds only a mask of exploring rows; constant."""

  explores: jax.Array | np.ndarray  # [B] bool; other rows take the mode


def initial_exploration(
  batch_size: int, streams: types.Streams | None, evaluate_greedily: bool = True
) -> Exploration:
  """Returns a mask of rows that draw actions; other rows take the mode.

  Args:
    batch_size: B.
    streams: of the environments; None asks for the evaluated policy.
    evaluate_greedily: whether the evaluated policy takes the mode.
  """
  explores = streams is not None or not evaluate_greedily
  return Exploration(np.full(batch_size, explores))


def draw(
  distribution: Distribution,
  params: jax.Array,
  key: types.Key,
  explores: jax.Array | np.ndarray,
) -> jax.Array:
  """Returns samples where `explores` [B], and modes elsewhere; consumes `key`."""
  sample, mode = distribution.sample(params, key), distribution.mode(params)
  explores = explores.reshape(-1, *[1] * (sample.ndim - 1))
  return jnp.where(explores, sample, mode)
