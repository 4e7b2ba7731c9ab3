"""Batches to a learner on another host, and priorities back."""

import socket
import threading

import numpy as np
import pytest

from distacme import replay_spec
from distacme.replay import form as form_lib
from distacme.replay import packs
from distacme.replay import sampler as sampler_lib
from distacme.replay import store as store_lib
from distacme.replay.service import outlet as outlet_lib
from distacme.replay.service import wire
from distacme.rpc import keys
from distacme.rpc import pieces
from distacme.rpc import token as token_lib
from distacme.run import endpoints
from tests.replay.service.conftest import FORM
from tests.replay.service.conftest import numbers_of
from tests.replay.service.conftest import pack_of
from tests.replay.service.conftest import queue


def prioritized(batch_size=FORM.items):
  return replay_spec.single(
    replay_spec.NStep(1, 0.9),
    batch_size=batch_size,
    max_size=100,
    min_size=1,
    samples_per_insert=None,
    priority_exponent=1.0,
  )


def insert(store, *args, **kwargs):
  store.insert(packs.decode(pack_of(*args, **kwargs)))


def sampled(store):
  return store._memory._tables[0].counts.sampled


def test_batches_come_in_the_order_of_a_queue(serve, draw_from):
  store = store_lib.Store(queue())
  outlet = draw_from(serve(store).endpoint)
  insert(store, range(12))
  drawn = [outlet.next() for _ in range(3)]
  assert [numbers_of(batch) for batch in drawn] == [
    [0, 1, 2, 3],
    [4, 5, 6, 7],
    [8, 9, 10, 11],
  ]
  assert drawn[1].keys.tolist() == [4, 5, 6, 7]
  assert drawn[1].probability.tolist() == [1.0] * 4
  assert drawn[1].tables.tolist() == [0] * 4
  assert drawn[1].frames is None


def test_one_batch_is_drawn_beside_the_one_that_is_learnt_from(
  serve, draw_from, wait_until
):
  store = store_lib.Store(queue())
  outlet = draw_from(serve(store).endpoint)
  insert(store, range(40))
  wait_until(lambda: sampled(store) == 8)
  outlet.next()
  # The answer comes after all that replay was asked for before.
  assert '8 sampled so far' in wire.describe(outlet._line)
  outlet.next()
  wait_until(lambda: sampled(store) == 12)
  assert '12 sampled so far' in wire.describe(outlet._line)


def test_a_learner_waits_for_items_and_lets_actors_in(
  serve, draw_from, connect
):
  store = store_lib.Store(queue(max_size=4))
  endpoint = serve(store).endpoint
  outlet, way = draw_from(endpoint), connect(endpoint)
  for start in range(0, 24, 3):
    way.send(pack_of(range(start, start + 3)))
  drawn = sum((numbers_of(outlet.next()) for _ in range(6)), [])
  assert drawn == list(range(24))
  assert way.wait(0, 10)


def test_priorities_reach_the_table(serve, draw_from, wait_until):
  store = store_lib.Store(prioritized())
  outlet = draw_from(serve(store).endpoint)
  insert(store, range(3))
  outlet.next()
  outlet.update_priorities(
    np.zeros(3, np.int32), np.arange(3), np.array([0.0, 2.0, 0.0])
  )
  # By their chance, since a batch of the same items may come of any priorities.
  certain = [1.0] * 4
  wait_until(lambda: store.draw(1.0).probability.tolist() == certain)
  batch = outlet.next()
  for _ in range(5):
    if batch.probability.tolist() == certain:
      break
    batch = outlet.next()  # this one was drawn ahead of the priorities
  assert batch.probability.tolist() == certain
  assert numbers_of(batch) == [1] * 4


def test_more_priorities_than_a_message_holds_arrive(
  serve, draw_from, wait_until
):
  store = store_lib.Store(prioritized())
  outlet = draw_from(serve(store).endpoint)
  insert(store, range(3))
  many = 3 * pieces.BYTES // 20
  priorities = np.ones(many)
  priorities[-1] = 5.0
  outlet.update_priorities(
    np.zeros(many, np.int32), np.arange(many, dtype=np.uint64) % 3, priorities
  )
  wait_until(lambda: store.draw(1.0).probability.max() == pytest.approx(5 / 7))


def test_priorities_that_make_no_sense_are_refused(serve, draw_from):
  store = store_lib.Store(prioritized())
  outlet = draw_from(serve(store).endpoint)
  outlet.update_priorities(
    np.zeros(1, np.int32), np.zeros(1, np.uint64), np.array([-1.0])
  )
  with pytest.raises(ValueError, match='refused: priorities must be finite'):
    outlet.next()


