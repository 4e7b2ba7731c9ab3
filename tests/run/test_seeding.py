"""One seed of any size decides all keys of a run."""

import jax
import numpy as np
import pytest

from distacme.run import seeding

SMALL = (0, 1, 7, 2**31 - 1, 2**31, 2**32 - 1)
LARGE = (2**32, 2**32 + 1, 2**33, 2**63, 2**64, 2**64 + 2**32, 10**50)


@pytest.mark.parametrize('seed', SMALL)
def test_small_seeds_have_the_keys_of_jax(seed):
  for_learner, for_actors = jax.random.split(jax.random.key(seed))
  for key, expected in (
    (seeding.learner_key(seed), for_learner),
    (seeding.actor_key(seed, 3), jax.random.fold_in(for_actors, 3)),
  ):
    np.testing.assert_array_equal(key, jax.random.key_data(expected))


def test_all_bits_of_a_seed_count():
  keys = set()
  for seed in SMALL + LARGE:
    keys.add(tuple(np.asarray(seeding.learner_key(seed)).tolist()))
    for stream in (0, 1):
      keys.add(tuple(np.asarray(seeding.actor_key(seed, stream)).tolist()))
  assert len(keys) == 3 * len(SMALL + LARGE)


def test_a_negative_seed_is_refused():
  with pytest.raises(ValueError, match='seed must be at least 0, got -1'):
    seeding.actor_key(-1)
