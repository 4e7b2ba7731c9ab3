"""A fake agent with a learner state and outputs that tell its inputs."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from distacme import replay_spec
from distacme import types


class TellingLearnerState(NamedTuple):
  """The number of updates, and the rewards of all their batches."""

  version: jax.Array  # int32
  rewards: jax.Array  # [2] float32, the same sum twice


class TellingAgent:
  """An agent for tests of workers: its outputs tell its inputs.

  The action is the version of the acting params, for any observation. The `values`
  hold the key, the params' rewards and the number of steps of each row's episode.
  The priorities are rewards plus 1.
  """

  replay = replay_spec.single(
    window=replay_spec.NStep(1, 1.0),
    batch_size=4,
    max_size=100,
    min_size=4,
    samples_per_insert=1.0,
    priority_exponent=1.0,
  )

  def __init__(self) -> None:
    self.traces = 0  # of `act`: number of compilations
    self.streams: types.Streams | None | str = 'never asked'

  def initial_learner_state(self, key: types.Key) -> TellingLearnerState:
    """Returns zeros."""
    del key
    return TellingLearnerState(jnp.int32(0), jnp.zeros(2, jnp.float32))

  def initial_actor_state(
    self, batch_size: int, streams: types.Streams | None
  ) -> np.ndarray:
    """Returns a count of steps for each row."""
    self.streams = streams
    return np.zeros(batch_size, np.int32)

  def act(
    self,
    params: types.Params,
    key: types.Key,
    observation: types.NestedArray,
    state: jax.Array,
  ) -> types.ActorOutput:
    """Returns the params' version as action."""
    self.traces += 1
    del observation
    size = state.shape[0]
    values = {
      'key': jnp.tile(key, (size, 1)),
      'rewards': jnp.tile(params['rewards'], (size, 1)),
      'steps': state,
    }
    action = jnp.full(size, params['version'], jnp.int32)
    return types.ActorOutput(action, state + 1, values=values)

  def update(
    self, state: TellingLearnerState, batch: types.Batch
  ) -> tuple[TellingLearnerState, types.UpdateOutput]:
    """Adds the batch's rewards."""
    reward = batch.data.reward
    new = TellingLearnerState(state.version + 1, state.rewards + reward.sum())
    return new, types.UpdateOutput({'loss': reward.sum()}, reward + 1)

  def actor_params(self, state: TellingLearnerState) -> types.Params:
    """Returns the whole state."""
    return state._asdict()

  def first_priority(
    self, window: types.Transition, values: types.NestedArray
  ) -> np.ndarray:
    """Returns ones."""
    return np.ones(len(window.reward))
