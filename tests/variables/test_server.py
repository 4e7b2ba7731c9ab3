"""Params from publisher to subscribers, and what the server refuses."""

import asyncio
import json
import os
import pathlib
import socket
import threading

import grpc
import numpy as np
import pytest

from distacme import status
from distacme.rpc import event_loop
from distacme.rpc import messages
from distacme.run import endpoints
from distacme.run import run_state as run_state_lib
from distacme.variables import client
from distacme.variables import server
from distacme.variables import service
from distacme.variables import wire

LEAF = np.zeros(16, np.float32)


def publish(learner, version, array=LEAF):
  return learner.publish(version, {'w': array})


@pytest.fixture
def channel(variable_server):
  with grpc.insecure_channel(variable_server.endpoint.address) as channel:
    yield channel


def raw_publish(channel, *parts):
  method = channel.stream_unary(wire.SERVICE.method('Publish'))
  return method(iter(parts), timeout=20)


def test_every_subscriber_gets_what_was_published(connect):
  learner, actors = connect('learner'), [connect(f'a/{i}') for i in range(3)]
  for actor in actors:
    actor.subscribe()
  assert actors[0].newest() is None
  assert publish(learner, 3, np.arange(5.0))
  for actor in actors:
    assert actor.wait_newer(-1, 10).version == 3
    assert actor.newest().params.keys() == {'w'}
    np.testing.assert_array_equal(actor.newest().params['w'], np.arange(5.0))


def test_a_late_subscriber_gets_the_newest(connect):
  publish(connect('learner'), 3)
  actor = connect()
  actor.subscribe()
  assert actor.wait_newer(-1, 10).version == 3


def test_waiting_for_params_that_do_not_come_ends(connect):
  actor = connect()
  actor.subscribe()
  assert actor.wait_newer(-1, 0.05) is None


def test_a_version_that_is_not_newer_is_ignored(connect, run_state):
  learner, actor = connect('learner'), connect()
  assert publish(learner, 5, np.full(1, 5.0))
  assert not publish(learner, 5, np.full(1, 6.0))
  assert not publish(learner, 4, np.full(1, 4.0))
  actor.subscribe()
  newest = actor.wait_newer(-1, 10)
  assert (newest.version, newest.params['w'][0]) == (5, 5.0)
  assert run_state.status().params_version == 5


def test_a_hundred_megabytes_pass(connect):
  learner, actor = connect('learner'), connect()
  actor.subscribe()
  big = np.random.default_rng(0).integers(0, 256, 100_000_000, np.uint8)
  assert publish(learner, 0, big)
  np.testing.assert_array_equal(actor.wait_newer(-1, 30).params['w'], big)


def test_a_slow_subscriber_skips_to_the_newest(connect, channel):
  learner = connect('learner')
  big = np.zeros(8 * wire.CHUNK_BYTES, np.uint8)
  publish(learner, 0, big)
  subscribe = channel.unary_stream(wire.SERVICE.method('Subscribe'))
  stream = subscribe(b'{"version": -1}')
  assert wire.decode_header(next(stream)).version == 0
  # The subscriber reads no further, and flow control stops the server, at the
  # latest once the buffers between them are full.
  for version in range(1, 30):
    publish(learner, version, big)
  versions = [0]
  while versions[-1] < 29:
    for _ in range(8):
      assert len(next(stream)) == wire.CHUNK_BYTES
    versions.append(wire.decode_header(next(stream)).version)
  stream.cancel()
  assert len(versions) <= 4, versions


def test_nothing_is_sent_while_nothing_changes(connect, channel, wait_until):
  learner = connect('learner')
  subscribe = channel.unary_stream(wire.SERVICE.method('Subscribe'))
  stream, versions = subscribe(b'{"version": -1}'), []

  def read():
    try:
      for message in stream:
        versions.append(json.loads(message)['version'])
        assert len(next(stream)) == LEAF.nbytes
    except grpc.RpcError:
      pass  # cancelled below

  thread = threading.Thread(target=read)
  thread.start()
  publish(learner, 1)
  wait_until(lambda: versions == [1])
  # These calls reach the server, but bring nothing new.
  publish(learner, 1)
  reporter = connect().reporter(period_s=60.0)
  reporter.report({'env_steps': 1})
  assert reporter.flush()
  connect('passer-by').close()
  publish(learner, 2)
  wait_until(lambda: 2 in versions)
  stream.cancel()
  thread.join()
  assert versions == [1, 2]


