"""The interface to replay's backends that all writers use."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol, TypeAlias

import numpy as np
import tree

from distacme import types

# An agent's `first_priority`; see `core.PrioritizingAgent`.
FirstPriority: TypeAlias = Callable[[Any, types.NestedArray], np.ndarray]


class Inserter(Protocol):
  """A backend's way into some of its tables; each item goes to all of them.

  Attributes:
    blocked_s: total seconds spent waiting for the rate limits.
  """

  blocked_s: float

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
      frames: of each item, if its observations are stacks: the answers of
        `insert_frames`, oldest first.

    Raises:
      ValueError: if a table that evicts nothing is full.
    """

  def insert_frames(self, frames: np.ndarray) -> Sequence[Any]:
    """Inserts a frame of each environment, for later items to refer to.

    Args:
      frames: structured [num_envs].

    Returns:
      A reference to each frame.
    """

  def close(self) -> None:
    """Waits until everything is inserted, unless the run has stopped."""


def copy(target: types.NestedArray, source: types.NestedArray) -> None:
  """Copies a nest of arrays into another of the same shapes.

  Raises:
    ValueError: if a shape differs; NumPy would repeat the values.
  """
  if isinstance(target, np.ndarray):  # walking a nest costs microseconds
    _copy_leaf(target, source)
  elif target is not source:  # as () is
    tree.map_structure(_copy_leaf, target, source)


def _copy_leaf(target: np.ndarray, source: Any) -> None:
  same = target.shape == getattr(source, 'shape', None)  # faster than np.shape
  if not same and target.shape != np.shape(source):
    raise ValueError(
      f'an array of shape {np.shape(source)} came for one of shape '
      f'{target.shape}.'
    )
  np.copyto(target, source, casting='same_kind')
