"""Frames that items may still name, as they came from each actor."""

from __future__ import annotations

import collections

import numpy as np

from distacme.replay import packs

# Of all actors together; the stillest goes first. Sixty-four Pong games of an actor
# take 50 MB.
_MAX_STREAMS = 4096
_MAX_BYTES = 8 << 30


class FrameStreams:
  """Keeps the newest frames of every actor, for the items that name them."""

  def __init__(self) -> None:
    """Keeps nothing yet."""
    # By actor: the number of the stream, and its frames.
    self._streams: collections.OrderedDict[
      int, tuple[int, dict[int, np.ndarray]]
    ] = collections.OrderedDict()
    self._bytes = 0  # of all frames

  def resolve(
    self, pack: packs.Pack
  ) -> tuple[packs.Pack, list[tuple[np.ndarray, ...]]]:
    """Keeps a pack's frames; returns its items that name known frames.

    Frames are unknown after replay was started anew, until their actor has sent as
    many frames as its items name.

    Args:
      pack: the next one of its actor.

    Returns:
      The pack with these items only, and the frames of each.
    """
    frames = pack.frames
    assert frames is not None
    known = self._keep(frames)
    named = frames.named.tolist()
    ends = np.cumsum(frames.lengths).tolist()
    # Tuples of arrays do not burden the garbage collector, as lists would.
    found: list[tuple[np.ndarray, ...]] = []
    whole: list[int] = []
    start = 0
    for item, end in enumerate(ends):
      try:
        found.append(tuple(map(known.__getitem__, named[start:end])))
        whole.append(item)
      except KeyError:
        pass
      start = end
    if len(whole) < len(ends):
      pack = pack._replace(
        items=pack.items[whole], priorities=pack.priorities[whole]
      )
    return pack, found

  def _keep(self, frames: packs.Frames) -> dict[int, np.ndarray]:
    """Adds the frames of a stream, and drops those that nobody names any more."""
    actor = packs.actor_of(frames.stream)
    stream, known = self._streams.pop(actor, (frames.stream, {}))
    if stream != frames.stream:  # the actor was started again
      self._drop(known)
    self._streams[actor] = frames.stream, known  # the newest comes last
    self._bytes -= _size(known)
    if len(frames.new) and _frame_bytes(known) != frames.new.shape[1]:
      known.clear()  # No actor of ours sends frames of several sizes.
    # A copy: the views on the pack would keep its rows and padding.
    known.update(enumerate(frames.new.copy(), frames.first))
    for number in list(known):  # in the order of their numbers
      if number >= frames.oldest:
        break
      del known[number]
    self._bytes += _size(known)
    while len(self._streams) > _MAX_STREAMS or self._bytes > _MAX_BYTES:
      _, (_, stillest) = self._streams.popitem(last=False)
      self._drop(stillest)
    return known

  def _drop(self, known: dict[int, np.ndarray]) -> None:
    """Drops all frames of a stream."""
    self._bytes -= _size(known)
    known.clear()


def _frame_bytes(known: dict[int, np.ndarray]) -> int:
  """Returns the bytes of each frame of a stream; 0 if there are no frames."""
  return next(iter(known.values())).nbytes if known else 0


def _size(known: dict[int, np.ndarray]) -> int:
  """Returns the bytes of a stream's frames, all of which have one size."""
  return len(known) * _frame_bytes(known)