def test_a_subscriber_that_has_the_newest_is_sent_nothing(connect, channel):
  learner = connect('learner')
  publish(learner, 4)
  subscribe = channel.unary_stream(wire.SERVICE.method('Subscribe'))
  stream = subscribe(b'{"version": 4}')
  publish(learner, 5)
  assert wire.decode_header(next(stream)).version == 5
  stream.cancel()


def test_a_subscriber_is_sent_params_no_more_often_than_it_asks(
  connect, channel, monkeypatch
):
  learner = connect('learner')
  over = asyncio.Event()
  asked, sleep = [], asyncio.sleep

  async def wait(seconds):
    if seconds != 59.5:
      return await sleep(seconds)
    asked.append(seconds)
    await over.wait()

  monkeypatch.setattr(asyncio, 'sleep', wait)
  publish(learner, 1)
  subscribe = channel.unary_stream(wire.SERVICE.method('Subscribe'))
  stream = subscribe(b'{"version": -1, "period_s": 59.5}')
  versions = [wire.decode_header(next(stream)).version]
  assert len(next(stream)) == LEAF.nbytes
  publish(learner, 2)
  publish(learner, 3)
  event_loop.shared().call_soon_threadsafe(over.set)
  versions.append(wire.decode_header(next(stream)).version)
  stream.cancel()
  assert versions == [1, 3]
  assert asked


def test_sixty_four_subscribers_leave_room_for_reports(
  connect, variable_server, wait_until
):
  learner = connect('learner')
  actors = [connect(f'actor/{i}') for i in range(64)]
  reporters = [actor.reporter() for actor in actors]
  for actor, reporter in zip(actors, reporters, strict=True):
    actor.subscribe()
    reporter.report({'env_steps': 1})
  publish(learner, 1)
  assert all(actor.wait_newer(-1, 10) for actor in actors)
  assert all(reporter.flush() for reporter in reporters)
  answered = learner.reporter(period_s=0.02)
  wait_until(lambda: answered.report().counts == {'env_steps': 64})
  assert client.status(variable_server.endpoint).counts == {'env_steps': 64}


@pytest.mark.parametrize(
  ('parts', 'refusal'),
  [
    ([], 'Not JSON'),
    ([b'\x80\x04.'], 'Not JSON'),
    ([b'{"version": 9, "leaves": [["w", "object", [1]]]}'], "dtype 'object'"),
    ([b'{"version": 9, "leaves": [["w", "int8", [1000000000000]]]}'], 'shape'),
    ([b'{"version": 9, "leaves": [["w", "int8", [64]]]}'], 'cut or damaged'),
    (
      [b'{"version": 9, "leaves": [["w", "int8", [64]]]}', b'x' * 65],
      'cut or damaged',
    ),
  ],
)
def test_malformed_params_are_refused_and_the_old_ones_stay(
  connect, channel, parts, refusal
):
  learner, actor = connect('learner'), connect()
  publish(learner, 1)
  with pytest.raises(grpc.RpcError) as refused:
    raw_publish(channel, *parts)
  assert refused.value.code() == grpc.StatusCode.INVALID_ARGUMENT
  assert refusal in refused.value.details()
  actor.subscribe()
  assert actor.wait_newer(-1, 10).version == 1
  assert publish(learner, 2)


def test_a_publisher_that_dies_midway_leaves_the_old_params(
  connect, channel, wait_until
):
  learner, actor = connect('learner'), connect()
  publish(learner, 1)
  sent, let_go = threading.Event(), threading.Event()

  def half():
    yield b'{"version": 9, "leaves": [["w", "int8", [2097152]]]}'
    yield bytes(wire.CHUNK_BYTES)
    sent.set()
    let_go.wait(30)

  call = channel.stream_unary(wire.SERVICE.method('Publish')).future(half())
  assert sent.wait(10)
  with pytest.raises(ConnectionError, match='Another publisher is sending'):
    publish(learner, 2)
  call.cancel()
  let_go.set()

  def published():
    try:
      return publish(learner, 2)
    except ConnectionError:
      return False

  wait_until(published)
  actor.subscribe()
  assert actor.wait_newer(1, 10).version == 2


