"""Functions of one name are told apart, in a resumed run and among curves."""

import functools
import json
import shutil
import sys
import types

import pytest

from distacme.agents import dqn
from distacme.programs import checks
from distacme.programs import experiment as experiment_lib
from distacme.programs import identity
from distacme.programs import loading
from distacme.programs import run_config
from distacme.programs.view import curve_groups
from distacme.run import files
from distacme.run import run_directory
from distacme.testing import environments


def make(seed, size=5):  # a comment
  return environments.catch(seed), size


class Maker:
  def __call__(self, seed):
    return environments.catch(seed)


def closure(size):
  def made(seed):
    return make(seed, size)

  return made


def recursive():
  def made(seed):
    return made if seed else None

  return made


@pytest.mark.parametrize(
  ('function', 'name'),
  [
    (make, 'make'),
    (functools.partial(make, size=7), 'make(size=7)'),
    (functools.partial(functools.partial(make, 1), size=(2, make)),
     f'make(1, size=[2, {__name__}:make])'),
    (closure(3), 'closure.<locals>.made(size=3)'),
    (recursive(), f'recursive.<locals>.made(made={__name__}:recursive.<locals>.made)'),
    (Maker(), 'Maker'),
    (Maker, 'Maker'),
    (Maker().__call__, 'Maker.__call__'),
    (lambda seed: seed, '<lambda>'),
  ],
)  # fmt: skip
def test_a_name_says_module_function_and_what_it_was_given(function, name):
  found = identity.of(function)
  assert found.name == f'{__name__}:{name}'
  assert len(found.source) == 16
  assert found == identity.of(function)


@pytest.mark.parametrize('function', [len, functools.partial(print, end='')])
def test_what_has_no_source_has_a_name(function):
  assert identity.of(function).name.startswith('builtins:')
  assert identity.of(function).source == ''


def source(tmp_path, text):
  """Returns the hash of the code of a function in a file of its own."""
  path = tmp_path / f'{len(list(tmp_path.iterdir()))}.py'
  path.write_text(text)
  scope = {}
  exec(compile(text, str(path), 'exec'), scope)
  return identity.of(scope['f']).source


def test_comments_and_layout_are_no_other_code(tmp_path):
  one = source(tmp_path, 'def f(x):\n  return g(x, 1)\n')
  same = 'def f(x):\n    # why\n\n    return g(x,\n    1)  # here\n'
  assert source(tmp_path, same) == one
  assert source(tmp_path, 'def f(x):\n  return g(x, 2)\n') != one
  assert source(tmp_path, 'f = lambda x: 1') != source(
    tmp_path, 'f = lambda x: 2'
  )


@pytest.mark.parametrize(
  ('main', 'module'),
  [
    ({'__file__': '/somewhere/train.py', '__spec__': None}, 'train'),
    ({'__spec__': types.SimpleNamespace(name='pack.train')}, 'pack.train'),
    ({}, '__main__'),  # a notebook
  ],
)
def test_a_script_is_known_by_its_file(monkeypatch, main, module):
  monkeypatch.setitem(sys.modules, '__main__', types.SimpleNamespace(**main))

  def function():
    """Does nothing."""

  monkeypatch.setattr(function, '__module__', '__main__')
  monkeypatch.setattr(function, '__qualname__', 'function')
  assert identity.of(function).name == f'{module}:function'


def catch(seed):
  return environments.catch(seed)


def test_another_environment_of_the_same_name_is_refused_at_a_resumption(
  run_dir, tmp_path, caplog
):
  shutil.copytree(run_dir, tmp_path / 'run')
  directory = run_directory.RunDirectory(tmp_path / 'run')
  before = directory.read_config()
  agent = dqn.Config(hidden_sizes=(64,), min_replay_size=300)
  run = run_config.RunConfig(mode='local', env='catch', run_dir=directory.path)

  def resume(environment):
    experiment = experiment_lib.Experiment(run, agent, environment=environment)
    checks.check_resumable(experiment, directory)

  files.write_json(
    directory.config,
    {
      'run': before['run'] | {'env': 'catch'},
      'agent': before['agent'],
      'functions': {'env': identity.of(catch)._asdict()},
    },
  )
  resume(catch)
  other = environments.catch
  sentence = (
    f'env was the function {__name__}:catch and is {other.__module__}:catch'
  )
  with pytest.raises(ValueError, match=sentence):
    resume(other)
  assert not caplog.records
  config = json.loads(directory.config.read_text())
  config['functions']['env']['source'] = '0123'
  files.write_json(directory.config, config)
  resume(catch)  # as somebody does who has mended it
  assert 'whose code is not what it was (its hash was 0123 and' in caplog.text
  del config['functions']  # an older run
  files.write_json(directory.config, config)
  resume(other)


def test_loading_refuses_another_network_and_warns_of_another_environment(
  run_dir, tmp_path, caplog
):
  import haiku as hk

  def network(observation):
    return hk.nets.MLP([64, 3])(hk.Flatten()(observation))

  def other(observation):
    return network(observation)

  shutil.copytree(run_dir, tmp_path / 'run')
  directory = run_directory.RunDirectory(tmp_path / 'run')
  config = directory.read_config()
  config['functions'] = {
    'env': identity.of(catch)._asdict(),
    'network': identity.of(network)._asdict(),
  }
  config['run'] |= {'env': 'catch', 'network': 'network'}
  files.write_json(directory.config, config)
  with pytest.raises(ValueError, match='network was the function .*and is .*'):
    loading.load_policy(directory.path, env=catch, network=other)
  assert not caplog.records
  loading._experiment(
    directory, {'env': environments.catch, 'network': network}
  )
  assert 'was made with another environment: env was the' in caplog.text


def test_curves_of_different_functions_are_not_averaged(run_dir, tmp_path):
  for number, function in enumerate((catch, environments.catch, catch)):
    path = tmp_path / str(number)
    shutil.copytree(run_dir, path)
    directory = run_directory.RunDirectory(path)
    config = directory.read_config()
    config['run'] |= {'env': 'catch', 'seed': number}
    config['functions'] = {'env': identity.of(function)._asdict()}
    files.write_json(directory.config, config)
  groups = curve_groups.grouped(sorted(tmp_path.iterdir()))
  assert [(g.settings['env'], len(g.curves)) for g in groups] == [
    (f'{__name__}:catch', 2),
    ('distacme.testing.environments:catch', 1),
  ]
