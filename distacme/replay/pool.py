"""Elements that a shard of replay has drawn, until the learner takes them."""

from __future__ import annotations

import collections
from collections.abc import Sequence

import numpy as np

from distacme.replay import tables


class Pool:
  """Elements in the order in which they were drawn. Not thread-safe."""

  def __init__(self) -> None:
    self._parts: collections.deque[tables.DrawnItems] = collections.deque()
    self._left = 0

  def __len__(self) -> int:
    """Returns the number of elements."""
    return self._left

  def put(self, drawn: tables.DrawnItems) -> None:
    """Adds elements, whose memory is the pool's from now on."""
    self._parts.append(drawn)
    self._left += len(drawn.keys)

  def take(self, count: int) -> list[tables.DrawnItems]:
    """Removes and returns so many elements, which are there."""
    taken = []
    self._left -= count
    while count:
      first = self._parts.popleft()
      if len(first.keys) > count:
        self._parts.appendleft(_part(first, slice(count, None)))
        first = _part(first, slice(count))
      taken.append(first)
      count -= len(first.keys)
    return taken

  def clear(self) -> None:
    """Drops all elements."""
    self._parts.clear()
    self._left = 0


def _part(drawn: tables.DrawnItems, part: slice) -> tables.DrawnItems:
  items, keys, probability, indices, frames = drawn
  return tables.DrawnItems(
    items[part],
    keys[part],
    probability[part],
    indices[part],
    None if frames is None else frames[part],
  )


def owned(drawn: tables.DrawnItems) -> tables.DrawnItems:
  """Returns elements whose frames are no views on what an outlet writes to."""
  if drawn.frames is None:
    return drawn
  flat = [frame for named in drawn.frames for frame in named]
  if not flat:
    return drawn
  array = np.concatenate(flat).reshape(len(flat), -1)
  ends = np.cumsum([len(named) for named in drawn.frames])
  return drawn._replace(frames=np.split(array, ends[:-1]))


def joined(parts: Sequence[tables.DrawnItems]) -> tables.DrawnItems:
  """Returns the elements of all parts, of which there is at least one."""
  if len(parts) == 1:
    return parts[0]
  items, keys, probability, indices = (
    np.concatenate(arrays)
    for arrays in zip(*[part[:4] for part in parts], strict=True)
  )
  frames = None
  if parts[0].frames is not None:
    frames = [named for part in parts for named in part.frames or ()]
  return tables.DrawnItems(items, keys, probability, indices, frames)