@pytest.mark.parametrize(
  ('method', 'request_', 'refusal'),
  [
    ('Report', b'nonsense', 'Not JSON'),
    ('Report', b'{"worker": 3}', 'worker of a report must be of type str'),
    ('Subscribe', b'{}', 'Subscribe takes the version'),
    ('Subscribe', b'{"version": 1, "period_s": -1}', 'period_s must be in'),
    ('Subscribe', b'{"version": 1, "period_s": "1"}', 'period_s must be in'),
    ('Subscribe', b'{"version": Infinity}', 'Infinity is no number of JSON'),
    ('RequestStop', b'["\\ud800"]', 'surrogates not allowed'),
    ('RequestStop', b'{"reason": "bored"}', "'bored' is no reason to stop"),
  ],
)
def test_a_malformed_call_is_refused_with_a_message_and_logged(
  channel, method, request_, refusal, caplog
):
  call = channel.unary_stream(wire.SERVICE.method(method))
  with pytest.raises(grpc.RpcError) as refused:
    list(call(request_, timeout=10))
  assert refused.value.code() == grpc.StatusCode.INVALID_ARGUMENT
  assert refusal in refused.value.details()
  assert refusal in caplog.text
  assert 'Refused a call from' in caplog.text


@pytest.mark.parametrize(
  ('counts', 'metrics', 'refusal'),
  [
    ({'env_steps': 2**63}, [], 'env_steps must change by an int'),
    ({'env_steps': 1.5}, [], 'env_steps must change by an int'),
    (
      {'steps': 1},
      [],
      'A counter is one of env_steps, learner_steps, episodes',
    ),
    ({}, [{'loss': 'low'}], 'Metrics must be numbers'),
    ({}, [{'loss': 10**400}], 'Metrics must be numbers'),
    ({}, [{}] * 1001, 'metrics of at most 1000 moments, got 1001'),
    (
      {},
      [{f'{i}': i for i in range(30)}] * 700,
      'at most 20000 values, got 21000',
    ),
  ],
)
def test_a_report_that_no_client_sends_is_refused(
  channel, run_state, counts, metrics, refusal
):
  with pytest.raises(grpc.RpcError) as refused:
    report(channel, counts=counts, metrics=metrics)
  assert refusal in refused.value.details()
  assert not run_state.status().workers


@pytest.mark.parametrize('state', ['dreaming', 3, ['acting']])
def test_a_state_that_is_none_of_a_worker_is_refused(channel, run_state, state):
  with pytest.raises(grpc.RpcError) as refused:
    report(channel, state=state)
  assert 'state of a report must be null or one of starting' in (
    refused.value.details()
  )
  assert not run_state.status().workers


def report(
  channel, session='s', sequence=1, counts=None, metrics=(), state=None
):
  message = {'worker': 'a', 'session': session, 'sequence': sequence}
  message |= {'counts': counts or {}, 'metrics': list(metrics)}
  message |= {'alive': True, 'state': state}
  channel.unary_unary(wire.SERVICE.method('Report'))(
    messages.pack(message), timeout=10
  )


def test_of_many_sessions_those_heard_of_last_are_remembered(
  channel, run_state, monkeypatch
):
  monkeypatch.setattr(service, '_MAX_SESSIONS', 3)
  for session in 'abc':
    report(channel, session, 1, {'env_steps': 1})
  report(channel, 'a', 2, {'env_steps': 1})
  report(channel, 'd', 1, {'env_steps': 1})  # in the place of b
  assert run_state.status().counts == {'env_steps': 5}
  for session, sequence in (('a', 2), ('c', 1), ('d', 1)):
    report(channel, session, sequence, {'env_steps': 1})  # repeated
  assert run_state.status().counts == {'env_steps': 5}
  report(channel, 'b', 1, {'env_steps': 1})
  assert run_state.status().counts == {'env_steps': 6}


