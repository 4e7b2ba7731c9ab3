"""A sum tree: draws an index with chance proportional to its weight."""

from __future__ import annotations

import numpy as np


class SumTree:
  """Weights of `capacity` slots; sets and draws batches in O(log capacity).

  The tree is an implicit binary heap: node i has children 2i and 2i + 1, the leaves
  are the last `size` nodes, and every inner node holds the sum of its leaves.
  """

  def __init__(self, capacity: int):
    self._size = 1 << (capacity - 1).bit_length()
    self._depth = self._size.bit_length() - 1
    self._nodes = np.zeros(2 * self._size)

  @property
  def total(self) -> float:
    """The sum of all weights."""
    return float(self._nodes[1])

  def get(self, index: np.ndarray) -> np.ndarray:
    """Returns the weights [B] of the slots `index` [B]."""
    return self._nodes[index + self._size]

  def set(self, index: np.ndarray, weight: np.ndarray) -> None:
    """Sets weights [B] of slots; of a repeated index the last weight counts."""
    nodes = index + self._size
    self._nodes[nodes] = weight
    for _ in range(self._depth):
      nodes = nodes >> 1
      self._nodes[nodes] = self._nodes[2 * nodes] + self._nodes[2 * nodes + 1]

  def draw(self, uniform: np.ndarray) -> np.ndarray:
    """Returns slots [B] for numbers [B] uniform in [0, 1)."""
    mass = uniform * self._nodes[1]
    nodes = np.ones(len(uniform), np.int64)
    for _ in range(self._depth):
      nodes *= 2
      left = self._nodes[nodes]
      # A right subtree of weight zero must not be entered because of rounding.
      right = (mass >= left) & (self._nodes[nodes + 1] > 0)
      mass -= left * right
      nodes += right
    return nodes - self._size
