"""Odd messages are taken or refused, and cost little.

Bytes, JSON and headers that no client of ours would write go to the decoding
and to a server, which goes on afterwards.
"""

import json
import logging
import tracemalloc

import grpc
import hypothesis
from hypothesis import strategies as st
import numpy as np
import pytest

from distacme import status as status_lib
from distacme.run import metrics
from distacme.run import run_state
from distacme.variables import client
from distacme.variables import server
from distacme.variables import wire
from tests import garbage

# A chunk, and what Python makes of a header of the largest size.
MEMORY_BYTES = 40 * wire.MAX_HEADER_BYTES

numbers = st.integers(-1, 2) | st.sampled_from([2**31, 2**60, 2**64, 10**400])
scalars = (
  st.none() | st.booleans() | numbers | st.floats() | st.text(max_size=8)
)
anything = st.recursive(
  # Python writes half a character as an escape, and reads it.
  scalars | st.just('\ud800'),
  lambda inner: (
    st.lists(inner, max_size=4)
    | st.dictionaries(st.text(max_size=4), inner, max_size=4)
  ),
  max_leaves=8,
)
dtypes = st.sampled_from([*wire._ITEMSIZE, 'object', 'float'])
leaves = (
  st.tuples(st.text(max_size=3), dtypes, st.lists(numbers, max_size=4))
  | anything
)


def bytes_of(messages):
  """Bytes of any kind, and `messages` as JSON, whole or cut."""
  text = messages.map(lambda message: json.dumps(message).encode())
  cut = st.tuples(text, st.integers(0, 50)).map(lambda pair: pair[0][: pair[1]])
  return text | cut | st.binary(max_size=100)


headers = bytes_of(
  st.fixed_dictionaries(
    {'version': numbers | anything, 'leaves': st.lists(leaves, max_size=3)}
  )
  | anything
)
reports = bytes_of(
  st.fixed_dictionaries(
    {
      'worker': st.text(max_size=3) | anything,
      'session': st.text(max_size=3),
      'sequence': numbers,
      'alive': st.booleans(),
      'counts': st.dictionaries(st.text(max_size=3), numbers, max_size=3)
      | anything,
      'metrics': st.lists(
        st.dictionaries(st.text(max_size=3), st.floats() | numbers, max_size=3)
        | anything,
        max_size=3,
      ),
      'state': st.sampled_from(status_lib.WorkerState) | anything,
    }
  )
  | anything
)
stops = bytes_of(
  st.fixed_dictionaries(
    {
      'reason': st.sampled_from(['solved', 'bored']) | anything,
      'detail': anything,
      'worker': anything,
    }
  )
)
failures = bytes_of(
  st.fixed_dictionaries({'worker': anything, 'detail': anything}) | anything
)
wishes = bytes_of(
  st.fixed_dictionaries({'num_actors': st.integers(-1, 1100) | anything})
  | anything
)
subscriptions = bytes_of(st.fixed_dictionaries({'version': anything})).filter(
  lambda data: not subscribes(data)
)


def subscribes(data):
  """Whether `data` is a good subscription, whose stream has no end."""
  try:
    return type(json.loads(data)['version']) is int
  except (ValueError, TypeError, KeyError, RecursionError):
    return False


def peak_bytes(function):
  """Returns the most memory that Python and numpy took for `function`."""
  tracemalloc.start()
  try:
    function()
    return tracemalloc.get_traced_memory()[1]
  finally:
    tracemalloc.stop()


@hypothesis.settings(max_examples=400, deadline=None)
@hypothesis.given(data=headers, chunks=st.lists(st.binary(max_size=200)))
def test_whatever_comes_is_params_or_a_value_error(data, chunks):
  try:
    header = wire.decode_header(data)
  except ValueError as error:
    assert str(error).encode()  # can be said to the peer and in a log
    return
  assert header.size <= wire.MAX_PARAMS_BYTES
  if header.size > wire.CHUNK_BYTES:
    return  # no such memory for a test; the chunks are too short anyway
  try:
    received = wire.receive(header, iter(chunks))
  except ValueError:
    return
  assert sum(len(chunk) for chunk in chunks) >= header.size
  shapes = [leaf.shape for leaf in header.leaves]
  assert [array.shape for array in received.arrays] == shapes


@pytest.mark.parametrize(
  'shape',
  [[2**60], [2**30, 2**30], [2**30, 1, 2**30, 0], [10**400]],
  ids=str,
)
def test_sizes_that_no_memory_has_are_refused_before_any_is_taken(shape):
  data = json.dumps({'version': 1, 'leaves': [['w', 'int8', shape]]}).encode()

  def decode():
    with pytest.raises(ValueError, match="Leaf 'w' has shape"):
      wire.decode_header(data)

  assert peak_bytes(decode) < 1_000_000


