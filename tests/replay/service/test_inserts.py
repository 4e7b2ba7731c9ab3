"""Packs from actors to the tables, and what replay answers."""

import asyncio
import logging
import threading

import grpc
import numpy as np
import pytest

from distacme import replay_spec
from distacme.replay import pack_inserter
from distacme.replay import packs
from distacme.replay import store as store_lib
from distacme.replay.service import way as way_lib
from distacme.replay.service import wire
from distacme.rpc import event_loop
from distacme.rpc import keys
from distacme.rpc import token as token_lib
from tests.replay.service.conftest import numbers_of
from tests.replay.service.conftest import pack_of
from tests.replay.service.conftest import queue


def count(store):
  """Returns the number of items that were inserted so far."""
  return store._memory.inserted(0)


def test_packs_arrive_in_their_order_and_are_acknowledged(serve, connect):
  store = store_lib.Store(queue())
  way = connect(serve(store).endpoint)
  for start in range(0, 12, 3):
    way.send(pack_of(range(start, start + 3)))
  assert way.wait(0, 10)
  drawn = [numbers_of(store.draw(1.0)) for _ in range(3)]
  assert drawn == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 10, 11]]


def test_a_full_queue_blocks_in_the_midst_of_a_pack_until_there_is_room(
  serve, connect
):
  store = store_lib.Store(queue(max_size=4))
  way = connect(serve(store).endpoint)
  way.send(pack_of(range(3)))
  assert way.wait(0, 10)
  way.send(pack_of(range(3, 6)))
  way.send(pack_of(range(6, 8)))
  assert not way.wait(1, 0.1)
  assert not way.wait(0, 0.0)
  assert numbers_of(store.draw(5.0)) == [0, 1, 2, 3]
  assert way.wait(0, 10)
  assert numbers_of(store.draw(5.0)) == [4, 5, 6, 7]
  assert 'inserted' in way.describe()
  assert way.describe().endswith('wait for the learner to sample more.')


def test_actors_that_wait_are_let_in_in_their_order(serve, connect):
  store = store_lib.Store(queue(max_size=4))
  endpoint = serve(store).endpoint
  first = connect(endpoint)
  first.send(pack_of(range(4)))
  assert first.wait(0, 10)
  ways = []
  for number in range(4, 8):
    ways.append(connect(endpoint))
    ways[-1].send(pack_of([number]))
    # It is in the line before the next one comes.
    assert not ways[-1].wait(0, 0.05)
  store.draw(5.0)
  assert all(way.wait(0, 10) for way in ways)
  assert numbers_of(store.draw(5.0)) == [4, 5, 6, 7]


def test_two_hundred_idle_actors_have_no_thread_each(serve):
  """A `GrpcWay` has threads of its own, and so there are only calls here."""
  store = store_lib.Store(queue(max_size=4))
  endpoint = serve(store).endpoint
  first = way_lib.GrpcWay(endpoint)
  first.send(pack_of(range(4)))
  assert first.wait(0, 10)

  async def open_all():
    channel = grpc.aio.insecure_channel(endpoint.address)
    calls = []
    for actor in range(200):
      call = channel.stream_stream(wire.SERVICE.method('Insert'))()
      await call.write(wire.Visit(actor, 0).to_bytes())
      if actor % 2:  # half of them wait for room
        await call.write(pack_of([actor]))
      calls.append(call)
    return channel, calls

  before = threading.active_count()
  channel, calls = event_loop.run(open_all())

  async def answers():
    return await asyncio.gather(*(call.read() for call in calls[1::2]))

  got = asyncio.run_coroutine_threadsafe(answers(), event_loop.shared())
  drawn = []
  while len(drawn) < 104:
    drawn += numbers_of(store.draw(10.0))
  assert {wire.count_from_bytes(count) for count in got.result(10)} == {1}
  assert sorted(drawn) == sorted([*range(4), *range(1, 200, 2)])
  assert threading.active_count() < before + 5
  event_loop.run(channel.close())
  first.close()


@pytest.mark.parametrize(
  ('pack', 'refusal'),
  [
    (b'nonsense', 'no pack'),
    (pack_of([1])[:-1], 'cut or damaged'),
    (pack_of([1], tables=(3,)), 'table 3 of 1'),
    (
      packs.encode(
        packs.Pack((0,), np.zeros((1, 8), np.uint8), np.array([np.nan]), None)
      ),
      'priorities must be finite',
    ),
  ],
  ids=['nonsense', 'cut', 'table', 'priority'],
)
def test_a_refused_pack_raises_with_the_servers_sentence(
  serve, connect, pack, refusal
):
  store = store_lib.Store(queue())
  endpoint = serve(store).endpoint
  way = connect(endpoint)
  way.send(pack)
  with pytest.raises(
    ValueError, match=f'{endpoint.address} refused: .*{refusal}'
  ):
    way.wait(0, 10)
  assert not count(store)


def test_items_of_another_size_are_refused_with_a_hint(serve, connect):
  endpoint = serve(queue()).endpoint
  connect(endpoint).send(pack_of([1]))
  other = connect(endpoint)
  items = np.zeros((1, 5), np.uint8)
  first = connect(endpoint)
  first.send(pack_of([2]))
  assert first.wait(0, 10)
  other.send(packs.encode(packs.Pack((0,), items, np.ones(1), None)))
  with pytest.raises(ValueError, match='actors do not agree'):
    other.wait(0, 10)


