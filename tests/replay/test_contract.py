"""The promises of replay, by every way in and out."""

import contextlib
import dataclasses
import re
import threading

import numpy as np
import pytest
import tree

from distacme import replay_spec
from distacme import specs
from distacme import types
from distacme.replay import in_process
from distacme.replay import memory
from distacme.replay.items import rows as rows_lib
from tests.replay import backends
from tests.replay import playing

FREE = 1e9  # an error buffer that never blocks


@pytest.fixture(params=backends.ALL)
def make(request, layout):
  """Returns a function that makes one of the backends, closed at the end."""
  made = []

  def make(layout=layout, batch_size=8, **kwargs):
    return make_spec(
      replay_spec.ReplaySpec((table('experience', **kwargs),), batch_size),
      layout,
    )

  def make_spec(spec, layout=layout):
    made.append(request.param(spec, layout))
    return made[-1]

  make.of = make_spec

  yield make
  for backend in made:
    backend.close()


def table(name, **kwargs):
  """Returns the spec of a table that blocks neither side."""
  held = not kwargs.get('used_once') and kwargs.get('samples_per_insert', 1.0)
  defaults = {
    'window': replay_spec.NStep(1, 0.9),
    'max_size': 1000,
    'min_size': 1,
    'samples_per_insert': 1.0,
    'error_buffer': FREE if held else 0.0,
  }
  return replay_spec.Table(name, **defaults | kwargs)


@pytest.fixture
def items(layout):
  """Returns a function that makes items whose every byte depends on a number."""

  def items(numbers, block_size=1):
    numbers = np.asarray(numbers)
    rows = np.zeros(len(numbers), layout.dtype)
    fill(layout.views(rows), numbers)
    rows[rows_lib.PARAMS_VERSION] = numbers + 5
    return rows.reshape(-1, block_size)

  return items


def fill(transition, numbers):
  """Writes into a batch of transitions what belongs to the numbers."""
  transition.observation['image'][:] = (numbers % 256)[:, None, None]
  transition.observation['image'][:, 1, 2] = 255
  transition.observation['place'][0][:] = -numbers
  transition.observation['place'][1][:] = numbers[:, None] + [0.25, 0.5]
  transition.action['choice'][0][:] = numbers % 5
  transition.action['torque'][:] = (numbers % 3 - 1)[:, None] * [1.0, 0.5]
  transition.reward[:] = numbers
  transition.discount[:] = 1 / (numbers + 1)
  transition.next_observation['image'][:] = 255 - (numbers % 256)[:, None, None]
  transition.next_observation['place'][0][:] = numbers + 2**30
  transition.next_observation['place'][1][:] = numbers[:, None] * [1, -1]
  transition.extras['greedy'][:] = numbers % 2


def draw(replay, batches):
  """Returns the numbers, keys and chances of many samples."""
  samples = [replay.sample() for _ in range(batches)]
  return (
    np.concatenate([data.reward for data, _ in samples]).astype(int),
    np.concatenate([info.key for _, info in samples]),
    np.concatenate([info.probability for _, info in samples]),
  )


def keys_by_number(replay, count):
  """Draws until the keys of all the items are known."""
  keys = {}
  for _ in range(200):
    numbers, drawn, _ = draw(replay, 4)
    keys.update(zip(numbers, drawn, strict=True))
    if len(keys) == count:
      return np.array([keys[i] for i in range(count)], np.uint64)
  raise AssertionError(f'Only {sorted(keys)} of {count} were ever drawn.')


def assert_frequencies(numbers, chances):
  """A chi-square test that fails by accident once in a million runs or less."""
  counts = np.bincount(numbers, minlength=len(chances))
  expected = np.asarray(chances) * len(numbers)
  assert counts[expected == 0].sum() == 0
  positive = expected > 0
  chi_square = ((counts - expected)[positive] ** 2 / expected[positive]).sum()
  freedom = positive.sum() - 1
  assert chi_square < freedom + 5 * np.sqrt(2 * freedom) + 20, counts


