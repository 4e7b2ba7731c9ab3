"""Parts put together: above all, that a policy may be more than an agent's `act`."""

import numpy as np
import pytest

import distacme
from distacme import core
from distacme import row_layout
from distacme import specs
from distacme import types
from distacme import wiring
from distacme.acting import evaluator
from distacme.acting import params
from distacme.environments import vector
from distacme.run import run_state
from distacme.run import seeding
from distacme.testing import environments
from tests.agents import minimal_agent

SPEC = specs.make_environment_spec(environments.Catch(seed=0))


class LookAhead:
  """A policy that looks where the ball will fall; params are of no use to it."""

  def __init__(self, source, environment):
    self.version = -1
    self.episodes = 0
    self.environment = environment
    self._source = source

  def act(self, observation, is_first):
    self.version = self._source.newest().version
    self.episodes += int(is_first.sum())
    ball = observation[:, :-1].any(axis=1).argmax(axis=1)
    paddle = observation[:, -1].argmax(axis=1)
    action = 1 + np.sign(ball - paddle).astype(np.int32)
    return types.ActorOutput(action)

  def start_anew(self, environment, key):
    self.episodes = 0
    self.environment = environment


class SearchingAgent(minimal_agent.LinearQ):
  """Learns as before, and acts by looking ahead."""

  def make_policy(self, source, environment, key, streams):
    assert environment.num_envs == 1 or streams is None
    self.policy = LookAhead(source, environment)
    return self.policy


def make_agent(kind):
  return kind(minimal_agent.Config(epsilon=1.0), SPEC)


def test_a_policy_of_the_agents_own_acts_and_is_learnt_from():
  agent = make_agent(SearchingAgent)
  state = run_state.RunState()
  loop = distacme.EnvironmentLoop(
    environments.Catch(seed=0), agent, run_state=state
  )
  loop.run(num_episodes=60)
  assert agent.policy.episodes == 60
  assert loop.learner.steps > 0
  assert agent.policy.version > 0  # it was told of newer params
  (table,) = loop.replay.held().tables.values()
  layout = row_layout.row_layout(
    agent, SPEC, agent.initial_learner_state(None).params
  )
  data = layout.views(layout.from_bytes(table.arrays['items']))
  assert data.reward.max() == 1
  assert data.reward.min() == 0


@pytest.mark.parametrize(
  ('kind', 'expected'), [(SearchingAgent, 1.0), (minimal_agent.LinearQ, -0.2)]
)
def test_a_policy_of_the_agents_own_is_evaluated(kind, expected):
  agent = make_agent(kind)
  assert isinstance(agent, core.PlanningAgent) == (kind is SearchingAgent)
  rows = [environments.Catch(seed) for seed in range(20)]
  weights = agent.initial_learner_state(None).params
  mean = wiring.make_evaluator(
    agent,
    vector.LoopVector(rows),
    params.LocalParams(core.VersionedParams(3, weights)),
    run_state.RunState().reporter('evaluator/0'),
    evaluator.Settings(episodes=20, max_episode_steps=100),
    key=seeding.actor_key(0),
  ).evaluate()
  assert mean == pytest.approx(expected, abs=0.0 if expected == 1 else 0.7)


def test_a_policy_of_the_agents_own_goes_on_in_the_environment_acted_in():
  agent = make_agent(SearchingAgent)
  loop = distacme.EnvironmentLoop(environments.Catch(seed=0), agent)
  loop.run(num_episodes=2)
  another = vector.LoopVector([environments.Catch(seed=1)])
  loop.start_anew(another, seed=1)
  assert agent.policy.environment is another
  loop.run(num_episodes=3)
  assert agent.policy.episodes == 3
  key = seeding.actor_key(0)
  made = wiring.make_evaluator(
    agent,
    vector.LoopVector([environments.Catch(seed=2)]),
    params.LocalParams(),
    run_state.RunState().reporter('evaluator/0'),
    evaluator.Settings(episodes=1, max_episode_steps=100),
    key=key,
  )
  made.start_anew(another, key, steps=0)
  assert agent.policy.environment is another


class ForgetfulSearch(SearchingAgent):
  """An agent whose policy leaves out what its `act` stores."""

  def act(self, params, key, observation, state):
    output = super().act(params, key, observation, state)
    return output._replace(extras={'prior': observation[:, 0, 0]})


def test_a_policy_of_the_agents_own_that_stores_other_things_is_refused():
  loop = distacme.EnvironmentLoop(
    environments.Catch(seed=0), make_agent(ForgetfulSearch)
  )
  message = r"returned the extras \(\), and act returns {'prior': '.*\[\]'}"
  with pytest.raises(TypeError, match=message):
    loop.step()


def test_a_search_is_not_left_out_of_a_function_of_one_observation():
  loop = distacme.EnvironmentLoop(
    environments.Catch(seed=0), make_agent(SearchingAgent)
  )
  with pytest.raises(ValueError, match='SearchingAgent makes its own policy'):
    loop.policy()
