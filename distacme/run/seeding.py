"""Random keys of a run's workers, all from its one seed."""

from __future__ import annotations

import operator

import jax
import jax.numpy as jnp
import numpy as np

from distacme import types

_WORD = 2**32  # JAX takes a seed modulo this


def learner_key(seed: int) -> types.Key:
  """Returns the learner's raw key."""
  return jax.random.key_data(jax.random.split(_key(seed))[0])


def actor_key(seed: int, stream: int = 0) -> types.Key:
  """Returns the raw key of actor number `stream`."""
  key = jax.random.split(_key(seed))[1]
  return jax.random.key_data(jax.random.fold_in(key, stream))


def _key(seed: int) -> types.Key:
  """Returns JAX's key of a seed of any size, all bits of which count."""
  seed = operator.index(seed)
  if seed < 0:
    raise ValueError(f'seed must be at least 0, got {seed}.')
  if seed < _WORD:
    return jax.random.key(seed)
  # Not by folding words in: `split(key)[1]` is `fold_in(key, 1)`, so that seed
  # 2**32 would have some keys of seed 0.
  hashed = np.random.SeedSequence(seed).generate_state(2)
  return jax.random.wrap_key_data(jnp.asarray(hashed))
