"""Agents that would choose illegal actions are refused before anything starts."""

import pathlib
import re

import pytest

import distacme
from distacme import environments
from distacme import learner_loop
from distacme import specs
from distacme import wiring
from distacme.agents import bc
from distacme.agents import dqn
from distacme.environments import vector
from distacme.programs import cli
from distacme.testing import environments as testing
from distacme.testing import legal_agent
from tests.environments import nim

GAME = 'tests.environments.nim:make_by_hand'


def sentence(agent):
  return (
    'in this environment not all actions are legal in all states '
    f"(observation['legal_actions']), and {agent} chooses among all. Use an agent "
    'that leaves illegal actions out: mcts or muzero, or one of your own that has '
    'masks_actions = True.'
  )


def make(module, environment, **settings):
  spec = specs.make_environment_spec(environment)
  return module.make_agent(module.Config(**settings), spec)


@pytest.fixture(name='game')
def fixture_game():
  return vector.LoopVector([nim.NimByHand()])


@pytest.mark.parametrize('agent', ['dqn', 'ppo', 'bc'])
def test_a_run_of_them_is_refused(capsys, tmp_path, monkeypatch, agent):
  monkeypatch.chdir(tmp_path)
  with pytest.raises(SystemExit) as exit_:
    cli.main(f'train --mode local --agent {agent} --env {GAME}'.split())
  assert exit_.value.code == 2
  captured = capsys.readouterr()
  assert f'distacme: {sentence(agent.upper())}\n' in captured.err
  assert not list(pathlib.Path('.').rglob('*'))  # nothing was started


def test_a_loop_of_them_is_refused(game):
  with pytest.raises(ValueError, match=re.escape(sentence('DQN'))):
    distacme.EnvironmentLoop(game, make(dqn, game))


def test_a_learner_of_them_is_refused(game):
  spec = specs.make_environment_spec(game)
  with pytest.raises(ValueError, match=re.escape(sentence('BC'))):
    learner_loop.LearnerLoop(spec, make(bc, game))


def test_one_that_masks_its_actions_may_act(game):
  loop = distacme.EnvironmentLoop(game, make(legal_agent, game))
  assert loop.run(num_steps=20) == 20


def test_where_all_actions_are_legal_nobody_is_refused():
  environment = environments.wrap(testing.Catch(0))
  spec = specs.make_environment_spec(environment)
  wiring.check_masks(make(dqn, environment), spec)
