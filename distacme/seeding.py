"""Random keys of a run's workers, all from its one seed."""

from __future__ import annotations

import jax

from distacme import types


def learner_key(seed: int) -> types.Key:
  """Returns the learner's raw key."""
  return jax.random.key_data(jax.random.split(jax.random.key(seed))[0])


def actor_key(seed: int, stream: int = 0) -> types.Key:
  """Returns the raw key of actor number `stream`."""
  key = jax.random.split(jax.random.key(seed))[1]
  return jax.random.key_data(jax.random.fold_in(key, stream))
