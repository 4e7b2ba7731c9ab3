"""An actor's steps become the sequences that a brute-force reference cuts."""

from typing import NamedTuple

from hypothesis import strategies as st
import numpy as np
import pytest
import tree

from distacme import replay_spec
from distacme.replay.items import rows as rows_lib
from tests.replay import playing
from tests.replay.playing import FIRST
from tests.replay.playing import LAST
from tests.replay.playing import MID
from tests.replay.playing import Moment
from tests.replay.playing import play
from tests.replay.playing import play_overwriting
from tests.replay.playing import stack


@st.composite
def windows(draw, across=None):
  length = draw(st.integers(2, 7))
  if across is None:
    across = draw(st.booleans())
  return replay_spec.Sequences(length, draw(st.integers(1, length - 1)), across)


def check(max_examples=40, across=None):
  """Decorates a property of runs and windows."""
  return playing.check(max_examples, window=windows(across))


class Window(NamedTuple):
  rows: list[Moment]
  next_rows: list[Moment]  # what followed each, None for the last of the run
  length: int
  call: int  # at which it is due, if it has no priority to wait for

  @property
  def padding(self):
    return self.length - len(self.rows)


def reference(run, window):
  """Returns the windows of each environment, in the order they are due."""
  cut = across if window.across_episodes else within
  return [w for moments in run.environments for w in cut(moments, window)]


def across(moments, window):
  starts = range(0, len(moments), window.period)
  return [
    make(moments, start, window.length, window)
    for start in starts
    if start + window.length <= len(moments)
  ]


def within(moments, window):
  made = []
  for episode in episodes(moments):
    covered = -1  # the last step that is in a window
    for start in range(0, len(episode), window.period):
      rest = len(episode) - start
      whole = episode[-1].kind == LAST
      if rest < window.length and not whole:
        break  # the run ended first
      count = min(rest, window.length)
      if start + count - 2 > covered:
        covered = start + count - 2
        made.append(make(moments, episode[0].time + start, count, window))
  return made


def episodes(moments):
  firsts = [m.time for m in moments if m.kind == FIRST]
  ends = [*firsts[1:], len(moments)]
  return [moments[a:b] for a, b in zip(firsts, ends, strict=True)]


def make(moments, start, count, window):
  rows = moments[start : start + count]
  following = [*moments[start + 1 : start + count], None]
  return Window(rows, following, window.length, rows[-1].time - 1)


def in_order(collector):
  """Returns indices of the inserted rows: by environment, else as they came."""
  names = collector.data.observation['time'][:, 0] // 100
  return np.argsort(names, kind='stable')


@check(max_examples=80)
def test_sequences_equal_the_reference_in_order(run, window):
  collector, want = play(run, window), reference(run, window)
  order = in_order(collector)
  assert len(order) == len(want)
  for row, expected in zip(collector.rows[order], want, strict=True):
    check_row(collector.layout.views(row), row, expected)


def check_row(got, row, want):
  count = len(want.rows)
  acted = [moment.kind != LAST for moment in want.rows[:-1]]
  kinds = [moment.kind for moment in want.rows] + [LAST] * want.padding
  np.testing.assert_array_equal(got.step_type, kinds)
  same(cut(got.observation, count), stack([m.observation for m in want.rows]))
  steps = want.rows[:-1]
  same(cut(got.action, count - 1), stack([m.action for m in steps]))
  same(cut(got.extras, count - 1), {'note': np.array([m.name for m in steps])})
  same(got.start_state, steps[0].state)
  followed = want.next_rows[:-1]
  rewards = [m.reward * a for m, a in zip(followed, acted, strict=True)]
  discounts = [m.discount * a for m, a in zip(followed, acted, strict=True)]
  np.testing.assert_allclose(got.reward[: count - 1], rewards)
  np.testing.assert_allclose(got.discount[: count - 1], discounts)
  assert row[rows_lib.PARAMS_VERSION] == steps[0].version


def cut(nest, count):
  return tree.map_structure(lambda leaf: leaf[:count], nest)


def same(a, b):
  tree.map_structure(np.testing.assert_array_equal, a, b)


@check(across=False)
def test_each_step_of_a_finished_episode_is_in_a_sequence(run, window):
  collector = play(run, window)
  data = collector.data
  steps = (data.step_type != LAST)[:, :-1]
  covered = set(data.observation['time'][:, :-1][steps])
  for moments in run.environments:
    for episode in episodes(moments):
      if episode[-1].kind == LAST:
        assert covered >= {moment.name for moment in episode[:-1]}


@check(across=False)
def test_no_sequence_leaks_into_the_next_episode(run, window):
  step_type = play(run, window).data.step_type
  first = step_type == FIRST
  assert not first[:, 1:].any()
  last = step_type == LAST  # and once it is over, it is over
  assert (last[:, 1:] >= last[:, :-1]).all()


@check(across=True)
def test_sequences_across_episodes_are_full_and_come_all_at_once(run, window):
  collector = play(run, window)
  names = collector.data.observation['time']
  np.testing.assert_array_equal(
    np.diff(names, axis=1), np.ones((len(names), window.length - 1))
  )
  calls = np.array(collector.calls).reshape(-1, len(run.environments))
  assert (calls == calls[:, :1]).all()
  np.testing.assert_array_equal(np.diff(calls[:, 0]) % window.period, 0)


@check()
def test_without_priorities_a_sequence_comes_with_its_last_observation(
  run, window
):
  collector = play(run, window)
  calls = [collector.calls[i] for i in in_order(collector)]
  assert calls == [w.call for w in reference(run, window)]


def remember(data, values):
  """A first priority from which all values can be read."""
  valid = np.ones(values['a'].shape, bool)
  valid[:, 1:] = data.step_type[:, :-1] != LAST
  np.testing.assert_array_equal(values['b'][..., 1], values['a'])
  powers = 1 + np.arange(values['a'].shape[1])
  return (valid * values['a'] * powers).sum(axis=1)


@check(across=False)
def test_first_priorities_use_the_values_of_every_row(run, window):
  collector, windows = play(run, window, remember), reference(run, window)
  order = in_order(collector)
  want = []
  for w in windows:
    values = [float(moment.name) for moment in w.rows]
    if w.rows[-1].name % 100 == len(run.environments[0]) - 1:
      values[-1] = values[-2]  # nobody acts on the run's last observations
    want.append(sum(v * (i + 1) for i, v in enumerate(values)))
  assert [collector.priorities[i] for i in order] == want


@check()
def test_priorities_change_neither_rows_nor_their_order(run, window):
  with_priorities, without = play(run, window, remember), play(run, window)
  np.testing.assert_array_equal(
    with_priorities.rows[in_order(with_priorities)],
    without.rows[in_order(without)],
  )


def test_an_observation_that_is_overwritten_later_is_kept():
  collector = play_overwriting(replay_spec.Sequences(3, 2))
  assert collector.data.observation['time'][0, 0] == 0


def test_closing_the_writer_closes_the_inserter():
  run = playing.Run([[Moment(0, 0, FIRST, 0, 1), Moment(0, 1, MID, 0, 1)]])
  assert play(run, replay_spec.Sequences(3, 1)).closed


@pytest.mark.parametrize(
  ('length', 'period', 'message'),
  [
    (1, 1, 'at least 2 rows.* got 1'),
    (5, 0, 'from 1 to 4,.* length=5, got 0'),
    (5, 5, 'from 1 to 4,.* length=5, got 5'),
  ],
)
def test_windows_that_lose_steps_are_refused(length, period, message):
  with pytest.raises(ValueError, match=message):
    replay_spec.Sequences(length, period)
