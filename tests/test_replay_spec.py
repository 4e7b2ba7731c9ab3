"""A spec refuses what cannot work, and one that is accepted never blocks."""

import collections
import dataclasses
import itertools
import json
import math
import pickle

import numpy as np
import pytest

from distacme import replay_spec
from distacme import status


def table(name='experience', **kwargs):
  defaults = {
    'window': replay_spec.NStep(1, 0.9),
    'max_size': 100,
    'min_size': 10,
    'samples_per_insert': 1.0,
  }
  return replay_spec.Table(name, **defaults | kwargs)


def demonstrations(**kwargs):
  defaults = {
    'name': 'expert',
    'samples_per_insert': None,
    'filled_by': 'demonstrations',
    'evicts': False,
  }
  return table(**defaults | kwargs)


def make(batch_size=4, **kwargs):
  return replay_spec.ReplaySpec((table(**kwargs),), batch_size)


def limits_of(spec):
  (limits,) = spec.rate_limits
  return limits


@pytest.mark.parametrize(
  ('n', 'discount', 'message'),
  [
    (0, 0.9, 'n of an n-step window must be at least 1, got 0'),
    ((), 0.9, r'n of an n-step window must be at least 1, got \(\)'),
    ((0, 3), 0.9, r'must be at least 1, got \(0, 3\)'),
    ((5, 1), 0.9, r'must ascend, .* got \(5, 1\). Give \(1, 5\)'),
    ((3, 3), 0.9, r'must ascend, each number once, got \(3, 3\)'),
    (1, -0.1, r'discount must be in \[0, 1\], got -0.1'),
    (1, 1.1, r'discount must be in \[0, 1\], got 1.1'),
    (1, math.nan, r'discount must be in \[0, 1\], got nan'),
  ],
)
def test_an_impossible_window_is_refused(n, discount, message):
  with pytest.raises(ValueError, match=message):
    replay_spec.NStep(n, discount)


@pytest.mark.parametrize(
  ('changes', 'message'),
  [
    ({'batch_size': 0}, 'batch_size must be at least 1, got 0'),
    ({'max_size': 0}, 'max_size must be at least 1, got 0'),
    ({'min_size': 0}, 'min_size must be at least 1, got 0'),
    ({'block_size': 0}, 'block_size must be at least 1, got 0'),
    (
      {'samples_per_insert': 0.0},
      "table 'experience': samples_per_insert must be positive and finite, "
      'got 0.0. None blocks',
    ),
    ({'samples_per_insert': -1.0}, 'positive and finite, got -1.0'),
    ({'samples_per_insert': math.inf}, 'positive and finite, got inf'),
    ({'samples_per_insert': math.nan}, 'positive and finite, got nan'),
    ({'priority_exponent': -0.5}, 'must not be negative, and finite, got -0.5'),
    ({'priority_exponent': math.nan}, 'negative, and finite, got nan'),
    (
      {'block_size': 2, 'priority_exponent': 0.6},
      'block_size=2 needs uniform sampling.*Set priority_exponent=0 or '
      'block_size=1',
    ),
    (
      {'block_size': 3},
      'batch_size=4 is not a multiple of block_size=3.*Make it one',
    ),
    (
      {'min_size': 101},
      'min_size=101 is more than max_size=100 .*wait for ever. Lower min_size '
      'or raise max_size',
    ),
    (
      # The table holds two blocks, and 9 transitions are in three.
      {'block_size': 4, 'max_size': 11, 'min_size': 9},
      'min_size=9 is more than max_size=11 holds in whole blocks of '
      'block_size=4',
    ),
    (
      {'block_size': 4, 'max_size': 3, 'min_size': 1},
      'min_size=1 is more than max_size=3 holds in whole blocks',
    ),
    (
      {'error_buffer': 3.4},
      'error_buffer=3.4 is too small: with batch_size=4, '
      'samples_per_insert=1.0 and block_size=1 actors and learner could block '
      'each other for ever. Use at least 3.5, or 0 to have it chosen',
    ),
    ({'error_buffer': -5.0}, 'error_buffer=-5.0 is too small'),
    ({'error_buffer': math.nan}, 'error_buffer=nan is too small'),
    (
      {'used_once': True, 'min_size': 1, 'block_size': 4},
      'a queue waits .* got min_size=1, block_size=4 and error_buffer=0.0. Set',
    ),
    ({'used_once': True}, 'got min_size=10, block_size=1'),
    (
      {'used_once': True, 'min_size': 1, 'max_size': 3},
      'max_size=3 of a queue is less than a batch of batch_size=4',
    ),
    ({'name': 'a/b'}, "letters, digits and underscores, got 'a/b'"),
    (
      {'samples_per_insert': None, 'error_buffer': 3.0},
      'error_buffer=3.0 has no ratio to keep to, as samples_per_insert is None',
    ),
    (
      {'evicts': False},
      'evicts=False refuses what does not fit, and actors insert without end',
    ),
    (
      {'filled_by': 'demonstrations'},
      'samples_per_insert=1.0 would end sampling soon after the last',
    ),
    (
      {'filled_by': 'anybody'},
      "must be 'actors' or 'demonstrations', got 'anybody'",
    ),
  ],
)
def test_an_impossible_spec_is_refused(changes, message):
  with pytest.raises(ValueError, match=message):
    make(**changes)


