"""Policies that search, in models and in simulators."""

import jax
import numpy as np
import pytest

from distacme import core
from distacme import environments
from distacme import specs
from distacme import types
from distacme import wiring
from distacme.acting import params as params_lib
from distacme.agents import mcts
from distacme.environments import vector
from distacme.testing import environments as small

KEY = jax.random.PRNGKey(0)
CONFIG = mcts.Config(num_simulations=12)
SPEC = specs.make_environment_spec(small.Catch(seed=0))
AGENT = mcts.make_agent(CONFIG, SPEC)
PARAMS = AGENT.actor_params(AGENT.initial_learner_state(KEY))
SOURCE = params_lib.LocalParams(core.VersionedParams(3, PARAMS))


class Counted(small.Catch):
  """Catch that counts its steps, and none beyond the end of an episode.

  The counter is the class's: what an object holds is restored after a search.
  """

  steps = 0
  strict = False

  def step(self, action):
    if Counted.strict:
      assert self._ball_row < 9, 'an episode that is over was stepped'
    Counted.steps += 1
    return super().step(action)


def make_policy(rows, streams=None):
  loop = vector.LoopVector(rows)
  return loop, wiring.make_policy(AGENT, SOURCE, loop, KEY, streams)


def play(loop, act, steps):
  """Returns the timesteps of a vector."""
  timesteps = [loop.reset()]
  for _ in range(steps):
    now = timesteps[-1]
    timesteps.append(loop.step(act(now)))
  return timesteps


def test_a_search_leaves_its_environments_as_they_were():
  loop, policy = make_policy([small.Catch(seed) for seed in range(3)])
  twins = vector.LoopVector([small.Catch(seed) for seed in range(3)])
  actions = []

  def search(now):
    actions.append(
      policy.act(now.observation, now.step_type == types.FIRST).action
    )
    return actions[-1]

  searched = play(loop, search, 25)
  remaining = iter(actions)
  for ours, twin in zip(
    searched, play(twins, lambda _: next(remaining), 25), strict=True
  ):
    jax.tree.map(np.testing.assert_array_equal, ours, twin)
  assert policy.version == 3


def test_an_episode_that_is_over_is_not_stepped(monkeypatch):
  loop, policy = make_policy([Counted(seed=0)])
  now = loop.reset()
  for _ in range(8):
    now = loop.step(np.ones(1, np.int32))
  monkeypatch.setattr(Counted, 'strict', True)
  monkeypatch.setattr(Counted, 'steps', 0)
  output = policy.act(now.observation, np.zeros(1, bool))
  # One step remains: three actions are tried, and the other simulations end there.
  assert Counted.steps == 3
  np.testing.assert_array_equal(output.metrics['simulations'], 12)


def test_rows_that_are_over_search_nothing():
  """A row that was LAST waits for its reset; FIRST has neither reward nor discount."""
  loop, policy = make_policy([small.Catch(seed) for seed in range(2)])
  now = loop.reset()
  while not (now.step_type == types.LAST).all():
    now = loop.step(np.ones(2, np.int32))
  output = policy.act(now.observation, np.zeros(2, bool))
  for leaf in jax.tree.leaves((output.extras, output.metrics)):
    assert np.isfinite(leaf).all()
  assert (loop.step(output.action).step_type == types.FIRST).all()


def test_a_simulator_and_a_model_of_one_game_are_searched_alike():
  """Both know that a ball above the paddle's reach cannot be caught, or can."""
  loop, of_simulator = make_policy([small.Catch(seed) for seed in range(8)])
  model = environments.make_vector('jax:catch', 8, seed=0)
  of_model = wiring.make_policy(AGENT, SOURCE, model, KEY, None)
  for env, policy in ((loop, of_simulator), (model, of_model)):
    caught = []

    def act(now, policy=policy):
      return policy.act(now.observation, now.step_type == types.FIRST).action

    for timestep in play(env, act, 40):
      last = timestep.step_type == types.LAST
      caught += timestep.reward[last].tolist()
    assert len(caught) == 32
    assert np.mean(caught) > 0.3  # at random: -0.5


def test_a_policy_begins_anew_in_other_environments():
  loop, policy = make_policy([small.Catch(seed) for seed in range(2)])
  first = loop.reset()
  before = policy.act(first.observation, np.ones(2, bool))
  another = vector.LoopVector([small.Catch(seed) for seed in range(2)])
  policy.start_anew(another, KEY)
  loop.close()
  again = policy.act(another.reset().observation, np.ones(2, bool))
  np.testing.assert_array_equal(before.extras['policy'], again.extras['policy'])


def test_memory_of_the_last_episode_is_forgotten():
  """The steps of an episode, after which actors choose the most visited action."""
  streams = types.Streams(np.arange(2), 2)
  loop, policy = make_policy([small.Catch(seed) for seed in range(2)], streams)
  now = loop.reset()
  for _ in range(3):
    policy.act(now.observation, np.zeros(2, bool))
  policy.act(now.observation, np.array([True, False]))
  np.testing.assert_array_equal(policy._state.steps, [1, 4])


def test_an_environment_that_cannot_be_searched_is_refused():
  class Native:
    num_envs = 1

  with pytest.raises(ValueError, match='Native steps all rows at once'):
    wiring.make_policy(AGENT, SOURCE, Native(), KEY, None)
