"""A trained agent as a function of one observation."""

from __future__ import annotations

from typing import Any

import numpy as np
import tree

from distacme import core
from distacme import specs
from distacme import types
from distacme.acting import params as params_lib
from distacme.acting import policy as policy_lib
from distacme.environments import precision
from distacme.run import seeding


class GreedyPolicy:
  """Acts like an evaluated agent, greedily by default, one observation at a time.

  One thread.

  This object holds the agent's memory between steps of an episode: call `reset`
  before the first observation of each episode but the first.
  """

  def __init__(
    self,
    agent: core.Agent,
    params: core.VersionedParams,
    spec: specs.EnvironmentSpec,
    seed: int = 0,
  ):
    """Prepares to act with these params.

    Args:
      agent: has the `act` to use.
      params: to act with.
      spec: of the environment that the agent was made for.
      seed: decides what is random about the policy.

    Raises:
      ValueError: if the agent's policy is a search of an environment's states.
    """
    if isinstance(agent, core.PlanningAgent):
      raise ValueError(
        f'{type(agent).__name__} searches the states of an environment: a '
        'function of one observation would leave the search out. Make the policy '
        "with distacme.wiring.make_policy, or measure it with 'distacme evaluate'."
      )
    self.version = params.version
    self._spec = spec.observations
    key = seeding.actor_key(seed)
    source = params_lib.LocalParams(params)
    self._policy = policy_lib.CompiledPolicy(agent, source, 1, key)
    self._first = np.array([True])

  def __call__(self, observation: types.NestedArray) -> types.NestedArray:
    """Returns the action for an observation, both without a batch axis.

    Raises:
      ValueError: if the observation does not fit the run's environment.
    """
    output = self._policy.act(self._batched(observation), self._first)
    self._first = np.array([False])
    return tree.map_structure(lambda leaf: leaf[0], output.action)

  def reset(self) -> None:
    """Forgets the episode so far."""
    self._first = np.array([True])

  def _batched(self, observation: types.NestedArray) -> types.NestedArray:
    try:
      return tree.map_structure_up_to(
        self._spec, _with_batch_axis, self._spec, observation
      )
    except (TypeError, ValueError) as error:
      raise ValueError(
        f'this is no observation of the environment learnt in: {error}. Give '
        f'one observation without a batch axis, as {self._spec} says.'
      ) from error


def _with_batch_axis(spec: specs.Array, leaf: Any) -> np.ndarray:
  array = np.asarray(leaf)
  if array.shape != spec.shape:
    raise ValueError(f'{spec.name or "a leaf"} has the shape {array.shape}')
  array = precision.reader(spec, spec.name or 'a leaf')(array)
  return array.astype(spec.dtype, copy=False)[np.newaxis]
