"""The form in which replay hands batches to a learner, by whatever way."""

from __future__ import annotations

from collections.abc import Mapping
import dataclasses
from typing import Any

import numpy as np

from distacme import replay_spec
from distacme.replay import tables
from distacme.replay.items import rows as rows_lib

# Batches that are drawn, the one that the learner has included.
DRAWN = 2

_PRIORITY = np.dtype([('table', '<i4'), ('key', '<u8'), ('priority', '<f8')])


@dataclasses.dataclass(frozen=True)
class Form:
  """The size of a batch's parts, which the learner knows.

  Attributes:
    items: number of items in a batch.
    item_bytes: bytes of an item.
    max_frames: frames of all items together, at most.
    frame_bytes: bytes of a frame; 0 if the rows have no frames.
  """

  items: int
  item_bytes: int
  max_frames: int = 0
  frame_bytes: int = 0

  def __post_init__(self) -> None:
    for field in dataclasses.fields(self):
      value = getattr(self, field.name)
      if type(value) is not int or not 0 <= value < 1 << 40:
        raise ValueError(f'{field.name} of a batch is {value!r:.80}.')

  @classmethod
  def of(cls, spec: replay_spec.ReplaySpec, layout: rows_lib.RowLayout) -> Form:
    """Returns the form of an agent's batches."""
    items = spec.batch_size // spec.block_size
    frames = layout.frames
    if frames is None:
      return cls(items, layout.itemsize * spec.block_size)
    return cls(
      items,
      layout.itemsize,
      items * (frames.moments + frames.stack - 1),
      frames.dtype.itemsize,
    )

  @classmethod
  def from_dict(cls, fields: Mapping[str, Any]) -> Form:
    """Undoes `dataclasses.asdict`; raises ValueError for anything else."""
    try:
      return cls(**fields)
    except TypeError as error:
      raise ValueError(f'No form of a batch: {error}.') from None

  def check(self, drawn: tables.DrawnItems) -> None:
    """Raises ValueError if a batch is of another form."""
    found = [*drawn.items.shape]
    wanted = [self.items, self.item_bytes]
    if found != wanted:
      raise ValueError(
        f'replay draws items {found} (number, bytes), this agent and environment '
        f'need {wanted}: actors and learner do not agree about the environment '
        'spec, or what `act` stores. Give all of them the same.'
      )
    frames = sum(map(len, drawn.frames or ()))
    if frames > self.max_frames or (drawn.frames is None) != (
      not self.frame_bytes
    ):
      raise ValueError(
        f'replay draws a batch of {frames} frames, this agent and environment '
        f'need {self.max_frames} at most: actors and learner do not agree about '
        'stacked observations. Give all of them the same.'
      )


def priorities_to_bytes(
  tables: np.ndarray, keys: np.ndarray, priorities: np.ndarray
) -> bytes:
  """Returns the priorities [N] of items as bytes."""
  array = np.empty(len(keys), _PRIORITY)
  array['table'], array['key'], array['priority'] = tables, keys, priorities
  return array.tobytes()


def priorities_from_bytes(
  data: bytes | memoryview,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
  """Undoes `priorities_to_bytes`; returns tables, keys and priorities [N].

  Raises:
    ValueError: if `data` is anything else.
  """
  if len(data) % _PRIORITY.itemsize:
    raise ValueError(f'{len(data)} bytes are no priorities.')
  array = np.frombuffer(data, _PRIORITY)
  return array['table'], array['key'], array['priority']