def test_what_is_sampled_was_inserted(make, items, layout):
  replay = make(batch_size=16)
  replay.insert(items(range(20)), np.ones(20))
  for _ in range(5):
    data, info = replay.sample()
    numbers = data.reward.astype(int)
    want = np.zeros(16, layout.dtype)
    fill(layout.views(want), numbers)
    for got, expected in zip(
      tree.flatten_with_path(data),
      tree.flatten_with_path(layout.views(want)),
      strict=True,
    ):
      assert got[0] == expected[0]
      assert got[1].dtype == expected[1].dtype
      np.testing.assert_array_equal(got[1], expected[1])
    np.testing.assert_array_equal(info.params_version, numbers + 5)


def test_sample_info_has_its_shapes_and_dtypes(make, items):
  replay = make(batch_size=16, block_size=4)
  replay.insert(items(range(20), block_size=4), np.ones(5))
  _, info = replay.sample()
  assert [leaf.shape for leaf in info] == [(16,)] * 4
  want = [np.uint64, np.float64, np.int64, np.int32]
  assert [leaf.dtype for leaf in info] == want
  assert not info.table.any()


def test_every_item_is_sampled_alike_under_uniform(make, items):
  replay = make(batch_size=32)
  # Priorities do not count, not even those of zero.
  replay.insert(items(range(10)), np.arange(10.0))
  numbers, _, probability = draw(replay, 100)
  assert_frequencies(numbers, np.full(10, 0.1))
  np.testing.assert_allclose(probability, 0.1)


@pytest.mark.parametrize('exponent', [0.5, 1.0, 2.0])
def test_frequencies_follow_priorities_to_the_exponent(make, items, exponent):
  replay = make(batch_size=32, priority_exponent=exponent)
  priorities = np.array([1.0, 4.0, 0.0, 2.0, 9.0])
  replay.insert(items(range(5)), priorities)
  chances = priorities**exponent / (priorities**exponent).sum()
  numbers, _, probability = draw(replay, 100)
  assert_frequencies(numbers, chances)
  np.testing.assert_allclose(probability, chances[numbers])


def test_new_priorities_change_the_frequencies(make, items):
  replay = make(batch_size=32, priority_exponent=0.5)
  replay.insert(items(range(4)), np.ones(4))
  key = keys_by_number(replay, 4)
  # Of an item named twice, the later priority stands.
  key = np.append(key, key[0])
  replay.update_priorities(key, np.array([50, 1, 4, 9, 0], np.float32))
  numbers, _, probability = draw(replay, 100)
  chances = np.array([0, 1, 2, 3]) / 6
  assert_frequencies(numbers, chances)
  np.testing.assert_allclose(probability, chances[numbers])


def test_priorities_of_items_that_are_gone_are_ignored(make, items):
  replay = make(max_size=4, priority_exponent=1.0)
  replay.insert(items(range(4)), np.ones(4))
  key = keys_by_number(replay, 4)
  replay.insert(items([4, 5]), np.ones(2))  # in the place of 0 and 1
  replay.update_priorities(key, np.array([100.0, 100.0, 2.0, 2.0]))
  numbers, _, probability = draw(replay, 200)
  chances = np.array([0, 0, 2, 2, 1, 1]) / 6
  assert_frequencies(numbers, chances)
  np.testing.assert_allclose(probability, chances[numbers])


def test_items_are_drawn_alike_while_all_priorities_are_zero(make, items):
  replay = make(batch_size=32, priority_exponent=0.6)
  replay.insert(items(range(5)), np.zeros(5))
  numbers, _, probability = draw(replay, 50)
  assert_frequencies(numbers, np.full(5, 0.2))
  np.testing.assert_allclose(probability, 0.2)


