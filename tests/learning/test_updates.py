"""Several updates in one call: the same as one by one, and where not."""

import logging

import haiku as hk
import jax
import numpy as np
import pytest

from distacme import row_layout
from distacme import specs
from distacme import status as status_lib
from distacme import types
from distacme.acting import params
from distacme.agents import dqn
from distacme.agents import ppo
from distacme.learning import batches
from distacme.learning import learner
from distacme.learning import placement
from distacme.learning import updates
from distacme.run import run_state as run_state_lib
from distacme.run import seeding
from distacme.testing import environments as testing_environments
from distacme.testing import telling_agent
from tests import feeding

SPEC = specs.make_environment_spec(testing_environments.Catch(seed=0))
CONFIG = dqn.Config(hidden_sizes=(16,), batch_size=8, target_update_period=3)


def convolving(observation):
  """A network with a convolution inside of a function of its own."""
  image = observation[..., None]
  hidden = jax.jit(jax.nn.relu)(hk.Conv2D(2, 3)(image))
  return hk.Linear(3)(hidden.reshape(len(hidden), -1))


def parts(network=None):
  """Returns an agent, its first state and its rows' layout."""
  agent = dqn.make_agent(CONFIG, SPEC, network)
  state = agent.initial_learner_state(seeding.learner_key(0))
  return (
    agent,
    state,
    row_layout.row_layout(agent, SPEC, agent.actor_params(state)),
  )


class RandomSampler:
  """Gives the same batches to every learner that starts with one."""

  def __init__(self, agent, layout):
    self._random = np.random.default_rng(0)
    self._size = agent.replay.batch_size
    self._layout = layout
    self.keys = []
    self.priorities = {}
    self.calls = 0

  def sample(self):
    random, size = self._random, self._size
    rows = np.zeros(size, self._layout.dtype)
    data = self._layout.views(rows)
    for leaf in (data.observation, data.next_observation):
      leaf[:] = random.integers(0, 2, leaf.shape)
    data.action[:] = random.integers(0, 3, size)
    data.reward[:] = random.normal(size=size)
    data.discount[:] = 0.9
    key = np.arange(size, dtype=np.uint64) + np.uint64(size * len(self.keys))
    self.keys.append(key)
    chance = random.uniform(0.01, 0.1, size)
    version, table = np.zeros(size, np.int64), np.zeros(size, np.int32)
    return data, types.SampleInfo(key, chance, version, table)

  def update_priorities(self, info, priority):
    self.calls += 1
    self.priorities |= zip(info.key.tolist(), priority.tolist(), strict=True)


def learn(count, until, placement=None, state=None, **kwargs):
  """Returns a learner that has made `until` updates, and its sampler."""
  agent, initial, layout = parts()
  sampler = RandomSampler(agent, layout)
  made = learner.Learner(
    agent,
    batches.Batches(sampler, count, placement),
    params.LocalParams(),
    run_state_lib.RunState().reporter('learner'),
    initial if state is None else state,
    placement=placement,
    **kwargs,
  )
  while made.steps < until:
    assert made.step()
  return made, sampler


def test_updates_in_one_call_are_those_made_one_by_one():
  one, one_sampler = learn(1, 12)
  four, four_sampler = learn(4, 12)
  assert one.steps == four.steps == 12
  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6),
    one.state,
    four.state,
  )
  assert int(four.state.steps) == 12
  # Each batch has keys of its own, and every key its priority.
  assert (one_sampler.calls, four_sampler.calls) == (12, 3)
  assert list(four_sampler.priorities) == list(range(12 * 8))
  np.testing.assert_allclose(
    list(one_sampler.priorities.values()),
    list(four_sampler.priorities.values()),
    rtol=1e-3,
    atol=1e-5,
  )


def test_steps_counts_and_publications_are_in_updates(monkeypatch):
  monkeypatch.setattr(learner, '_METRICS_PERIOD_S', 0.0)

  class Sink:
    versions: list[int] = []

    def publish(self, version, nest):
      self.versions.append(version)

  run_state = run_state_lib.RunState()
  agent = telling_agent.TellingAgent()
  made = learner.Learner(
    agent,
    batches.Batches(feeding.ListSampler(*range(100)), 4),
    Sink(),
    run_state.reporter('learner'),
    agent.initial_learner_state(None),
    publish_period=10,
  )
  for _ in range(8):
    made.step()
  made.report(status_lib.WorkerState.LEARNING)
  status = run_state.status()
  assert made.steps == status.counts['learner_steps'] == 32
  assert Sink.versions == [0, 12, 20, 32]  # the first after 10, 20 and 30
  metrics = status.workers['learner'].metrics
  # The loss of the last update, and rates of updates and of items.
  assert metrics['loss'] == 4 * 31
  assert metrics['samples_per_second'] == pytest.approx(
    4 * metrics['learner_steps_per_second']
  )


def test_an_update_on_one_core_computes_the_same(monkeypatch):
  after = []
  for number in ('1', '2'):
    monkeypatch.setenv('NPROC', number)
    agent, state, layout = parts()
    sampler = RandomSampler(agent, layout)
    drawn = batches.Batches(sampler, 1).get()
    where = placement.Placement(CONFIG.batch_size)
    update = updates.compiled(agent, 1, where)
    after.append(jax.tree.leaves(update(state, drawn.batch)))
  for one, two in zip(*after, strict=True):
    np.testing.assert_allclose(one, two, rtol=1e-5, atol=1e-6)


def test_an_update_with_a_convolution_is_made_alone_on_the_cpu(caplog):
  with caplog.at_level(logging.INFO):
    assert updates.choose_count(8, *parts(convolving), platform='cpu') == 1
  assert 'updates_per_call=8 is taken for 1' in caplog.text
  assert updates.choose_count(8, *parts(convolving), platform='gpu') == 8
  assert updates.choose_count(8, *parts(), platform='cpu') == 8


def test_a_convolution_is_found_however_deep_it_lies():
  def deep(x):
    def body(carry, _):
      branches = [lambda y: y, lambda y: jax.numpy.convolve(y, y, 'same')]
      return jax.lax.switch(1 * (carry.sum() > 0), branches, carry), None

    return jax.jit(jax.checkpoint(lambda y: jax.lax.scan(body, y, None, 3)))(x)

  agent, state, layout = parts()
  agent.update = lambda state, batch: deep(batch.data.reward)
  assert updates.choose_count(2, agent, state, layout, 'cpu') == 1


def test_more_batches_than_replay_lets_go_at_once_are_refused():
  config = dqn.Config(
    batch_size=8, min_replay_size=100, samples_per_insert=4.0, error_buffer=20.0
  )
  agent = dqn.make_agent(config, SPEC)
  updates.check_count(4, agent)
  with pytest.raises(
    ValueError,
    match='updates_per_call=5 draws 5 x 8 samples .* that is 44, more than the '
    '40 by which .* Set error_buffer=22 or more, or lower updates_per_call',
  ):
    updates.check_count(5, agent)


def test_more_batches_than_a_queue_holds_are_refused():
  agent = ppo.make_agent(ppo.Config(queue_size=16), SPEC)
  with pytest.raises(
    ValueError,
    match=r'updates_per_call=2 .* Let the queue hold 17 \(queue_size',
  ):
    updates.check_count(2, agent)
