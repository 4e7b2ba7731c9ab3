"""What the writers of transitions and of sequences share."""

from __future__ import annotations

from typing import Protocol

import numpy as np
import tree

from distacme import types


class Inserter(Protocol):
  """A backend's way in."""

  blocked_s: float  # time spent waiting for the rate limits, in all

  def insert(self, rows: np.ndarray, priorities: np.ndarray) -> None:
    """Inserts items: rows [K, block_size] structured, priorities [K]."""

  def close(self) -> None:
    """Waits until everything is inserted, unless the run has stopped."""


def copy(target: types.NestedArray, source: types.NestedArray) -> None:
  """Copies a nest of arrays into another."""
  if isinstance(target, np.ndarray):  # walking a nest costs microseconds
    target[...] = source
  elif target is not source:  # as () is
    tree.map_structure(np.copyto, target, source)
