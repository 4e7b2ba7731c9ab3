"""Batches on their way from replay to the learner, drawn ahead or on demand."""

from __future__ import annotations

from collections.abc import Sequence
import contextlib
import queue
import threading
from typing import Any, NamedTuple

import jax
import numpy as np

from distacme import core
from distacme import types
from distacme.learning import placement as placement_lib

_MAX_HALVINGS = 4  # an update is compiled for each length that it meets


class DrawnBatch(NamedTuple):
  """The batches for one call of the learner's update.

  Attributes:
    batch: leaves [B, ...]; or [K, B, ...] where K batches were drawn at once.
      Sequences may have fewer rows than their window; see `trimmed`.
    info: how the batch was drawn, always flat: [K * B].
  """

  batch: types.Batch
  info: types.SampleInfo


class Batches:
  """Batches drawn when they are asked for, in the learner's own thread."""

  def __init__(
    self,
    sampler: core.Sampler,
    count: int = 1,
    placement: placement_lib.Placement | None = None,
    padded: bool = False,
  ):
    """Draws nothing yet.

    Args:
      sampler: to draw from.
      count: batches for one `get`; above 1 they are stacked.
      placement: puts them on the learner's devices; by default they stay numpy.
      padded: whether these are sequences to be `trimmed`.
    """
    self.count = count
    self.sampler = sampler
    self._placement = placement
    self._padded = padded

  def get(self, timeout_s: float | None = None) -> DrawnBatch | None:
    """Returns the next batches, or None if none came within `timeout_s`."""
    del timeout_s  # A sampler of one process answers at once.
    return self._draw()

  def close(self) -> None:
    """Stops drawing."""

  def _draw(self) -> DrawnBatch:
    sampled = [self.sampler.sample() for _ in range(self.count)]
    data = [data for data, _ in sampled]
    if self._padded:
      data = trimmed(data)
    drawn = [
      _as_drawn(each, info)
      for each, (_, info) in zip(data, sampled, strict=True)
    ]
    batch, info = drawn[0]
    if self.count > 1:
      batches, infos = zip(*drawn, strict=True)
      batch = jax.tree.map(lambda *leaves: np.stack(leaves), *batches)
      info = jax.tree.map(lambda *leaves: np.concatenate(leaves), *infos)
    if self._placement is not None:
      batch = self._placement.put_batch(batch)
    return DrawnBatch(batch, info)


def trimmed(drawn: Sequence[types.Sequence]) -> list[types.Sequence]:
  """Cuts the end off batches of sequences where all of it is padding.

  What is left has the same rows in all of them: as many as a sequence has, or
  half of that, rounded up, or half of that, at most four times.

  Args:
    drawn: leaves [B, L, ...], of stacked frames [B, L + S - 1, ...] if replay
      keeps these one by one; only views on them are returned.
  """
  length = drawn[0].step_type.shape[1]
  needed = max(_needed_rows(data.step_type) for data in drawn)
  kept = length
  for _ in range(_MAX_HALVINGS):
    if (kept + 1) // 2 >= needed:
      kept = (kept + 1) // 2
  if kept == length:
    return list(drawn)

  def cut(leaf: np.ndarray) -> np.ndarray:
    return leaf[:, : leaf.shape[1] - length + kept]

  return [
    jax.tree.map(cut, data._replace(start_state=()))._replace(
      start_state=data.start_state
    )
    for data in drawn
  ]


def _needed_rows(step_type: np.ndarray) -> int:
  """Returns up to which row there is more than padding in a batch [B, L]."""
  length = step_type.shape[1]
  stepped = (step_type != types.LAST).any(axis=0)
  last_step = length - 1 - int(stepped[::-1].argmax())
  return min(last_step + 2, length)  # with the row that bootstraps


def _as_drawn(data: Any, info: types.SampleInfo) -> DrawnBatch:
  # Contiguous: what samplers return are views with gaps between the rows, and
  # JAX takes several times as long over those.
  batch = types.Batch(data, info.probability.astype(np.float32), info.table)
  return DrawnBatch(jax.tree.map(np.ascontiguousarray, batch), info)


class PrefetchedBatches(Batches):
  """Batches drawn ahead by a thread and put on the learner's devices."""

  def __init__(
    self,
    sampler: core.Sampler,
    count: int = 1,
    placement: placement_lib.Placement | None = None,
    depth: int = 2,
    padded: bool = False,
  ):
    """Starts the thread.

    Args:
      sampler: used by the thread alone, but for its priorities.
      count: batches for one `get`; above 1 they are stacked.
      placement: puts them on the learner's devices; by default they stay numpy.
      depth: batches held ready, but at least one answer of `get`.
      padded: whether these are sequences to be `trimmed`.
    """
    super().__init__(sampler, count, placement, padded)
    self._closed = False
    self._queue: queue.Queue[Any] = queue.Queue(max(1, depth // count))
    threading.Thread(target=self._run, daemon=True, name='prefetch').start()

  def get(self, timeout_s: float | None = None) -> DrawnBatch | None:
    """Returns the next batches, or None if none came within `timeout_s`."""
    try:
      drawn = self._queue.get(timeout=timeout_s)
    except queue.Empty:
      return None
    if isinstance(drawn, Exception):
      self._queue.put(drawn)  # for whoever asks again; the thread has ended
      raise drawn
    assert isinstance(drawn, DrawnBatch)
    return drawn

  def _run(self) -> None:
    try:
      while not self._closed:
        self._queue.put(self._draw())
    except Exception as error:  # reaches the learner, which raises it
      if not self._closed:
        self._queue.put(error)

  def close(self) -> None:
    """Lets the thread end."""
    self._closed = True
    self.sampler.close()
    with contextlib.suppress(queue.Empty):
      while True:
        self._queue.get_nowait()
