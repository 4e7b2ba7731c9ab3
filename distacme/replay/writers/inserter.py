"""What the writers of transitions and of sequences share."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
import tree

from distacme import types


class Inserter(Protocol):
  """A backend's way in."""

  blocked_s: float  # time spent waiting for the rate limits, in all

  def insert(
    self,
    rows: np.ndarray,
    priorities: np.ndarray,
    frames: Sequence[Sequence[Any]] | None = None,
  ) -> None:
    """Inserts items.

    Args:
      rows: [K, block_size] structured.
      priorities: [K].
      frames: of each item, if its observations are stacks: what `insert_frames`
        gave for them, oldest first.
    """

  def insert_frames(self, frames: np.ndarray) -> Sequence[Any]:
    """Inserts a frame of each environment, for items to name.

    Args:
      frames: structured [num_envs].

    Returns:
      What stands for them.
    """

  def close(self) -> None:
    """Waits until everything is inserted, unless the run has stopped."""


def copy(target: types.NestedArray, source: types.NestedArray) -> None:
  """Copies a nest of arrays into another."""
  if isinstance(target, np.ndarray):  # walking a nest costs microseconds
    np.copyto(target, source, casting='same_kind')
  elif target is not source:  # as () is
    tree.map_structure(np.copyto, target, source)
