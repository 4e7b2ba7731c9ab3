"""Odd messages are taken or refused, and cost little."""

import contextlib
import dataclasses
import logging
import struct
import tracemalloc

import grpc
import hypothesis
from hypothesis import strategies as st
import numpy as np
import pytest

from distacme.replay import form as form_lib
from distacme.replay import packs
from distacme.replay import store as store_lib
from distacme.replay import tables
from distacme.replay.service import server
from distacme.replay.service import wire
from distacme.rpc import messages
from distacme.rpc import pieces
from tests import garbage
from tests.replay.service.conftest import numbers_of
from tests.replay.service.conftest import pack_of
from tests.replay.service.conftest import queue

FRAMES = form_lib.Form(items=2, item_bytes=8, max_frames=4, frame_bytes=3)

whole_packs = st.sampled_from([pack_of([1, 2]), pack_of([3] * 40)])
whole_batches = st.sampled_from(
  [
    b''.join(
      wire.batch_to_pieces(
        FRAMES,
        tables.DrawnItems(
          np.zeros((2, 8), np.uint8),
          np.zeros(2, np.uint64),
          np.ones(2),
          np.zeros(2, np.int32),
          [[np.zeros(3, np.uint8)] * 2] * 2,
        ),
      )
    )
  ]
)


@st.composite
def spoilt(draw, wholes):
  """What is whole, cut, longer, or has other numbers in its place."""
  data = bytearray(draw(wholes))
  for _ in range(draw(st.integers(0, 3))):
    at = draw(st.integers(0, min(len(data), 120) - 8))
    number = draw(
      st.sampled_from([0, 1, 2**31, 2**32, 2**62, 2**64 - 1])
      | st.integers(0, 200)
    )
    data[at : at + 8] = struct.pack('<Q', number)
  end = draw(st.sampled_from([len(data), len(data), 0, 3, 70]))
  return bytes(data[:end]) + draw(st.sampled_from([b'', b'', b'x']))


several = hypothesis.settings(
  max_examples=150,
  deadline=None,
  suppress_health_check=[hypothesis.HealthCheck.function_scoped_fixture],
)


def peak_bytes(function):
  """Returns the most memory that Python and numpy took for `function`."""
  tracemalloc.start()
  try:
    function()
    return tracemalloc.get_traced_memory()[1]
  finally:
    tracemalloc.stop()


@hypothesis.settings(max_examples=400, deadline=None)
@hypothesis.given(data=spoilt(whole_packs) | st.binary(max_size=100))
def test_whatever_comes_is_a_pack_or_a_value_error(data):
  try:
    joining = wire.join_pack(data)
    pack = packs.decode(joining.data) if joining.whole else None
  except ValueError as error:
    assert str(error).encode()
    return
  assert pack is None or len(pack.items) == len(pack.priorities)


@hypothesis.settings(max_examples=400, deadline=None)
@hypothesis.given(data=spoilt(whole_batches) | st.binary(max_size=100))
def test_whatever_comes_is_a_batch_or_a_value_error(data):
  try:
    joining = wire.join_batch(FRAMES, data)
    batch = wire.batch_from_bytes(FRAMES, joining.data)
  except ValueError as error:
    assert str(error).encode()
    return
  assert batch.items.shape == (2, 8)
  assert sum(map(len, batch.frames)) <= FRAMES.max_frames


def test_sizes_beyond_the_limit_are_refused_before_memory_is_taken():
  header = bytearray(pack_of([1]))
  header[8:16] = struct.pack('<Q', packs.MAX_BYTES + 1)
  of_batch = struct.pack('<QQQQQ', 2**40, 2, 8, 2**38, 3)

  def read():
    with pytest.raises(ValueError):
      wire.join_pack(bytes(header))
    with pytest.raises(ValueError):
      wire.join_batch(FRAMES, of_batch)

  assert peak_bytes(read) < 100_000


