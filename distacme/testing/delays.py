"""Delays params, like a program with slow or distant actors."""

from __future__ import annotations

import collections

from distacme import core
from distacme import types


class DelayedParams:
  """Params from `delay` publications ago; a sink and a source.

  The source gives the first params until there are so many publications. In an
  `EnvironmentLoop` the acting policy is `delay` updates late:

      loop = EnvironmentLoop(environment, agent, params=DelayedParams(50))
  """

  def __init__(self, delay: int):
    """Takes the delay, a number of publications; 0 for no delay."""
    if delay < 0:
      raise ValueError(f'delay must not be negative, got {delay}.')
    self._published: collections.deque[core.VersionedParams] = (
      collections.deque(maxlen=delay + 1)
    )

  def publish(self, version: int, params: types.Params) -> None:
    """Takes the newest params, to give them later."""
    self._published.append(core.VersionedParams(version, params))

  def newest(self) -> core.VersionedParams | None:
    """Returns the params of `delay` publications ago; None before the first."""
    return self._published[0] if self._published else None
