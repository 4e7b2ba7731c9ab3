"""Policies that search, in models and in simulators."""

import dm_env
import haiku as hk
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
from distacme.kit import returns
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
  """The same roots have the same visits."""
  loop, of_simulator = make_policy([small.Catch(seed) for seed in range(8)])
  observation = loop.reset().observation
  model = environments.make_vector('jax:catch', 8, seed=0)
  model.reset()
  model.state = model.state._replace(
    ball_column=jax.numpy.int32(observation[:, 0].argmax(axis=-1))
  )
  of_model = wiring.make_policy(AGENT, SOURCE, model, KEY, None)
  first = np.ones(8, bool)
  policies = [
    policy.act(observation, first).extras['policy']
    for policy in (of_simulator, of_model)
  ]
  np.testing.assert_array_equal(*policies)
  assert len(np.unique(policies[0], axis=0)) > 1


class Truncated(dm_env.Environment):
  """A game for two that is cut off after two moves."""

  def reset(self):
    self.moves = 0
    return dm_env.restart(np.float32(0.0))

  def step(self, action):
    self.moves += 1
    step = dm_env.truncation if self.moves == 2 else dm_env.transition
    return step(np.float32(0.0), np.float32(self.moves), np.float32(-1.0))

  def observation_spec(self):
    return specs.BoundedArray((), np.float32, 0.0, 2.0)

  def action_spec(self):
    return specs.DiscreteArray(2)

  def discount_spec(self):
    return specs.BoundedArray((), np.float32, -1.0, 1.0)


def test_beyond_a_truncation_its_value_stands():
  """The mover is worth 0.8, after two moves again, and the other player -0.8."""

  def network(observation, num_actions):
    value = jax.numpy.where(observation == 1.0, -0.8, 0.8)
    one = hk.get_parameter('one', (), init=jax.numpy.ones)
    logits = jax.numpy.zeros((len(observation), num_actions))
    return logits, one * returns.rescale(value)

  rows = vector.LoopVector([Truncated()])
  config = mcts.Config(num_simulations=40, discount=1.0)
  agent = mcts.make_agent(config, specs.make_environment_spec(rows), network)
  params = agent.actor_params(agent.initial_learner_state(KEY))
  source = params_lib.LocalParams(core.VersionedParams(0, params))
  policy = wiring.make_policy(agent, source, rows, KEY, None)
  output = policy.act(rows.reset().observation, np.ones(1, bool))
  np.testing.assert_allclose(output.metrics['root_value'], 0.8, rtol=1e-3)


class Failing(small.Catch):
  """Catch that fails in the third row, unless told not to."""

  fails = True

  def step(self, action):
    if Failing.fails and self._ball_row == 2:
      raise KeyboardInterrupt
    return super().step(action)


def test_a_search_that_is_interrupted_leaves_its_environments_as_they_were(
  monkeypatch,
):
  loop, policy = make_policy([Failing(seed=0)])
  now = loop.reset()
  with pytest.raises(KeyboardInterrupt):
    policy.act(now.observation, np.ones(1, bool))
  monkeypatch.setattr(Failing, 'fails', False)
  after = loop.step(np.ones(1, np.int32))
  np.testing.assert_array_equal(after.observation[0, 1], now.observation[0, 0])


class Drawing(small.Catch):
  """Catch that draws from a generator of the process."""

  def step(self, action):
    np.random.rand()
    return super().step(action)


def test_an_environment_that_draws_from_the_process_is_refused():
  loop, policy = make_policy([Drawing(seed=0)])
  with pytest.raises(ValueError, match='it draws from np.random or random'):
    policy.act(loop.reset().observation, np.ones(1, bool))


class Seeded(small.Catch):
  """Catch that keeps the seeds of its restorations."""

  seeds = []

  def save(self):
    return self._ball_row, self._ball_column, self._paddle_column

  def restore(self, saved, seed=None):
    Seeded.seeds.append(seed)
    self._ball_row, self._ball_column, self._paddle_column = saved


def test_rows_share_no_chance_and_seeds_have_31_bits(monkeypatch):
  monkeypatch.setattr(Seeded, 'seeds', [])
  loop, policy = make_policy([Seeded(0), Seeded(1)])
  policy.act(loop.reset().observation, np.ones(2, bool))
  seeds = [seed for seed in Seeded.seeds if seed is not None]
  assert len(set(seeds)) == len(seeds) == 24
  assert max(seeds) < 2**31
  assert Seeded.seeds[-2:] == [None, None]  # at the end, all is restored


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
