"""Compiled functions are kept between runs where that is safe."""

import json
import os
import subprocess
import sys

import pytest

from distacme.programs import compilation_cache

_NAMES = compilation_cache.CHOICES


@pytest.fixture
def root(monkeypatch, tmp_path):
  """Returns the folder of the caches; the environment is as before the test."""
  for name in _NAMES:
    # So that monkeypatch takes away what `use` sets.
    monkeypatch.setenv(name, '')
    monkeypatch.delenv(name)
  for name in ('COMPILE_TIME_SECS', 'ENTRY_SIZE_BYTES'):
    monkeypatch.setenv(f'JAX_PERSISTENT_CACHE_MIN_{name}', '0')
  monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path))
  return tmp_path / 'distacme' / 'compiled'


_COMPILES = """
import json
from distacme.programs import compilation_cache
compilation_cache.use()
import jax
hits = []
jax.monitoring.register_event_listener(
  lambda name, **_: hits.append(name) if name.endswith('cache_hits') else None)
import jax.numpy as jnp
x = jnp.linspace(0.0, 1.0, 64 * 64).reshape(64, 64)
def f(x):
  for _ in range(20):
    x = jnp.tanh(x @ x / 8) + jnp.sort(x, axis=0)
  return x
import hashlib
import numpy as np
y = np.asarray(jax.jit(f)(x))
print(json.dumps([len(hits), hashlib.sha256(y.tobytes()).hexdigest()]))
"""


def test_what_was_compiled_is_found_and_computes_the_same(root):
  environment = {k: v for k, v in os.environ.items() if k not in _NAMES}
  found = []
  for _ in range(2):
    done = subprocess.run(
      [sys.executable, '-c', _COMPILES],
      env=environment,
      capture_output=True,
      text=True,
      timeout=120,
    )
    assert done.returncode == 0, done.stderr
    found.append(json.loads(done.stdout.splitlines()[-1]))
  (hits, numbers), (later_hits, later_numbers) = found
  assert hits == 0 < later_hits
  assert numbers == later_numbers


def test_the_folder_is_of_this_user_alone(root):
  folder = compilation_cache.use()
  assert folder.parent == root
  assert folder.stat().st_mode & 0o777 == 0o700
  assert os.environ['JAX_COMPILATION_CACHE_DIR'] == str(folder)


def test_a_folder_that_others_may_write_to_is_not_used(root):
  folder = compilation_cache.use()
  del os.environ['JAX_COMPILATION_CACHE_DIR']
  folder.chmod(0o777)
  assert compilation_cache.use() is None
  assert 'JAX_COMPILATION_CACHE_DIR' not in os.environ


def test_without_a_place_for_it_there_is_no_cache(root, monkeypatch):
  root.parent.parent.joinpath('distacme').write_text('a file')
  assert compilation_cache.use() is None


@pytest.mark.parametrize('name', _NAMES)
def test_a_choice_of_the_user_stays(root, monkeypatch, name):
  monkeypatch.setenv(name, 'false')
  assert compilation_cache.use() is None
  assert not root.exists()


def test_the_oldest_files_go_where_all_are_too_large(root, monkeypatch):
  monkeypatch.setattr(compilation_cache, '_MAX_BYTES', 25)
  for age, name in enumerate(['new', 'old', 'older']):
    path = root / 'some' / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(bytes(10))
    os.utime(path, (1000 - age, 1000 - age))
  compilation_cache.use()
  left = {path.name for path in (root / 'some').iterdir()}
  assert left == {'new', 'old'}
