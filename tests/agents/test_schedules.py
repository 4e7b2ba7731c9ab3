"""Settings that follow a schedule, of every agent, and when a run goes on."""

import importlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from distacme import specs
from distacme import types
from distacme.agents import dqn
from distacme.agents import r2d2
from distacme.programs import agents_by_name
from distacme.programs.commands import train
from distacme.testing import environments

from . import continuous_control
from .test_dqn import random_batch

KEY = jax.random.key_data(jax.random.key(0))
CATCH = specs.make_environment_spec(environments.Catch(seed=0))
AGENTS = agents_by_name.known_agents()


def make(name, **changes):
  module = importlib.import_module(f'distacme.agents.{name}')
  bounded = name in continuous_control.AGENTS
  spec = continuous_control.SPEC if bounded else CATCH
  return module.make_agent(module.Config(hidden_sizes=(8,), **changes), spec)


def step_sizes(optimizer, params, counts):
  """Returns how far an optimiser goes in its first `counts` steps, all uphill."""
  slope = jax.tree.map(jnp.ones_like, params)

  def step(state, _):
    updates, state = optimizer.update(slope, state)
    return state, jax.tree.leaves(updates)[0].reshape(-1)[0]

  return -jax.lax.scan(step, optimizer.init(params), length=counts)[1]


@pytest.mark.parametrize('name', AGENTS)
@pytest.mark.parametrize('kind', ['constant', 'linear', 'cosine'])
def test_the_step_size_follows_its_schedule(name, kind):
  # Adam goes as far as its step size, wherever the slope is always the same.
  changes = {'max_gradient_norm': 1e9}
  if kind != 'constant':
    changes |= {'learning_rate_schedule': kind, 'learning_rate_steps': 4}
    changes['learning_rate_end_share'] = 0.5
  agent = make(name, **changes)
  params = agent.initial_learner_state(KEY).params
  places = {'_optimizer': params}
  if hasattr(agent, '_policy_optimizer'):
    places = {
      '_policy_optimizer': params.policy,
      '_critic_optimizer': params.critic,
    }
  for place, of in places.items():
    per_learner_step = 1
    if name == 'ppo':
      per_learner_step = 16  # epochs of four minibatches
    if (name, place) == ('td3', '_policy_optimizer'):
      per_learner_step = 0.5
    counts = int(6 * per_learner_step)
    found = step_sizes(getattr(agent, place), of, counts)
    done = (np.arange(counts) / (4 * per_learner_step)).clip(0.0, 1.0)
    left = {
      'constant': np.ones(counts),
      'linear': 1 - done / 2,
      'cosine': 0.5 + (1 + np.cos(np.pi * done)) / 4,
    }[kind]
    np.testing.assert_allclose(found, 1e-3 * left, rtol=2e-2)


def test_a_run_that_goes_on_goes_on_in_its_schedules():
  agent = dqn.make_agent(
    dqn.Config(
      hidden_sizes=(8,),
      batch_size=8,
      learning_rate_schedule='linear',
      learning_rate_steps=4,
      epsilon_schedule='linear',
      epsilon_steps=4,
      epsilon_end_share=0.2,
    ),
    CATCH,
  )
  update, state = jax.jit(agent.update), agent.initial_learner_state(KEY)
  found = []
  for step in range(6):
    if step == 2:  # All that a checkpoint holds.
      leaves, structure = jax.tree.flatten(state)
      state = jax.tree.unflatten(structure, [np.asarray(x) for x in leaves])
    share = agent.actor_params(state)['epsilon_share']
    after, _ = update(state, random_batch(0))
    moved = jax.tree.map(lambda a, b: np.abs(a - b).max(), after, state).params
    found.append((float(share), max(jax.tree.leaves(moved)) > 0))
    state = after
  np.testing.assert_allclose(
    [share for share, _ in found], [1.0, 0.8, 0.6, 0.4, 0.2, 0.2], rtol=1e-6
  )
  assert [moved for _, moved in found] == [True] * 4 + [False] * 2


@pytest.mark.parametrize('module', [dqn, r2d2])
def test_epsilon_is_the_learners_to_say_but_for_what_is_evaluated(module):
  agent = module.make_agent(
    module.Config(epsilon_base=1.0, evaluation_epsilon=1.0), CATCH
  )
  params = agent.actor_params(agent.initial_learner_state(KEY))
  assert params['epsilon_share'] == 1.0
  observation = np.ones((2000, 10, 5), np.float32)

  def actions(share, streams):
    output = agent.act(
      params | {'epsilon_share': jnp.float32(share)},
      KEY,
      observation,
      agent.initial_actor_state(2000, streams),
    )
    return len(np.unique(output.action))

  streams = types.Streams(np.arange(2000), 2000)
  assert actions(1.0, streams) == 3  # at random
  assert actions(0.0, streams) == 1  # the best
  assert actions(0.0, None) == 3


@pytest.mark.parametrize('name', AGENTS)
def test_schedules_are_flags(name):
  flags = ['--agent', name, '--learning-rate-schedule', 'cosine']
  names = ['learning_rate']
  flags += ['--learning-rate-steps', '500', '--learning-rate-end-share', '0.1']
  if name in ('dqn', 'r2d2'):
    names.append('epsilon')
    flags += ['--epsilon-schedule', 'cosine', '--epsilon-steps', '500']
    flags += ['--epsilon-end-share', '0.1']
  if name == 'ppo':
    names.append('clip_ratio')
    flags += ['--clip-ratio-schedule', 'cosine', '--clip-ratio-steps', '500']
    flags += ['--clip-ratio-end-share', '0.1']
  config = train.parse(flags)[0].agent
  for setting in names:
    assert getattr(config, f'{setting}_schedule') == 'cosine'
    assert getattr(config, f'{setting}_steps') == 500
    assert getattr(config, f'{setting}_end_share') == 0.1


@pytest.mark.parametrize(
  ('name', 'setting'),
  [(name, 'learning_rate') for name in AGENTS]
  + [('dqn', 'epsilon'), ('r2d2', 'epsilon'), ('ppo', 'clip_ratio')],
)
def test_a_schedule_without_its_length_is_refused(name, setting):
  with pytest.raises(
    ValueError, match=f"{setting}_schedule='linear' needs its"
  ):
    make(name, **{f'{setting}_schedule': 'linear'})
