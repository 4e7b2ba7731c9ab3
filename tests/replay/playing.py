"""Runs of a vector of environments, and what a writer makes of them."""

import types as python_types
from typing import NamedTuple

import dm_env
import hypothesis
from hypothesis import strategies as st
import numpy as np
import tree

from distacme import replay_spec
from distacme import specs
from distacme import types
from distacme.replay.items import rows as rows_lib
from distacme.replay.writers import factory

FIRST, MID, LAST = dm_env.StepType

SPEC = specs.EnvironmentSpec(
  observations={
    'time': specs.Array((), np.int32),
    'deep': (specs.Array((2,), np.float32), specs.Array((3,), np.uint8)),
  },
  actions={'turn': specs.DiscreteArray(9), 'push': specs.Array((2,), float)},
  rewards=specs.Array((), np.float32),
  discounts=specs.BoundedArray((), np.float32, 0.0, 1.0),
)


class Moment(NamedTuple):
  """One TimeStep of one environment; `time` counts them from 0."""

  env: int
  time: int
  kind: dm_env.StepType
  reward: float
  discount: float

  @property
  def name(self):
    return 100 * self.env + self.time

  @property
  def observation(self):
    place = np.array([self.env, self.time], np.float32)
    image = np.array([self.env, self.time, 255], np.uint8)
    return {'time': np.int32(self.name), 'deep': (place, image)}

  @property
  def action(self):
    push = np.array([self.time, -1.0])
    return {'turn': np.int32(self.time % 9), 'push': push}

  @property
  def state(self):
    return np.array([self.time, -1.0], np.float32), np.int32(self.name)

  @property
  def version(self):
    return self.time // 3


class Run(NamedTuple):
  """The moments of all environments of a vector."""

  environments: list[list[Moment]]

  @property
  def steps(self):
    """Moments that were acted on and were not the last of an episode."""
    return [
      moment
      for environment in self.environments
      for moment in environment[:-1]
      if moment.kind != LAST
    ]

  def of(self, name):
    return self.environments[name // 100][name % 100]


@st.composite
def runs(draw):
  num_envs = draw(st.integers(1, 4))
  calls = draw(st.integers(1, 40))
  rewards = st.sampled_from([0.0, 1.0, -2.0, 0.5])
  episodes = st.lists(
    st.tuples(st.integers(1, 12), st.booleans()), min_size=1, max_size=4
  )
  environments = []
  for env in range(num_envs):
    moments = []
    lengths = draw(episodes)
    reward = draw(st.lists(rewards, min_size=1, max_size=7))
    middle = draw(st.sampled_from([1.0, 1.0, 0.5]))  # the environment's own
    while len(moments) <= calls:
      length, truncated = lengths[len(moments) % len(lengths)]
      moments.append(Moment(env, len(moments), FIRST, 0.0, 1.0))
      for step in range(1, length + 1):
        time = len(moments)
        kind = LAST if step == length else MID
        discount = middle if kind == MID else float(truncated)
        moments.append(
          Moment(env, time, kind, reward[time % len(reward)], discount)
        )
    environments.append(moments[: calls + 1])
  return Run(environments)


def check(max_examples=60, **strategies):
  """Decorates a property of runs."""

  def decorate(function):
    given = hypothesis.given(run=runs(), **strategies)(function)
    return hypothesis.settings(max_examples=max_examples, deadline=None)(given)

  return decorate


class Collector:
  """An inserter that keeps what it gets, and at which append."""

  blocked_s = 0.0

  def __init__(self, layout):
    self.layout = layout
    self.items, self.priorities, self.calls = [], [], []
    self.call = 0
    self.closed = False

  def insert(self, rows, priorities, frames=None):
    assert rows.ndim == 2
    self.items += list(rows)
    self.priorities += list(priorities)
    self.calls += [self.call] * len(rows)

  def close(self):
    self.closed = True

  @property
  def rows(self):
    if not self.items:
      return np.empty(0, self.layout.dtype)
    return np.concatenate(self.items)

  @property
  def data(self):
    return self.layout.views(self.rows)


def stack(nests):
  return tree.map_structure(lambda *leaves: np.stack(leaves), *nests)


def play(run, window, first_priority=None, block_size=1):
  """Writes a run, and returns what was inserted."""
  collector, writer = make_writer(
    window, len(run.environments), first_priority, block_size
  )
  times = list(zip(*run.environments, strict=True))
  for call, (now, then) in enumerate(zip(times[:-1], times[1:], strict=True)):
    collector.call = call
    writer.append(timestep(now), act(now), timestep(then), now[0].version)
  collector.call = len(times) - 1
  writer.close()
  return collector


def play_overwriting(window):
  """Writes one step whose first observation is overwritten afterwards."""
  collector, writer = make_writer(window, 1)
  now, then = Moment(0, 0, FIRST, 0, 1), Moment(0, 1, LAST, 0, 1)
  before = timestep([now])
  writer.append(before, act([now]), timestep([then]), 0)
  before.observation['time'][:] = 8
  writer.close()
  return collector


def make_writer(window, num_envs, first_priority=None, block_size=1):
  spec = replay_spec.single(
    window,
    batch_size=block_size,
    max_size=10_000,
    min_size=1,
    samples_per_insert=1.0,
    priority_exponent=1.0 if first_priority else 0.0,
    block_size=block_size,
  )
  agent = python_types.SimpleNamespace(
    replay=spec, first_priority=first_priority
  )
  layout = rows_lib.make_layout(
    window,
    SPEC,
    extras={'note': specs.Array((), np.int64)},
    start_state=(specs.Array((2,), np.float32), specs.Array((), np.int32)),
  )
  collector = Collector(layout)
  return collector, factory.make_writer(agent, layout, num_envs, collector)


def act(moments):
  # Ignored actions and what comes with them are there, and must not show.
  a = np.array([moment.name for moment in moments], np.float64)
  return types.ActorOutput(
    action=stack([moment.action for moment in moments]),
    extras={'note': a.astype(np.int64)},
    start_state=stack([moment.state for moment in moments]),
    values={'a': a, 'b': np.stack([-a, a], axis=1)},
  )


def timestep(moments):
  return dm_env.TimeStep(
    np.array([moment.kind for moment in moments]),
    np.array([moment.reward for moment in moments], np.float32),
    np.array([moment.discount for moment in moments], np.float32),
    stack([moment.observation for moment in moments]),
  )
