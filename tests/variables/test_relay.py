"""Relays hand params on: bit for bit, the newest only, and from whoever has them."""

import contextlib
import functools
import resource
import subprocess
import sys

import grpc
import ml_dtypes
import numpy as np
import pytest

from distacme.rpc import keys
from distacme.rpc import token as token_lib
from distacme.run import run_state as run_state_lib
from distacme.variables import client
from distacme.variables import relay as relay_lib
from distacme.variables import server as server_lib
from distacme.variables import subscriber
from distacme.variables import wire

SUBSCRIBERS, RELAYS = 1000, 4
_RELAY = """
import sys
from distacme.run import endpoints
from distacme.variables import relay
source = endpoints.Endpoint('127.0.0.1', int(sys.argv[1]))
print(relay.Relay('relay/0', source).endpoint.port, flush=True)
sys.stdin.read()
"""


class Place:
  """The endpoint of a service that may be lost, and be started again elsewhere."""

  def __init__(self, endpoint=None):
    self.endpoint = endpoint

  def find(self):
    return self.endpoint


@pytest.fixture(name='relay')
def fixture_relay(variable_server):
  """Returns a function that starts a relay, which is stopped at the end."""
  with contextlib.ExitStack() as stack:

    def start(source=variable_server, above=None, **kwargs):
      find_relay = above and Place(above.endpoint).find
      made = relay_lib.Relay(
        'relay/0', source.endpoint, find_relay=find_relay, **kwargs
      )
      stack.callback(made.stop, grace_s=0)
      return made

    yield start


@pytest.fixture(name='quickly')
def fixture_quickly(monkeypatch):
  """Makes subscribers ask the server at once where a relay is lost."""
  monkeypatch.setattr(subscriber, '_WITHOUT_RELAY_S', 0.3)
  monkeypatch.setattr(subscriber, '_ASK_RELAY_AGAIN_S', 0.5)


def publish(learner, version, size=16):
  return learner.publish(version, {'w': np.full(size, version, np.float32)})


def newest_of(actor, version=-1):
  """Returns the version that comes next, which has the params of that version."""
  newest = actor.wait_newer(version, 20)
  assert newest is not None
  assert set(newest.params['w'].tolist()) == {newest.version}
  return newest.version


def streamed(stream):
  """Returns the next version of a raw stream."""
  header = wire.decode_header(next(stream))
  wire.receive(header, stream)
  return header.version


def subscribed(variable_server):
  """Returns the number of those whom the variable server itself sends params."""
  return variable_server._service._newest.subscribers


def test_params_pass_bit_for_bit(connect, relay, variable_server):
  sent = {
    'a': {
      'w': np.array([np.nan, -0.0, np.inf, 1e-42], np.float32),
      'b': np.arange(3, dtype=ml_dtypes.bfloat16),
    },
    'large': {
      'w': np.random.default_rng(0).integers(0, 256, 5_000_001, np.uint8)
    },
    'none': {'w': np.zeros((0, 7))},
  }
  actor = connect()
  actor.subscribe(find_relay=Place(relay().endpoint).find)
  connect('learner/0').publish(7, sent)
  received = actor.wait_newer(-1, 20)
  assert received.version == 7
  assert received.params.keys() == sent.keys()
  for module, arrays in sent.items():
    for name, array in arrays.items():
      arrived = received.params[module][name]
      assert (arrived.dtype, arrived.shape) == (array.dtype, array.shape)
      assert arrived.tobytes() == array.tobytes()
  assert subscribed(variable_server) == 1  # the relay


def test_who_subscribes_late_gets_the_newest_and_nothing_older(
  connect, relay, wait_until
):
  learner, relay = connect('learner/0'), relay()
  for version in range(1, 6):
    publish(learner, version)
  wait_until(lambda: relay.version == 5)
  actor = connect()
  actor.subscribe(find_relay=Place(relay.endpoint).find)
  assert newest_of(actor) == 5
  with grpc.insecure_channel(relay.endpoint.address) as channel:
    subscribe = channel.unary_stream(wire.SERVICE.method('Subscribe'))
    stream = subscribe(b'{"version": 5}')
    publish(learner, 6)
    assert streamed(stream) == 6
    stream.cancel()


def test_a_slow_subscriber_skips_and_holds_up_nobody(connect, relay):
  size = 2 * wire.CHUNK_BYTES  # floats
  learner, relay, quick = connect('learner/0'), relay(), connect()
  publish(learner, 0, size)
  with grpc.insecure_channel(relay.endpoint.address) as channel:
    stream = channel.unary_stream(wire.SERVICE.method('Subscribe'))(
      b'{"version": -1}'
    )
    assert streamed(stream) == 0
    quick.subscribe(find_relay=Place(relay.endpoint).find)
    for version in range(1, 20):
      publish(learner, version, size)
      while quick.newest() is None or quick.newest().version < version:
        assert quick.wait_newer(version - 1, 20)
    versions = [streamed(stream)]
    while versions[-1] < 19:
      versions.append(streamed(stream))
    stream.cancel()
  assert len(versions) <= 4, versions


