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

  The choices for a batch depend on the seed and the batch's number alone, so that
  restored tables go on with the same choices.
  """

  def __init__(self, spec: replay_spec.ReplaySpec, seed: int | None = None):
    """Chooses nothing yet.

    Args:
      spec: of the tables.
      seed: of the choices; None for different choices in every process.
    """
    self._items = spec.batch_size // spec.block_size
    self._block = spec.block_size
    self._shares = np.array(spec.mixture)
    self._bounds = np.cumsum(self._shares)[:-1]
    self._entropy = np.random.SeedSequence(seed).entropy
    self._only = np.zeros(self._items, np.int32)

  def tables(self, number: int) -> np.ndarray:
    """Returns the table of each item of batch `number`: [N] int32."""
    if not len(self._bounds):
      return self._only
    seed = np.random.SeedSequence(self._entropy, spawn_key=(number,))
    uniform = np.random.default_rng(seed).random(self._items)
    return np.searchsorted(self._bounds, uniform, side='right').astype(np.int32)

  def counts(self, number: int, batches: int = 1) -> list[int]:
    """Returns the number of windows of each table in batches from `number` on."""
    if not len(self._bounds):
      return [self._items * self._block * batches]
    tables = np.concatenate(
      [self.tables(number + later) for later in range(batches)]
    )
    counts = np.bincount(tables, minlength=len(self._shares))
    return (counts * self._block).tolist()

  def draw(self, number: int, draws: Sequence[Draw]) -> tables_lib.DrawnItems:
    """Returns the items of batch `number`, with their chance in the batch.

    Args:
      number: of the batch.
      draws: of each table; called only if the batch has items of the table.
    """
    if len(draws) == 1:
      return draws[0](self._items)
    tables = self.tables(number)
    drawn = _joined(tables, draws)
    return drawn._replace(
      probability=drawn.probability * self._shares[drawn.tables]
    )


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