@pytest.mark.parametrize(
  'data',
  [
    b'[' * wire.MAX_HEADER_BYTES,
    b'[' + b'[],' * (wire.MAX_HEADER_BYTES // 3 - 1) + b'1]',
    b'{"version": 1, "leaves": [' + b'1' * (wire.MAX_HEADER_BYTES - 30) + b']}',
    b'{"version": 1, "leaves": [' + b'["w",' * 200_000,
  ],
  ids=['deep', 'wide', 'long number', 'cut'],
)
def test_the_worst_headers_take_little_memory(data):
  def decode():
    with pytest.raises(ValueError):
      wire.decode_header(data)

  assert peak_bytes(decode) < MEMORY_BYTES


def test_a_header_alone_takes_no_memory_from_the_server(connect, channel):
  """Two versions of 2**30 bytes, of which nothing but the header comes."""
  size = wire.MAX_PARAMS_BYTES
  header = json.dumps({'version': 3, 'leaves': [['w', 'int8', [size]]]})
  publish = channel.stream_unary(wire.SERVICE.method('Publish'))

  def call():
    for _ in range(2):
      with pytest.raises(grpc.RpcError) as refused:
        publish(iter([header.encode()]), timeout=20)
      assert refused.value.code() == grpc.StatusCode.INVALID_ARGUMENT

  assert peak_bytes(call) < MEMORY_BYTES
  assert connect().publish(1, {'w': np.zeros(1)})  # 3 never came


@pytest.fixture
def channel(variable_server):
  with grpc.insecure_channel(variable_server.endpoint.address) as channel:
    yield channel


@pytest.fixture(scope='module', name='stubborn')
def fixture_stubborn(tmp_path_factory):
  """A server that writes metrics, and goes on whatever the fuzz sends."""
  sink = metrics.MetricsSink(tmp_path_factory.mktemp('fuzz'))
  variable_server = server.VariableServer(run_state.RunState(sink=sink))
  with grpc.insecure_channel(variable_server.endpoint.address) as channel:
    yield variable_server, channel
  variable_server.stop(grace_s=0)
  sink.close()


# The server outlives the examples, as it outlives what it refuses.
several = hypothesis.settings(
  max_examples=150,
  deadline=None,
  suppress_health_check=[hypothesis.HealthCheck.function_scoped_fixture],
)


def call(stubborn, caplog, name, request):
  """Calls the server: it answers, or refuses and logs why."""
  variable_server, channel = stubborn
  caplog.clear()
  if name == 'Publish':
    method = channel.stream_unary(wire.SERVICE.method(name))
  else:
    method = channel.unary_stream(wire.SERVICE.method(name))
  try:
    with caplog.at_level(logging.WARNING):
      answer = method(request, timeout=20)
      if name != 'Publish':
        list(answer)
  except grpc.RpcError as error:
    assert error.code() == grpc.StatusCode.INVALID_ARGUMENT, error
    assert 'Refused a call from ipv' in caplog.text
    assert 'Traceback' not in caplog.text
  status = client.status(variable_server.endpoint)
  text = json.dumps(status.to_dict(), ensure_ascii=False)
  assert text.encode()  # can be shown


@several
@hypothesis.given(data=reports)
def test_the_server_takes_or_refuses_any_report(stubborn, caplog, data):
  call(stubborn, caplog, 'Report', data)


@several
@hypothesis.given(data=stops)
def test_the_server_takes_or_refuses_any_stop(stubborn, caplog, data):
  call(stubborn, caplog, 'RequestStop', data)


@several
@hypothesis.given(data=failures)
def test_the_server_takes_or_refuses_any_failure(stubborn, caplog, data):
  call(stubborn, caplog, 'Fail', data)


@several
@hypothesis.given(data=wishes)
def test_the_server_asks_for_no_more_actors_than_it_could_serve(
  stubborn, caplog, data
):
  call(stubborn, caplog, 'Scale', data)
  asked = client.status(stubborn[0].endpoint).num_actors
  assert asked is None or 1 <= asked <= run_state.MAX_ACTORS


@several
@hypothesis.given(data=bytes_of(anything))
def test_the_server_answers_or_refuses_whatever_asks_for_its_status(
  stubborn, caplog, data
):
  call(stubborn, caplog, 'Status', data)


@several
@hypothesis.given(data=bytes_of(anything))
def test_the_server_answers_whatever_waits_for_the_stop(stubborn, caplog, data):
  client.request_stop(  # or it would wait
    stubborn[0].endpoint, status_lib.StopReason.SOLVED
  )
  call(stubborn, caplog, 'WaitStop', data)
  assert not caplog.messages


@several
@hypothesis.given(data=subscriptions)
def test_the_server_refuses_any_subscription_to_nothing(stubborn, caplog, data):
  call(stubborn, caplog, 'Subscribe', data)


@several
@hypothesis.given(header=headers, chunks=st.lists(st.binary(max_size=200)))
def test_the_server_takes_or_refuses_any_params(
  stubborn, caplog, header, chunks
):
  call(stubborn, caplog, 'Publish', iter([header, *chunks]))


@pytest.mark.parametrize('kind', garbage.KINDS)
def test_garbage_at_the_port_neither_ends_nor_blocks_the_server(
  start_process, kind
):
  process, endpoint = start_process()
  for _ in range(3):
    garbage.send(endpoint.address, garbage.KINDS[kind])
  learner = client.VariableClient(endpoint, 'learner/0')
  assert learner.publish(1, {'w': np.zeros(3)})
  learner.close()
  assert process.poll() is None
