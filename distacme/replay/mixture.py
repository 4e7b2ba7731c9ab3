"""Batches with elements of several tables."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeAlias

import numpy as np

from distacme import replay_spec
from distacme.replay import tables as tables_lib

# Draws a number of items from one table.
Draw: TypeAlias = Callable[[int], tables_lib.DrawnItems]


class Mixture:
  """Chooses the table of every element, and joins the tables' items to batches.

  The choices for a batch follow from the entropy, the batch's number and the shares
  of the tables, so that restored tables go on with the same choices.

  Attributes:
    entropy: of the choices, made of the seed; kept with the tables.
  """

  def __init__(self, spec: replay_spec.ReplaySpec, seed: int | None = None):
    """Chooses nothing yet.

    Args:
      spec: of the tables.
      seed: of the choices; None for different choices in every process.
    """
    self._items = spec.batch_size // spec.block_size
    self._block = spec.block_size
    self._several = len(spec.tables) > 1
    self._by_priority = spec.mixture == 'priorities'
    self._fixed = np.array([1.0] if self._by_priority else spec.mixture)
    self._pretraining_batches = spec.pretraining_batches
    self._recorded = np.array(
      [table.filled_by == 'demonstrations' for table in spec.tables]
    )
    self.entropy = np.random.SeedSequence(seed).entropy

  def shares(self, number: int, totals: Sequence[float]) -> np.ndarray:
    """Returns the chance of each table to give an element of batch `number`.

    Args:
      number: of the batch.
      totals: the sum of priorities in each table; [] if the mixture is fixed.
    """
    shares = self._fixed
    if self._by_priority:
      shares = np.array(totals)
    if number < self._pretraining_batches:
      shares = shares * self._recorded
    total = shares.sum()
    # Nothing can be drawn from empty tables, whatever their chance.
    return shares / total if total else np.full(len(shares), 1 / len(shares))

  def _tables(self, number: int, shares: np.ndarray) -> np.ndarray:
    """Returns the table of each item of batch `number`: [N] int32."""
    seed = np.random.SeedSequence(self.entropy, spawn_key=(number,))
    uniform = np.random.default_rng(seed).random(self._items)
    bounds = np.cumsum(shares)[:-1]
    # A table without a share is not chosen by a number at its bound.
    last = int(np.flatnonzero(shares)[-1])
    tables = np.searchsorted(bounds, uniform, side='right').clip(max=last)
    return tables.astype(np.int32)

  def counts(
    self, number: int, batches: int, totals: Sequence[float]
  ) -> list[int]:
    """Returns the number of windows of each table in batches from `number` on."""
    if not self._several:
      return [self._items * self._block * batches]
    tables = np.concatenate(
      [
        self._tables(later, self.shares(later, totals))
        for later in range(number, number + batches)
      ]
    )
    counts = np.bincount(tables, minlength=len(self._recorded))
    return (counts * self._block).tolist()

  def draw(
    self, number: int, totals: Sequence[float], draws: Sequence[Draw]
  ) -> tables_lib.DrawnItems:
    """Returns the items of batch `number`, with their chance in the batch.

    Args:
      number: of the batch.
      totals: the sum of priorities in each table; [] if the mixture is fixed.
      draws: of each table; called only if the batch has items of the table.
    """
    if not self._several:
      return draws[0](self._items)
    shares = self.shares(number, totals)
    drawn = _joined(self._tables(number, shares), draws)
    return drawn._replace(probability=drawn.probability * shares[drawn.tables])


def _joined(tables: np.ndarray, draws: Sequence[Draw]) -> tables_lib.DrawnItems:
  """Returns items of several tables, in the order of the elements."""
  counts = np.bincount(tables, minlength=len(draws)).tolist()
  parts = [draw(n) for draw, n in zip(draws, counts, strict=True) if n]
  # The index of each element among the items in the order of drawing.
  places = np.argsort(np.argsort(tables, kind='stable'), kind='stable')
  items, keys, probability, indices = (
    np.concatenate(arrays)[places]
    for arrays in zip(*[part[:4] for part in parts], strict=True)
  )
  frames = None
  if parts[0].frames is not None:
    every = [frame for part in parts for frame in part.frames or ()]
    frames = [every[place] for place in places.tolist()]
  return tables_lib.DrawnItems(items, keys, probability, indices, frames)
