"""The store of a replay worker, and what packs and frames bring to it."""

import threading

import hypothesis
from hypothesis import strategies as st
import numpy as np
import pytest

from distacme import replay_spec
from distacme.replay import frame_streams
from distacme.replay import packs
from distacme.replay import store as store_lib

SPEC = replay_spec.single(
  replay_spec.NStep(1, 0.9),
  batch_size=2,
  max_size=100,
  min_size=4,
  samples_per_insert=1.0,
  error_buffer=4.0,
)


def pack_of(count, frames=None, tables=(0,), priority=1.0):
  items = np.arange(8 * count, dtype=np.uint8).reshape(count, 8)
  return packs.Pack(tables, items, np.full(count, priority), frames)


def frames_of(first, new, named, stream=7, oldest=0):
  return packs.Frames(
    stream,
    first,
    oldest,
    np.arange(first, first + new, dtype=np.uint8)[:, None].repeat(5, 1),
    np.array([len(each) for each in named], np.uint32),
    np.array([n for each in named for n in each], np.uint64),
  )


@pytest.mark.parametrize(
  'pack',
  [
    pack_of(3),
    pack_of(0),
    pack_of(2, tables=(0, 3)),
    pack_of(2, frames_of(5, 3, [[5, 6], [6, 7]])),
    pack_of(1, frames_of(9, 0, [[5, 6, 7]])),
  ],
)
def test_packs_survive_the_round_trip(pack):
  data = packs.encode(pack)
  got = packs.decode(data)
  assert got.tables == pack.tables
  np.testing.assert_array_equal(got.items, pack.items)
  np.testing.assert_array_equal(got.priorities, pack.priorities)
  assert (got.frames is None) == (pack.frames is None)
  for mine, yours in zip(got.frames or (), pack.frames or (), strict=True):
    np.testing.assert_array_equal(mine, yours)
  # As Reverb brings them: with zeros behind.
  assert packs.size_of(memoryview(data + bytes(50))) == len(data)


@hypothesis.given(st.data())
def test_what_is_no_pack_is_a_value_error(data):
  whole = packs.encode(pack_of(2, frames_of(5, 3, [[5, 6], [6, 7]])))
  at = data.draw(st.integers(0, len(whole) - 1))
  byte = data.draw(st.integers(0, 255))
  cut = data.draw(st.integers(0, len(whole)))
  for wrong in (whole[:cut], whole[:at] + bytes([byte]) + whole[at + 1 :]):
    try:
      pack = packs.decode(wrong)
      store = store_lib.Store(SPEC)
      store.insert_some(store.begin(pack))
    except ValueError:
      pass


def test_items_go_in_as_there_is_room_and_in_parts():
  store = store_lib.Store(SPEC)
  waiting = store.begin(pack_of(20))
  assert not store.insert_some(waiting)
  assert waiting.inserted == 8  # 4, and the buffer
  told = threading.Event()
  store.on_room(told.set)
  assert store.draw(0.0) is not None
  assert told.is_set()
  assert not store.insert_some(waiting)
  assert waiting.inserted == 10


def test_an_insert_that_waits_goes_on_and_gives_up():
  store = store_lib.Store(SPEC)
  stop = threading.Event()
  results = []
  thread = threading.Thread(
    target=lambda: results.append(store.insert(pack_of(20), stop.is_set))
  )
  thread.start()
  for _ in range(6):
    assert store.draw(10.0) is not None
  thread.join(10)
  assert results == [True]
  assert not store.insert(pack_of(20), lambda: True)
  assert not store.wait_for_room(lambda: True)


def test_a_draw_waits_for_its_time_only():
  store = store_lib.Store(SPEC)
  assert store.draw(0.0) is None
  assert store.draw(0.02) is None


def test_a_pack_for_no_table_is_refused():
  with pytest.raises(ValueError, match='table 3 of 1'):
    store_lib.Store(SPEC).begin(pack_of(1, tables=(3,)))


