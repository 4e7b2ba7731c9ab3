"""Params between a learner and those who act, inside one process."""

from __future__ import annotations

from distacme import core
from distacme import types


class LocalParams:
  """Holds the newest params; a `core.ParamsSink` and a `core.ParamsSource`."""

  def __init__(self) -> None:
    self._newest: core.VersionedParams | None = None

  def publish(self, version: int, params: types.Params) -> None:
    """Makes `params` the newest."""
    self._newest = core.VersionedParams(version, params)

  def newest(self) -> core.VersionedParams | None:
    """Returns the newest params, None before the first."""
    return self._newest