@pytest.mark.parametrize('frames', [False, True])
def test_a_batch_of_twenty_megabytes_comes_in_pieces(serve, draw_from, frames):
  random = np.random.default_rng(0)
  store = store_lib.Store(queue(batch_size=2))
  data = random.integers(0, 256, (20, 1_000_003), np.uint8)
  if frames:
    form = form_lib.Form(2, 8, max_frames=30, frame_bytes=data.shape[1])
    named = [*range(12), *range(8, 20)]
    whole = packs.Frames(
      7, 0, 0, data, np.array([12, 12], np.uint32), np.array(named, np.uint64)
    )
    insert(store, range(2), whole)
  else:
    form = form_lib.Form(2, data.size // 2)
    pack = packs.Pack((0,), data.reshape(2, -1), np.ones(2), None)
    store.insert(pack)
  batch = draw_from(serve(store).endpoint, form).next()
  if frames:
    assert numbers_of(batch) == [0, 1]
    np.testing.assert_array_equal(np.stack(batch.frames[0]), data[:12])
    np.testing.assert_array_equal(np.stack(batch.frames[1]), data[8:])
  else:
    np.testing.assert_array_equal(batch.items, data.reshape(2, -1))


@pytest.mark.parametrize(
  ('form', 'hint'),
  [
    (form_lib.Form(4, 9), 'do not agree about the environment spec'),
    (form_lib.Form(5, 8), 'do not agree about the environment spec'),
    (form_lib.Form(4, 8, 16, 10), 'about stacked observations'),
  ],
)
def test_a_learner_of_another_form_is_refused(serve, draw_from, form, hint):
  store = store_lib.Store(queue())
  endpoint = serve(store).endpoint
  outlet = draw_from(endpoint, form)
  insert(store, range(4))
  with pytest.raises(ValueError, match=f'{endpoint.address} refused: .*{hint}'):
    outlet.next()
  with pytest.raises(OSError):
    outlet.update_priorities(*[np.zeros(0)] * 3)


def test_a_service_that_is_not_there_is_an_os_error():
  with socket.socket() as taken:
    taken.bind(('127.0.0.1', 0))
    nowhere = endpoints.Endpoint(*taken.getsockname())
    with pytest.raises(OSError, match='learner/0 waited 0.2 s for the replay'):
      outlet_lib.GrpcOutlet(nowhere, FORM, timeout_s=0.2)


@pytest.mark.parametrize('end', ['close', 'stop'])
def test_an_end_on_either_side_ends_a_next_that_waits(serve, draw_from, end):
  served = serve(queue())
  outlet = draw_from(served.endpoint)
  ends = {'close': outlet.close, 'stop': lambda: served.stop(grace_s=0)}
  timer = threading.Timer(0.1, ends[end])
  timer.start()
  with pytest.raises(OSError):
    outlet.next()
  with pytest.raises(OSError):
    outlet.update_priorities(*[np.zeros(1)] * 3)
  timer.join()


def test_no_thread_of_a_learner_that_left_stays(serve, draw_from, wait_until):
  store = store_lib.Store(queue())
  served = serve(store)
  for _ in range(3):
    outlet = draw_from(served.endpoint)
    outlet.close()
  wait_until(lambda: served._batches._learners == 0)
  insert(store, range(8))
  assert numbers_of(draw_from(served.endpoint).next()) == [0, 1, 2, 3]


@pytest.mark.parametrize('tls', [False, True])
def test_only_who_has_the_token_draws(serve, draw_from, tmp_path, tls):
  if tls:
    pytest.importorskip('cryptography')
  key = keys.make(tmp_path) if tls else None
  token = token_lib.make(tmp_path)
  store = store_lib.Store(queue())
  endpoint = serve(store, key=key, token=token).endpoint
  insert(store, range(8))
  with pytest.raises(OSError, match=f'lacks the token .*{token}'):
    draw_from(endpoint._replace(token=None))
  assert not sampled(store)
  outlet = draw_from(endpoint)
  assert numbers_of(outlet.next()) == [0, 1, 2, 3]
  assert 'replay holds in table' in wire.describe(outlet._line)


def test_a_sampler_goes_on_with_a_service_that_was_restarted(
  serve, layout, caplog
):
  spec = queue(batch_size=2)
  form = form_lib.Form(2, layout.dtype.itemsize)
  rows = np.zeros(4, layout.dtype)

  def filled():
    store = store_lib.Store(spec)
    items = rows.view(np.uint8).reshape(len(rows), -1)
    store.insert(packs.Pack((0,), items, np.ones(len(rows)), None))
    return store

  first = serve(filled())
  found = [first.endpoint]
  sampler = sampler_lib.Sampler(
    lambda: outlet_lib.GrpcOutlet(found[-1], form, timeout_s=0.2), layout, str
  )
  sampler.sample()
  first.stop(grace_s=0)
  found.append(serve(filled(), incarnation=1).endpoint)
  for _ in range(2):
    _, info = sampler.sample()
  sampler.update_priorities(info, np.ones(2))
  sampler.close()
