"""The policy: newest params, a new key for every call, states by row."""

import jax
import numpy as np
import pytest

from distacme import types
from distacme.acting import params
from distacme.acting import policy
from distacme.testing import telling_agent

OBSERVATION = np.zeros((3, 2), np.float32)
FIRST, GOES_ON = np.ones(3, bool), np.zeros(3, bool)


def key(seed=0):
  return jax.random.key_data(jax.random.key(seed))


def make(seed=0, version=0, streams=None, agent=None):
  agent, source = agent or telling_agent.TellingAgent(), params.LocalParams()
  made = policy.CompiledPolicy(agent, source, 3, key(seed), streams)
  if version is not None:
    publish(source, version)
  return made, source, agent


def publish(source, version):
  rewards = np.full(2, 10.0 * version, np.float32)
  source.publish(version, {'version': np.int32(version), 'rewards': rewards})


def test_it_acts_with_the_newest_params_and_tells_their_version():
  acting, source, _ = make(version=None)
  assert acting.version == -1
  for version in (3, 7):
    publish(source, version)
    output = acting.act(OBSERVATION, GOES_ON)
    assert acting.version == version
    np.testing.assert_array_equal(output.action, [version] * 3)
    np.testing.assert_array_equal(output.values['rewards'], 10.0 * version)


def test_it_acts_once_there_are_params():
  acting, source, _ = make(version=None)
  with pytest.raises(RuntimeError, match='no params yet: wait for the first'):
    acting.act(OBSERVATION, FIRST)
  publish(source, 0)
  acting.act(OBSERVATION, FIRST)


def test_params_go_to_the_device_once_for_each_version(monkeypatch):
  acting, source, _ = make()
  put, device_put = [], jax.device_put

  def counted(value):
    put.append(value)
    return device_put(value)

  monkeypatch.setattr(jax, 'device_put', counted)
  for version in (0, 1):
    publish(source, version)
    for _ in range(5):
      acting.act(OBSERVATION, GOES_ON)
    publish(source, version)  # the same version again
    acting.act(OBSERVATION, GOES_ON)
  assert [int(p['version']) for p in put] == [0, 1]


def test_no_key_is_used_twice():
  acting, _, _ = make()
  calls = 2 * policy._KEYS_PER_BLOCK + 10
  used = [key().tolist()]
  for _ in range(calls):
    keys = acting.act(OBSERVATION, GOES_ON).values['key']
    np.testing.assert_array_equal(keys[0], keys[2])
    used.append(keys[0].tolist())
  assert len({tuple(k) for k in used}) == calls + 1


def test_keys_follow_from_the_first_one_alone():
  def keys(seed):
    acting, _, _ = make(seed)
    return [acting.act(OBSERVATION, FIRST).values['key'][0] for _ in range(9)]

  np.testing.assert_array_equal(keys(1), keys(1))
  assert not np.isin(keys(1), keys(2)).any()


def test_the_state_of_a_row_is_reset_where_an_episode_starts():
  acting, _, _ = make()
  first = [[1, 1, 1], [0, 0, 0], [0, 1, 0], [0, 0, 0], [1, 0, 0]]
  steps = [
    acting.act(OBSERVATION, np.array(row, bool)).values['steps'].tolist()
    for row in first
  ]
  assert steps == [[0, 0, 0], [1, 1, 1], [2, 0, 2], [3, 1, 3], [0, 2, 4]]


def test_it_is_compiled_once_whatever_changes():
  acting, source, agent = make()
  for version in range(5):
    publish(source, version)
    acting.act(OBSERVATION + version, FIRST if version % 2 else GOES_ON)
  assert agent.traces == 1


def test_what_comes_out_are_numpy_arrays_without_the_state():
  acting, _, _ = make()
  for _ in range(2):
    output = acting.act(OBSERVATION, FIRST)
    assert output.state == ()
    assert {type(leaf) for leaf in jax.tree.leaves(output)} == {np.ndarray}
    assert output.values['rewards'].shape == (3, 2)


def test_the_agent_is_told_which_environments_act():
  assert make()[2].streams is None
  streams = types.Streams(np.arange(3), 9)
  assert make(streams=streams)[2].streams is streams


def test_a_state_of_another_form_is_refused_and_both_are_named():
  class Forgetful(telling_agent.TellingAgent):
    def act(self, params, key, observation, state):
      output = super().act(params, key, observation, state)
      return output._replace(state={'count': output.state * 1.0})

  acting, _, _ = make(agent=Forgetful())
  message = r'given the state int32\[3\] and returned .*count.*float32\[3\]'
  with pytest.raises(TypeError, match=message):
    acting.act(OBSERVATION, FIRST)
