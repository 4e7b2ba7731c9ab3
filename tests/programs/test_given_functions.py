"""A user's functions reach workers by import path, or in a pickle of this user."""

import functools
import os
import threading

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


@pytest.fixture(name='directory')
def fixture_directory(tmp_path):
  return run_directory.RunDirectory(tmp_path)


def test_a_pickle_is_this_user_s_alone(directory):
  size = 5
  given_functions.write_pickles({'env': lambda seed: (seed, size)}, directory)
  (path,) = directory.pickles.iterdir()
  assert path.stat().st_mode & 0o777 == 0o600
  assert given_functions.read_pickle(directory, 'env')(1) == (1, 5)
  path.chmod(0o640)
  with pytest.raises(ValueError, match=r'mode 640: it is loaded only if'):
    given_functions.read_pickle(directory, 'env')
  given_functions.write_pickles({}, directory)
  assert not path.exists()


@pytest.mark.skipif(os.getuid() != 0, reason='Only root gives files away.')
def test_a_pickle_of_another_user_is_not_loaded(directory):
  given_functions.write_pickles({'env': lambda seed: seed}, directory)
  os.chown(directory.pickles / 'env.pickle', 12345, -1)
  with pytest.raises(ValueError, match='belongs to user 12345'):
    given_functions.read_pickle(directory, 'env')


def test_a_pickle_elsewhere_is_not_loaded(directory, tmp_path):
  given_functions.write_pickles({'env': lambda seed: seed}, directory)
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
    given_functions.write_pickles({'env': lambda seed: lock}, directory)


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


def test_other_hosts_load_no_pickle(tmp_path, monkeypatch):
  far = modes.find('processes')._replace(remote=True)
  monkeypatch.setitem(modes.LAUNCHERS, 'processes', far)
  with pytest.raises(ValueError, match='^env of the run cannot be imported by'):
    recorded_run(
      tmp_path,
      run={'env': '<lambda>'},
      environment=lambda seed: environments.catch(seed),
    )