def test_relays_may_stand_in_a_tree(connect, relay, variable_server):
  upper = relay()
  lower = [relay(above=upper) for _ in range(3)]
  actors = []
  for number, each in enumerate([*lower, *lower]):
    actors.append(connect(f'actor/{number}'))
    actors[-1].subscribe(find_relay=Place(each.endpoint).find)
  learner = connect('learner/0')
  for version in (1, 2):
    publish(learner, version)
    assert {newest_of(actor, version - 1) for actor in actors} == {version}
  assert subscribed(variable_server) == 1
  assert upper.subscribers == 3
  assert [each.subscribers for each in lower] == [2, 2, 2]


@pytest.mark.parametrize('elsewhere', [False, True])
def test_a_restarted_relay_serves_on(
  connect, relay, elsewhere, variable_server, wait_until
):
  learner, actor, first = connect('learner/0'), connect(), relay()
  place = Place(first.endpoint)
  actor.subscribe(find_relay=place.find)
  publish(learner, 1)
  assert newest_of(actor) == 1
  first.stop(grace_s=0)
  publish(learner, 2)
  wait_until(lambda: actor._subscriber.broken >= 2)
  assert actor.newest().version == 1  # which it acts with meanwhile
  second = relay(port=0 if elsewhere else first.endpoint.port)
  assert elsewhere == (second.endpoint.port != first.endpoint.port)
  place.endpoint = second.endpoint
  assert newest_of(actor, 1) == 2
  publish(learner, 3)
  assert newest_of(actor, 2) == 3
  assert second.subscribers == 1
  assert subscribed(variable_server) == 1  # the relay: the actor did not ask


def test_a_relay_outlives_the_server_and_follows_the_next(wait_until):
  first = server_lib.VariableServer(run_state_lib.RunState())
  place = Place(first.endpoint)
  relay = relay_lib.Relay('relay/0', first.endpoint, place.find)
  learner, actor = (
    client.VariableClient(first.endpoint, name, find=place.find)
    for name in ('learner/0', 'actor/0')
  )
  actor.subscribe(find_relay=Place(relay.endpoint).find)
  publish(learner, 5)
  assert newest_of(actor) == 5
  first.stop(grace_s=0)
  late = client.VariableClient(relay.endpoint, 'actor/1')
  late.subscribe()  # gets what the relay still has
  assert newest_of(late) == 5
  second = server_lib.VariableServer(run_state_lib.RunState())
  place.endpoint = second.endpoint
  # A learner that went back to its checkpoint: the newer params stay.
  assert publish(learner, 3)
  assert publish(learner, 4)
  assert publish(learner, 6)
  assert newest_of(actor, 5) == 6
  wait_until(lambda: relay.version == 6)
  for each in (learner, actor, late):
    each.close()
  relay.stop(grace_s=0)
  second.stop(grace_s=0)


def test_without_its_relay_a_subscriber_asks_the_server_and_later_the_relay(
  connect, relay, variable_server, quickly, wait_until, caplog
):
  learner, actor, first = connect('learner/0'), connect(), relay()
  place = Place(first.endpoint)
  actor.subscribe(find_relay=place.find)
  publish(learner, 1)
  assert newest_of(actor) == 1
  first.stop(grace_s=0)
  publish(learner, 2)
  assert newest_of(actor, 1) == 2
  assert subscribed(variable_server) == 1  # the actor
  second = relay()
  place.endpoint = second.endpoint
  wait_until(lambda: second.subscribers == 1)
  wait_until(lambda: subscribed(variable_server) == 1)  # the relay
  publish(learner, 3)
  assert newest_of(actor, 2) == 3
  (told,) = {m for m in caplog.messages if 'has had no relay' in m}
  assert f'which was at {first.endpoint.address}: its params come' in told


def test_a_relay_that_never_came_is_done_without(connect, quickly, caplog):
  learner, actor = connect('learner/0'), connect()
  publish(learner, 1)
  actor.subscribe(find_relay=lambda: None)
  assert newest_of(actor) == 1
  assert 'actor/0 has had no relay for 0 s: its params come' in caplog.text


def test_a_relay_that_cannot_be_looked_for_is_done_without(
  connect, quickly, caplog
):
  def find():
    raise OSError('stale')

  learner, actor = connect('learner/0'), connect()
  publish(learner, 1)
  actor.subscribe(find_relay=find)
  assert newest_of(actor) == 1
  assert 'params from the relay broke and is opened again: stale' in caplog.text


def test_a_relay_answers_nothing_else(relay):
  methods = ['Publish', 'Report', 'WaitStop', 'RequestStop', 'Fail', 'Status']
  with grpc.insecure_channel(relay().endpoint.address) as channel:
    for name in [*methods, 'Scale']:
      with pytest.raises(grpc.RpcError) as error:
        channel.unary_unary(wire.SERVICE.method(name))(b'{}', timeout=10)
      assert error.value.code() == grpc.StatusCode.UNIMPLEMENTED, name