@pytest.mark.parametrize('host', ['localhost', '127.0.0.1'])
def test_the_server_listens_on_loopback_only(host):
  variable_server = server.VariableServer(run_state_lib.RunState(), host)
  port = variable_server.endpoint.port
  try:
    sockets = [
      line.split()[1]
      for name in ('tcp', 'tcp6')
      for line in pathlib.Path(f'/proc/net/{name}').read_text().splitlines()[1:]
      if line.split()[3] == '0A' and line.split()[1].endswith(f':{port:04X}')
    ]
    # 127.0.0.1, or the same in a socket for IPv6 as well.
    assert len(sockets) == 1
    assert (
      sockets[0].removeprefix('0' * 16 + 'FFFF0000') == f'0100007F:{port:04X}'
    )
  finally:
    variable_server.stop()


@pytest.mark.parametrize('host', ['0.0.0.0', '::', '192.0.2.1', 'somewhere'])
def test_other_interfaces_are_refused_without_a_key(host):
  with pytest.raises(ValueError, match='can be reached from other hosts'):
    server.VariableServer(run_state_lib.RunState(), host)


def test_a_port_that_is_taken_is_refused_by_name(variable_server):
  taken = variable_server.endpoint
  with pytest.raises(OSError, match=f'on {taken.address}'):
    server.VariableServer(run_state_lib.RunState(), port=taken.port)


def test_stop_ends_the_streams_and_wait():
  variable_server = server.VariableServer(run_state_lib.RunState())
  actor = client.VariableClient(variable_server.endpoint, 'actor/0')
  actor.subscribe()
  actor.reporter()
  assert not variable_server.wait(0.01)
  variable_server.stop()
  assert variable_server.wait(5)
  actor.close()


def test_a_client_that_finds_no_server_says_what_it_waited_for():
  with socket.socket() as taken:
    taken.bind(('127.0.0.1', 0))  # nobody listens there
    nowhere = endpoints.Endpoint(*taken.getsockname())
    message = f'actor/0 waited 0.2 s.*{nowhere.address}'
    with pytest.raises(TimeoutError, match=message):
      client.VariableClient(nowhere, 'actor/0', connect_timeout_s=0.2)


def test_a_client_waits_for_a_server_that_comes_late(start_process):
  with socket.socket() as free:
    free.bind(('127.0.0.1', 0))
    endpoint = endpoints.Endpoint(*free.getsockname())
  connected = []
  thread = threading.Thread(
    target=lambda: connected.append(client.VariableClient(endpoint, 'actor/0'))
  )
  thread.start()
  start_process(endpoint.port)
  thread.join(30)
  (actor,) = connected
  actor.close()


def test_the_server_process_stays_below_100_megabytes(start_process):
  # As programs start it: malloc's arenas keep what other threads have freed.
  process, endpoint = start_process(env={**os.environ, 'MALLOC_ARENA_MAX': '2'})
  workers = [client.VariableClient(endpoint, f'actor/{i}') for i in range(8)]
  for worker in workers:
    worker.subscribe()
    worker.reporter()
  array = np.zeros(7_000_000, np.uint8)
  for version in range(60):
    publish(workers[0], version, array)
    assert all(w.wait_newer(version - 1, 10) for w in workers)
  status = pathlib.Path(f'/proc/{process.pid}/status').read_text()
  (peak_kib,) = (
    int(line.split()[1])
    for line in status.splitlines()
    if line.startswith('VmHWM')
  )
  for worker in workers:
    worker.close()
  assert peak_kib < 100_000_000 / 1024


def test_a_restarted_server_gets_the_params_that_it_had():
  first = server.VariableServer(run_state_lib.RunState())
  learner = client.VariableClient(first.endpoint, 'learner/0')
  reporter = learner.reporter(period_s=0.05)
  # more than passes in a moment
  arrays = [np.arange(8_000_000, dtype=np.float32)]
  assert learner.publish(3, {'w': arrays[0]})
  first.stop()
  second = server.VariableServer(
    run_state_lib.RunState(), port=first.endpoint.port
  )
  actor = client.VariableClient(first.endpoint, 'actor/0')
  try:
    actor.subscribe()
    newest = actor.wait_newer(-1, timeout_s=30.0)
    assert newest is not None and newest.version == 3
    np.testing.assert_array_equal(newest.params['w'], arrays[0])
    reporter.report(state=status.WorkerState.LEARNING)
    # The next version does not get in the way of the one that is sent again.
    assert learner.publish(4, {'w': arrays[0]})
  finally:
    actor.close()
    learner.close()
    second.stop()
