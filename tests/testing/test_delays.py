"""Params that come late are late by as much as was asked."""

import jax
import numpy as np
import pytest

import distacme
from distacme import specs
from distacme.agents import impala
from distacme.testing import delays
from distacme.testing import environments


@pytest.mark.parametrize('delay', [0, 1, 3])
def test_what_is_seen_was_published_so_many_times_ago(delay):
  params = delays.DelayedParams(delay)
  assert params.newest() is None
  for version in range(0, 100, 10):
    params.publish(version, {'w': version})
    expected = max(0, version - 10 * delay)
    assert params.newest() == (expected, {'w': expected})


def test_a_delay_into_the_future_is_refused():
  with pytest.raises(ValueError, match='must not be negative, got -1'):
    delays.DelayedParams(-1)


def test_an_actor_of_a_loop_acts_with_late_params():
  game = environments.Catch(seed=0)
  config = impala.Config(
    hidden_sizes=(4,), unroll_length=3, batch_size=2, queue_size=2
  )
  agent = impala.make_agent(config, specs.make_environment_spec(game))
  loop = distacme.EnvironmentLoop(game, agent, params=delays.DelayedParams(5))
  seen, states = [], []
  for _ in range(100):
    while len(states) <= loop.learner.steps:
      states.append(jax.tree.map(np.array, loop.learner.state.params))
    seen.append(loop.params.newest())
    loop.step()
    newest = loop.params.newest()
    assert newest.version == max(0, loop.learner.steps - 5)
  assert loop.learner.steps > 10
  for version, params in seen:
    jax.tree.map(np.testing.assert_array_equal, params, states[version])