def test_a_pack_of_twenty_megabytes_passes(serve, connect):
  store = store_lib.Store(queue(batch_size=1))
  way = connect(serve(store).endpoint)
  item = np.random.default_rng(0).integers(0, 256, (1, 20_000_001), np.uint8)
  way.send(packs.encode(packs.Pack((0,), item, np.ones(1), None)))
  assert way.wait(0, 20)
  np.testing.assert_array_equal(store.draw(1.0).items, item)


def test_what_replay_lacks_after_a_restart_elsewhere_is_sent_again(
  serve, connect, wait_until, caplog
):
  store = store_lib.Store(queue(max_size=4))
  first = serve(store)
  found = [first.endpoint]
  way = connect(first.endpoint, lambda: found[-1])
  way.send(pack_of(range(3)))
  assert way.wait(0, 10)
  way.send(pack_of(range(3, 6)))  # one item of it fits
  wait_until(lambda: count(store) == 4)
  first.stop(grace_s=0)
  assert 'did not answer' in way.describe()
  way.send(pack_of(range(6, 8)))
  later = store_lib.Store(queue())
  found.append(serve(later, incarnation=1).endpoint)
  with caplog.at_level(logging.WARNING):
    assert way.wait(0, 20)
  assert numbers_of(later.draw(5.0)) == [3, 4, 5, 6]  # both, whole
  assert f'at {found[-1].address} was tried' in caplog.text


def test_a_broken_stream_loses_nothing_and_repeats_nothing(
  serve, connect, wait_until
):
  """The server goes on, and a pack is in the tables in part."""
  store = store_lib.Store(queue(max_size=4))
  server = serve(store)
  way = connect(server.endpoint)
  way.send(pack_of(range(3)))
  assert way.wait(0, 10)
  way.send(pack_of(range(3, 6)))
  way.send(pack_of(range(6, 8)))
  wait_until(lambda: count(store) == 4)
  visit = way._visit
  channel = way._line._channel
  way._line._channel, way._line._metadata = way._line._open(server.endpoint)
  channel.close()
  wait_until(lambda: way._visit > visit)
  assert numbers_of(store.draw(5.0)) == [0, 1, 2, 3]
  assert way.wait(0, 20)
  assert numbers_of(store.draw(5.0)) == [4, 5, 6, 7]


def test_frames_go_on_in_a_stream_that_is_opened_again(
  serve, connect, wait_until
):
  spec = queue(max_size=8, batch_size=1)
  store = store_lib.Store(spec)
  server = serve(store)
  way = connect(server.endpoint)

  def send(first, new, named):
    frames = packs.Frames(
      7,
      first,
      0,
      np.full((new, 2), first, np.uint8),
      np.array([len(named)], np.uint32),
      np.array(named, np.uint64),
    )
    way.send(pack_of([first], frames))
    assert way.wait(0, 20)

  send(0, 2, [0, 1])
  channel = way._line._channel
  way._line._channel, way._line._metadata = way._line._open(server.endpoint)
  channel.close()
  send(2, 1, [1, 2])
  assert store.draw(5.0).frames[0][0].tolist() == [0, 0]
  assert [f.tolist() for f in store.draw(5.0).frames[0]] == [[0, 0], [2, 2]]


@pytest.mark.parametrize('tls', [False, True])
def test_only_who_has_the_token_inserts(serve, connect, tmp_path, tls):
  if tls:
    pytest.importorskip('cryptography')
  key = keys.make(tmp_path) if tls else None
  token = token_lib.make(tmp_path)
  store = store_lib.Store(queue())
  endpoint = serve(store, key=key, token=token).endpoint
  stranger = connect(endpoint._replace(token=None))
  stranger.send(pack_of([9]))
  assert not stranger.wait(0, 0.3)
  assert f'lacks the token of the run, which is in {token}' in (
    stranger.describe()
  )
  assert not count(store)
  way = connect(endpoint)
  way.send(pack_of(range(4)))
  assert way.wait(0, 10)
  assert numbers_of(store.draw(5.0)) == [0, 1, 2, 3]


def test_a_pack_inserter_blocks_gives_up_and_closes(serve, layout):
  stop = threading.Event()
  store = store_lib.Store(queue(max_size=4))
  way = way_lib.GrpcWay(serve(store).endpoint)
  inserter = pack_inserter.PackInserter(
    way, store.spec, store.spec.tables, layout, stop.is_set
  )
  rows = np.zeros((3, 8), np.uint8)
  inserter.insert(rows, np.ones(3))
  assert count(store) == 3  # a queue: the insert lasts until it is done
  timer = threading.Timer(0.1, stop.set)
  timer.start()
  inserter.insert(rows, np.ones(3))
  timer.join()
  assert inserter.blocked_s > 0.05
  inserter.insert(rows, np.ones(3))  # does nothing any more
  inserter.close()
  assert count(store) == 4


def test_a_ratio_lets_actors_in_as_the_learner_samples(serve, connect):
  table = replay_spec.Table(
    'replay', replay_spec.NStep(1, 0.9), 1000, 8, samples_per_insert=1.0
  )
  store = store_lib.Store(replay_spec.ReplaySpec((table,), 4))
  way = connect(serve(store).endpoint)
  for start in range(0, 60, 10):
    way.send(pack_of(range(start, start + 10)))
  assert not way.wait(0, 0.1)
  for _ in range(12):
    store.draw(5.0)
  assert way.wait(0, 10)
  assert count(store) == 60
