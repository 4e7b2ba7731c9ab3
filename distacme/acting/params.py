"""Params on their way from a learner to actors and evaluators."""

from __future__ import annotations

import json
from typing import Any, Protocol

import numpy as np

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


class Transport(Protocol):
  """A carrier of flat arrays, such as `variables.client.VariableClient`."""

  def publish(self, version: int, names: Any, arrays: Any) -> Any:
    """Sends arrays with their names."""

  def newest(self) -> Any:
    """Returns version, names and arrays of the newest params, or None."""


class RemoteParams:
  """Params that travel as named arrays; a sink and a source. One thread."""

  def __init__(self, transport: Transport):
    self._transport = transport
    self._newest: core.VersionedParams | None = None

  def publish(self, version: int, params: types.Params) -> None:
    """Sends `params` to all subscribers."""
    flat = flatten(params)
    self._transport.publish(
      version, list(flat), [np.asarray(leaf) for leaf in flat.values()]
    )

  def newest(self) -> core.VersionedParams | None:
    """Returns the newest params that arrived, None before the first."""
    received = self._transport.newest()
    if received is None:
      return None
    if self._newest is None or received.version != self._newest.version:
      params = unflatten(
        dict(zip(received.names, received.arrays, strict=True))
      )
      self._newest = core.VersionedParams(received.version, params)
    return self._newest


def flatten(params: types.Params) -> dict[str, Any]:
  """Returns the leaves of a nest of dicts under names that keep their paths.

  Raises:
    TypeError: if `params` is not a dict, or has other containers than dicts with
      string keys: names could not rebuild such containers.
  """
  flat: dict[str, Any] = {}

  def visit(node: Any, path: list[str]) -> None:
    if isinstance(node, dict):
      if path and not node:
        raise TypeError(
          f'params may not hold an empty dict, as under {path}: it would be '
          'lost on the way. Leave it out.'
        )
      for key, child in node.items():
        if not isinstance(key, str):
          raise TypeError(
            f'params may be nested in dicts with string keys, got the key '
            f'{key!r} under {path}.'
          )
        visit(child, [*path, key])
    elif path and hasattr(node, 'shape') and hasattr(node, 'dtype'):
      flat[json.dumps(path)] = node
    else:
      raise TypeError(
        'params may be arrays nested in dicts with string keys, got '
        f'{type(node).__name__} under {path}. Let actor_params return such a '
        'dict.'
      )

  visit(params, [])
  return flat


def unflatten(flat: dict[str, Any]) -> types.Params:
  """Undoes `flatten`."""
  nest: dict[str, Any] = {}
  for name, leaf in flat.items():
    *parents, last = json.loads(name)
    node = nest
    for key in parents:
      node = node.setdefault(key, {})
    node[last] = leaf
  return nest