def test_a_header_alone_takes_no_memory():
  size = packs.MAX_BYTES
  header = bytearray(pack_of([1]))
  header[8:16] = struct.pack('<Q', size)

  def read():
    with pytest.raises(ValueError, match='cut or damaged'):
      wire.join_pack(bytes(header))

  assert peak_bytes(read) < 100_000


@pytest.fixture(scope='module', name='stubborn')
def fixture_stubborn():
  """A server that goes on whatever the fuzz sends."""
  store = store_lib.Store(queue(max_size=1 << 40))
  served = server.ReplayServer(store)
  with grpc.insecure_channel(served.endpoint.address) as channel:
    yield served, channel
  served.stop(grace_s=0)


def call(stubborn, caplog, name, requests):
  """Calls the server: it answers, or refuses and logs why."""
  served, channel = stubborn
  caplog.clear()
  method = channel.stream_stream(wire.SERVICE.method(name))
  with caplog.at_level(logging.WARNING):
    try:
      list(method(iter(requests), timeout=20))
    except grpc.RpcError as error:
      assert error.code() == grpc.StatusCode.INVALID_ARGUMENT, error
      assert 'Refused a call from ipv' in caplog.text
  assert 'Traceback' not in caplog.text
  describe = channel.unary_unary(wire.SERVICE.method('Describe'))
  assert b'replay holds' in describe(b'', timeout=20)


visits = st.binary(max_size=20) | st.tuples(
  st.integers(0, 2), st.integers(0, 3)
).map(lambda pair: wire.Visit(*pair).to_bytes())


@several
@hypothesis.given(
  visit=visits,
  parts=st.lists(spoilt(whole_packs) | st.binary(max_size=100), max_size=4),
)
def test_the_server_takes_or_refuses_any_packs(stubborn, caplog, visit, parts):
  call(stubborn, caplog, 'Insert', [visit, *parts])


numbers = st.sampled_from([-1, 0, 4, 8, 2**39, 2**64, 10**400, 'many', None])
forms = st.binary(max_size=50) | st.fixed_dictionaries(
  {'items': numbers, 'item_bytes': numbers},
  optional={'max_frames': numbers, 'frame_bytes': numbers, 'what': numbers},
).map(messages.pack)
asks = st.sampled_from([wire.ASK, b'', b'X', b'AA']) | st.binary(
  max_size=41
).map(lambda data: wire.PRIORITIES + data)


@several
@hypothesis.given(form=forms, said=st.lists(asks, max_size=4))
def test_the_server_answers_or_refuses_any_learner(
  stubborn, caplog, form, said
):
  call(stubborn, caplog, 'Batches', [form, *said])


def test_what_was_refused_changed_nothing_for_others(serve, connect, draw_from):
  store = store_lib.Store(queue())
  endpoint = serve(store).endpoint
  with grpc.insecure_channel(endpoint.address) as channel:
    method = channel.stream_stream(wire.SERVICE.method('Insert'))
    for start in (b'', wire.Visit(3, 0).to_bytes()):
      with contextlib.suppress(grpc.RpcError):
        list(method(iter([start, pack_of([7])[:-1]]), timeout=20))
  way = connect(endpoint)
  way.send(pack_of(range(4)))
  assert way.wait(0, 10)
  assert numbers_of(draw_from(endpoint).next()) == [0, 1, 2, 3]


@pytest.mark.parametrize('kind', garbage.KINDS)
def test_garbage_at_the_port_neither_ends_nor_blocks_the_server(stubborn, kind):
  served, channel = stubborn
  for _ in range(3):
    garbage.send(served.endpoint.address, garbage.KINDS[kind])
  describe = channel.unary_unary(wire.SERVICE.method('Describe'))
  assert b'replay holds' in describe(b'', timeout=20)


def test_the_form_of_a_batch_survives_the_wire():
  form = form_lib.Form(4, 8, 16, 3)
  data = messages.pack(dataclasses.asdict(form))
  assert form_lib.Form.from_dict(messages.unpack(data)) == form
  assert pieces.BYTES < 4 << 20
