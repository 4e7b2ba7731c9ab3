"""Batches whose elements come from several tables, the same for all backends."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, TypeAlias

import numpy as np

from distacme import replay_spec
from distacme import types
from distacme.replay.items import rows as rows_lib


class Drawn(NamedTuple):
  """Items drawn from one table.

  Attributes:
    items: [K, block_size] structured rows.
    keys: [K] uint64.
    probability: [K] float64, the chance that each had within its table.
    frames: [K] structured frames of each item, or None if the rows need none.
  """

  items: np.ndarray
  keys: np.ndarray
  probability: np.ndarray
  frames: Sequence[np.ndarray] | None


# Draws so many items of one table.
Draw: TypeAlias = Callable[[int], Drawn]


class Mixture:
  """Chooses the table of every element, and joins what they give to batches.

  The choices for a batch depend on the seed and the batch's number alone, so
  that a backend can know the next ones, and goes on with them once restored.
  """

  def __init__(
    self,
    spec: replay_spec.ReplaySpec,
    layout: rows_lib.RowLayout,
    seed: int | None = None,
  ):
    """Chooses nothing yet.

    Args:
      spec: of the tables.
      layout: of their rows.
      seed: of the choices; None for others in every process.
    """
    self._layout = layout
    self._block = spec.block_size
    self._size = spec.batch_size
    self._shares = np.array(spec.mixture)
    self._bounds = np.cumsum(self._shares)[:-1]
    self._entropy = np.random.SeedSequence(seed).entropy
    self._only = np.zeros(spec.batch_size, np.int32)

  def tables(self, number: int) -> np.ndarray:
    """Returns the table of each element of batch `number`: [B] int32."""
    if not len(self._bounds):
      return self._only
    seed = np.random.SeedSequence(self._entropy, spawn_key=(number,))
    uniform = np.random.default_rng(seed).random(self._size)
    return np.searchsorted(self._bounds, uniform, side='right').astype(np.int32)

  def counts(self, number: int) -> np.ndarray:
    """Returns how many windows of each table batch `number` holds."""
    return np.bincount(self.tables(number), minlength=len(self._shares))

  def sample(
    self, number: int, draws: Sequence[Draw]
  ) -> tuple[Any, types.SampleInfo]:
    """Returns batch `number`; see `core.Sampler`.

    Args:
      number: of the batch.
      draws: of each table; called only if the batch holds some of its windows.
    """
    tables = self.tables(number)
    if len(draws) == 1:
      drawn = draws[0](self._size // self._block)
    else:
      drawn = _joined(tables, draws)
    rows = drawn.items.reshape(-1)
    info = types.SampleInfo(
      key=np.repeat(drawn.keys, self._block),
      probability=np.repeat(drawn.probability, self._block)
      * self._shares[tables],
      params_version=rows[rows_lib.PARAMS_VERSION],
      table=tables,
    )
    return self._layout.read(rows, drawn.frames), info


def _joined(tables: np.ndarray, draws: Sequence[Draw]) -> Drawn:
  """Returns items of several tables, in the order of the elements."""
  counts = np.bincount(tables, minlength=len(draws)).tolist()
  parts = [draw(n) for draw, n in zip(draws, counts, strict=True) if n]
  # The place of each element among the items as they were drawn.
  places = np.argsort(np.argsort(tables, kind='stable'), kind='stable')
  items, keys, probability = (
    np.concatenate(arrays)[places]
    for arrays in zip(*[part[:3] for part in parts], strict=True)
  )
  frames = None
  if parts[0].frames is not None:
    every = [frame for part in parts for frame in part.frames or ()]
    frames = [every[place] for place in places.tolist()]
  return Drawn(items, keys, probability, frames)
