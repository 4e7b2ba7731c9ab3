"""Params that a learner and an actor of one process share."""

from __future__ import annotations

from distacme import core
from distacme import types


class LocalParams:
  """The newest params of one process; a sink and a source."""

  def __init__(self, newest: core.VersionedParams | None = None):
    self._newest = newest

  def publish(self, version: int, params: types.Params) -> None:
    """Makes `params` the newest."""
    self._newest = core.VersionedParams(version, params)

  def newest(self) -> core.VersionedParams | None:
    """Returns the newest params, None before the first."""
    return self._newest
