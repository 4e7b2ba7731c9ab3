"""Environments that save and restore their state, so that a search may step them.

An environment with methods `save` and `restore` is one already. Of any other, all
objects are visited that the environment holds: wrappers, adapters, the innermost
environment, its helpers and generators of random numbers. `saving.handlers` says how
each is kept. Objects stay the same objects, and arrays the same arrays: all that
has changed is written back. State outside of these objects is not seen: globals,
attributes of classes, numpy's and Python's generators of the whole process.
"""

from __future__ import annotations

import dm_env
import numpy as np
import tree

from distacme import core
from distacme import types
from distacme.environments.saving import handlers
from distacme.environments.saving import states


def as_simulator(environment: dm_env.Environment) -> core.Simulator:
  """Returns `environment` as a simulator, which steps that same environment.

  Raises:
    ValueError: if part of the environment cannot be saved; names that part.
  """
  if handlers.saves_itself(type(environment)):
    return environment
  simulator = ObjectSimulator(environment)
  simulator.save()
  return simulator


class ObjectSimulator:
  """Saves and restores an environment by the attributes of its objects."""

  def __init__(self, environment: dm_env.Environment):
    self._environment = environment
    self._known = states.Known()
    self._observation_is_nest = tree.is_nested(environment.observation_spec())

  def save(self) -> states.State:
    """Returns all that the next steps depend on.

    Raises:
      ValueError: if part of it cannot be saved; names that part.
    """
    try:
      return handlers.save(self._environment, self._known)
    except states.NotSaved as error:
      found = f'{error.path} {error.reason}'
    except RecursionError:
      found = ' holds objects within objects, too deep to follow'
    raise ValueError(
      f'A search cannot step this environment: {type(self._environment).__name__}'
      f'{found}. Give the environment methods save() and restore(saved, '
      'seed=None), as distacme.core.Simulator describes them, or use the agent '
      'muzero, which learns its model.'
    )

  def restore(self, saved: states.State, seed: int | None = None) -> None:
    """Puts the environment back where `save` was called.

    Args:
      saved: a result of `save`.
      seed: of all that is random from here on; None restores the generators.
    """
    saved.restore(seed)

  def step(self, action: types.NestedArray) -> dm_env.TimeStep:
    """Steps the environment; copies the observation, whose array may be its own."""
    step_type, reward, discount, observation = self._environment.step(action)
    return dm_env.TimeStep(
      step_type,
      reward,
      discount,
      tree.map_structure(np.array, observation)
      if self._observation_is_nest
      else np.array(observation),
    )