@pytest.mark.parametrize('wrong', [np.nan, np.inf, -1.0])
def test_priorities_that_make_no_sense_are_refused(make, items, wrong):
  replay = make(priority_exponent=1.0)
  message = f'finite and not negative, got {wrong} among 3.*diverged'
  with pytest.raises(ValueError, match=message):
    replay.insert(items(range(3)), np.array([1.0, wrong, 1.0]))
  replay.insert(items(range(3)), np.ones(3))
  key = keys_by_number(replay, 3)
  with pytest.raises(ValueError, match=message):
    replay.update_priorities(key, np.array([1.0, 1.0, wrong], np.float32))
  assert_frequencies(draw(replay, 50)[0], np.full(3, 1 / 3))


@pytest.mark.parametrize('at_once', [1, 3, 20])
def test_the_oldest_leave_first(make, items, at_once):
  replay = make(max_size=7, batch_size=32)
  for start in range(0, 20, at_once):
    numbers = np.arange(start, min(start + at_once, 20))
    replay.insert(items(numbers), np.ones(len(numbers)))
  assert replay.metrics()['size'] == 7
  numbers, keys, probability = draw(replay, 30)
  assert set(numbers) == set(range(13, 20))
  assert len(set(keys)) == 7
  np.testing.assert_allclose(probability, 1 / 7)


