"""The tables of a replay: keys, chances, and contents that are saved."""

import json
import zipfile

import hypothesis
from hypothesis import strategies as st
import numpy as np
import pytest

from distacme import replay_spec
from distacme.replay import memory as memory_lib


def make(max_size=10, *, batch_size=4, priority_exponent=1.0):
  """Returns the tables of a spec that blocks nobody."""
  return memory_lib.Memory(
    replay_spec.single(
      replay_spec.NStep(1, 0.9),
      batch_size=batch_size,
      max_size=max_size,
      min_size=1,
      samples_per_insert=None,
      priority_exponent=priority_exponent,
    ),
    seed=1,
  )


def insert(memory, numbers, priorities=None, frames=None):
  """Inserts items that are the bytes of numbers."""
  numbers = np.asarray(numbers, np.int64)
  if priorities is None:
    priorities = np.ones(len(numbers))
  items = numbers[:, None].view(np.uint8)
  memory.insert([0], items, np.asarray(priorities, np.float64), frames)


def numbers_of(drawn):
  return drawn.items.view(np.int64)[:, 0]


def set_priorities(memory, keys, priorities):
  memory.update_priorities(
    np.zeros(len(keys), np.int32),
    np.asarray(keys, np.uint64),
    np.asarray(priorities, np.float64),
  )


@hypothesis.given(
  st.integers(1, 40), st.lists(st.integers(0, 90), min_size=1, max_size=8)
)
@hypothesis.settings(deadline=None)
def test_it_holds_the_newest_items_under_the_numbers_of_their_insertion(
  max_size, inserts
):
  memory = make(max_size, batch_size=64)
  number = 0
  for count in inserts:
    insert(memory, range(number, number + count))
    number += count
    if not number:
      continue
    drawn = memory.draw()
    np.testing.assert_array_equal(drawn.keys, numbers_of(drawn))
    assert drawn.keys.dtype == np.uint64
    assert (drawn.keys < number).all()
    assert (drawn.keys >= max(0, number - max_size)).all()
    np.testing.assert_allclose(drawn.probability, 1 / min(number, max_size))


@hypothesis.given(
  st.lists(st.tuples(st.integers(0, 25), st.integers(0, 5)), max_size=40)
)
@hypothesis.settings(deadline=None)
def test_priorities_are_those_last_set_to_items_that_are_held(updates):
  memory = make(8, batch_size=200, priority_exponent=0.5)
  insert(memory, range(20))
  priorities = dict.fromkeys(range(12, 20), 1)
  keys, new = zip(*updates, strict=True) if updates else ((), ())
  set_priorities(memory, keys, new)
  priorities |= {key: p for key, p in updates if key in priorities}
  total = sum(p**0.5 for p in priorities.values())
  hypothesis.assume(total)
  drawn = memory.draw()
  for key, chance in zip(drawn.keys.tolist(), drawn.probability, strict=True):
    assert chance == pytest.approx(priorities[key] ** 0.5 / total)
    assert chance > 0


@pytest.mark.parametrize('key', [2**63, 2**64 - 1, 2**64 - 8])
def test_a_key_that_no_item_ever_had_is_skipped(key):
  memory = make(8)
  insert(memory, range(3))
  set_priorities(memory, [key], [100.0])
  np.testing.assert_allclose(memory.draw().probability, 1 / 3)


def test_without_an_exponent_priorities_change_no_chance():
  memory = make(10, batch_size=1000, priority_exponent=0.0)
  insert(memory, range(10), np.arange(10))
  set_priorities(memory, range(10), np.zeros(10))
  drawn = memory.draw()
  np.testing.assert_array_equal(drawn.probability, 0.1)
  assert set(numbers_of(drawn).tolist()) == set(range(10))


def test_items_of_priority_zero_are_drawn_alike_if_all_are():
  memory = make(10, batch_size=1000)
  insert(memory, range(10), np.zeros(10))
  drawn = memory.draw()
  np.testing.assert_array_equal(drawn.probability, 0.1)
  assert set(numbers_of(drawn).tolist()) == set(range(10))


def windows(count, stack=3):
  """Returns frames of windows, in which each frame belongs to several."""
  frames = [np.full(5, n % 256, np.uint8) for n in range(count + stack)]
  return [tuple(frames[i : i + 1 + i % stack]) for i in range(count)]


