"""Reverb without TensorFlow's Python: what it must not break."""

import importlib
import importlib.util
import subprocess
import sys

import pytest

from distacme.replay.reverb import extension

needs_reverb = pytest.mark.skipif(
  importlib.util.find_spec('reverb') is None, reason='Reverb is not installed.'
)


def run(script):
  """Runs a script in a fresh interpreter; returns what it printed."""
  process = subprocess.run(
    [sys.executable, '-c', script], capture_output=True, text=True, timeout=60
  )
  assert process.returncode == 0, process.stderr
  return process.stdout


@needs_reverb
def test_it_loads_without_tensorflow():
  run("""
import sys
from distacme.replay.reverb import extension
loaded = extension.load()
assert loaded.Client and loaded.Server and loaded.Table
assert extension.load() is loaded
for name in ('tensorflow', 'reverb', 'reverb.client'):
  assert name not in sys.modules, name
""")


@needs_reverb
@pytest.mark.parametrize('after', ['extension.load()', ''])
def test_openssl_works_beside_it(after):
  """Its BoringSSL once shadowed OpenSSL, and the interpreter crashed."""
  out = run(f"""
from distacme.replay.reverb import extension
{after}
import hashlib, hmac, ssl
ssl.create_default_context()
print(hashlib.sha256(b'distacme').hexdigest())
print(hmac.new(b'key', b'distacme', 'sha256').hexdigest())
print(hashlib.pbkdf2_hmac('sha512', b'key', b'salt', 10).hex())
""")
  assert [len(line) for line in out.split()] == [64, 64, 128]


@needs_reverb
def test_the_server_works_after_openssl_was_loaded():
  run("""
import hashlib, ssl
import portpicker
from distacme import replay_spec
from distacme.replay import store
from distacme.replay.reverb import connection, queue
port = portpicker.pick_unused_port()
spec = replay_spec.single(
  replay_spec.NStep(1, 0.9),
  batch_size=2,
  max_size=100,
  min_size=4,
  samples_per_insert=1.0,
)
service = queue.PackQueue(store.Store(spec), port)
connection.connect(f'localhost:{port}')
service.stop()
assert hashlib.sha256(b'').hexdigest().startswith('e3b0')
""")


@pytest.fixture
def loads_anew():
  extension._load.cache_clear()
  yield
  extension._load.cache_clear()


def test_where_that_fails_it_imports_reverb_in_full(loads_anew, monkeypatch):
  imported = []

  def fail():
    raise OSError('no such library')

  def record(name):
    imported.append(name)
    return name

  monkeypatch.setattr(extension, '_load_alone', fail)
  monkeypatch.setattr(importlib, 'import_module', record)
  assert extension.load() == 'reverb.pybind'
  assert imported == ['reverb.pybind']


def test_it_says_what_to_install_where_reverb_is_missing(
  loads_anew, monkeypatch
):
  def fail(name):
    raise ImportError(name)

  monkeypatch.setattr(extension, '_folder', fail)
  monkeypatch.setattr(importlib, 'import_module', fail)
  message = r'not installed.*Python 3.10 on Linux.*distacme\[launch\].*grpc'
  with pytest.raises(ImportError, match=message):
    extension.load()
