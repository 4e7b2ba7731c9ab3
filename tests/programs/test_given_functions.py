"""A user's functions reach workers by import path, or in a pickle of this user."""

import functools
import importlib.util
import os
import sys
import threading
import types

import pytest

from distacme.agents import dqn
from distacme.programs import checks
from distacme.programs import experiment as experiment_lib
from distacme.programs import given_functions
from distacme.programs import modes
from distacme.programs import recorded_run as recorded_run_lib
from distacme.programs import run_config
from distacme.run import run_directory
from distacme.testing import environments

HERE = 'distacme.testing.environments'


@pytest.mark.parametrize(
  ('given', 'path'),
  [
    (environments.catch, f'{HERE}:catch'),
    (dqn.Config, 'distacme.agents.dqn:Config'),
    (dqn.Config.__post_init__, 'distacme.agents.dqn:Config.__post_init__'),
    (functools.partial(environments.catch, 1), ''),
    (lambda seed: seed, ''),
    (threading.Lock(), ''),
    (3, ''),
  ],
)
def test_an_import_path_leads_back_to_the_object(given, path):
  assert given_functions.import_path(given) == path
  if path:
    assert given_functions.load(path) is given


def test_a_function_in_the_place_of_another_has_no_path(monkeypatch):
  before = environments.catch
  monkeypatch.setattr(environments, 'catch', print)
  assert given_functions.import_path(before) == ''


def module_in_memory(name):
  """Returns a module that no other process finds."""
  module = types.ModuleType(name)
  exec(
    'BASE = 1\ndef make(seed, more=0): return seed + BASE + more', vars(module)
  )
  return module


def module_by_path(name, folder):
  """Returns a module of a file in a folder from which nothing is imported."""
  path = folder / f'{name}.py'
  path.write_text('BASE = 1\ndef make(seed, more=0): return seed + BASE + more')
  spec = importlib.util.spec_from_file_location(name, path)
  module = importlib.util.module_from_spec(spec)
  spec.loader.exec_module(module)
  return module


@pytest.mark.parametrize('name', ['here_only', 'colorsys'])
@pytest.mark.parametrize('kind', ['in memory', 'by path'])
def test_what_other_processes_do_not_find_is_pickled_by_value(
  directory, monkeypatch, tmp_path, name, kind
):
  module = (
    module_in_memory(name)
    if kind == 'in memory'
    else module_by_path(name, tmp_path)
  )
  with monkeypatch.context() as here:
    here.setitem(sys.modules, name, module)
    assert given_functions.import_path(module.make) == ''
    parts = {
      'env': module.make,
      'network': functools.partial(module.make, more=2),
    }
    write(parts, directory)
  assert given_functions.read_pickle(directory, 'env')(5) == 6
  assert given_functions.read_pickle(directory, 'network')(5) == 8


def test_a_module_from_a_folder_on_the_path_is_found_again(
  monkeypatch, tmp_path
):
  (tmp_path / 'pack').mkdir()
  (tmp_path / 'pack' / 'beside.py').write_text('def make(seed): return seed')
  monkeypatch.syspath_prepend(tmp_path)
  beside = importlib.import_module('pack.beside')
  assert given_functions.import_path(beside.make) == 'pack.beside:make'


@pytest.fixture(name='directory')
def fixture_directory(tmp_path):
  return run_directory.RunDirectory(tmp_path)


def write(parts, directory):
  pickles = {part: given_functions.pickled(part, parts[part]) for part in parts}
  given_functions.write_pickles(pickles, directory)


def test_a_pickle_is_this_user_s_alone(directory):
  size = 5
  write({'env': lambda seed: (seed, size)}, directory)
  (path,) = directory.pickles.iterdir()
  assert path.stat().st_mode & 0o777 == 0o600
  assert given_functions.read_pickle(directory, 'env')(1) == (1, 5)
  path.chmod(0o640)
  with pytest.raises(ValueError, match=r'mode 640: it is loaded only if'):
    given_functions.read_pickle(directory, 'env')
  write({}, directory)
  assert not path.exists()


@pytest.mark.skipif(os.getuid() != 0, reason='Only root gives files away.')
def test_a_pickle_of_another_user_is_not_loaded(directory):
  write({'env': lambda seed: seed}, directory)
  os.chown(directory.pickles / 'env.pickle', 12345, -1)
  with pytest.raises(ValueError, match='belongs to user 12345'):
    given_functions.read_pickle(directory, 'env')


