"""Params on their way: what leaves is what arrives."""

import jax
import numpy as np
import pytest

from distacme.acting import params
from distacme.variables import wire as wire_lib

NEST = {
  'torso/~/linear_0': {'w': np.ones((2, 3), np.float32), 'b': np.zeros(3)},
  'a"\\[odd], name': {'': {'ü': np.int32(3)}},
  'counter': np.uint8(7),
}


def assert_same(a, b):
  assert jax.tree.structure(a) == jax.tree.structure(b)
  jax.tree.map(np.testing.assert_array_equal, a, b)


def test_unflatten_undoes_flatten():
  assert_same(params.unflatten(params.flatten(NEST)), NEST)


def test_names_are_distinct_whatever_the_keys():
  nest = {'a': {'b/c': np.zeros(1)}, 'a/b': {'c': np.ones(1)}}
  flat = params.flatten(nest)
  assert len(flat) == 2
  assert_same(params.unflatten(flat), nest)


def test_an_agent_without_params_publishes_an_empty_dict():
  assert params.unflatten(params.flatten({})) == {}


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
    params.flatten(nest)


class Wire:
  """Carries arrays from one end to the other."""

  def __init__(self):
    self.published = None

  def publish(self, version, names, arrays):
    assert all(isinstance(array, np.ndarray) for array in arrays)
    self.published = wire_lib.VersionedArrays(version, names, arrays)

  def newest(self):
    return self.published


def test_remote_params_arrive_with_their_version():
  wire = Wire()
  learner, actor = params.RemoteParams(wire), params.RemoteParams(wire)
  assert actor.newest() is None
  newer = jax.tree.map(lambda leaf: leaf + 1, NEST)
  for version, nest in ((3, NEST), (4, newer)):
    learner.publish(version, nest)
    received = actor.newest()
    assert received.version == version
    assert_same(received.params, nest)


def test_a_version_is_rebuilt_once():
  wire = Wire()
  params.RemoteParams(wire).publish(0, NEST)
  actor = params.RemoteParams(wire)
  assert actor.newest() is actor.newest()


def test_local_params_are_handed_over_as_they_are():
  local = params.LocalParams()
  assert local.newest() is None
  local.publish(2, NEST)
  assert local.newest().version == 2
  assert local.newest().params is NEST
