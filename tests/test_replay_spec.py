"""What replay can be asked for, and that whatever is accepted never blocks."""

import collections
import dataclasses
import itertools
import math

import numpy as np
import pytest

from distacme import replay_spec


def make(**kwargs):
  defaults = {
    'window': replay_spec.NStep(1, 0.9),
    'batch_size': 4,
    'max_size': 100,
    'min_size': 10,
    'samples_per_insert': 1.0,
  }
  return replay_spec.ReplaySpec(**defaults | kwargs)


@pytest.mark.parametrize(
  ('n', 'discount', 'message'),
  [
    (0, 0.9, 'n of an n-step window must be at least 1, got 0'),
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
      'samples_per_insert must be positive and finite, got 0.0.*error_buffer',
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
  ],
)
def test_an_impossible_spec_is_refused(changes, message):
  with pytest.raises(ValueError, match=message):
    make(**changes)


def test_priorities_that_make_no_sense_are_refused():
  replay_spec.check_priorities(np.array([0.0, 1.0]))
  message = 'finite and not negative, got nan among 2. .*it may have diverged'
  with pytest.raises(ValueError, match=message):
    replay_spec.check_priorities(np.array([0.0, np.nan]))


def test_the_limits_lie_around_the_ratio():
  limits = make(samples_per_insert=8.0, error_buffer=20.0).rate_limits
  assert limits == replay_spec.RateLimits(8.0, 10, 60.0, 100.0)


def test_min_size_counts_whole_blocks():
  spec = make(block_size=4, min_size=9)
  assert spec.rate_limits.min_size == 12
  assert spec.max_items == 25


def test_a_chosen_buffer_is_a_tenth_of_min_size_or_twice_what_is_needed():
  large = make(min_size=1_000, max_size=1_000, samples_per_insert=8.0)
  assert large.rate_limits.max_balance == 8_000 + 800
  small = make()
  assert small.rate_limits.max_balance == 10 + 2 * 3.5


def test_sampling_starts_at_min_size_and_inserting_is_free_until_then():
  limits = make(samples_per_insert=8.0, error_buffer=20.0).rate_limits
  assert not limits.can_sample(inserts=9, samples=0, count=1)
  assert limits.can_sample(inserts=10, samples=0, count=20)
  assert not limits.can_sample(inserts=10, samples=0, count=21)
  assert limits.can_insert(inserts=9, samples=0, count=1)
  assert limits.can_insert(inserts=12, samples=4, count=1)
  assert not limits.can_insert(inserts=12, samples=3, count=1)


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
    if limits.can_insert(inserts, samples, block):
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
    sizes = (spec.block_size, spec.max_size)
    assert not reaches_a_deadlock(spec.rate_limits, spec.batch_size, *sizes)
    # Reverb counts in items and hands them out one by one.
    assert not reaches_a_deadlock(spec.rate_limits, spec.block_size, *sizes)


def test_the_search_finds_a_deadlock_where_the_buffer_is_too_small():
  # Just below the smallest that is accepted, but for the one to spare.
  buffer = (3 + 8) / 2 - 0.6
  limits = replay_spec.RateLimits(8.0, 1, 8.0 - buffer, 8.0 + buffer)
  assert reaches_a_deadlock(limits, 3, 1, 100)


def test_a_spec_can_be_changed_by_replace():
  spec = dataclasses.replace(make(), block_size=4, max_size=11, min_size=8)
  assert spec.max_items == 2
