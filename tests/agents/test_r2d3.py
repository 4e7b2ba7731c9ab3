"""R2D3: what it adds to R2D2, worked by hand, and its share of demonstrations."""

import dataclasses

import jax
import numpy as np
import pytest

import distacme
from distacme import learner_loop
from distacme import specs
from distacme import types
from distacme.agents import r2d3
from distacme.testing import agent_contract
from distacme.testing import demonstrations
from distacme.testing import environments

FIRST, MID, LAST = 0, 1, 2
SPEC = specs.make_environment_spec(environments.Catch(seed=0))
SMALL = r2d3.Config(
  n_step=2,
  burn_in_length=2,
  trace_length=4,
  period=2,
  hidden_sizes=(8,),
  lstm_size=8,
  batch_size=16,
  min_replay_size=5,
  demonstration_ratio=0.25,
)
KEY = jax.random.key_data(jax.random.key(0))


def make(**changes):
  return r2d3.make_agent(dataclasses.replace(SMALL, **changes), SPEC)


@pytest.mark.parametrize('ratio', [0.25, 1.0])
def test_it_keeps_the_contract(ratio):
  agent = make(demonstration_ratio=ratio, batch_size=4)
  # Without jit it is R2D2.
  agent_contract.check_agent(agent, SPEC, without_jit=False)


def test_weights_correct_for_priorities_within_each_table_alone():
  probability = np.float32([0.1, 0.4, 0.02, 0.08])
  batch = types.Batch((), probability, np.int32([1, 1, 0, 0]))
  agent = make(importance_exponent=0.5)
  weights = agent.importance_weights(batch)
  # The table of the first two is drawn from more often, which is wanted.
  np.testing.assert_allclose(weights, [1.0, 0.5, 1.0, 0.5], rtol=1e-6)
  of_one = agent.importance_weights(batch._replace(table=np.int32([0] * 4)))
  np.testing.assert_allclose(of_one, np.sqrt(0.02 / probability), rtol=1e-6)


def loop_of(steps, **changes):
  loop = distacme.EnvironmentLoop(
    environments.Catch(seed=0),
    make(**changes),
    demonstrations=demonstrations.played(
      environments.Catch(seed=1), lambda board: 1, num_episodes=3
    ),
  )
  loop.run(num_steps=steps)
  return loop


def test_each_sequence_is_a_demonstration_with_the_chance_that_was_asked_for():
  loop = loop_of(400, samples_per_insert=16.0)
  metrics = loop.replay.metrics()
  assert metrics['sampled'] > 1000
  share = metrics['demonstrations/sampled'] / metrics['sampled']
  deviation = np.sqrt(0.25 * 0.75 / metrics['sampled'])
  assert abs(share - 0.25) < 4 * deviation
  assert metrics['demonstrations/inserted'] == 3 * 3  # sequences of an episode
  assert metrics['demonstrations/size'] == 3 * 3


def test_priorities_of_demonstrations_are_those_of_the_last_update():
  loop = loop_of(200)
  weights = loop.replay.held().tables['demonstrations'].arrays['weights']
  assert len(weights) == 9
  assert (weights != 1.0).all()  # with which all began


def test_a_ratio_of_one_needs_no_actors():
  spec = make(demonstration_ratio=1.0).replay
  assert not spec.needs_actors
  assert [table.name for table in spec.tables] == ['demonstrations']


# The memory at the start of a demonstrated sequence.


def test_it_is_what_the_network_makes_of_the_steps_before():
  """Burn-in with the params of the update is the memory of the whole episode.

  As far back as the burn-in reaches, and whatever start state is stored: replay has
  zeros for demonstrations.
  """
  agent = make()
  params = jax.jit(agent.initial_learner_state)(KEY).params
  random = np.random.default_rng(0)
  whole = random.normal(size=(1, 7, 10, 5)).astype(np.float32)
  first = np.array([[FIRST] + 6 * [MID]], np.int8)
  initial = agent._network.initial_state(1)
  # The whole episode, from its start with an empty memory.
  q_whole, _ = agent._network.unroll(
    params, KEY, whole, first == FIRST, initial
  )
  # Of 2 steps of burn-in the first is the episode's first.
  data = types.Sequence(whole, (), (), (), first, start_state=initial)
  q = agent.action_values(params, data, KEY)
  np.testing.assert_allclose(q, q_whole, rtol=2e-5, atol=2e-6)
  # A later sequence: from zeros, its burn-in is run by the same params.
  later = types.Sequence(
    whole[:, 2:], (), (), (), np.full((1, 5), MID, np.int8), start_state=initial
  )
  q_later = agent.action_values(params, later, KEY)
  _, memory = agent._network.unroll(
    params, KEY, whole[:, 2:4], np.zeros((1, 2), bool), initial
  )
  q_after, _ = agent._network.unroll(
    params, KEY, whole[:, 4:], np.zeros((1, 3), bool), memory
  )
  np.testing.assert_allclose(q_later[:, 2:], q_after, rtol=2e-5, atol=2e-6)
  # Other params have another memory: none is stored that could be old.
  other = jax.tree.map(lambda leaf: leaf * 1.5, params)
  assert np.any(agent.action_values(other, later, KEY)[:, 2:] != q_after)


def test_demonstrations_keep_the_end_of_their_episode():
  loop = learner_loop.LearnerLoop(
    SPEC,
    make(demonstration_ratio=1.0),
    demonstrations=demonstrations.played(
      environments.Catch(seed=1), lambda board: 1, num_episodes=3
    ),
  )
  ends = 0
  for _ in range(10):
    data, _ = loop.replay.sample()
    # The row before the first LAST is the step that ended the episode.
    last = data.step_type == LAST
    ended = last.any(axis=1)
    place = last.argmax(axis=1) - 1
    rows = np.flatnonzero(ended)
    np.testing.assert_array_equal(data.discount[rows, place[rows]], 0.0)
    assert (abs(data.reward[rows, place[rows]]) == 1.0).all()
    ends += len(rows)
  assert ends > 20


@pytest.mark.parametrize(
  ('changes', 'message'),
  [
    ({'demonstration_ratio': 0.0}, 'above 0 and at most 1, got 0.0. Use r2d2'),
    ({'demonstration_ratio': 1.5}, 'above 0 and at most 1, got 1.5'),
    ({'burn_in_length': 0}, 'burn_in_length must be at least 1'),
  ],
)
def test_settings_that_make_no_sense_are_refused(changes, message):
  with pytest.raises(ValueError, match=message):
    dataclasses.replace(SMALL, **changes)
