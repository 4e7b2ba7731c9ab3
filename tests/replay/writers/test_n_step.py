"""An actor's steps become the transitions that a brute-force reference cuts."""

from typing import NamedTuple

from hypothesis import strategies as st
import numpy as np
import pytest
import tree

from distacme import replay_spec
from distacme import types
from distacme.replay.items import rows as rows_lib
from distacme.replay.writers import factory
from distacme.replay.writers import inserter
from tests.replay import playing
from tests.replay.playing import FIRST
from tests.replay.playing import LAST
from tests.replay.playing import MID
from tests.replay.playing import Moment
from tests.replay.playing import play
from tests.replay.playing import play_overwriting
from tests.replay.playing import stack


def check(max_examples=60):
  """Decorates a property of runs and n-step windows."""
  several = st.sets(st.integers(1, 6), min_size=1, max_size=3)
  n = st.one_of(st.integers(1, 6), several.map(sorted).map(tuple))
  windows = st.builds(
    replay_spec.NStep, n, st.sampled_from([0.0, 0.5, 0.9, 1.0])
  )
  return playing.check(max_examples, window=windows)


def remember_ends(window, values):
  """A first priority from which the values at all moments can be read."""
  size = len(window.reward)
  ends = window.reward[:1].size
  assert window.reward.shape == window.discount.shape
  assert [each['a'].shape for each in values] == [(size,)] * (1 + ends)
  for each in values:
    np.testing.assert_array_equal(each['b'][..., 1], each['a'])
  moments = np.stack([each['a'] for each in values], axis=1)
  return moments @ 1000.0 ** np.arange(ends, -1, -1)


class End(NamedTuple):
  """Of a window, after one of its numbers of steps or where it was cut."""

  last: Moment
  reward: float
  discount: float
  stand_in: Moment  # whose values are those of `last`


class Window(NamedTuple):
  first: Moment
  ends: list[End]
  call: int

  @property
  def priority(self):
    moments = [self.first, *[end.stand_in for end in self.ends]]
    names = [moment.name for moment in moments]
    return float(sum(n * 1000**i for i, n in enumerate(names[::-1])))


def reference(run, window):
  """Returns the windows of each environment, in the order they are due."""
  windows = []
  for moments in run.environments:
    for start in moments:
      if start.kind == LAST:
        continue
      ends = [end_of(moments, start, n, window) for n in window.lengths]
      last = ends[-1].last
      if last.kind != LAST and last.time < start.time + window.lengths[-1]:
        continue  # the run ended first
      call = last.time - 1 if last.kind == LAST else last.time
      windows.append(Window(start, ends, call))
  return windows


def end_of(moments, start, n, window):
  reward, discount, last = 0.0, 1.0, start
  for last in moments[start.time + 1 : start.time + 1 + n]:
    reward += discount * last.reward
    discount *= window.discount * last.discount
    if last.kind == LAST:
      break
  acted_on = last.kind != LAST and last is not moments[-1]
  stand_in = last if acted_on else moments[last.time - 1]
  return End(last, reward, discount, stand_in)


def by_environment(collector):
  """Returns indices of the inserted rows: by environment, else as they came."""
  names = collector.data.observation['time'] // 100
  return np.argsort(names, kind='stable')


@check(max_examples=150)
def test_transitions_equal_the_reference_in_order(run, window):
  collector, windows = play(run, window), reference(run, window)
  rows = collector.rows[by_environment(collector)]
  assert len(rows) == len(windows)
  if not windows:
    return
  got = collector.layout.views(rows)
  want = types.Transition(
    observation=stack([w.first.observation for w in windows]),
    action=stack([w.first.action for w in windows]),
    reward=np.array([[e.reward for e in w.ends] for w in windows], np.float32),
    discount=np.array([[e.discount for e in w.ends] for w in windows]),
    next_observation=stack(
      [stack([e.last.observation for e in w.ends]) for w in windows]
    ),
    extras={'note': np.array([w.first.name for w in windows])},
  )
  if isinstance(window.n, int):  # There is no axis of ends.
    assert (
      got.reward.shape == got.next_observation['time'].shape == (len(rows),)
    )
    want = want._replace(
      reward=want.reward[:, 0],
      discount=want.discount[:, 0],
      next_observation=tree.map_structure(
        lambda leaf: leaf[:, 0], want.next_observation
      ),
    )
  tree.map_structure(
    lambda a, b: np.testing.assert_allclose(a, b, 1e-5, 1e-5), got, want
  )


def ends(run, transitions):
  """Yields the moments at both sides of each end of windows, and the rest."""
  size = len(transitions.reward)
  count = transitions.reward[:1].size
  at_ends = (
    transitions.next_observation['time'],
    transitions.reward,
    transitions.discount,
  )
  for first, *row in zip(
    transitions.observation['time'],
    *[leaf.reshape(size, count) for leaf in at_ends],
    strict=True,
  ):
    for last, reward, discount in zip(*row, strict=True):
      yield run.of(first), run.of(last), reward, discount


@check()
def test_a_terminated_step_never_bootstraps(run, window):
  for _, last, _, discount in ends(run, play(run, window).data):
    if last.kind == LAST and last.discount == 0.0:
      assert discount == 0.0


