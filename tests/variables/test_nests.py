"""Params on their way: what leaves is what arrives."""

import jax
import numpy as np
import pytest

from distacme.variables import nests

NEST = {
  'torso/~/linear_0': {'w': np.ones((2, 3), np.float32), 'b': np.zeros(3)},
  'a"\\[odd], name': {'': {'ü': np.int32(3)}},
  'counter': np.uint8(7),
}


def assert_same(a, b):
  assert jax.tree.structure(a) == jax.tree.structure(b)
  jax.tree.map(np.testing.assert_array_equal, a, b)


def test_unflatten_undoes_flatten():
  assert_same(nests.unflatten(nests.flatten(NEST)), NEST)


def test_names_are_distinct_whatever_the_keys():
  nest = {'a': {'b/c': np.zeros(1)}, 'a/b': {'c': np.ones(1)}}
  flat = nests.flatten(nest)
  assert len(flat) == 2
  assert_same(nests.unflatten(flat), nest)


def test_an_agent_without_params_publishes_an_empty_dict():
  assert nests.unflatten(nests.flatten({})) == {}


@pytest.mark.parametrize(
  ('nest', 'message'),
  [
    ({'a': [np.zeros(1)]}, r"got list under \['a'\]. Let actor_params return"),
    ({'a': {'b': (np.zeros(1),)}}, r"got tuple under \['a', 'b'\]"),
    ({'a': 3.0}, r"got float under \['a'\]"),
    ({'a': None}, r"got NoneType under \['a'\]"),
    ({'a': {3: np.zeros(1)}}, r"string keys, got the key 3 under \['a'\]"),
    ({'a': {}}, r"an empty dict, as under \['a'\]"),
    (np.zeros(1), r'got ndarray under \[\]'),
  ],
)
def test_what_could_not_be_rebuilt_is_refused(nest, message):
  with pytest.raises(TypeError, match=message):
    nests.flatten(nest)