@pytest.mark.parametrize('request_', [b'', b'{}', b'{"version": "1"}', b'[]'])
def test_a_relay_refuses_what_is_no_subscription(relay, request_):
  with grpc.insecure_channel(relay().endpoint.address) as channel:
    with pytest.raises(grpc.RpcError) as error:
      list(
        channel.unary_stream(wire.SERVICE.method('Subscribe'))(
          request_, timeout=10
        )
      )
    assert error.value.code() == grpc.StatusCode.INVALID_ARGUMENT


@pytest.mark.parametrize('encrypted', [False, True])
def test_a_relay_asks_for_the_token_and_the_key_of_the_run(
  tmp_path, encrypted, quickly, wait_until, caplog
):
  secrets = {'token': token_lib.make(tmp_path)}
  if encrypted:
    pytest.importorskip('cryptography')
    secrets['key'] = keys.make(tmp_path)
  guarded = server_lib.VariableServer(run_state_lib.RunState(), **secrets)
  relay = relay_lib.Relay('relay/0', guarded.endpoint, **secrets)
  learner, actor, stranger = (
    client.VariableClient(guarded.endpoint, name)
    for name in ('learner/0', 'actor/0', 'actor/1')
  )
  actor.subscribe(find_relay=Place(relay.endpoint).find)
  # Whoever has no token gets nothing from the relay (and here asks the server).
  without = relay.endpoint._replace(token=None)
  stranger.subscribe(find_relay=Place(without).find)
  publish(learner, 1)
  assert newest_of(actor) == 1
  wait_until(lambda: 'lacks the token of the run' in caplog.text)
  assert relay.subscribers == 1
  if encrypted:
    with grpc.insecure_channel(relay.endpoint.address) as channel:
      metadata = [(token_lib.METADATA, token_lib.read(secrets['token']))]
      subscribe = channel.unary_stream(wire.SERVICE.method('Subscribe'))
      with pytest.raises(grpc.RpcError):
        next(subscribe(b'{"version": -1}', timeout=10, metadata=metadata))
  for each in (learner, actor, stranger):
    each.close()
  relay.stop(grace_s=0)
  guarded.stop(grace_s=0)


def test_beyond_loopback_a_relay_needs_a_key(variable_server):
  with pytest.raises(ValueError, match=r'0\.0\.0\.0 can be reached from other'):
    relay_lib.Relay('relay/0', variable_server.endpoint, host='0.0.0.0')


def test_a_version_that_was_cut_short_is_not_handed_on():
  header, chunks = wire.encode(3, ['w'], [np.zeros(3 * wire.CHUNK_BYTES // 4)])
  whole = list(chunks)
  parsed = wire.decode_header(header)
  receive = functools.partial(wire.receive_bytes, header, parsed)
  assert receive(iter([*whole, b'next'])) == (3, header, whole)
  for cut in (whole[:-1], [whole[0][:-1], *whole[1:]], []):
    with pytest.raises(ValueError, match='Version 3 was cut or damaged'):
      receive(iter(cut))


def test_a_thousand_subscribers_share_a_few_relays(
  connect, variable_server, wait_until
):
  before = resource.getrlimit(resource.RLIMIT_NOFILE)
  if before[1] < 2 * SUBSCRIBERS:
    pytest.skip(f'this process may have no more than {before[1]} descriptors')
  with contextlib.ExitStack() as stack:
    resource.setrlimit(resource.RLIMIT_NOFILE, (before[1], before[1]))
    stack.callback(resource.setrlimit, resource.RLIMIT_NOFILE, before)
    ports = [start(stack, variable_server.endpoint) for _ in range(RELAYS)]
    streams = [
      subscribe(stack, ports[number % RELAYS]) for number in range(SUBSCRIBERS)
    ]
    learner = connect('learner/0')
    reporter = learner.reporter(period_s=60.0)
    for version in range(2):
      publish(learner, version)
      # Reports have the server to themselves.
      reporter.report({'learner_steps': 1})
      assert reporter.flush(timeout_s=5.0)
      assert {streamed(stream) for stream in streams} == {version}
    assert subscribed(variable_server) == RELAYS


def start(stack, source):
  """Starts a relay in a process; returns its port."""
  process = subprocess.Popen(
    [sys.executable, '-c', _RELAY, str(source.port)],
    stdin=subprocess.PIPE,
    stdout=subprocess.PIPE,
    text=True,
  )
  stack.enter_context(process)
  stack.callback(process.kill)
  return int(process.stdout.readline())


def subscribe(stack, port):
  """Returns a stream from a relay, over a connection of its own."""
  channel = stack.enter_context(
    grpc.insecure_channel(
      f'127.0.0.1:{port}', [('grpc.use_local_subchannel_pool', 1)]
    )
  )
  subscribe = channel.unary_stream(wire.SERVICE.method('Subscribe'))
  return subscribe(b'{"version": -1}')
