"""The token of a run lets the user of the run call its services, and nobody else."""

import os
import threading

import grpc
import numpy as np
import pytest

from distacme import status as status_lib
from distacme.rpc import keys
from distacme.rpc import token as token_lib
from distacme.run import endpoints
from distacme.run import run_state
from distacme.variables import client
from distacme.variables import server
from distacme.variables import wire


@pytest.fixture(name='make_token')
def fixture_make_token(tmp_path):
  """Returns a function that makes the token of a run of that name."""

  def make(name):
    (tmp_path / name).mkdir()
    return token_lib.make(tmp_path / name)

  return make


@pytest.fixture(name='token')
def fixture_token(make_token):
  return make_token('run')


@pytest.fixture(name='endpoint', params=['plain', 'tls'])
def fixture_endpoint(token, request):
  """A server that asks for the token, with TLS and without."""
  key = None
  if request.param == 'tls':
    pytest.importorskip('cryptography')
    key = keys.make(token.parent)
  guarded = server.VariableServer(run_state.RunState(), key=key, token=token)
  yield guarded.endpoint
  guarded.stop(grace_s=0)


def test_who_has_the_token_takes_part(endpoint):
  learner, actor = (
    client.VariableClient(endpoint, name) for name in ('learner/0', 'actor/0')
  )
  actor.subscribe()
  assert learner.publish(1, {'w': np.arange(3.0)})
  assert actor.wait_newer(-1, 10).version == 1
  reporter = actor.reporter(period_s=0.02)
  reporter.report({'env_steps': 5})
  assert reporter.flush()
  client.request_stop(endpoint, status_lib.StopReason.SOLVED)
  assert client.status(endpoint).counts == {'env_steps': 5}
  for connected in (actor, learner):
    connected.close()


@pytest.mark.parametrize('who', ['nobody', 'other run'])
def test_who_has_not_is_told_where_it_is_and_changes_nothing(
  endpoint, token, make_token, who, caplog
):
  other = {'nobody': lambda: None, 'other run': lambda: make_token('other')}
  stranger = endpoint._replace(token=other[who]())
  refused = f'{endpoint.address} refused: .*lacks the token .*in {token}'
  with pytest.raises(ConnectionError, match=refused):
    client.request_stop(stranger, status_lib.StopReason.SOLVED)
  with pytest.raises(ConnectionError, match=refused):
    client.scale(stranger, 2)
  with pytest.raises(ConnectionError, match=refused):
    client.status(stranger)
  intruder = client.VariableClient(stranger, 'learner/0')
  intruder.subscribe()
  with pytest.raises(ConnectionError, match=refused):
    intruder.publish(9, {'w': np.zeros(1)}, timeout_s=0.3)
  intruder.close()
  assert intruder.newest() is None
  assert 'without the token of the run, 1 times so far' in caplog.text
  status = client.status(endpoint)
  assert status.stop is None and status.num_actors is None
  assert status.params_version in (None, -1)


def test_no_method_answers_without_the_token_and_no_request_is_read(token):
  """Whatever kind of call it is: the refusal comes while no request does."""
  guarded = server.VariableServer(run_state.RunState(), token=token)
  refused = threading.Event()

  def silent():
    refused.wait(20)
    yield b''

  methods = ['Publish', 'Subscribe', 'Report', 'WaitStop', 'RequestStop']
  with grpc.insecure_channel(guarded.endpoint.address) as channel:
    for name in [*methods, 'Fail', 'Scale', 'Status', 'Unheard']:
      call = channel.stream_stream(wire.SERVICE.method(name))
      with pytest.raises(grpc.RpcError) as error:
        list(call(silent(), timeout=10))
      assert error.value.code() == grpc.StatusCode.UNAUTHENTICATED, name
    refused.set()
  guarded.stop(grace_s=0)


def test_only_its_user_may_read_the_token_whatever_the_umask(make_token):
  before = os.umask(0)
  try:
    path = make_token('run')
  finally:
    os.umask(before)
  assert path.stat().st_mode & 0o777 == 0o600
  assert not list(path.parent.glob('*.tmp'))


def test_every_start_of_every_run_has_a_token_of_its_own(token, make_token):
  first = token_lib.read(token)
  assert len(first) == 64
  assert token_lib.read(make_token('other')) != first
  token.chmod(0o644)
  token.with_suffix('.tmp').touch()  # of a start that was killed
  assert token_lib.make(token.parent) == token
  assert token_lib.read(token) != first


@pytest.mark.parametrize(
  ('spoil', 'why'),
  [
    (lambda path: path.unlink(), 'No such file'),
    (lambda path: path.chmod(0o640), 'mode 640.*chmod 600'),
    (lambda path: path.write_bytes(b''), 'is no token of a run'),
    (lambda path: path.write_bytes(b'\xff' * 64), 'is no token of a run'),
    (lambda path: path.write_bytes(b'a' * 65), 'is no token of a run'),
  ],
)
def test_a_spoilt_token_is_refused_on_both_sides(endpoint, token, spoil, why):
  spoil(token)
  message = f'server at {endpoint.address} asks for the token .*{why}'
  with pytest.raises(ConnectionError, match=message):
    client.status(endpoint)
  with pytest.raises((ValueError, OSError), match=why):
    server.VariableServer(run_state.RunState(), token=token)


def test_a_link_to_the_token_of_another_run_is_not_followed(tmp_path, token):
  (tmp_path / 'token').symlink_to(token)
  with pytest.raises(OSError, match='symbolic links'):
    token_lib.read(tmp_path / 'token')


def test_an_endpoint_tells_where_the_token_is(token):
  written = endpoints.Endpoint('127.0.0.1', 80, token=token)
  folder = token.parent / 'endpoints'
  endpoints.write(folder, 'replay/0', written)
  assert endpoints.find(folder, 'replay/0') == written
  assert written.allowed
  token.unlink()
  assert not written.allowed


def test_an_endpoint_of_an_earlier_version_has_no_token(tmp_path):
  (tmp_path / 'replay-0.json').write_text(
    '{"host": "127.0.0.1", "port": 80, "key": null, "incarnation": 3}'
  )
  found = endpoints.find(tmp_path, 'replay/0')
  assert found == endpoints.Endpoint('127.0.0.1', 80, incarnation=3)
