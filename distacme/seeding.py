"""Random keys of a run's workers, all from its one seed."""

from __future__ import annotations

import jax

from distacme import types


def keys(seed: int, stream: int = 0) -> tuple[types.Key, types.Key]:
  """Returns raw keys for the learner and for the actor number `stream`."""
  learner_key, actors_key = jax.random.split(jax.random.key(seed))
  actor_key = jax.random.fold_in(actors_key, stream)
  return jax.random.key_data(learner_key), jax.random.key_data(actor_key)
