"""Modules that load at their first use, and what the process sees meanwhile."""

import subprocess
import sys
import threading
import types

import pytest

from distacme import lazy_imports


@pytest.fixture
def make_module(tmp_path, monkeypatch):
  """Returns a function that writes a module and forgets it afterwards."""
  monkeypatch.syspath_prepend(tmp_path)
  monkeypatch.setattr(lazy_imports, '_NAMES', {})

  def make(name, text):
    (tmp_path / f'{name}.py').write_text(text)
    monkeypatch.delitem(sys.modules, name, raising=False)
    return lazy_imports.module(name)

  yield make
  for path in tmp_path.glob('*.py'):
    sys.modules.pop(path.stem, None)


def test_a_module_loads_at_its_first_use(make_module):
  module = make_module('lazy_a', 'x = 3')
  assert 'lazy_a' not in sys.modules
  assert module.x == 3
  assert 'lazy_a' in sys.modules


def test_an_attribute_is_looked_up_once(make_module):
  module = make_module('lazy_b', 'x = 3')
  assert module.x == 3
  assert 'x' in vars(module)  # found from now on without __getattr__


def test_what_is_not_there_is_an_attribute_error(make_module):
  module = make_module('lazy_c', '')
  with pytest.raises(AttributeError, match="'lazy_c' has no attribute 'y'"):
    _ = module.y


def test_a_module_that_fails_says_so_at_every_use(make_module):
  module = make_module('lazy_d', 'raise ImportError("no such library")')
  for _ in range(2):
    with pytest.raises(ImportError, match='no such library'):
      _ = module.x


ASKING = """
try:
  import tensorflow
  found = True
except ImportError:
  found = False
"""


@pytest.fixture
def tensorflow(monkeypatch):
  """Pretends that TensorFlow is loaded, with one part of it."""
  modules = {
    name: types.ModuleType(name) for name in ('tensorflow', 'tensorflow.core')
  }
  for name, module in modules.items():
    monkeypatch.setitem(sys.modules, name, module)
  return modules


def test_tensorflow_is_hidden_while_a_module_loads(make_module, tensorflow):
  module = make_module('lazy_e', ASKING)
  assert module.found is False
  for name, loaded in tensorflow.items():
    assert sys.modules[name] is loaded


def test_tensorflow_comes_back_after_a_failure(make_module, tensorflow):
  module = make_module('lazy_f', 'raise ImportError("broken")')
  with pytest.raises(ImportError, match='broken'):
    _ = module.x
  assert sys.modules['tensorflow'] is tensorflow['tensorflow']


def test_tensorflow_stays_absent_where_it_was(make_module, monkeypatch):
  monkeypatch.delitem(sys.modules, 'tensorflow', raising=False)
  module = make_module('lazy_g', ASKING)
  assert module.found is False
  assert 'tensorflow' not in sys.modules


def test_a_loaded_module_hides_nothing(make_module, tensorflow, monkeypatch):
  module = make_module('lazy_h', 'x = 3\ny = 4')
  assert module.x == 3
  hidden = []
  monkeypatch.setattr(
    lazy_imports, '_tensorflow_hidden', lambda: hidden.append(1)
  )
  assert module.y == 4
  assert not hidden


def test_a_library_gets_what_it_brings_along_at_its_first_use(make_module):
  make_module('lazy_l', 'x = 3')
  library = make_module('lazy_m', 'import lazy_l\ndef x(): return lazy_l.x')
  with lazy_imports.stand_in('lazy_l'):
    assert library.x
  assert 'lazy_l' not in sys.modules
  assert library.x() == 3
  assert sys.modules['lazy_l'].x == 3
  with lazy_imports.stand_in('lazy_l'):  # what is there already stays
    assert sys.modules['lazy_l'].x == 3


def test_a_library_may_annotate_with_what_it_brings_along(make_module):
  make_module('lazy_n', 'x = 3')
  library = make_module(
    'lazy_o', 'import lazy_n\ndef x(y: lazy_n.x): return lazy_n.x'
  )
  with lazy_imports.stand_in('lazy_n'):
    assert library.x
  assert 'lazy_n' not in sys.modules
  assert library.x(None) == 3


def test_all_can_be_loaded_before_threads_start(make_module):
  make_module('lazy_i', '')
  make_module('lazy_j', '')
  lazy_imports.load_all()
  assert {'lazy_i', 'lazy_j'} <= sys.modules.keys()


def test_threads_that_use_it_first_together_load_it_once(make_module):
  module = make_module('lazy_k', 'import time\ntime.sleep(0.05)\nx = object()')
  found, start = [], threading.Barrier(4)

  def use():
    start.wait()
    found.append(module.x)

  threads = [threading.Thread(target=use) for _ in range(4)]
  for thread in threads:
    thread.start()
  for thread in threads:
    thread.join()
  assert len(found) == 4
  assert len(set(map(id, found))) == 1


def test_losses_load_without_tensorflow_and_its_probability():
  code = (
    'import sys; from distacme.agents import dqn; dqn.rlax.huber_loss; '
    "assert 'rlax' in sys.modules; "
    "loaded = {'tensorflow', 'tensorflow_probability', 'distrax'}; "
    'assert not loaded & sys.modules.keys(); '
    # What is asked for all the same is there.
    'dqn.rlax.softmax().entropy(dqn.jnp.zeros(3)); '
    "assert 'distrax' in sys.modules and 'tensorflow' not in sys.modules"
  )
  done = subprocess.run(
    [sys.executable, '-W', 'ignore', '-c', code],
    capture_output=True,
    text=True,
    timeout=100,
  )
  assert done.returncode == 0, done.stderr