def test_priorities_that_make_no_sense_are_refused():
  replay_spec.check_priorities(np.array([0.0, 1.0]))
  message = 'finite and not negative, got nan among 2. .*it may have diverged'
  with pytest.raises(status.NotFiniteError, match=message):
    replay_spec.check_priorities(np.array([0.0, np.nan]))
  with pytest.raises(ValueError, match='got -1.0 among 2') as refused:
    replay_spec.check_priorities(np.array([0.0, -1.0]))
  assert not isinstance(refused.value, status.NotFiniteError)


@pytest.mark.parametrize(
  ('tables', 'mixture', 'message'),
  [
    ((), (1.0,), r'at least one, of different names, got \[\]'),
    (
      (table(), table()),
      (0.5, 0.5),
      r"different names, got \['experience', 'experience'\]",
    ),
    (
      (table(), demonstrations()),
      (1.0,),
      r'mixture=\(1.0,\) must have a number for each of the tables \['
      "'experience', 'expert'",
    ),
    (
      (table(), demonstrations()),
      (1.0, 0.0),
      r'mixture=\(1.0, 0.0\) must be positive numbers that sum to 1. Leave',
    ),
    ((table(), demonstrations()), (0.5, 0.6), 'that sum to 1'),
    ((table(), demonstrations()), (math.nan, 0.5), 'that sum to 1'),
    (
      (table(), demonstrations(window=replay_spec.NStep(2, 0.9))),
      (0.5, 0.5),
      r"'experience' has NStep\(n=1, .* where 'expert' has NStep\(n=2, .*Give "
      'all of them one window',
    ),
    (
      (table(block_size=2), demonstrations()),
      (0.5, 0.5),
      "block_size=2 of table 'experience' is drawn whole",
    ),
    (
      # The chances of a batch are no ratio: both sides would end up waiting.
      (table(), table('second')),
      (0.5, 0.5),
      r"samples_per_insert of the tables \['experience', 'second'\] cannot all "
      'be held.*Set None in all but one',
    ),
    (
      # Actors write to both, and the first makes them wait after 17 windows.
      (table(), table('second', samples_per_insert=None, min_size=18)),
      (0.5, 0.5),
      "min_size=18 of table 'second' is never reached: table 'experience' makes "
      'actors wait after 17 windows',
    ),
  ],
)
def test_tables_that_do_not_go_together_are_refused(tables, mixture, message):
  with pytest.raises(ValueError, match=message):
    replay_spec.ReplaySpec(tables, 4, mixture)


def test_a_spec_is_data_that_can_be_sent_and_read():
  spec = replay_spec.ReplaySpec(
    (table(window=NSTEPS), demonstrations(window=NSTEPS)), 4, (0.75, 0.25)
  )
  assert pickle.loads(pickle.dumps(spec)) == spec
  data = json.loads(json.dumps(replay_spec.as_dict(spec)))
  assert replay_spec.from_dict(data) == spec
  assert data['tables'][1]['filled_by'] == 'demonstrations'


NSTEPS = replay_spec.NStep((1, 10), 0.9)


def test_a_spec_says_who_fills_its_tables():
  own, expert = table(), demonstrations(priority_exponent=0.4)
  spec = replay_spec.ReplaySpec((own, expert), 4, (0.75, 0.25))
  assert spec.tables_of_actors == (own,)
  assert spec.tables_of_demonstrations == (expert,)
  assert spec.needs_actors and spec.prioritized
  alone = replay_spec.ReplaySpec((expert,), 4)
  assert not alone.needs_actors
  assert not make().prioritized


def test_a_table_without_a_ratio_waits_for_its_min_size_alone():
  limits = limits_of(make(samples_per_insert=None))
  assert not limits.can_sample(inserts=9, samples=0, count=1)
  assert limits.can_sample(inserts=10, samples=0, count=10**9)
  assert limits.room(inserts=10**9, samples=0) > 10**9


