"""Nests of dicts and tuples go all the way: acting, replay, learning, programs."""

import os
import pathlib
import subprocess
import sys

import jax
import numpy as np
import pytest

import distacme
from distacme import environments
from distacme import specs
from distacme import types
from distacme.agents import dqn
from distacme.run import run_directory
from distacme.testing import agent_contract
from distacme.testing import environments as testing_environments

from . import nested_agent

_MAIN = 'from distacme.programs import cli; cli.main()'
ROOT = pathlib.Path(__file__).parents[2]
NESTED = 'distacme.testing.environments:nested'
SPEC = specs.make_environment_spec(testing_environments.Nested(seed=0))


def greedy_reward(agent, params):
  """Returns the mean reward of 300 greedy steps."""
  environment = environments.make_vector(NESTED, 10, seed=1)
  act, state = jax.jit(agent.act), agent.initial_actor_state(10, streams=None)
  timestep = environment.reset()
  rewards = []
  for _ in range(40):
    output = act(params, jax.random.key(0), timestep.observation, state)
    timestep = environment.step(jax.tree.map(np.asarray, output.action))
    rewards.extend(timestep.reward[timestep.step_type != types.FIRST])
  return np.mean(rewards)


def test_an_agent_of_nests_keeps_the_contract():
  agent = nested_agent.make_agent(nested_agent.Config(), SPEC)
  agent_contract.check_agent(agent, SPEC)


@pytest.mark.parametrize('num_envs', [1, 4])
def test_nests_are_learnt_from_in_one_process(num_envs):
  agent = nested_agent.make_agent(nested_agent.Config(), SPEC)
  environment = environments.make_vector(NESTED, num_envs, seed=0)
  loop = distacme.EnvironmentLoop(environment, agent)
  loop.run(num_steps=20)
  assert greedy_reward(agent, loop.params.newest().params) < 0.4
  loop.run(num_steps=3000)
  assert greedy_reward(agent, loop.params.newest().params) > 0.9


def test_dqn_takes_nested_observations():
  class OneAction(testing_environments.Nested):
    def action_spec(self):
      return specs.DiscreteArray(3)

    def step(self, action):
      nest = {'pick': (action,), 'move': self._light}
      return super().step(nest)

  environment = OneAction(seed=0)
  config = dqn.Config(
    hidden_sizes=(32,), min_replay_size=100, samples_per_insert=8.0
  )
  agent = dqn.make_agent(config, specs.make_environment_spec(environment))
  loop = distacme.EnvironmentLoop(environment, agent)
  loop.run(num_steps=300)
  assert loop.learner.steps > 0


@pytest.mark.program
def test_nests_are_learnt_from_by_threads(tmp_path, tmp_path_factory):
  # Not ROOT: there the checkout would stand before an installed wheel.
  path = tmp_path_factory.mktemp('path')
  (path / 'tests').symlink_to(ROOT / 'tests')
  command = (
    'train --agent tests.agents.nested_agent --mode threads --env '
    f'{NESTED} --num-actors 1 --envs-per-actor 3 --solved-return 2.7 '
    '--eval-period 1000 --max-eval-share 1 --max-seconds 60 --run-dir'
  )
  done = subprocess.run(
    [sys.executable, '-c', _MAIN, *command.split(), tmp_path],
    env={**os.environ, 'PYTHONPATH': str(path)},
    cwd=tmp_path,
    capture_output=True,
    text=True,
    timeout=100,
  )
  assert done.returncode == 0, done.stdout + done.stderr
  summary = run_directory.RunDirectory(tmp_path).read_summary()
  assert summary.stop.reason == 'solved'
  assert summary.counts['learner_steps'] > 0
