"""Flattens nests of params to named arrays, and rebuilds the nests."""

from __future__ import annotations

import json
from typing import Any

from distacme import types


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
