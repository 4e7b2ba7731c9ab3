"""The agent that docs/add_an_agent.md shows: it keeps the contract and learns."""

import inspect
import json
import os
import pathlib
import subprocess
import sys

import pytest

import distacme
from distacme import specs
from distacme.run import run_directory
from distacme.testing import agent_contract
from distacme.testing import environments

from . import minimal_agent

_MAIN = 'from distacme.programs import cli; cli.main()'
ROOT = pathlib.Path(__file__).parents[2]
SPEC = specs.make_environment_spec(environments.Catch(seed=0))


def test_it_keeps_the_contract():
  agent = minimal_agent.make_agent(minimal_agent.Config(), SPEC)
  agent_contract.check_agent(agent, SPEC)


def greedy_return(config, steps):
  """Returns the mean return of 50 greedy episodes after training."""
  agent = minimal_agent.make_agent(config, SPEC)
  loop = distacme.EnvironmentLoop(environments.Catch(seed=0), agent)
  loop.run(num_steps=steps)
  policy, environment = loop.policy(), environments.Catch(seed=1)
  total = 0.0
  for _ in range(50):
    timestep = environment.reset()
    while not timestep.last():
      timestep = environment.step(policy(timestep.observation))
      total += timestep.reward
  return total / 50


def test_it_learns_catch():
  assert greedy_return(minimal_agent.Config(), steps=4000) >= 0.9


def test_it_does_not_learn_catch_with_steps_of_no_size():
  config = minimal_agent.Config(learning_rate=1e-9)
  assert greedy_return(config, steps=1000) < 0.5


def test_the_command_line_trains_it_by_the_name_of_its_module(
  tmp_path, tmp_path_factory
):
  # Not ROOT: there the checkout would stand before an installed wheel.
  path = tmp_path_factory.mktemp('path')
  (path / 'tests').symlink_to(ROOT / 'tests')
  command = (
    'train --agent tests.agents.minimal_agent --mode local --learning-rate 0.3 '
    '--env distacme.testing.environments:catch --max-env-steps 500 '
    '--eval-period 500 --eval-episodes 2 --run-dir'
  )
  done = subprocess.run(
    [sys.executable, '-c', _MAIN, *command.split(), tmp_path],
    env={**os.environ, 'PYTHONPATH': str(path)},
    cwd=tmp_path,
    capture_output=True,
    text=True,
    timeout=100,
  )
  assert done.returncode == 0, done.stderr
  summary = run_directory.RunDirectory(tmp_path).read_summary()
  assert summary.counts['env_steps'] >= 500
  assert summary.counts['learner_steps'] > 0
  config = json.loads((tmp_path / 'config.json').read_text())
  assert config['agent']['learning_rate'] == 0.3


def test_a_network_is_refused():
  with pytest.raises(ValueError, match='LinearQ has no network to replace'):
    minimal_agent.make_agent(minimal_agent.Config(), SPEC, network=len)


def test_the_document_shows_this_agent_and_these_tests():
  document = (ROOT / 'docs/add_an_agent.md').read_text()
  agent = (ROOT / 'tests/agents/minimal_agent.py').read_text()
  assert f'```python\n{agent}```\n' in document
  shown = [
    test_it_keeps_the_contract,
    greedy_return,
    test_it_learns_catch,
    test_it_does_not_learn_catch_with_steps_of_no_size,
  ]
  tests = '\n\n'.join(inspect.getsource(function) for function in shown)
  assert f'\n\n\n{tests}```\n' in document