def test_items_of_another_size_are_refused():
  store = store_lib.Store(SPEC)
  store.insert(pack_of(2))
  other = pack_of(1)._replace(items=np.zeros((1, 9), np.uint8))
  with pytest.raises(ValueError, match='items of 8 bytes, and one of 9'):
    store.insert(other)


def test_frames_of_earlier_packs_are_known_until_they_are_too_old():
  store = store_lib.Store(SPEC)
  first = store.begin(pack_of(1, frames_of(0, 4, [[0, 1]])))
  assert [frame[0] for frame in first.frames[0]] == [0, 1]
  second = store.begin(pack_of(2, frames_of(4, 2, [[2, 5], [3, 4]], oldest=2)))
  assert [frame[0] for frame in second.frames[0]] == [2, 5]
  third = store.begin(pack_of(2, frames_of(6, 1, [[1, 6], [2, 6]], oldest=2)))
  assert len(third.frames) == len(third.pack.items) == 1
  np.testing.assert_array_equal(third.pack.items[0], pack_of(2).items[1])


def test_frames_without_end_push_out_those_of_the_stillest_actor(monkeypatch):
  frame_bytes = frames_of(0, 1, []).new.nbytes
  monkeypatch.setattr(frame_streams, '_MAX_BYTES', 10 * frame_bytes)
  store = store_lib.Store(SPEC)

  def send(actor, first, new, named=()):
    stream = actor << 32
    frames = frames_of(first, new, [list(named)] if named else [], stream)
    return store.begin(pack_of(1 if named else 0, frames)).frames

  send(1, 0, 4)
  send(2, 0, 4)
  assert send(1, 4, 1, [0, 4])  # 9 frames: all are there
  send(2, 0, 4)  # again, as after a replay that was restarted
  assert send(1, 5, 1, [0, 5])
  send(3, 0, 4)  # 14: those of actor 2 go
  assert send(1, 6, 1, [0, 6]) is not None
  assert not send(2, 4, 1, [3, 4])
  assert not send(4, 0, 11, [0, 1])  # more than all may take
  assert send(5, 0, 10, [0, 9])


def test_frames_of_another_size_begin_a_stream_anew():
  store = store_lib.Store(SPEC)
  store.begin(pack_of(0, frames_of(0, 4, [])))
  larger = frames_of(4, 2, [[0, 4], [4, 5]])
  larger = larger._replace(new=larger.new.repeat(2, axis=1))
  (frames,) = store.begin(pack_of(2, larger)).frames
  assert [frame.nbytes for frame in frames] == [10, 10]


def test_items_whose_frames_a_restart_lost_are_left_out(caplog):
  caplog.set_level('INFO')
  store = store_lib.Store(SPEC)
  waiting = store.begin(
    pack_of(3, frames_of(40, 3, [[38, 40], [39], [41, 42]]))
  )
  assert len(waiting.pack.items) == 1
  assert '2 items so far' in caplog.text
  other = frames_of(40, 1, [[41]], stream=8)  # of another actor
  assert not store.begin(pack_of(1, other)).frames


def test_tables_that_need_too_much_memory_end_the_worker_with_a_sentence():
  spec = replay_spec.single(
    replay_spec.NStep(1, 0.9),
    batch_size=2,
    max_size=10**9,
    min_size=4,
    samples_per_insert=1.0,
    error_buffer=4.0,
  )
  store = store_lib.Store(spec)
  store.check()
  large = packs.Pack((0,), np.zeros((1, 10**6), np.uint8), np.ones(1), None)
  with pytest.raises(MemoryError, match='needs 931322.6 GiB .* Lower max_size'):
    store.insert(large)
  with pytest.raises(MemoryError):
    store.check()
  # A caller's mistake is none of the tables.
  other = store_lib.Store(SPEC)
  with pytest.raises(ValueError):
    other.insert(pack_of(1, tables=(3,)))
  other.check()
