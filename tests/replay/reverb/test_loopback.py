"""Reverb's server is reached from this host, and from no other."""

import importlib.util
import mmap
import os
import socket
import subprocess
import sys

import portpicker
import pytest

from distacme import replay_spec
from distacme.replay import store
from distacme.replay.reverb import connection
from distacme.replay.reverb import extension
from distacme.replay.reverb import loopback
from distacme.replay.reverb import queue
from distacme.runtime import listening
from tests import garbage

pytestmark = pytest.mark.skipif(
  importlib.util.find_spec('reverb') is None, reason='Reverb is not installed.'
)

_SERVE = """
import sys
from distacme.replay import store
from distacme.replay.reverb import queue
from tests.replay.reverb import test_loopback as test
server = queue.PackQueue(store.Store(test.SPEC), int(sys.argv[1]))
print('ready', flush=True)
sys.stdin.read()
server.stop()
"""

SPEC = replay_spec.single(
  replay_spec.NStep(1, 0.9),
  batch_size=1,
  max_size=10,
  min_size=1,
  samples_per_insert=1.0,
  error_buffer=3.0,
)


@pytest.fixture(name='serve', scope='module')
def fixture_serve():
  """Returns a function that starts a server process: its Popen and port."""
  started = []

  def serve(before=''):
    port = portpicker.pick_unused_port()
    process = subprocess.Popen(
      [sys.executable, '-c', before + _SERVE, str(port)],
      stdin=subprocess.PIPE,
      stdout=subprocess.PIPE,
      text=True,
    )
    started.append(process)
    assert process.stdout.readline() == 'ready\n'
    return process, port

  yield serve
  for process in started:
    process.kill()
    process.communicate()


@pytest.mark.parametrize('before', ['', 'import reverb'])
def test_the_server_listens_on_loopback_only(serve, before):
  _, port = serve(before)
  assert [str(a) for a in listening.addresses(port)] == ['127.0.0.1']
  connection.connect(f'localhost:{port}', timeout_s=10)


def test_without_it_the_server_listens_on_all_interfaces(serve):
  """Else there would be nothing to do, and the test above proved nothing."""
  _, port = serve(
    'from distacme.replay.reverb import loopback\n'
    'loopback.confine = lambda library: False\n'
  )
  (address,) = listening.beyond_loopback(port)
  assert address.is_unspecified


@pytest.mark.parametrize(
  'variable', ['grpc_proxy', 'https_proxy', 'http_proxy', 'all_proxy']
)
@pytest.mark.parametrize('known', ['', 'example.com'])
def test_no_proxy_is_asked_for_a_server_on_this_host(
  server, monkeypatch, variable, known
):
  monkeypatch.setenv(variable, 'http://127.0.0.1:9')  # where nobody is
  monkeypatch.setenv('no_proxy', known)
  monkeypatch.setenv('no_grpc_proxy', '')  # which is put back afterwards
  monkeypatch.delenv('no_grpc_proxy')
  connection.connect(f'127.0.0.1:{server[1]}', timeout_s=1)
  assert os.environ['no_proxy'] == known
  excepted = os.environ['no_grpc_proxy'].split(',')
  assert excepted == [*filter(None, [known]), '127.0.0.1']


@pytest.fixture(name='server', scope='module')
def fixture_server(serve):
  return serve()


@pytest.mark.parametrize('kind', garbage.KINDS)
def test_garbage_at_the_port_neither_ends_nor_blocks_the_server(server, kind):
  process, port = server
  for _ in range(3):
    garbage.send(f'127.0.0.1:{port}', garbage.KINDS[kind])
  connection.connect(f'localhost:{port}', timeout_s=10)
  assert process.poll() is None


def test_a_port_that_is_taken_is_named_with_what_to_do():
  with socket.socket() as taken:
    taken.bind(('127.0.0.1', 0))
    taken.listen()
    port = taken.getsockname()[1]
    message = (
      f'cannot listen on 127.0.0.1:{port}: .*in use. End what listens there .*, '
      'or start the run anew'
    )
    with pytest.raises(OSError, match=message):
      queue.PackQueue(store.Store(SPEC), port)


def test_a_port_that_another_replay_server_has_is_taken(server):
  """Reverb by itself would share it."""
  with pytest.raises(OSError, match=f'127.0.0.1:{server[1]}: .*in use'):
    queue.PackQueue(store.Store(SPEC), server[1])


def test_the_port_of_a_killed_server_is_free_again(serve):
  process, port = serve()
  client = socket.create_connection(('127.0.0.1', port))
  process.kill()
  process.wait()
  queue.PackQueue(store.Store(SPEC), port).stop()
  client.close()


def bind(one, address):
  """Calls the function that Reverb is given, as C does."""
  libc_address = {
    socket.AF_INET: lambda: (
      socket.AF_INET.to_bytes(2, sys.byteorder)
      + bytes(2)
      + socket.inet_aton(address)
      + bytes(8)
    ),
    socket.AF_INET6: lambda: (
      socket.AF_INET6.to_bytes(2, sys.byteorder)
      + bytes(6)
      + socket.inet_pton(socket.AF_INET6, address)
      + bytes(4)
    ),
  }[one.family]()
  return loopback._bind()(one.fileno(), libc_address, len(libc_address))


@pytest.mark.parametrize(
  ('family', 'asked', 'got'),
  [
    (socket.AF_INET, '0.0.0.0', '127.0.0.1'),
    (socket.AF_INET, '127.0.0.2', '127.0.0.2'),
    (socket.AF_INET6, '::', '::ffff:127.0.0.1'),
    (socket.AF_INET6, '::1', '::1'),
  ],
)
def test_only_what_asks_for_all_interfaces_is_given_loopback(
  family, asked, got
):
  with socket.socket(family) as one:
    if family == socket.AF_INET6:
      one.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
    assert bind(one, asked) == 0
    assert one.getsockname()[0] == got


@pytest.mark.parametrize('library', ['/nowhere/lib.so', 'libm.so.6'])
def test_a_library_that_is_not_there_or_never_binds_is_left_alone(library):
  assert not loopback.confine(library)


def test_what_the_loader_has_locked_is_locked_again():
  extension.load()
  slot = loopback._find_slot(extension.library(), b'bind')
  before = loopback._protection(slot)
  assert not before & mmap.PROT_WRITE
  loopback.confine.cache_clear()
  assert loopback.confine(extension.library())
  assert loopback._protection(slot) == before


def test_a_system_that_forbids_it_leaves_the_library_alone(monkeypatch):
  def forbid(address, protection):
    raise PermissionError('mprotect')

  monkeypatch.setattr(loopback, '_protect', forbid)
  loopback.confine.cache_clear()
  assert not loopback.confine(extension.library())
  loopback.confine.cache_clear()
