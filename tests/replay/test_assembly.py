"""What an actor's steps become, against a reference that counts on fingers."""

from typing import NamedTuple

import dm_env
import hypothesis
from hypothesis import strategies as st
import numpy as np
import pytest
import tree

from distacme import specs
from distacme import types
from distacme.replay import assembly
from distacme.replay import records
from distacme.replay import spec as replay_spec

FIRST, MID, LAST = dm_env.StepType

LAYOUT = records.RowLayout(
  specs.EnvironmentSpec(
    observations={
      'time': specs.Array((), np.int32),
      'deep': (specs.Array((2,), np.float32), specs.Array((3,), np.uint8)),
    },
    actions={'turn': specs.DiscreteArray(9), 'push': specs.Array((2,), float)},
    rewards=specs.Array((), np.float32),
    discounts=specs.BoundedArray((), np.float32, 0.0, 1.0),
  ),
  extras={'note': specs.Array((), np.int64)},
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
  def version(self):
    return self.time // 3


class Run(NamedTuple):
  """What all environments of a vector went through."""

  n: int
  gamma: float
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
  n = draw(st.integers(1, 6))
  return Run(n, draw(st.sampled_from([0.0, 0.5, 0.9, 1.0])), environments)


def check(max_examples=60):
  """Decorates a property of runs."""

  def decorate(function):
    given = hypothesis.given(run=runs())(function)
    return hypothesis.settings(max_examples=max_examples, deadline=None)(given)

  return decorate


class Collector:
  """An inserter that keeps what it gets, and at which append."""

  blocked_s = 0.0

  def __init__(self):
    self.items, self.priorities, self.calls = [], [], []
    self.call = 0
    self.closed = False

  def insert(self, rows, priorities):
    assert rows.ndim == 2
    self.items += list(rows)
    self.priorities += list(priorities)
    self.calls += [self.call] * len(rows)

  def close(self):
    self.closed = True

  @property
  def rows(self):
    if not self.items:
      return np.empty(0, LAYOUT.dtype)
    return np.concatenate(self.items)

  @property
  def transitions(self):
    return LAYOUT.views(self.rows)


def remember_ends(reward, discount, first, last):
  """A first priority from which the values at both ends can be read."""
  assert reward.shape == discount.shape == first['a'].shape == last['a'].shape
  np.testing.assert_array_equal(first['b'][:, 1], first['a'])
  np.testing.assert_array_equal(last['b'][:, 1], last['a'])
  return first['a'] * 1000.0 + last['a']


def stack(nests):
  return tree.map_structure(lambda *leaves: np.stack(leaves), *nests)


def play(run, first_priority=None, block_size=1):
  """Writes a run, and returns what was inserted."""
  spec = replay_spec.ReplaySpec(
    replay_spec.NStep(run.n, run.gamma),
    batch_size=block_size,
    max_size=10_000,
    min_size=1,
    samples_per_insert=1.0,
    priority_exponent=1.0 if first_priority else 0.0,
    first_priority=first_priority,
    block_size=block_size,
  )
  collector = Collector()
  writer = assembly.NStepWriter(spec, LAYOUT, len(run.environments), collector)
  times = list(zip(*run.environments, strict=True))
  for call, (now, then) in enumerate(zip(times[:-1], times[1:], strict=True)):
    collector.call = call
    # Ignored actions and what comes with them are there, and must not show.
    a = np.array([moment.name for moment in now], np.float64)
    output = types.ActorOutput(
      action=stack([moment.action for moment in now]),
      extras={'note': a.astype(np.int64)},
      values={'a': a, 'b': np.stack([-a, a], axis=1)},
    )
    writer.append(timestep(now), output, timestep(then), now[0].version)
  collector.call = len(times) - 1
  writer.close()
  return collector


def timestep(moments):
  return dm_env.TimeStep(
    np.array([moment.kind for moment in moments]),
    np.array([moment.reward for moment in moments], np.float32),
    np.array([moment.discount for moment in moments], np.float32),
    stack([moment.observation for moment in moments]),
  )


class Window(NamedTuple):
  first: Moment
  last: Moment
  reward: float
  discount: float
  priority: float
  call: int


def reference(run):
  """Returns the windows of each environment, in the order they are due."""
  windows = []
  for moments in run.environments:
    for start in moments:
      if start.kind == LAST:
        continue
      taken = []
      for moment in moments[start.time + 1 : start.time + 1 + run.n]:
        taken.append(moment)
        if moment.kind == LAST:
          break
      if not taken or (len(taken) < run.n and taken[-1].kind != LAST):
        continue  # the run ended first
      reward = 0.0
      discount = 1.0
      for moment in taken:
        reward += discount * moment.reward
        discount *= run.gamma * moment.discount
      end = taken[-1]
      acted_on = end.kind != LAST and end is not moments[-1]
      stand_in = end if acted_on else moments[end.time - 1]
      windows.append(
        Window(
          start,
          end,
          reward,
          discount,
          priority=start.name * 1000.0 + stand_in.name,
          call=end.time - 1 if end.kind == LAST else end.time,
        )
      )
  return windows


def by_environment(collector):
  """Returns indices of the inserted rows: by environment, else as they came."""
  names = collector.transitions.observation['time'] // 100
  return np.argsort(names, kind='stable')


@check(max_examples=150)
def test_transitions_equal_the_reference_in_order(run):
  collector, windows = play(run), reference(run)
  rows = collector.rows[by_environment(collector)]
  assert len(rows) == len(windows)
  if not windows:
    return
  got = LAYOUT.views(rows)
  want = types.Transition(
    observation=stack([w.first.observation for w in windows]),
    action=stack([w.first.action for w in windows]),
    reward=np.array([w.reward for w in windows], np.float32),
    discount=np.array([w.discount for w in windows], np.float32),
    next_observation=stack([w.last.observation for w in windows]),
    extras={'note': np.array([w.first.name for w in windows])},
  )
  tree.map_structure(
    lambda a, b: np.testing.assert_allclose(a, b, 1e-5, 1e-5), got, want
  )


def ends(run, transitions):
  """Yields the moments at both ends of inserted windows, and the rest."""
  for first, last, reward, discount in zip(
    transitions.observation['time'],
    transitions.next_observation['time'],
    transitions.reward,
    transitions.discount,
    strict=True,
  ):
    yield run.of(first), run.of(last), reward, discount


@check()
def test_a_terminated_step_never_bootstraps(run):
  for _, last, _, discount in ends(run, play(run).transitions):
    if last.kind == LAST and last.discount == 0.0:
      assert discount == 0.0


@check()
def test_a_truncated_step_bootstraps_with_the_steps_that_happened(run):
  for first, last, _, discount in ends(run, play(run).transitions):
    if last.kind == LAST and last.discount == 1.0:
      between = run.environments[first.env][first.time + 1 : last.time]
      want = run.gamma ** (last.time - first.time)
      want *= np.prod([moment.discount for moment in between])
      assert discount == pytest.approx(want, rel=1e-5)


@check()
def test_no_window_leaks_into_the_next_episode(run):
  for first, last, _, _ in ends(run, play(run).transitions):
    assert first.env == last.env
    inside = run.environments[first.env][first.time + 1 : last.time + 1]
    assert FIRST not in [moment.kind for moment in inside]
    assert LAST not in [moment.kind for moment in inside[:-1]]


@check()
def test_windows_near_an_end_are_shortened_and_not_dropped(run):
  short = {
    first.name
    for first, last, _, _ in ends(run, play(run).transitions)
    if last.kind == LAST
  }
  for moments in run.environments:
    for end in moments:
      if end.kind == LAST:
        steps = moments[max(end.time - run.n, 0) : end.time]
        starts = [m.time for m in steps if m.kind == FIRST]
        for step in steps:
          if not starts or step.time >= starts[-1]:
            assert step.name in short


@check()
def test_each_step_starts_one_window_but_for_those_not_yet_full(run):
  started = [f.name for f, _, _, _ in ends(run, play(run).transitions)]
  assert len(set(started)) == len(started)
  missing = {step.name for step in run.steps} - set(started)
  for name in missing:
    rest = run.environments[name // 100][name % 100 :]
    assert len(rest) <= run.n
    assert LAST not in [moment.kind for moment in rest]


@check()
def test_the_params_version_is_that_of_the_windows_first_step(run):
  rows = play(run).rows
  first = rows['observation/time'] % 100
  np.testing.assert_array_equal(rows[records.PARAMS_VERSION], first // 3)


@check(max_examples=120)
def test_first_priorities_use_the_values_at_both_ends_when_they_are_known(run):
  collector, windows = play(run, remember_ends), reference(run)
  order = by_environment(collector)
  priorities = [collector.priorities[i] for i in order]
  assert priorities == [window.priority for window in windows]
  calls = [collector.calls[i] for i in order]
  assert calls == [window.call for window in windows]


@check()
def test_first_priorities_get_the_reward_and_discount_of_their_window(run):
  def priority(reward, discount, first, last):
    return 100.0 + reward * 10.0 + discount

  collector = play(run, priority)
  rows = collector.rows
  want = 100.0 + rows['reward'] * 10.0 + rows['discount']
  np.testing.assert_allclose(collector.priorities, want)


@check()
def test_priorities_change_neither_rows_nor_their_order(run):
  with_priorities, without = play(run, remember_ends), play(run)
  np.testing.assert_array_equal(
    with_priorities.rows[by_environment(with_priorities)],
    without.rows[by_environment(without)],
  )


@check()
@pytest.mark.parametrize('block_size', [2, 5])
def test_blocks_hold_the_same_rows_in_the_same_order(run, block_size):
  blocks, rows = play(run, block_size=block_size), play(run).rows
  assert {len(item) for item in blocks.items} <= {block_size}
  whole = len(rows) // block_size * block_size
  np.testing.assert_array_equal(blocks.rows, rows[:whole])
  assert blocks.priorities == [1.0] * (whole // block_size)


def test_later_steps_do_not_change_rows_that_were_inserted():
  moments = [Moment(0, 0, FIRST, 0.0, 1.0)]
  moments += [Moment(0, time, MID, 1.0, 1.0) for time in range(1, 20)]
  run = Run(2, 0.5, [moments])
  times = play(run).rows['observation/time']
  np.testing.assert_array_equal(times, np.arange(18))


def test_an_observation_that_is_overwritten_later_is_kept():
  observation = {
    'time': np.array([7], np.int32),
    'deep': (np.ones((1, 2), np.float32), np.ones((1, 3), np.uint8)),
  }
  run = Run(1, 1.0, [[Moment(0, 0, FIRST, 0, 1), Moment(0, 1, MID, 0, 1)]])
  spec = replay_spec.ReplaySpec(replay_spec.NStep(1, 1.0), 1, 9, 1, 1.0)
  collector = Collector()
  writer = assembly.NStepWriter(spec, LAYOUT, 1, collector)
  (now,), (then,) = zip(*run.environments, strict=True)
  output = types.ActorOutput(
    stack([now.action]), extras={'note': np.zeros(1, np.int64)}
  )
  before = timestep([now])._replace(observation=observation)
  writer.append(before, output, timestep([then]), 0)
  observation['time'][:] = 8
  assert collector.rows['observation/time'] == [7]


def test_closing_the_writer_closes_the_inserter():
  run = Run(3, 1.0, [[Moment(0, 0, FIRST, 0, 1), Moment(0, 1, MID, 0, 1)]])
  assert play(run).closed
