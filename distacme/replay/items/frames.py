"""Frames of stacked observations, which are sent and stored once each.

In an observation that is a `specs.FrameStack`, only the newest frame is new. Frames
go into replay by themselves. A window refers to its frames, and a sampled window
holds each of them once; `learning.frame_stacks.unpack` rebuilds the stacks.
"""

from __future__ import annotations

from collections.abc import Sequence
import itertools
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import tree

from distacme import replay_spec
from distacme import specs
from distacme import types

# The frames of each item, uint8 [frame_bytes] each, oldest first. Items share them.
ItemFrames: TypeAlias = Sequence[np.ndarray] | np.ndarray
Frames: TypeAlias = Sequence[ItemFrames]

# The field of a row with the number of its frames from before its first observation.
FRAMES_BEFORE = 'frames_before'


class FrameLayout:
  """The leaves of an observation that are stacks, and the form of their frames.

  Attributes:
    indices: of the stacks among the leaves of an observation.
    stack: S, frames in an observation.
    dtype: of a frame: structured, with a field for each stacked leaf.
    moments: observations in a window at most.
    slots: frames in a sampled window. N-step windows have the S frames of the
      start and of each end. Sequences have one frame for each row, after S - 1
      earlier frames.
    ends: shape of the axis of ends in next observations; None for sequences.
  """

  def __init__(
    self, observations: types.NestedSpec, window: replay_spec.Window
  ):
    leaves = tree.flatten(observations)
    self.indices = [
      i for i, leaf in enumerate(leaves) if isinstance(leaf, specs.FrameStack)
    ]
    (self.stack,) = {leaves[i].shape[-1] for i in self.indices}
    self._names = [str(i) for i in self.indices]
    self.dtype = np.dtype(
      [
        (name, leaves[i].dtype, leaves[i].shape[:-1])
        for name, i in zip(self._names, self.indices, strict=True)
      ]
    )
    self.ends: tuple[int, ...] | None = None
    self._lengths: tuple[int, ...] = ()
    if isinstance(window, replay_spec.NStep):
      self.ends, self._lengths = window.ends, window.lengths
      self.moments = self._lengths[-1] + 1
      self.slots = (1 + len(self._lengths)) * self.stack
    else:
      self.moments = window.length
      self.slots = window.length + self.stack - 1

  def without_frames(self, nest: Any) -> Any:
    """Returns a nest like an observation, with empty arrays instead of stacks."""
    leaves = tree.flatten(nest)
    for i in self.indices:
      leaf = leaves[i]
      if isinstance(leaf, specs.Array):
        leaves[i] = specs.Array((0,), np.uint8)
      else:
        leaves[i] = np.empty((len(leaf), 0), np.uint8)
    return tree.unflatten_as(nest, leaves)

  def with_stacks(self, nest: types.NestedSpec) -> types.NestedSpec:
    """Returns specs of an observation, with those of stacks where none were."""
    leaves = tree.flatten(nest)
    for name, i in zip(self._names, self.indices, strict=True):
      frame = self.dtype[name]
      leaves[i] = specs.Array((*frame.shape, self.stack), frame.base)
    return tree.unflatten_as(nest, leaves)

  def newest(self, observation: types.NestedArray) -> np.ndarray:
    """Returns the newest frame of each row: structured [N]."""
    leaves = tree.flatten(observation)
    frames = np.empty(len(leaves[0]), self.dtype)
    for name, i in zip(self._names, self.indices, strict=True):
      frames[name] = leaves[i][..., -1]
    return frames

  def gather(self, windows: Frames, before: np.ndarray) -> np.ndarray:
    """Returns frames in their slots, structured [B, slots].

    Args:
      windows: the frames of each window, uint8 [frame_bytes] each, oldest first.
      before: [B], number of frames from before the window's first observation.
    """
    blank = np.zeros(self.dtype.itemsize, np.uint8)
    slots: list[np.ndarray] = []
    for frames, old in zip(windows, before.tolist(), strict=True):
      missing = self.stack - 1 - old
      slots.extend([blank] * missing)
      if self.ends is None:
        slots.extend(frames)
        slots.extend([blank] * (self.slots - missing - len(frames)))
        continue
      slots.extend(frames[: old + 1])
      for length in self._lengths:
        seen = frames[: old + 1 + length][-self.stack :]  # up to that end
        slots.extend([blank] * (self.stack - len(seen)))
        slots.extend(seen)
    shape = (len(windows), self.slots, self.dtype.itemsize)
    gathered = np.empty(shape, np.uint8)
    # One call for all: a call for each window would take as long as the copying.
    np.concatenate(slots, out=gathered.reshape(-1))
    return gathered.view(self.dtype)[..., 0]

  def put(self, data: Any, frames: np.ndarray) -> Any:
    """Returns a batch with frames [B, ...] in the empty leaves of observations.

    A sequence's observation gets the frames of all slots, a transition's get
    [B, S, ...], or [B, N, S, ...] at several ends.
    """
    if self.ends is None:
      return data._replace(observation=self._put(data.observation, frames))
    at_ends = frames[:, self.stack :]
    return data._replace(
      observation=self._put(data.observation, frames[:, : self.stack]),
      next_observation=self._put(
        data.next_observation,
        at_ends.reshape(len(frames), *self.ends, self.stack),
      ),
    )

  def _put(self, nest: types.NestedArray, frames: np.ndarray) -> Any:
    leaves = tree.flatten(nest)
    for name, i in zip(self._names, self.indices, strict=True):
      leaves[i] = frames[name]
    return tree.unflatten_as(nest, leaves)


def make_layout(
  observations: types.NestedSpec, window: replay_spec.Window
) -> FrameLayout | None:
  """Returns the layout; None if there are no stacks, or of different depths."""
  depths = {
    leaf.shape[-1]
    for leaf in tree.flatten(observations)
    if isinstance(leaf, specs.FrameStack)
  }
  return FrameLayout(observations, window) if len(depths) == 1 else None


class Packed(NamedTuple):
  """The frames of windows, each once.

  Attributes:
    frames: uint8 [frame_bytes] each.
    lengths: [N], number of frames of each window.
    named: [sum of lengths], indices of the frames of each window in turn.
  """

  frames: list[np.ndarray]
  lengths: np.ndarray
  named: np.ndarray


def pack(windows: Frames) -> Packed:
  """Returns the frames of windows, which refer to the same arrays."""
  places: dict[int, int] = {}
  frames: list[np.ndarray] = []
  named: list[int] = []
  for frame in itertools.chain.from_iterable(windows):
    place = places.setdefault(id(frame), len(frames))
    if place == len(frames):
      frames.append(frame)
    named.append(place)
  return Packed(frames, np.array([*map(len, windows)]), np.array(named))


def unpack(
  frames: Sequence[np.ndarray], lengths: np.ndarray, named: np.ndarray
) -> list[tuple[np.ndarray, ...]]:
  """Undoes `pack`."""
  every = iter([frames[place] for place in named.tolist()])
  return [tuple(itertools.islice(every, n)) for n in lengths.tolist()]
