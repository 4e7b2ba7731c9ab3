"""Parts put together: above all, that a policy may be more than an agent's `act`."""

import numpy as np
import pytest

import distacme
from distacme import core
from distacme import environments
from distacme import row_layout
from distacme import specs
from distacme import wiring
from distacme.acting import evaluator
from distacme.acting import params
from distacme.agents import mcts
from distacme.environments import vector
from distacme.run import run_state
from distacme.run import seeding
from distacme.testing import environments as small

SPEC = specs.make_environment_spec(small.Catch(seed=0))


def make_agent(**changed):
  return mcts.make_agent(
    mcts.Config(**({'num_simulations': 8, 'min_replay_size': 50} | changed)),
    SPEC,
  )


def test_an_agent_that_plans_acts_by_its_search_and_learns_from_it():
  agent = make_agent()
  assert isinstance(agent, core.PlanningAgent)
  loop = distacme.EnvironmentLoop(small.Catch(seed=0), agent)
  loop.run(num_episodes=15)
  assert loop.learner.steps > 0
  (table,) = loop.replay.held().tables.values()
  key = seeding.learner_key(0)
  weights = agent.actor_params(agent.initial_learner_state(key))
  layout = row_layout.row_layout(agent, SPEC, weights)
  data = layout.views(layout.from_bytes(table.arrays['items']))
  # Shares of 8 visits, and not the network's policy.
  visits = data.extras['policy'] * 8
  np.testing.assert_allclose(visits, np.rint(visits), atol=1e-5)


def test_an_agent_that_plans_is_evaluated_by_its_search():
  agent = make_agent(num_simulations=50)
  key = seeding.learner_key(0)
  weights = agent.actor_params(agent.initial_learner_state(key))
  mean = wiring.make_evaluator(
    agent,
    vector.LoopVector([small.Catch(seed) for seed in range(20)]),
    params.LocalParams(core.VersionedParams(0, weights)),
    run_state.RunState().reporter('evaluator/0'),
    evaluator.Settings(episodes=20, max_episode_steps=100),
    key=seeding.actor_key(0),
  ).evaluate()
  assert mean >= 0.3  # by the untrained network alone about -0.5


def test_a_search_goes_on_in_the_environment_acted_in():
  loop = distacme.EnvironmentLoop(small.Catch(seed=0), make_agent())
  loop.run(num_episodes=2)
  loop.start_anew(environments.wrap(small.Catch(seed=1)), seed=1)
  loop.run(num_episodes=3)
  assert loop.actor.num_episodes == 5


def test_a_search_is_not_left_out_of_a_function_of_one_observation():
  loop = distacme.EnvironmentLoop(small.Catch(seed=0), make_agent())
  with pytest.raises(ValueError, match='MCTS searches the states of an env'):
    loop.policy()
