"""Plays episodes of a policy, and keeps their steps."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import dm_env
import numpy as np
import tree

from distacme import core
from distacme import types
from distacme.demonstrations import episodes


class Played(NamedTuple):
  """A whole episode, and whether it was cut off rather than ended."""

  episode: episodes.Episode
  cut_off: bool


def play(
  policy: core.Policy,
  environment: core.VectorEnvironment,
  max_steps: int,
  must_end: Callable[[], bool] = lambda: False,
) -> Iterator[Played]:
  """Yields episode after episode, without end.

  Args:
    policy: acts.
    environment: a vector of one row.
    max_steps: steps after which an episode is cut off, as truncated.
    must_end: returns whether to end now, in the midst of an episode.
  """
  timestep = environment.reset()
  while True:
    steps = _Steps(timestep)
    over = False
    while not over and steps.count < max_steps:
      if must_end():
        return
      output = policy.act(
        timestep.observation, timestep.step_type == types.FIRST
      )
      timestep = environment.step(output.action)
      steps.add(output.action, timestep)
      over = bool(timestep.step_type[0] == types.LAST)
    yield Played(steps.episode(), not over)
    # As in evaluations: a step begins the next episode, if one is over.
    timestep = environment.step(output.action) if over else environment.reset()


class _Steps:
  """The steps of an episode so far."""

  def __init__(self, first: dm_env.TimeStep):
    self._observations = [first.observation]
    self._actions: list[types.NestedArray] = []
    self._rewards: list[np.ndarray] = []
    self._discounts: list[np.ndarray] = []

  @property
  def count(self) -> int:
    """Steps so far."""
    return len(self._actions)

  def add(self, action: types.NestedArray, timestep: dm_env.TimeStep) -> None:
    """Adds an action and its timestep, of a vector of one row."""
    self._observations.append(timestep.observation)
    self._actions.append(action)
    self._rewards.append(timestep.reward)
    self._discounts.append(timestep.discount)

  def episode(self) -> episodes.Episode:
    """Returns the episode."""
    return episodes.Episode(
      _joined(self._observations),
      _joined(self._actions),
      _joined(self._rewards),
      _joined(self._discounts),
    )


def _joined(rows: Sequence[Any]) -> Any:
  """Returns a nest of [N, ...] of N nests of [1, ...]."""
  columns = zip(*map(tree.flatten, rows), strict=True)
  return tree.unflatten_as(rows[0], [np.concatenate(c) for c in columns])
