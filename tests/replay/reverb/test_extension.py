"""Reverb without TensorFlow's Python: what it must not break."""

import importlib
import importlib.util
import subprocess
import sys

import numpy as np
import portpicker
import pytest

from distacme import replay_spec
from distacme.replay.reverb import connection
from distacme.replay.reverb import extension
from distacme.replay.reverb import inserter as inserter_lib
from distacme.replay.reverb import server as server_lib

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
from distacme.replay.reverb import connection, server
port = portpicker.pick_unused_port()
spec = replay_spec.single(
  replay_spec.NStep(1, 0.9),
  batch_size=2,
  max_size=100,
  min_size=4,
  samples_per_insert=1.0,
)
service = server.ReplayServer(spec, port)
connection.connect(f'localhost:{port}')
assert service.metrics()['size'] == 0
service.stop()
assert hashlib.sha256(b'').hexdigest().startswith('e3b0')
""")


@pytest.fixture
def loads_anew():
  extension.load.cache_clear()
  yield
  extension.load.cache_clear()


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
  message = r'not installed.*Python 3.10 on Linux.*distacme\[launch\].*--mode'
  with pytest.raises(ImportError, match=message):
    extension.load()


@needs_reverb
def test_table_stats_equal_what_was_done(layout):
  port = portpicker.pick_unused_port()
  spec = replay_spec.single(
    replay_spec.NStep(1, 0.9),
    batch_size=5,
    max_size=300,
    min_size=200,
    samples_per_insert=1.0,
    error_buffer=1e9,
  )
  server = server_lib.ReplayServer(spec, port)
  inserter = inserter_lib.ReverbInserter(
    f'localhost:{port}', spec.tables, layout, lambda: False
  )
  inserter.insert(np.zeros((1000, 1), layout.dtype), np.ones(1000))
  inserter.close()
  client = connection.connect(f'localhost:{port}')
  sampler = client.NewSampler('experience', 137, 1)  # and no more than that
  for _ in range(137):
    sampler.GetNextTrajectory()
  (info,) = client.ServerInfo(10)
  stats = extension.table_stats(info)
  assert stats == extension.TableStats(
    name='experience', size=300, inserted=1000, sampled=137, min_size=200
  )
  server.stop()


def test_table_stats_of_a_message_written_by_hand():
  # 1: some bytes, 2: a double, 3: a float, 5: limits with 4: min size, 5 and 6:
  # calls with 2: completed; 7: size, 8: name. 300 takes two bytes.
  calls = bytes([1 << 3, 1, 2 << 3])
  limits = b'\x09' + bytes(8) + b'\x20\xac\x02'
  limits += bytes([5 << 3 | 2, 5]) + calls + b'\xac\x02'
  limits += bytes([6 << 3 | 2, 4]) + calls + b'\x07'
  message = b'\x0a\x02ab' + b'\x11' + bytes(8) + b'\x1d' + bytes(4)
  message += bytes([5 << 3 | 2, len(limits)]) + limits + b'\x38\xac\x02'
  message += b'\x42\x03own'
  assert extension.table_stats(message) == ('own', 300, 300, 7, 300)


def test_table_stats_of_an_empty_message_are_zero():
  assert extension.table_stats(b'') == ('', 0, 0, 0, 0)
