"""A tiny agent for games: it chooses legal actions at random, and learns nothing."""

from __future__ import annotations

import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from distacme import replay_spec
from distacme import specs
from distacme import types


@dataclasses.dataclass(frozen=True)
class Config:
  """Settings of the agent."""

  batch_size: int = 4
  """Transitions per learner step."""

  @property
  def replay(self) -> replay_spec.ReplaySpec:
    """Spec of the replay, by these settings."""
    return replay_spec.single(
      window=replay_spec.NStep(1, 1.0),
      batch_size=self.batch_size,
      max_size=100,
      min_size=self.batch_size,
      samples_per_insert=1.0,
    )


class LearnerState(NamedTuple):
  """The number of updates."""

  steps: jax.Array  # int32


class LegalAgent:
  """Acts at random; see `core.Agent`."""

  masks_actions = True

  def __init__(self, config: Config):
    self.replay = config.replay

  def initial_learner_state(self, key: types.Key) -> LearnerState:
    """Returns zero updates."""
    del key
    return LearnerState(jnp.int32(0))

  def initial_actor_state(
    self, batch_size: int, streams: types.Streams | None
  ) -> types.ActorState:
    """Returns no state."""
    del batch_size, streams
    return ()

  def act(
    self,
    params: types.Params,
    key: types.Key,
    observation: types.NestedArray,
    state: types.ActorState,
  ) -> types.ActorOutput:
    """Returns random legal actions; consumes `key`."""
    del params
    legal = observation[specs.LEGAL_ACTIONS]
    logits = jnp.where(legal, 0.0, -jnp.inf)
    action = jax.random.categorical(key, logits).astype(jnp.int32)
    return types.ActorOutput(action, state)

  def update(
    self, state: LearnerState, batch: types.Batch
  ) -> tuple[LearnerState, types.UpdateOutput]:
    """Counts the update."""
    loss = jnp.float32(0.0) * batch.data.reward.sum()
    return LearnerState(state.steps + 1), types.UpdateOutput({'loss': loss})

  def actor_params(self, state: LearnerState) -> types.Params:
    """Returns the number of updates."""
    return {'steps': state.steps}


def make_agent(
  config: Config, spec: specs.EnvironmentSpec, network: Any = None
) -> LegalAgent:
  """Returns the agent for an environment with legal actions."""
  del network
  if not specs.has_legal_actions(spec.observations):
    raise ValueError(
      'LegalAgent chooses among legal actions, and the observations hold none '
      f'({specs.LEGAL_ACTIONS!r}). Use another environment.'
    )
  return LegalAgent(config)
