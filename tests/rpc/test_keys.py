"""The key of a run lets its holders take part on any host, and nobody else."""

import os
import socket
import ssl
import sys

import grpc
import numpy as np
import pytest

from distacme import status as status_lib
from distacme.rpc import keys
from distacme.run import run_state
from distacme.variables import client
from distacme.variables import server
from tests import garbage

pytest.importorskip('cryptography', reason='The extra launch brings it.')


@pytest.fixture(name='make_key')
def fixture_make_key(tmp_path):
  """Returns a function that makes the key of a run of that name."""

  def make(name):
    (tmp_path / name).mkdir()
    return keys.make(tmp_path / name)

  return make


@pytest.fixture(name='key')
def fixture_key(make_key):
  return make_key('run')


@pytest.fixture(name='guarded')
def fixture_guarded(key):
  """A server that listens on all interfaces, for those who have `key`."""
  guarded = server.VariableServer(run_state.RunState(), '0.0.0.0', key=key)
  yield guarded
  guarded.stop(grace_s=0)


@pytest.fixture(name='endpoint')
def fixture_endpoint(guarded):
  """The server at an address that is not loopback, if the host has one."""
  with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
    try:
      any_socket.connect(('192.0.2.1', 9))  # sends nothing
      host = any_socket.getsockname()[0]
    except OSError:
      host = '127.0.0.1'
  return guarded.endpoint._replace(host=host)


def test_who_has_the_key_publishes_subscribes_and_reports(endpoint):
  learner, actor = (
    client.VariableClient(endpoint, name) for name in ('learner/0', 'actor/0')
  )
  actor.subscribe()
  assert learner.publish(1, {'w': np.arange(3.0)})
  np.testing.assert_array_equal(
    actor.wait_newer(-1, 10).params['w'], np.arange(3.0)
  )
  reporter = actor.reporter(period_s=60.0)
  reporter.report({'env_steps': 5})
  assert reporter.flush()
  client.scale(endpoint, 7)
  client.request_stop(endpoint, status_lib.StopReason.SOLVED)
  status = client.status(endpoint)
  assert status.counts == {'env_steps': 5}
  assert status.num_actors == 7
  assert status.stop.reason == 'solved'
  for connected in (actor, learner):
    connected.close()


def shows(monkeypatch, *credentials):
  """Makes clients show other credentials than those of their key file."""
  made = grpc.ssl_channel_credentials(*credentials)
  monkeypatch.setattr(keys, 'channel_credentials', lambda path: made)


def assert_is_refused(endpoint):
  """Checks that no call of a client passes."""
  message = f'{endpoint.address} did not answer'
  with pytest.raises(ConnectionError, match=message):
    client.request_stop(endpoint, status_lib.StopReason.SOLVED, timeout_s=1.0)
  with pytest.raises(ConnectionError, match=message):
    client.scale(endpoint, 2, timeout_s=0.5)
  with pytest.raises(ConnectionError, match=message):
    client.status(endpoint, timeout_s=0.5)


@pytest.mark.parametrize('who', ['plain', 'other run'])
def test_a_peer_without_the_key_is_refused(endpoint, make_key, who):
  other = {'plain': lambda: None, 'other run': lambda: make_key('other')}
  assert_is_refused(endpoint._replace(key=other[who]()))
  status = client.status(endpoint)
  assert status.stop is None and status.num_actors is None


def test_a_peer_that_shows_no_certificate_is_refused(
  endpoint, key, monkeypatch
):
  _, certificate = keys._read(key)
  shows(monkeypatch, certificate)
  assert_is_refused(endpoint)


def test_a_peer_that_knows_but_does_not_hold_the_key_is_refused(
  endpoint, key, make_key, monkeypatch
):
  """The certificate is no secret: it crosses the network."""
  theirs, _ = keys._read(make_key('other'))
  _, certificate = keys._read(key)
  shows(monkeypatch, certificate, theirs, certificate)
  assert_is_refused(endpoint)


def test_a_server_of_another_run_is_not_believed(endpoint, make_key):
  message = (
    f'waited 1 s for the .* at {endpoint.address}.* and this the key of its run'
  )
  with pytest.raises(TimeoutError, match=message):
    client.VariableClient(
      endpoint._replace(key=make_key('other')),
      'actor/0',
      connect_timeout_s=1.0,
    )


def test_a_plain_server_is_not_believed(key):
  plain = server.VariableServer(run_state.RunState())
  with pytest.raises(ConnectionError, match='did not answer'):
    client.status(plain.endpoint._replace(key=key), timeout_s=1.0)
  plain.stop(grace_s=0)


def test_what_crosses_the_network_is_encrypted(endpoint):
  context = ssl.create_default_context()
  context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
  where = (endpoint.host, endpoint.port)
  with socket.create_connection(where, timeout=10) as connection:
    with context.wrap_socket(connection) as encrypted:
      assert encrypted.version() in ('TLSv1.2', 'TLSv1.3')


@pytest.mark.parametrize('kind', garbage.KINDS)
def test_garbage_neither_ends_nor_blocks_a_guarded_server(endpoint, kind):
  for _ in range(3):
    garbage.send(endpoint.address, garbage.KINDS[kind])
  assert client.status(endpoint).stop is None


def test_only_its_user_may_read_the_key_whatever_the_umask(make_key):
  before = os.umask(0)
  try:
    path = make_key('run')
  finally:
    os.umask(before)
  assert path.stat().st_mode & 0o777 == 0o600


def test_a_key_that_others_can_read_is_refused(key):
  key.chmod(0o640)
  for use in (keys.server_credentials, keys.channel_credentials):
    with pytest.raises(ValueError, match='mode 640.*chmod 600'):
      use(key)


def test_every_run_has_a_key_of_its_own_and_a_resumed_one_a_new_one(
  key, make_key
):
  first = key.read_bytes()
  assert make_key('other').read_bytes() != first
  key.chmod(0o644)
  assert keys.make(key.parent) == key
  assert key.read_bytes() != first
  assert key.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize('content', [b'', b'nonsense'])
def test_a_file_that_is_no_key_is_refused(key, content):
  key.write_bytes(content)
  with pytest.raises(ValueError, match='is no key of a run'):
    keys.server_credentials(key)


@pytest.mark.parametrize(
  ('spoil', 'why'),
  [
    (lambda key: key.unlink(), 'No such file'),
    (lambda key: key.chmod(0o640), 'chmod 600'),
    (lambda key: key.write_bytes(b'nonsense'), 'is no key of a run'),
  ],
)
def test_a_client_whose_key_is_spoilt_cannot_connect(endpoint, key, spoil, why):
  """Whoever calls a server expects this error, and no other."""
  spoil(key)
  message = f'server at {endpoint.address} asks for the key .*{why}'
  with pytest.raises(ConnectionError, match=message):
    client.status(endpoint)
  with pytest.raises(ConnectionError, match=message):
    client.VariableClient(endpoint, 'actor/0')


def test_without_the_library_the_error_says_what_to_install(
  tmp_path, monkeypatch
):
  for name in ('cryptography', 'cryptography.x509'):  # it may be loaded
    monkeypatch.setitem(sys.modules, name, None)
  with pytest.raises(ImportError, match=r"Install 'distacme\[launch\]'"):
    keys.make(tmp_path)


def test_refusing_to_listen_openly_says_where_keys_come_from():
  with pytest.raises(ValueError, match=r'distacme\.rpc\.keys\.make'):
    server.VariableServer(run_state.RunState(), '0.0.0.0')
