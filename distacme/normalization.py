"""Running means and deviations of observations, as part of a learner's state."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from distacme import specs
from distacme import types

# {'count': [], 'mean': nest, 'squares': nest}: of dicts, so that it can be
# published with the params. Leaves that are not floats are left as they are.
Statistics = dict[str, types.NestedArray]

_CLIP = 10.0  # deviations


def initial(observations: types.NestedSpec) -> Statistics:
  """Returns the statistics of nothing, which change no observation."""

  def zeros(spec: specs.Array) -> jax.Array:
    return jnp.zeros(spec.shape if _is_float(spec) else (0,), jnp.float32)

  return {
    'count': jnp.float32(0),
    'mean': _as_dict(jax.tree.map(zeros, observations)),
    'squares': _as_dict(jax.tree.map(zeros, observations)),
  }


def updated(
  statistics: Statistics, observation: types.NestedArray, weight: jax.Array
) -> Statistics:
  """Returns statistics that count observations [N, ...] in.

  Chan et al. 1979's rule for joining two samples.

  Args:
    statistics: so far.
    observation: a nest of [N, ...].
    weight: [N] 0 or 1; those of 0 do not count.
  """
  added = weight.sum()
  count = statistics['count'] + added
  share = added / count.clip(1.0)
  new = {'count': count, 'mean': {}, 'squares': {}}
  for name, leaf in _as_dict(observation).items():
    mean, squares = statistics['mean'][name], statistics['squares'][name]
    if not _is_float(leaf):
      new['mean'][name], new['squares'][name] = mean, squares
      continue
    weights = weight.reshape(-1, *[1] * (leaf.ndim - 1))
    batch_mean = (leaf * weights).sum(0) / added.clip(1.0)
    batch_squares = ((leaf - batch_mean[None]) ** 2 * weights).sum(0)
    shift = batch_mean - mean
    new['mean'][name] = mean + shift * share
    new['squares'][name] = (
      squares + batch_squares + shift**2 * statistics['count'] * share
    )
  return new


def normalized(
  statistics: Statistics, observation: types.NestedArray
) -> types.NestedArray:
  """Returns observations [..., *shape] in deviations from their mean, clipped."""
  seen = statistics['count'] > 0
  count = statistics['count'].clip(1.0)

  def normalize(
    leaf: jax.Array, mean: jax.Array, squares: jax.Array
  ) -> jax.Array:
    if not _is_float(leaf):
      return leaf
    lead = (1,) * (leaf.ndim - mean.ndim)
    deviation = jnp.sqrt(squares / count + 1e-8).reshape(*lead, *mean.shape)
    scaled = (leaf - mean.reshape(*lead, *mean.shape)) / deviation
    return jnp.where(seen, scaled.clip(-_CLIP, _CLIP), leaf)

  leaves, structure = jax.tree.flatten(observation)
  return jax.tree.unflatten(
    structure,
    [
      normalize(leaf, statistics['mean'][name], statistics['squares'][name])
      for name, leaf in zip(map(str, range(len(leaves))), leaves, strict=True)
    ],
  )


def _as_dict(nest: types.NestedArray) -> dict[str, jax.Array]:
  return {str(i): leaf for i, leaf in enumerate(jax.tree.leaves(nest))}


def _is_float(leaf: specs.Array | jax.Array) -> bool:
  return bool(np.issubdtype(leaf.dtype, np.floating))
