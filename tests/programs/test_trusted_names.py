"""A run directory that came from anywhere runs no code that only it names."""

import json
import shutil
import sys

import pytest

import distacme
from distacme.programs import cli
from distacme.programs import trusted_names
from distacme.programs.view import curve_groups
from distacme.run import notices
from tests.programs import launching


@pytest.fixture(name='bomb', autouse=True)
def fixture_bomb(tmp_path, monkeypatch):
  """A module that can be imported; says whether it has been."""
  (tmp_path / 'bomb.py').write_text('def make(seed):\n  raise SystemExit(0)\n')
  monkeypatch.syspath_prepend(tmp_path)
  yield lambda: 'bomb' in sys.modules
  sys.modules.pop('bomb', None)


@pytest.fixture(name='copy')
def fixture_copy(run_dir, tmp_path):
  return shutil.copytree(run_dir, tmp_path / 'copy')


def change(run_dir, **parts):
  path = run_dir / 'config.json'
  config = json.loads(path.read_text())
  for part, values in parts.items():
    config[part] = config.get(part, {}) | values
  path.write_text(json.dumps(config))


def run(*arguments):
  with pytest.raises(SystemExit) as exit_:
    cli.main([str(argument) for argument in arguments])
  return exit_.value.code


NAMES = [
  ('env', {'run': {'env': 'bomb:make'}}, 'bomb:make'),
  ('env', {'run': {'env': 'os:_exit'}}, 'os:_exit'),
  (
    'env',
    {'run': {'env': 'distacme.run.files:os'}},
    'distacme.run.files:os',
  ),
  (
    'env',
    {'run': {'env': 'gymnasium:bomb:X-v0'}},
    'gymnasium:bomb:X-v0',
  ),
  (
    'env',
    {'run': {'env': 'gymnasium:GymV26Environment-v0?env_id=bomb%3AX'}},
    'gymnasium:GymV26Environment-v0?env_id=bomb%3AX',
  ),
  (
    'env',
    {
      'run': {'env': 'make'},
      'functions': {
        'env': {'name': 'make', 'source': '', 'import_path': 'bomb:make'}
      },
    },
    'bomb:make',
  ),
  ('network', {'run': {'network': 'bomb:make'}}, 'bomb:make'),
  ('agent', {'run': {'agent': 'bomb'}}, 'bomb'),
] + [
  # An import path beside the name, which is the one that is imported.
  (
    part,
    {
      'run': {part: name},
      'functions': {part: {'name': name, 'source': '', 'import_path': path}},
    },
    name,
  )
  for part, name, path in (
    ('env', 'bomb:make', 'distacme.testing.environments:catch'),
    ('network', 'bomb:make', 'make'),
    ('agent', 'bomb', 'dqn'),
  )
]


@pytest.mark.parametrize(('part', 'changes', 'name'), NAMES)
def test_loading_refuses_names_of_other_code(copy, bomb, part, changes, name):
  change(copy, **changes)
  with pytest.raises(ValueError, match='no part of distacme') as refused:
    distacme.load_policy(copy)
  sentence = str(refused.value)
  assert sentence.startswith(f'{copy}/config.json names {part}={name!r}')
  assert (
    f"('--{part} {name}', or load_policy(..., {part}={name!r}))" in sentence
  )
  assert "add '--trust-run-dir' (trust_run_dir=True)" in sentence
  assert not bomb()


def test_evaluate_refuses_them_and_takes_them_from_the_caller(
  copy, bomb, capsys
):
  change(copy, run={'env': 'bomb:make'})
  assert run('evaluate', copy, '--episodes', 1) == 2
  assert "config.json names env='bomb:make'" in capsys.readouterr().err
  assert run('evaluate', copy, '--episodes', 1, '--env', launching.CATCH) == 0
  assert not bomb()
  assert run('evaluate', copy, '--trust-run-dir') == 0  # as the module says
  assert bomb()


def test_an_agent_of_ones_own_is_given_again(copy, bomb):
  change(copy, run={'agent': 'bomb'})
  with pytest.raises(ValueError, match='bomb is no agent: it has no Config'):
    distacme.load_policy(copy, agent='bomb')
  assert bomb()
  with pytest.raises(ValueError, match="with the agent 'bomb', got 'ppo'"):
    distacme.load_policy(copy, agent='ppo')


def test_demonstrations_are_not_looked_for(copy, bomb):
  change(copy, run={'demonstrations': 'bomb:make'})
  distacme.load_policy(copy)
  assert not bomb()


def test_watching_imports_nothing_of_them(copy, bomb):
  for _, changes, _ in NAMES:
    change(copy, **changes)
  assert run('watch', copy) == 0
  assert not bomb()


def test_a_resumption_imports_nothing_of_them(copy, bomb, capsys):
  for _, changes, _ in NAMES:
    change(copy, **changes)
  mode = ('--mode', 'local', '--env', launching.CATCH)
  assert run('train', *mode, '--run-dir', copy) == 2
  assert "agent was 'bomb' and is 'dqn'" in capsys.readouterr().err
  assert not bomb()


@pytest.mark.parametrize('trusted', [False, True])
def test_curves_import_an_agent_only_if_it_is_trusted(
  run_dir, tmp_path, bomb, caplog, trusted
):
  notices.forget()
  paths = [shutil.copytree(run_dir, tmp_path / name) for name in 'ab']
  for path in paths:
    change(path, run={'agent': 'bomb'})
  change(paths[1], agent={'another': 1})
  groups = curve_groups.grouped(paths, trusted)
  assert len(groups) == 2
  assert bomb() == trusted
  assert bool(caplog.records) != trusted
  assert trusted or "add '--trust-run-dir'" in caplog.text


@pytest.mark.parametrize(
  ('part', 'name'),
  [
    ('agent', 'dqn'),
    ('agent', 'distacme.agents.dqn'),
    ('env', launching.CATCH),
    ('env', 'gymnasium:CartPole-v1'),
    ('env', 'gymnasium:FrozenLake-v1?is_slippery=false'),
    ('env', 'atari:Pong?sticky_actions=0.25'),
    ('env', 'dm_control:cartpole/balance'),
    ('network', ''),
  ],
)
def test_what_is_built_in_needs_no_trust(part, name):
  assert trusted_names._is_ours(part, name)
