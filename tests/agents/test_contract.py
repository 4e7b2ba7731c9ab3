"""The contract finds each way to break it."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from distacme import replay_spec
from distacme import specs
from distacme import types
from distacme.testing import agent_contract
from distacme.testing import environments

from . import minimal_agent

SPEC = specs.make_environment_spec(environments.Catch(seed=0))


class Base(minimal_agent.LinearQ):
  def __init__(self):
    super().__init__(minimal_agent.Config(), SPEC)


class ActionOutOfRange(Base):
  def act(self, params, key, observation, state):
    output = super().act(params, key, observation, state)
    return output._replace(action=output.action + 3)


class OneActionForAll(Base):
  def act(self, params, key, observation, state):
    output = super().act(params, key, observation, state)
    return output._replace(action=output.action[:1])


class ContinuousAction(Base):
  def act(self, params, key, observation, state):
    output = super().act(params, key, observation, state)
    return output._replace(action=output.action + 0.5)


class StateOfAnotherType(Base):
  def act(self, params, key, observation, state):
    output = super().act(params, key, observation, state)
    return output._replace(state=state > 0)


class StateOfAll(Base):
  def initial_actor_state(self, batch_size, streams):
    return super().initial_actor_state(1, streams)[0]


class RowsThatMix(Base):
  def act(self, params, key, observation, state):
    output = super().act(params, key, observation, state)
    return output._replace(state=state + state.sum() + 1)


class ParamsInATuple(Base):
  def actor_params(self, state):
    return tuple(state.params.values())

  def act(self, params, key, observation, state):
    return super().act({'weights': params[0]}, key, observation, state)


class OneBufferTwice(Base):
  def initial_learner_state(self, key):
    state = super().initial_learner_state(key)
    return minimal_agent.LearnerState(
      {**state.params, 'target': state.params['weights']}
    )


class StateThatChangesType(Base):
  def update(self, state, batch):
    state, output = super().update(state, batch)
    return jax.tree.map(lambda leaf: leaf.astype(jnp.float16), state), output


class PrioritiesUnasked(Base):
  def update(self, state, batch):
    state, output = super().update(state, batch)
    return state, output._replace(priorities=batch.data.reward)


class MetricOfTheBatch(Base):
  def update(self, state, batch):
    state, output = super().update(state, batch)
    return state, output._replace(metrics={'loss': batch.data.reward})


class ChanceWithoutKey(Base):
  def initial_learner_state(self, key):
    state = super().initial_learner_state(key)
    noise = np.random.default_rng().normal(size=state.params['weights'].shape)
    return minimal_agent.LearnerState({'weights': jnp.float32(noise)})


class LearnsFromPadding(Base):
  def __init__(self):
    super().__init__()
    self.replay = replay_spec.single(
      replay_spec.Sequences(4, 1),
      batch_size=32,
      max_size=1000,
      min_size=100,
      samples_per_insert=1.0,
    )

  def update(self, state, batch):
    step = batch.data.reward.mean()
    state = jax.tree.map(lambda leaf: leaf + step, state)
    return state, types.UpdateOutput({})


class WithoutFirstPriority(Base):
  def __init__(self):
    super().__init__()
    self.replay = replay_spec.single(
      replay_spec.NStep((1, 3), 0.9),
      batch_size=32,
      max_size=1000,
      min_size=100,
      samples_per_insert=1.0,
      priority_exponent=0.5,
    )

  def update(self, state, batch):
    return state, types.UpdateOutput({}, batch.data.reward[:, 1])


class OneFirstPriorityForAll(WithoutFirstPriority):
  def first_priority(self, window, values):
    return window.reward.sum()


@pytest.mark.parametrize(
  ('broken', 'error', 'message'),
  [
    (ActionOutOfRange, AssertionError, 'does not conform to'),
    (OneActionForAll, AssertionError, r'actions: .* \[B, ...\] with B=5'),
    (ContinuousAction, AssertionError, 'actions are float32, the action spec'),
    (StateOfAnotherType, AssertionError, 'actor states before and after act'),
    (StateOfAll, AssertionError, 'initial_actor_state: every leaf must be'),
    (RowsThatMix, AssertionError, 'with and without another row reset'),
    (ParamsInATuple, TypeError, 'Let actor_params return such a dict'),
    (OneBufferTwice, AssertionError, r'copy it \(jnp.copy\)'),
    (StateThatChangesType, AssertionError, 'states before and after update'),
    (PrioritiesUnasked, AssertionError, 'replay is uniform'),
    (MetricOfTheBatch, AssertionError, "'loss' must be one finite number"),
    (LearnsFromPadding, AssertionError, 'update with and without padding'),
    (WithoutFirstPriority, AssertionError, 'write a method first_priority'),
    (OneFirstPriorityForAll, AssertionError, r'first_priority: .* \[B, ...\]'),
    (ChanceWithoutKey, AssertionError, 'initial_learner_state of one key'),
  ],
  ids=lambda value: getattr(value, '__name__', ''),
)
def test_a_broken_promise_is_named(broken, error, message):
  with pytest.raises(error, match=message):
    agent_contract.check_agent(broken(), SPEC)
