"""A sum tree: draws an index with chance proportional to its weight."""

from __future__ import annotations

import numpy as np

# Calls of numpy cost more than numbers, so the tree is wide and has few levels. A
# draw computes the running sums of a node's children, so the tree is no wider.
_BITS = 4
_FAN = 1 << _BITS  # children of a node
_MAX_TOP = 512  # nodes of the highest level


class SumTree:
  """Weights of `capacity` slots; sets and draws batches in few calls of numpy.

  The lowest level has the weights, in rows of `_FAN`. Each row is a node of the next
  level, whose weight is the sum of the row. A changed row is summed anew, so that no
  rounding errors add up.
  """

  def __init__(self, capacity: int):
    # Rows of the lowest level, and of those above. Memory that was never written
    # to takes no room.
    self._levels = [_rows(capacity)]
    while len(self._levels[-1]) > _MAX_TOP:
      self._levels.append(_rows(len(self._levels[-1])))
    # The weights of each level in one run, the highest level with its nodes alone.
    self._flat = [level.reshape(-1) for level in self._levels]
    self._flat.append(np.zeros(len(self._levels[-1])))
    # Sums of the first 0, 1, 2, ... nodes of the highest level.
    self._top_sums = np.zeros(len(self._flat[-1]) + 1)

  @property
  def total(self) -> float:
    """The sum of all weights."""
    return float(self._top_sums[-1])

  def get(self, index: np.ndarray) -> np.ndarray:
    """Returns the weights [B] of the slots `index` [B]."""
    return self._flat[0].take(index)

  def first(self, count: int) -> np.ndarray:
    """Returns the weights of the first slots, which later calls of `set` change."""
    return self._flat[0][:count]

  def set(self, index: np.ndarray, weight: np.ndarray) -> None:
    """Sets weights [B] of slots; of a repeated index the last weight counts."""
    self._flat[0][index] = weight
    rows = index
    for level, above in zip(self._levels, self._flat[1:], strict=True):
      rows = rows >> _BITS
      if len(rows) < len(level):
        above[rows] = np.einsum('ij->i', level.take(rows, axis=0))
      else:
        np.einsum('ij->i', level, out=above[: len(level)])
    np.add.accumulate(self._flat[-1], out=self._top_sums[1:])

  def draw(self, uniform: np.ndarray) -> np.ndarray:
    """Returns slots [B] for numbers [B] uniform in [0, 1).

    In each level it takes the first node whose running sum is above the rest of the
    number, which is never a node of weight zero.
    """
    mass = _below(self._top_sums[-1], uniform * self._top_sums[-1])
    nodes = self._top_sums.searchsorted(mass, side='right') - 1
    mass -= self._top_sums.take(nodes)
    sums = np.zeros((len(mass), 1 + _FAN))  # of the first 0, 1, ... children
    ends = sums[:, 1:]
    starts = np.arange(0, sums.size, 1 + _FAN)
    for level in reversed(self._levels):
      np.add.accumulate(level.take(nodes, axis=0), axis=1, out=ends)
      mass = _below(ends[:, -1], mass)
      child = (ends > mass[:, None]).argmax(axis=1)
      mass -= sums.reshape(-1).take(starts + child)
      nodes = (nodes << _BITS) + child
    return nodes


def _rows(nodes: int) -> np.ndarray:
  return np.zeros((-(-nodes // _FAN), _FAN))


def _below(sums: np.ndarray, mass: np.ndarray) -> np.ndarray:
  """Returns numbers that rounding has not brought up to the sums of weights."""
  return np.minimum(mass, np.nextafter(sums, 0.0))