@check()
def test_a_truncated_step_bootstraps_with_the_steps_that_happened(run, window):
  for first, last, _, discount in ends(run, play(run, window).data):
    if last.kind == LAST and last.discount == 1.0:
      between = run.environments[first.env][first.time + 1 : last.time]
      want = window.discount ** (last.time - first.time)
      want *= np.prod([moment.discount for moment in between])
      assert discount == pytest.approx(want, rel=1e-5)


@check()
def test_no_window_leaks_into_the_next_episode(run, window):
  for first, last, _, _ in ends(run, play(run, window).data):
    assert first.env == last.env
    inside = run.environments[first.env][first.time + 1 : last.time + 1]
    assert FIRST not in [moment.kind for moment in inside]
    assert LAST not in [moment.kind for moment in inside[:-1]]


@check()
def test_windows_near_an_end_are_shortened_and_not_dropped(run, window):
  short = {
    first.name
    for first, last, _, _ in ends(run, play(run, window).data)
    if last.kind == LAST
  }
  for moments in run.environments:
    for end in moments:
      if end.kind == LAST:
        longest = window.lengths[-1]
        steps = moments[max(end.time - longest, 0) : end.time]
        starts = [m.time for m in steps if m.kind == FIRST]
        for step in steps:
          if not starts or step.time >= starts[-1]:
            assert step.name in short


@check()
def test_each_step_starts_one_window_but_for_those_not_yet_full(run, window):
  started = play(run, window).data.observation['time'].tolist()
  assert len(set(started)) == len(started)
  missing = {step.name for step in run.steps} - set(started)
  for name in missing:
    rest = run.environments[name // 100][name % 100 :]
    assert len(rest) <= window.lengths[-1]
    assert LAST not in [moment.kind for moment in rest]


@check()
def test_the_params_version_is_that_of_the_windows_first_step(run, window):
  rows = play(run, window).rows
  first = rows['observation/time'] % 100
  np.testing.assert_array_equal(rows[rows_lib.PARAMS_VERSION], first // 3)


@check(max_examples=120)
def test_first_priorities_use_the_values_at_all_ends_when_they_are_known(
  run, window
):
  collector, windows = play(run, window, remember_ends), reference(run, window)
  order = by_environment(collector)
  priorities = [collector.priorities[i] for i in order]
  assert priorities == [window.priority for window in windows]
  calls = [collector.calls[i] for i in order]
  assert calls == [window.call for window in windows]


@check()
def test_first_priorities_get_the_reward_and_discount_of_their_window(
  run, window
):
  def priority(data, values=None):
    at_ends = 100.0 + data.reward * 10.0 + data.discount
    return np.array([row.mean() for row in at_ends])

  collector = play(run, window, priority)
  np.testing.assert_allclose(
    collector.priorities, priority(collector.data), rtol=1e-6
  )


@check()
def test_priorities_change_neither_rows_nor_their_order(run, window):
  with_priorities, without = play(run, window, remember_ends), play(run, window)
  np.testing.assert_array_equal(
    with_priorities.rows[by_environment(with_priorities)],
    without.rows[by_environment(without)],
  )


@check()
@pytest.mark.parametrize('block_size', [2, 5])
def test_blocks_hold_the_same_rows_in_the_same_order(run, window, block_size):
  blocks, rows = (
    play(run, window, block_size=block_size),
    play(run, window).rows,
  )
  assert {len(item) for item in blocks.items} <= {block_size}
  whole = len(rows) // block_size * block_size
  np.testing.assert_array_equal(blocks.rows, rows[:whole])
  assert blocks.priorities == [1.0] * (whole // block_size)


def test_later_steps_do_not_change_rows_that_were_inserted():
  moments = [Moment(0, 0, FIRST, 0.0, 1.0)]
  moments += [Moment(0, time, MID, 1.0, 1.0) for time in range(1, 20)]
  run = playing.Run([moments])
  times = play(run, replay_spec.NStep(2, 0.5)).rows['observation/time']
  np.testing.assert_array_equal(times, np.arange(18))


def test_an_observation_that_is_overwritten_later_is_kept():
  collector = play_overwriting(replay_spec.NStep(1, 1.0))
  assert collector.rows['observation/time'] == [0]


def test_an_agent_that_cannot_give_priorities_is_refused():
  class Forgetful:
    replay = replay_spec.single(
      replay_spec.NStep(1, 1.0),
      batch_size=1,
      max_size=1,
      min_size=1,
      samples_per_insert=1.0,
      priority_exponent=0.5,
    )

  message = (
    'Forgetful asks for prioritised replay and has no method first_prior'
  )
  with pytest.raises(TypeError, match=message):
    factory.make_writer(Forgetful(), None, 1, None)


def test_closing_the_writer_closes_the_inserter():
  run = playing.Run([[Moment(0, 0, FIRST, 0, 1), Moment(0, 1, MID, 0, 1)]])
  assert play(run, replay_spec.NStep(3, 1.0)).closed


def test_an_array_of_another_shape_is_not_repeated():
  target = np.zeros((2, 3), np.float32)
  for wrong in (np.float32(1.0), np.ones((1, 1), np.float32)):
    for nest in (lambda leaf: leaf, lambda leaf: {'a': leaf}):
      with pytest.raises(ValueError, match='came for one of shape'):
        inserter.copy(nest(target), nest(wrong))
  assert not target.any()
