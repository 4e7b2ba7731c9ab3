"""The rate limits of a replay that several servers hold, kept at the learner's end.

Each server tells how many windows it was given; the learner counts what it takes. Where
servers kept the limits each by itself, the learner could not draw by the priorities of
the whole: the servers' shares of those are not their shares of the inserts. And one
whose actors have died would hold up all others.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from distacme import replay_spec

# Windows that may be inserted where there is no limit.
_NO_LIMIT = 2**62


class Holdings(NamedTuple):
  """The content of a shard of replay.

  Attributes:
    inserted: windows inserted so far.
    sampled: windows drawn so far.
    size: windows held.
    priority: sum of what the chances of items are shares of; 0 if all are alike.
  """

  inserted: int
  sampled: int
  size: int
  priority: float


class Balance:
  """Adds up what shards report; says who may go on. Not thread-safe."""

  def __init__(self, spec: replay_spec.ReplaySpec, shards: int) -> None:
    """Knows of no shard yet.

    Args:
      spec: of the whole.
      shards: number of them.
    """
    (self._limits,) = spec.rate_limits
    # Windows that each must have been given before it is drawn from.
    self._least = [
      replay_spec.of_shard(spec, shard, shards).rate_limits[0].min_size
      for shard in range(shards)
    ]
    # Of shards that are there; None for the others.
    self._held: list[Holdings | None] = [None] * shards
    self._last = [-1] * shards  # inserts that each told last; -1 for none yet
    self.inserted = 0
    self.sampled = 0

  def report(self, shard: int, held: Holdings) -> None:
    """Takes what a shard says of itself."""
    last = self._last[shard]
    if last < 0:
      # What earlier learners drew counts, as the ratio is the run's.
      self.inserted += held.inserted
      self.sampled += held.sampled
    else:
      # One that was restarted goes back to its checkpoint. What it has lost was
      # inserted nevertheless.
      self.inserted += max(0, held.inserted - last)
    self._last[shard] = held.inserted
    self._held[shard] = held

  def lose(self, shard: int) -> None:
    """Notes that a shard is gone, until its next report."""
    self._held[shard] = None

  def is_there(self, shard: int) -> bool:
    """Returns whether a shard is drawn from."""
    held = self._held[shard]
    return held is not None and held.inserted >= self._least[shard]

  def can_sample(self, windows: int) -> bool:
    """Returns whether so many windows may be drawn."""
    return self._limits.can_sample(self.inserted, self.sampled, windows)

  def any(self) -> bool:
    """Returns whether any shard is drawn from."""
    return any(map(self.is_there, range(len(self._held))))

  def shares(self) -> np.ndarray:
    """Returns the chance of each shard to give an element; of those that are there.

    It is the shard's share of all priorities, or of all windows where they have none.
    """
    held = [
      each
      if each is not None and self.is_there(shard)
      else Holdings(0, 0, 0, 0)
      for shard, each in enumerate(self._held)
    ]
    weights = np.array([each.priority for each in held], np.float64)
    if not weights.any():
      weights = np.array([each.size for each in held], np.float64)
    return weights / weights.sum()

  def room(self, shard: int) -> int | None:
    """Returns the inserts at which a shard is to stop; None if it is not there.

    The room that is left is divided anew whenever a shard has taken of it, so that one
    without actors keeps no room from the others.
    """
    held = self._held[shard]
    if held is None:
      return None
    if math.isinf(self._limits.max_balance):
      return _NO_LIMIT
    there = sum(each is not None for each in self._held)
    room = self._limits.room(self.inserted, self.sampled)
    return held.inserted + math.ceil(room / there)