def test_a_pickle_elsewhere_is_not_loaded(directory, tmp_path):
  write({'env': lambda seed: seed}, directory)
  path = directory.pickles / 'env.pickle'
  path.rename(tmp_path / 'elsewhere')
  path.symlink_to(tmp_path / 'elsewhere')
  with pytest.raises(OSError, match='symbolic links'):
    given_functions.read_pickle(directory, 'env')


def test_what_cannot_be_pickled_is_named(directory):
  lock = threading.Lock()
  with pytest.raises(
    ValueError, match="the env of the run cannot be sent.*'lo"
  ):
    write({'env': lambda seed: lock}, directory)


def recorded_run(tmp_path, **settings):
  """Returns the experiment of a run in mode processes, and its directory."""
  run = run_config.RunConfig(run_dir=tmp_path / 'run', **settings.pop('run'))
  config = dqn.Config(hidden_sizes=(8,), **settings.pop('agent', {}))
  experiment = experiment_lib.Experiment(run, config, **settings)
  directory, lock = checks.check(experiment)
  lock.close()
  return experiment, directory


def test_workers_read_the_experiment_that_was_given(tmp_path):
  experiment, directory = recorded_run(
    tmp_path, run={'env': 'catch'}, environment=environments.catch
  )
  config = directory.read_config()
  assert config['pickles'] == []
  assert config['functions']['env']['import_path'] == f'{HERE}:catch'
  assert not directory.pickles.exists()
  read = recorded_run_lib.read_experiment(directory)
  assert read.environment is environments.catch
  assert read == experiment


def test_what_has_no_name_is_pickled(tmp_path):
  rows = 5
  experiment, directory = recorded_run(
    tmp_path,
    run={'env': '<lambda>'},
    environment=lambda seed: environments.catch(seed + 0 * rows),
  )
  config = directory.read_config()
  assert config['pickles'] == ['env']
  assert config['functions']['env']['import_path'] == ''
  read = recorded_run_lib.read_experiment(directory)
  assert read.environment_spec() == experiment.environment_spec()
  # Of the next run there, which needs none.
  recorded_run(tmp_path, run={'env': f'{HERE}:catch'})
  assert not any(directory.pickles.iterdir())


def test_settings_that_are_more_than_json_are_pickled(tmp_path, monkeypatch):
  def unlike(self, other):
    return self is other

  monkeypatch.setattr(dqn.Config, '__eq__', unlike)
  experiment, directory = recorded_run(tmp_path, run={'env': f'{HERE}:catch'})
  assert directory.read_config()['pickles'] == ['agent']
  read = recorded_run_lib.read_experiment(directory).agent
  assert vars(read) == vars(experiment.agent)


@pytest.fixture(name='before')
def fixture_before(tmp_path):
  """Returns what the files of a run with a pickle say."""

  def read():
    return {
      path: path.read_bytes()
      for path in (tmp_path / 'run').rglob('*')
      if path.is_file()
    }

  _, directory = recorded_run(
    tmp_path,
    run={'env': '<lambda>'},
    environment=lambda seed: environments.catch(seed),
  )
  (directory.logs / 'kept').write_text('')
  before = read()
  assert len(before) > 3
  yield
  assert read() == before


@pytest.mark.usefixtures('before')
def test_other_hosts_load_no_pickle(tmp_path, monkeypatch):
  far = modes.find('processes')._replace(remote=True)
  monkeypatch.setitem(modes.LAUNCHERS, 'processes', far)
  with pytest.raises(ValueError, match='^env of the run cannot be imported by'):
    recorded_run(
      tmp_path,
      run={'env': '<lambda>'},
      environment=lambda seed: environments.catch(seed),
    )


@pytest.mark.usefixtures('before')
def test_what_cannot_be_pickled_is_refused_before_anything_changes(tmp_path):
  lock = threading.Lock()

  def locked(seed):
    with lock:
      return environments.catch(seed)

  with pytest.raises(ValueError, match='the env of the run cannot be sent'):
    recorded_run(tmp_path, run={'env': 'locked'}, environment=locked)


@pytest.mark.usefixtures('before')
def test_a_key_that_cannot_be_made_is_refused_before_anything_changes(
  tmp_path, monkeypatch
):
  pytest.importorskip('grpc', reason='The extra launch brings it.')
  monkeypatch.setitem(sys.modules, 'cryptography', None)
  monkeypatch.setitem(sys.modules, 'cryptography.x509', None)
  with pytest.raises(ImportError, match='making the key of a run needs'):
    recorded_run(tmp_path, run={'env': f'{HERE}:catch', 'tls': True})