def test_blocks_are_drawn_and_leave_whole(make, items):
  # 11 is no multiple of 4: the table holds two blocks.
  replay = make(max_size=11, batch_size=8, block_size=4)
  for start in (0, 8, 16):
    replay.insert(items(range(start, start + 8), block_size=4), np.ones(2))
  assert replay.metrics()['size'] == 8
  numbers, keys, probability = draw(replay, 50)
  blocks = numbers.reshape(-1, 4)
  np.testing.assert_array_equal(blocks % 4, np.tile(range(4), (100, 1)))
  assert_frequencies(blocks[:, 0] // 4 - 4, [0.5, 0.5])
  np.testing.assert_allclose(probability, 0.5)
  assert (keys.reshape(-1, 4) == keys[::4, None]).all()


def in_thread(function):
  """Runs a function beside the test; returns where its result will be."""
  results = []

  def run():
    with contextlib.suppress(
      RuntimeError
    ):  # The server ends at the test's end.
      results.append(function())

  thread = threading.Thread(target=run, daemon=True)
  thread.start()
  return thread, results


@pytest.mark.parametrize(('block_size', 'needed'), [(1, 10), (4, 12)])
def test_nothing_is_sampled_before_min_size(make, items, block_size, needed):
  replay = make(min_size=10, block_size=block_size)
  before = needed - block_size

  def insert(numbers):
    count = len(numbers) // block_size
    replay.insert(items(numbers, block_size), np.ones(count))

  insert(range(before))
  if isinstance(replay, backends.InProcess):
    with pytest.raises(RuntimeError, match=f'of {before} inserted'):
      replay.sample()
    insert(range(block_size))
    replay.sample()
    return
  thread, results = in_thread(replay.sample)
  thread.join(0.3)
  assert not results
  insert(range(block_size))
  thread.join(10)
  assert results


@pytest.mark.parametrize(
  ('samples_per_insert', 'block_size'), [(0.5, 1), (8.0, 1), (4.0, 4)]
)
def test_the_replay_ratio_is_held(
  make, items, wait_until, samples_per_insert, block_size
):
  replay = make(
    min_size=100,
    batch_size=16,
    samples_per_insert=samples_per_insert,
    block_size=block_size,
    error_buffer=0.0,
  )
  want = pytest.approx(samples_per_insert, rel=0.05)
  # Both sides do what they can; neither waits for anything but the limits.
  per_insert = block_size
  inserts = 100 + int(8_000 / samples_per_insert / per_insert) * per_insert
  rows = items(range(per_insert), block_size)
  if isinstance(replay, backends.InProcess):
    for _ in range(inserts // per_insert):
      replay.insert(rows, np.ones(1))
      while replay.replay.can_sample():
        replay.sample()
  else:

    def insert():
      for _ in range(inserts // per_insert):
        replay.inserter().insert(rows, np.ones(1))
      replay.inserter().flush()

    enough = threading.Event()

    def sample():
      while not enough.is_set():
        replay.sample()

    sampling, _ = in_thread(sample)
    inserting, _ = in_thread(insert)
    inserting.join(30)
    assert not inserting.is_alive()
    wait_until(lambda: replay.metrics()['samples_per_insert'] == want)
    sampling.join(0.1)  # It would sample more if it might.
  assert replay.metrics()['samples_per_insert'] == want
  if not isinstance(replay, backends.InProcess):
    enough.set()
    while sampling.is_alive():  # or its sampler would outlive the server
      replay.inserter().insert(rows, np.ones(1))
      sampling.join(0.01)


def test_a_sampler_that_is_ahead_waits(make, items, wait_until):
  replay = make(min_size=4, batch_size=4, error_buffer=3.5)
  replay.insert(items(range(4)), np.ones(4))
  # 4 - 3.5 <= inserts - samples: one batch does not fit, three samples do.
  if isinstance(replay, backends.InProcess):
    with pytest.raises(RuntimeError, match='of 4 inserted, with 0 sampled'):
      replay.sample()
    replay.insert(items([4]), np.ones(1))
    replay.sample()
    message = r'of 5 inserted, with 4 sampled .* Ask can_sample\(\) first'
    with pytest.raises(RuntimeError, match=message):
      replay.sample()
    return
  thread, results = in_thread(replay.sample)
  thread.join(0.3)
  assert not results
  assert replay.metrics()['sampled'] == 0
  replay.insert(items([4]), np.ones(1))
  thread.join(10)
  assert results
  assert replay.metrics()['sampled'] == 4


def test_metrics_say_what_happened(make, items, wait_until):
  replay = make(min_size=6, batch_size=4, block_size=4, max_size=24)
  assert replay.metrics()['samples_per_insert'] == 0.0
  replay.insert(items(range(40), block_size=4), np.ones(10))
  assert replay.metrics()['size'] == 24
  if not replay.draws_ahead:
    for _ in range(4):
      replay.sample()
  else:  # draws ahead by a batch or two
    replay.sample()
    wait_until(lambda: replay.metrics()['sampled'] > 4)
    replay.update_priorities(np.empty(0, np.uint64), np.empty(0))
    assert replay.metrics()['inserted'] == 40
  sampled = replay.metrics().get('sampled', 16)
  # The first two blocks filled replay up to min_size.
  assert replay.metrics()['samples_per_insert'] == sampled / (40 - 8)


def sequences(layout, numbers):
  """Returns sequences whose every byte depends on a number."""
  rows = np.zeros(len(numbers), layout.dtype)
  data = layout.views(rows)
  steps = numbers[:, None] * 10 + np.arange(data.reward.shape[1])
  for leaf in tree.flatten(data._replace(start_state=())):
    leaf[...] = (steps % 100).reshape(*steps.shape, *[1] * (leaf.ndim - 2))
  for leaf in tree.flatten(data.start_state):
    leaf[...] = numbers.reshape(-1, *[1] * (leaf.ndim - 1))
  rows[rows_lib.PARAMS_VERSION] = numbers + 5
  return rows[:, None]


@pytest.mark.parametrize('used_once', [False, True])
def test_sequences_come_back_as_they_were(make, used_once):
  window = replay_spec.Sequences(4, 3)
  layout = rows_lib.make_layout(
    window,
    playing.SPEC,
    extras={'note': specs.Array((), np.int64)},
    start_state=(specs.Array((2,), np.float32), specs.Array((), np.int32)),
  )
  replay = make(layout, window=window, batch_size=5, used_once=used_once)
  replay.insert(sequences(layout, np.arange(10)), np.ones(10))
  data, info = replay.sample()
  want = layout.views(sequences(layout, info.params_version - 5)[:, 0])
  assert isinstance(data, types.Sequence)
  tree.map_structure(np.testing.assert_array_equal, data, want)


def test_a_queue_gives_everything_once_and_in_order(make, items):
  replay = make(used_once=True, max_size=32)
  got = []
  for start in range(0, 96, 16):
    replay.insert(items(range(start, start + 16)), np.arange(16.0))
    for _ in range(2):
      data, info = replay.sample()
      got += data.reward.astype(int).tolist()
      np.testing.assert_array_equal(info.params_version, data.reward + 5)
  assert got == list(range(96))
  assert replay.metrics()['size'] == 0
  assert replay.metrics()['sampled'] == 96


def test_a_queue_without_a_whole_batch_waits(make, items):
  replay = make(used_once=True, max_size=32)
  replay.insert(items(range(7)), np.ones(7))
  if isinstance(replay, backends.InProcess):
    assert not replay.replay.can_sample()
    with pytest.raises(RuntimeError, match='of 7 inserted, with 0 sampled'):
      replay.sample()
    replay.insert(items([7]), np.ones(1))
    assert replay.replay.can_sample()
    return
  thread, results = in_thread(replay.sample)
  thread.join(0.3)
  assert not results
  replay.insert(items([7]), np.ones(1))
  thread.join(10)
  assert results


@pytest.mark.parametrize('kind', backends.ALL[1:])
def test_a_full_queue_makes_actors_wait(kind, layout, items, wait_until):
  # Of one process the thread that acts also learns: nobody could wait there.
  spec = replay_spec.queue(replay_spec.NStep(1, 0.9), batch_size=2, max_size=6)
  replay = kind(spec, layout)
  thread, _ = in_thread(
    lambda: [replay.insert(items([i]), np.ones(1)) for i in range(20)]
  )
  wait_until(lambda: replay.metrics()['inserted'] == 6)
  thread.join(0.3)
  assert replay.metrics()['inserted'] == 6
  replay.sample()
  # One batch was taken, and perhaps one is fetched ahead.
  wait_until(lambda: replay.metrics()['inserted'] >= 8)
  thread.join(0.3)
  assert replay.metrics()['inserted'] <= 10
  for _ in range(9):
    replay.sample()
  thread.join(10)
  assert not thread.is_alive()
  replay.close()


OWN, EXPERT = 'own', 'expert'


def two_tables(batch_size=16, mixture=(0.75, 0.25), own=(), expert=()):
  """Returns a spec of the agent's own steps and of demonstrations."""
  ours = {'max_size': 50, 'priority_exponent': 1.0} | dict(own)
  theirs = {
    'max_size': 5,
    'samples_per_insert': None,
    'priority_exponent': 0.5,
    'evicts': False,
    'filled_by': 'demonstrations',
  } | dict(expert)
  tables = (table(OWN, **ours), table(EXPERT, **theirs))
  return replay_spec.ReplaySpec(tables, batch_size, mixture)


def fill_both(replay, items):
  """Inserts 0 to 9 as the agent's own, and 100 to 103 as demonstrations."""
  replay.insert(items(range(10)), np.ones(10), OWN)
  replay.insert(items(range(100, 104)), np.array([1, 4, 4, 1.0]), EXPERT)


def draw_tables(replay, batches):
  samples = [replay.sample() for _ in range(batches)]
  data, infos = zip(*samples, strict=True)
  return (
    np.concatenate([batch.reward for batch in data]).astype(int),
    tree.map_structure(lambda *leaves: np.concatenate(leaves), *infos),
  )


def test_elements_come_from_tables_as_the_mixture_says(make, items):
  replay = make.of(two_tables())
  fill_both(replay, items)
  numbers, info = draw_tables(replay, 100)
  assert_frequencies(info.table, [0.75, 0.25])
  np.testing.assert_array_equal(info.table, numbers >= 100)
  np.testing.assert_array_equal(info.params_version, numbers + 5)
  # The chance of an element: of its table, times that within the table.
  within = np.array([1, 2, 2, 1]) / 6
  chances = np.append(np.full(10, 0.075), 0.25 * within)
  places = np.where(numbers < 100, numbers, numbers - 90)
  np.testing.assert_allclose(info.probability, chances[places])
  assert_frequencies(places, chances)


def test_batches_mix_their_tables_in_no_order(make, items):
  replay = make.of(two_tables(mixture=(0.5, 0.5)))
  fill_both(replay, items)
  _, info = draw_tables(replay, 100)
  # Else a learner of many devices would give all of a table to one.
  assert_frequencies(info.table.reshape(100, 16)[:, 0], [0.5, 0.5])
  changes = np.diff(info.table) != 0
  assert 0.4 < changes.mean() < 0.6


def test_priorities_reach_the_table_that_an_item_is_of(make, items):
  replay = make.of(two_tables(mixture=(0.5, 0.5)))
  fill_both(replay, items)
  numbers, info = draw_tables(replay, 100)
  keys = dict(zip(numbers, info.key, strict=True))
  ours = np.array([keys[number] for number in range(10)])
  theirs = np.array([keys[number] for number in range(100, 104)])
  replay.update_priorities(ours, np.arange(10.0), 0)
  replay.update_priorities(theirs, np.array([0.0, 0, 9, 1]), 1)
  numbers, _ = draw_tables(replay, 100)
  places = np.where(numbers < 100, numbers, numbers - 90)
  chances = np.concatenate([np.arange(10) / 90, np.array([0, 0, 3, 1]) / 8])
  assert_frequencies(places, chances)


def test_priorities_of_a_uniform_table_are_ignored(make, items):
  replay = make.of(
    two_tables(mixture=(0.5, 0.5), expert={'priority_exponent': 0.0})
  )
  fill_both(replay, items)
  numbers, info = draw_tables(replay, 50)
  key = info.key[info.table == 1]
  replay.update_priorities(key, np.zeros(len(key)), 1)
  numbers, _ = draw_tables(replay, 50)
  assert_frequencies(numbers[numbers >= 100] - 100, np.full(4, 0.25))


def test_a_table_that_evicts_nothing_keeps_its_items_and_refuses_more(
  make, items, caplog, wait_until
):
  replay = make.of(two_tables(expert={'priority_exponent': 0.0}))
  fill_both(replay, items)
  message = (
    "table 'expert' keeps what it holds, 4 items, and has no room for 2 more: "
    'max_size=5. Raise it, or give fewer'
  )
  if isinstance(replay, backends.Reverb):  # which gives no answer
    inserter = replay.inserter(EXPERT)
    inserter.insert(items([104, 105]), np.ones(2))
    inserter.flush()
    wait_until(lambda: re.search(message, caplog.text))
  else:
    with pytest.raises(ValueError, match=message):
      replay.insert(items([104, 105]), np.ones(2), EXPERT)
  replay.insert(items([104]), np.ones(1), EXPERT)
  replay.insert(items(range(10, 90)), np.ones(80), OWN)
  assert replay.metrics()['expert/size'] == 5
  assert replay.metrics()['own/size'] == 50
  numbers, _ = draw_tables(replay, 50)
  assert set(numbers[numbers >= 100]) == set(range(100, 105))
  assert numbers[numbers < 100].min() >= 40


def test_without_a_ratio_neither_side_waits(make, items, wait_until):
  spec = replay_spec.ReplaySpec(
    (table('free', samples_per_insert=None),), batch_size=8
  )
  replay = make.of(spec)
  replay.insert(items(range(500)), np.ones(500))
  for _ in range(200):
    replay.sample()
  replay.insert(items(range(500)), np.ones(500))
  wait_until(lambda: replay.metrics()['sampled'] >= 1600)
  assert replay.metrics()['inserted'] == 1000


def test_a_batch_waits_for_each_table_that_it_needs(make, items):
  replay = make.of(two_tables(mixture=(0.5, 0.5), expert={'min_size': 4}))
  replay.insert(items(range(10)), np.ones(10), OWN)
  replay.insert(items(range(100, 103)), np.ones(3), EXPERT)
  if isinstance(replay, backends.InProcess):
    assert not replay.replay.can_sample()
    message = "the table 'expert' cannot be sampled yet: .*'expert' 3 windows"
    with pytest.raises(RuntimeError, match=message):
      replay.sample()
    replay.insert(items([103]), np.ones(1), EXPERT)
    assert replay.replay.can_sample()
    replay.sample()
    return
  thread, results = in_thread(replay.sample)
  thread.join(0.3)
  assert not results
  replay.insert(items([103]), np.ones(1), EXPERT)
  thread.join(10)
  assert results


def test_a_batch_does_not_wait_for_a_table_that_it_does_not_need(make, items):
  replay = make.of(two_tables(mixture=(1 - 1e-9, 1e-9)))
  replay.insert(items(range(10)), np.ones(10), OWN)
  numbers, info = draw_tables(replay, 5)
  assert numbers.max() < 10
  np.testing.assert_allclose(info.probability, 0.1)


def test_an_item_goes_into_all_tables_of_its_writer(make, items):
  spec = two_tables(
    mixture=(0.5, 0.5),
    expert={
      'filled_by': 'actors',
      'evicts': True,
      'max_size': 20,
      'priority_exponent': 0.0,
    },
  )
  replay = make.of(spec)
  inserter = replay.inserter()
  inserter.insert(items(range(60)), np.arange(60.0))
  getattr(inserter, 'flush', inserter.close)()
  replay.settle(120)
  metrics = replay.metrics()
  assert (metrics['own/size'], metrics['expert/size']) == (50, 20)
  numbers, info = draw_tables(replay, 50)
  assert set(numbers[info.table == 0]) <= set(range(10, 60))
  assert set(numbers[info.table == 1]) == set(range(40, 60))


def test_metrics_of_several_tables_have_their_names(make, items):
  replay = make.of(two_tables(own={'min_size': 2}))
  fill_both(replay, items)
  metrics = replay.metrics()
  assert metrics['own/size'] == metrics['own/inserted'] == 10
  assert metrics['expert/size'] == 4
  assert metrics['size'] == metrics['inserted'] == 14
  replay.sample()
  metrics = replay.metrics()
  sampled = metrics['own/sampled'] + metrics['expert/sampled']
  assert metrics['sampled'] == sampled >= 16
  assert metrics['samples_per_insert'] == metrics['own/samples_per_insert']


def test_several_ends_come_back_as_they_were(make):
  window = replay_spec.NStep((1, 3, 10), 0.9)
  layout = rows_lib.make_layout(window, playing.SPEC)
  rows = np.zeros(20, layout.dtype)
  sent = layout.views(rows)
  random = np.random.default_rng(0)
  for leaf in tree.flatten(sent):
    leaf[...] = random.integers(0, 9, leaf.shape)
  sent.observation['time'][:] = np.arange(20)
  replay = make(layout, window=window, batch_size=16)
  replay.insert(rows[:, None], np.ones(20))
  got, _ = replay.sample()
  assert got.reward.shape == got.discount.shape == (16, 3)
  assert got.next_observation['deep'][0].shape == (16, 3, 2)
  want = layout.views(rows[got.observation['time']])
  tree.map_structure(np.testing.assert_array_equal, got, want)


def as_one_table(**fields):
  """Returns a spec of two tables that are drawn from as if they were one."""
  return two_tables(
    mixture='priorities', own={'priority_exponent': 0.5}, **fields
  )


def test_tables_that_are_as_one_are_drawn_from_by_all_their_priorities(
  make, items
):
  replay = make.of(as_one_table())
  replay.insert(items(range(10)), np.full(10, 0.25), OWN)  # 10 x 0.5
  replay.insert(items(range(100, 104)), np.array([1, 4, 4, 1.0]), EXPERT)  # 6
  drawn, info = draw_tables(replay, 60)
  weights = np.where(drawn < 100, 0.5, 1.0)
  weights = np.where(np.isin(drawn, [101, 102]), 2.0, weights)
  np.testing.assert_allclose(info.probability, weights / 11)
  np.testing.assert_array_equal(info.table, drawn >= 100)
  # Six deviations of 960 draws.
  assert info.table.mean() == pytest.approx(6 / 11, abs=0.1)
  # With new priorities the share of the tables is another.
  keys = np.unique(info.key[info.table == 0])
  replay.update_priorities(keys, np.full(len(keys), 1e-8), 0)
  _, info = draw_tables(replay, 20)
  assert info.table.mean() > 0.95


def test_pretraining_is_of_demonstrations_alone_and_waits_for_no_actor(
  make, items
):
  spec = dataclasses.replace(as_one_table(), pretraining_batches=5)
  replay = make.of(spec)
  replay.insert(items(range(100, 104)), np.ones(4), EXPERT)
  in_one_process = isinstance(replay, backends.InProcess)
  tables = (replay.replay if in_one_process else replay.store)._memory
  assert (
    tables.room([0]) == 0
  )  # so that nobody acts for long with the first params
  _, info = draw_tables(replay, 5)
  assert info.table.all()
  np.testing.assert_allclose(info.probability, 0.25)
  if in_one_process:  # the others draw ahead, and wait
    assert not replay.replay.can_sample()  # there is nothing of the agent's own
  replay.insert(items(range(10)), np.ones(10), OWN)
  _, info = draw_tables(replay, 5)
  assert 0 < info.table.mean() < 1


def test_restored_tables_choose_as_before_whatever_their_own_seed(
  layout, items, tmp_path
):
  """A resumed run has another seed, since its environments begin anew."""
  first = in_process.InProcessReplay(two_tables(), layout, seed=0)
  for name, numbers in ((OWN, range(10)), (EXPERT, range(100, 104))):
    inserter = first.inserter(backends.named(two_tables(), [name]))
    inserter.insert(items(numbers), np.ones(len(numbers)))
  first.sample()
  first.save(tmp_path)
  second = in_process.InProcessReplay(two_tables(), layout, seed=7)
  second.load(memory.read(tmp_path))
  for _ in range(5):
    (data, info), (again, info_again) = first.sample(), second.sample()
    np.testing.assert_array_equal(data.reward, again.reward)
    np.testing.assert_array_equal(info.table, info_again.table)


@pytest.mark.parametrize('mixture', ['priorities', (0.1, 0.9)])
def test_a_ratio_counts_the_windows_of_all_tables(layout, items, mixture):
  """Else the learner learnt on and on where few windows are the agent's own."""
  ratio = {'samples_per_insert': 2.0, 'min_size': 10, 'error_buffer': 40}
  spec = two_tables(mixture=mixture, own={'priority_exponent': 0.5, **ratio})
  replay = in_process.InProcessReplay(spec, layout, 0)
  for name, numbers in ((OWN, range(30)), (EXPERT, range(100, 104))):
    inserter = replay.inserter(backends.named(spec, [name]))
    inserter.insert(items(numbers), np.ones(len(numbers)))
  batches = 0
  while replay.can_sample():
    replay.sample()
    batches += 1
  # Of 16 windows: twice the inserts, and 20 ahead.
  assert batches == (2 * 30 + 20) / 16
  metrics = replay.metrics()
  assert metrics['samples_per_insert'] == batches * 16 / (30 - 10)
  assert f'{batches * 16} sampled so far' in replay.describe()


def test_the_mixture_in_memory_depends_on_the_seed_alone(layout, items):
  drawn = []
  for seed in (0, 0, 1):
    replay = in_process.InProcessReplay(two_tables(), layout, seed)
    for name, numbers in ((OWN, range(10)), (EXPERT, range(100, 104))):
      inserter = replay.inserter(backends.named(two_tables(), [name]))
      inserter.insert(items(numbers), np.ones(len(numbers)))
    if len(drawn) == 1:
      replay.can_sample(7)  # looks ahead, and changes nothing
    drawn.append(draw_tables(replay, 10))
  (first, info), (again, info_again), (other, _) = drawn
  np.testing.assert_array_equal(first, again)
  np.testing.assert_array_equal(info.table, info_again.table)
  assert (first != other).any()
