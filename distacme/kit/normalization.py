"""Running statistics of observations and returns, as part of a learner's state."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from distacme import specs
from distacme import types
from distacme.kit import observations as observations_lib

# The 'count' of observations, and for leaf i 'mean_i' and 'squares_i', the sum of
# squared differences from the mean. Leaves have names so that statistics can be
# published with the params. Pictures and leaves that are no floats have none.
Statistics = dict[str, jax.Array]

_CLIP = 10.0  # standard deviations
_NUMBER = specs.Array((), np.float32)


def initial(observations: types.NestedSpec) -> Statistics:
  """Returns the statistics of no observation, which change no observation."""
  statistics = {'count': jnp.float32(0)}
  for i, spec in enumerate(jax.tree.leaves(observations)):
    if _is_float(spec) and not observations_lib.is_image(spec):
      for name in ('mean', 'squares'):
        statistics[f'{name}_{i}'] = jnp.zeros(spec.shape, jnp.float32)
  return statistics


def updated(
  statistics: Statistics, observation: types.NestedArray, weight: jax.Array
) -> Statistics:
  """Returns statistics that include observations [N, ...].

  Joins two samples by the rule of Chan et al. 1979.

  Args:
    statistics: of earlier observations.
    observation: a nest of [N, ...].
    weight: [N] 0 or 1; observations with 0 do not count.
  """
  added = weight.sum()
  count = statistics['count'] + added
  share = added / count.clip(1.0)
  new = {'count': count}
  for i, leaf in enumerate(jax.tree.leaves(observation)):
    if f'mean_{i}' not in statistics:
      continue
    weights = weight.reshape(-1, *[1] * (leaf.ndim - 1))
    mean = (leaf * weights).sum(0) / added.clip(1.0)
    squares = ((leaf - mean[None]) ** 2 * weights).sum(0)
    shift = mean - statistics[f'mean_{i}']
    between = shift**2 * statistics['count'] * share
    new[f'mean_{i}'] = statistics[f'mean_{i}'] + shift * share
    new[f'squares_{i}'] = statistics[f'squares_{i}'] + squares + between
  return new


def normalized(
  statistics: Statistics, observation: types.NestedArray
) -> types.NestedArray:
  """Returns observations [..., *shape] as clipped deviations from their mean."""
  count = statistics['count']
  leaves, structure = jax.tree.flatten(observation)
  for i, leaf in enumerate(leaves):
    if f'mean_{i}' not in statistics:
      continue
    mean, squares = statistics[f'mean_{i}'], statistics[f'squares_{i}']
    deviation = jnp.sqrt(squares / count.clip(1.0) + 1e-8)
    lead = (1,) * (leaf.ndim - mean.ndim)
    scaled = leaf - mean.reshape(*lead, *mean.shape)
    scaled /= deviation.reshape(*lead, *mean.shape)
    leaves[i] = jnp.where(count > 0, scaled.clip(-_CLIP, _CLIP), leaf)
  return jax.tree.unflatten(structure, leaves)


def before_or_own(before: Statistics, after: Statistics) -> Statistics:
  """Returns the statistics for learning from a batch.

  These are the earlier statistics; for the first batch, the batch's own.

  Args:
    before: statistics without the batch.
    after: statistics with the batch.
  """
  return jax.tree.map(
    lambda old, new: jnp.where(before['count'] > 0, old, new), before, after
  )


def initial_of_returns() -> Statistics:
  """Returns the statistics of no numbers, for `root_mean_square`."""
  return initial(_NUMBER)


def root_mean_square(statistics: Statistics) -> jax.Array:
  """Returns the root of the mean square of all numbers; 1 if there are none.

  Deviations are from 0 and not from the mean: equal returns have none from their
  mean.
  """
  count = statistics['count']
  mean_square = statistics['squares_0'] / count.clip(1.0)
  mean_square += statistics['mean_0'] ** 2
  return jnp.where(count > 0, jnp.sqrt(mean_square + 1e-8), 1.0)


def with_returns(
  before: Statistics, returns: jax.Array, weight: jax.Array
) -> tuple[Statistics, jax.Array]:
  """Returns statistics that include returns [N], and the size for learning.

  The size is that of earlier returns; for the first returns, their own.

  Args:
    before: statistics without the returns.
    returns: [N].
    weight: [N] 0 or 1; returns with 0 do not count.
  """
  after = updated(before, returns, weight)
  return after, root_mean_square(before_or_own(before, after))


def _is_float(leaf: jax.Array) -> bool:
  return bool(np.issubdtype(leaf.dtype, np.floating))