@pytest.mark.parametrize('count', [0, 1, 7, 300])
@pytest.mark.parametrize('priority_exponent', [0.0, 0.6])
@pytest.mark.parametrize('stacks', [False, True])
def test_what_was_written_draws_the_same_batches(
  tmp_path, count, priority_exponent, stacks
):
  rng = np.random.default_rng(0)
  saved, loaded = (
    make(200, batch_size=64, priority_exponent=priority_exponent)
    for _ in range(2)
  )
  if count:
    frames = windows(count) if stacks else None
    insert(saved, range(count), rng.random(count), frames)
    saved.draw()
  saved.held().write(tmp_path)
  loaded.load(memory_lib.read(tmp_path))
  assert loaded.metrics() == saved.metrics()
  for memory in (saved, loaded):
    insert(memory, [77], [0.5], windows(1) if stacks else None)
  for _ in range(3):
    ours, theirs = saved.draw(), loaded.draw()
    for name in ('items', 'keys', 'probability', 'tables'):
      np.testing.assert_array_equal(getattr(ours, name), getattr(theirs, name))
    assert (ours.frames is None) == (theirs.frames is None) == (not stacks)
    for mine, yours in zip(ours.frames or (), theirs.frames or (), strict=True):
      np.testing.assert_array_equal(mine, yours)


@pytest.mark.parametrize('more', [0, 1, 5_000])
def test_a_copy_in_spare_memory_is_of_the_moment_of_copying(more):
  memory = make(10_000)
  insert(memory, range(2_000), np.arange(2_000))
  spare = memory.spare()
  insert(memory, range(2_000, 2_000 + more))
  (with_spare,) = memory.held(spare).tables.values()
  (without,) = memory.held().tables.values()
  insert(memory, range(20_000))  # changes all that is not a copy
  assert with_spare.arrays.keys() == {'items', 'weights', 'counts'}
  for name, array in without.arrays.items():
    np.testing.assert_array_equal(with_spare.arrays[name], array)
  numbers = with_spare.arrays['items'].view(np.int64)[:, 0]
  np.testing.assert_array_equal(numbers, np.arange(2_000 + more))


@pytest.mark.parametrize('inserted', [0, 3])
def test_spare_memory_of_an_empty_table_does_no_harm(inserted):
  memory = make(10)
  spare = memory.spare()
  insert(memory, range(inserted))
  (held,) = memory.held(spare).tables.values()
  assert len(held.arrays['items']) == inserted


def test_a_queue_that_was_written_goes_on_in_order(tmp_path):
  spec = replay_spec.queue(replay_spec.NStep(1, 0.9), 2, 10)
  saved, loaded = memory_lib.Memory(spec), memory_lib.Memory(spec)
  insert(saved, range(7), frames=windows(7))
  saved.draw()
  saved.held().write(tmp_path)
  loaded.load(memory_lib.read(tmp_path))
  for _ in range(2):
    ours, theirs = saved.draw(), loaded.draw()
    np.testing.assert_array_equal(numbers_of(theirs), numbers_of(ours))
    np.testing.assert_array_equal(theirs.keys, ours.keys)
    for mine, yours in zip(ours.frames, theirs.frames, strict=True):
      np.testing.assert_array_equal(mine, yours)


def test_a_file_has_each_frame_once(tmp_path):
  memory = make(100)
  insert(memory, range(100), frames=windows(100))
  memory.held().write(tmp_path)
  with np.load(tmp_path / 'tables.npz') as file:
    assert file['rows/experience'].shape == (101, 5)
    assert json.loads(str(file['random']))['bit_generator'] == 'PCG64'


def test_windows_that_were_loaded_share_their_frames(tmp_path):
  memory = make(100)
  insert(memory, range(100), frames=windows(100))
  memory.held().write(tmp_path)
  frames = memory_lib.read(tmp_path).tables['experience'].frames
  assert len({id(frame) for window in frames for frame in window}) == 101


@pytest.mark.parametrize('stacks', [False, True])
def test_a_byte_that_changed_is_noticed(tmp_path, stacks):
  memory = make(100)
  insert(memory, range(100), frames=windows(100) if stacks else None)
  memory.held().write(tmp_path)
  path = tmp_path / 'tables.npz'
  data = bytearray(path.read_bytes())
  marked = b'\x05' * 5 if stacks else np.int64(5).tobytes()
  data[data.index(marked)] ^= 1
  path.write_bytes(data)
  with pytest.raises(zipfile.BadZipFile, match='CRC'):
    memory_lib.read(tmp_path)
