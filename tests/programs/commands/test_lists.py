"""`distacme agents` and `distacme environments`: what there is, by name."""

import subprocess
import sys

import pytest

from distacme.environments import families
from distacme.programs import agents_by_name
from distacme.programs import cli
from distacme.programs.commands import agents
from distacme.programs.commands import environments


def printed(capsys, command):
  with pytest.raises(SystemExit) as exit_:
    cli.main([command])
  assert exit_.value.code == 0
  return capsys.readouterr().out


def test_every_agent_is_listed_with_its_first_line(capsys):
  text = printed(capsys, 'agents')
  assert 'dqn         DQN as Ape-X runs it' in text
  for name in agents_by_name.known_agents():
    summary = agents.summary(f'distacme.agents.{name}')
    assert summary in text
    config = agents_by_name.agent_module(name).Config()
    needed = bool(config.replay.tables_of_demonstrations)
    assert ('(needs --demonstrations)' in summary) == needed, name


def test_every_family_of_environments_has_an_example(capsys):
  text = printed(capsys, 'environments')
  for family in families.FAMILIES:
    assert f'{family:12}--env {family}:' in text
    assert f'{family}:NAME' not in text, (
      f'add an example of {family} to programs/environments.py'
    )
  assert 'your own    --env distacme.testing.environments:catch' in text


def test_options_of_environments_are_listed_with_their_defaults(capsys):
  text = printed(capsys, 'environments')
  assert '?sticky_actions=0.0, clip_rewards=false,' in text
  assert '?sticky_actions=0.1, difficulty_ramping=true,' in text
  assert '?max_episode_steps=50, and what the constructor' in text


@pytest.mark.parametrize('family', sorted(families.FAMILIES))
def test_an_example_can_be_made(family):
  example, _ = environments.EXAMPLES[family]
  try:
    environment = families.make(example, seed=0)
  except ValueError as error:
    if 'pip install' not in str(error):
      raise
    pytest.skip(str(error))
  assert environment.reset().first()


@pytest.mark.parametrize('command', ['--help', 'agents', 'environments'])
def test_what_only_lists_does_not_import_jax(command):
  code = (
    'import sys\n'
    'from distacme.programs import cli\n'
    'try:\n'
    f'  cli.main([{command!r}])\n'
    'except SystemExit:\n'
    "  assert not {'jax', 'grpc', 'matplotlib'} & set(sys.modules)"
  )
  done = subprocess.run(
    [sys.executable, '-c', code], capture_output=True, text=True, timeout=60
  )
  assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
  'command',
  ['evaluate', 'plot', 'watch', 'agents', 'environments', 'doctor'],
)
def test_every_command_explains_itself(capsys, command):
  with pytest.raises(SystemExit) as exit_:
    cli.main([command, '--help'])
  assert exit_.value.code == 0
  assert f'usage: distacme {command}' in capsys.readouterr().out