def test_a_full_table_of_demonstrations_has_no_room():
  expert = demonstrations(max_size=12)
  expert.check_room(10, 2)
  message = (
    "table 'expert' keeps what it holds, 10 items, and has no room for 3 more: "
    'max_size=12. Raise it, or give fewer demonstrations'
  )
  with pytest.raises(ValueError, match=message):
    expert.check_room(10, 3)
  table(max_size=12).check_room(12, 100)


def test_the_limits_lie_around_the_ratio():
  limits = limits_of(make(samples_per_insert=8.0, error_buffer=20.0))
  assert limits == replay_spec.RateLimits(8.0, 10, 60.0, 100.0)


def test_min_size_counts_whole_blocks():
  spec = make(block_size=4, min_size=9)
  assert limits_of(spec).min_size == 12
  assert spec.tables[0].max_items == 25


def test_a_chosen_buffer_is_a_tenth_of_min_size_or_twice_what_is_needed():
  large = make(min_size=1_000, max_size=1_000, samples_per_insert=8.0)
  assert limits_of(large).max_balance == 8_000 + 800
  small = make()
  assert limits_of(small).max_balance == 10 + 2 * 3.5


def test_sampling_starts_at_min_size_and_inserting_is_free_until_then():
  limits = limits_of(make(samples_per_insert=8.0, error_buffer=20.0))
  assert not limits.can_sample(inserts=9, samples=0, count=1)
  assert limits.can_sample(inserts=10, samples=0, count=20)
  assert not limits.can_sample(inserts=10, samples=0, count=21)
  assert limits.room(inserts=0, samples=0) >= 10
  assert limits.room(inserts=12, samples=4) == 1
  assert limits.room(inserts=12, samples=3) == 0


def reaches_a_deadlock(limits, batch, block, max_size):
  """Tries all orders of inserts and samples.

  Args:
    limits: to obey.
    batch: transitions taken at once.
    block: transitions inserted at once.
    max_size: transitions held; Reverb waits for `min_size` to be held.
  """
  start = (0, 0)
  seen, queue = {start}, collections.deque([start])
  while queue:
    inserts, samples = queue.popleft()
    after = []
    held = min(inserts, max_size // block * block)
    if held >= limits.min_size and limits.can_sample(inserts, samples, batch):
      after.append((inserts, samples + batch))
    if limits.room(inserts, samples) >= block:
      after.append((inserts + block, samples))
    if not after:
      return True
    for state in after:
      if state not in seen and state[0] <= limits.min_size + 6 * block:
        seen.add(state)
        queue.append(state)
  return False


def small_specs():
  """Yields specs that are accepted, with the smallest buffers that are."""
  for batch, block, ratio, min_size, more in itertools.product(
    (1, 2, 4, 8), (1, 2, 4), (0.125, 0.75, 1.0, 8.0), (1, 2, 5, 8), (0, 1, 3)
  ):
    for error_buffer in (0.0, (batch + ratio * block) / 2 + 1):
      try:
        yield make(
          batch_size=batch,
          block_size=block,
          samples_per_insert=ratio,
          min_size=min_size,
          max_size=min_size + more,
          error_buffer=error_buffer,
        )
      except ValueError:
        continue


def test_one_writer_and_one_learner_never_block_each_other():
  specs = list(small_specs())
  assert len(specs) > 500
  for spec in specs:
    limits, sizes = limits_of(spec), (spec.block_size, spec.tables[0].max_size)
    assert not reaches_a_deadlock(limits, spec.batch_size, *sizes)
    # Reverb counts in items and hands them out one by one.
    assert not reaches_a_deadlock(limits, spec.block_size, *sizes)


def test_the_search_finds_a_deadlock_where_the_buffer_is_too_small():
  # Just below the smallest that is accepted, but for the one to spare.
  buffer = (3 + 8) / 2 - 0.6
  limits = replay_spec.RateLimits(8.0, 1, 8.0 - buffer, 8.0 + buffer)
  assert reaches_a_deadlock(limits, 3, 1, 100)


def test_a_table_can_be_changed_by_replace():
  changed = dataclasses.replace(table(), block_size=4, max_size=11, min_size=8)
  assert changed.max_items == 2


def test_one_table_has_a_spec_of_few_words():
  window = replay_spec.NStep(1, 0.9)
  spec = replay_spec.single(
    window, batch_size=4, max_size=100, min_size=10, samples_per_insert=1.0
  )
  assert spec == make()
  queue = replay_spec.queue(window, batch_size=4, max_size=100)
  assert queue == make(used_once=True, min_size=1)
  assert queue.used_once and not spec.used_once
