"""What a loop has learnt can be acted with."""

import numpy as np
import pytest

import distacme
from distacme import specs
from distacme.agents import dqn
from distacme.testing import environments


def loop(steps):
  environment = environments.Catch(seed=0)
  spec = specs.make_environment_spec(environment)
  agent = dqn.make_agent(
    dqn.Config(
      hidden_sizes=(4,),
      min_replay_size=64,
      epsilon_base=1.0,
      epsilon_exponent=0.0,
    ),
    spec,
  )
  made = distacme.EnvironmentLoop(environment, agent)
  made.run(num_steps=steps)
  return made


def test_it_has_the_newest_params_and_does_not_explore():
  trained = loop(steps=200)
  policy = trained.policy()
  assert policy.version == trained.learner.steps > 0
  observation = environments.Catch(seed=1).reset().observation
  assert len({int(policy(observation)) for _ in range(20)}) == 1


def test_it_stays_what_it_was_while_the_loop_goes_on():
  trained = loop(steps=200)
  policy = trained.policy()
  version = policy.version
  trained.run(num_steps=100)
  policy(environments.Catch(seed=1).reset().observation)
  assert policy.version == version < trained.policy().version


def test_a_batch_of_observations_is_refused():
  observation = environments.Catch(seed=1).reset().observation
  with pytest.raises(ValueError, match='without a batch axis'):
    loop(steps=1).policy()(np.stack([observation]))
