"""Batches on their way from replay to the learner, drawn ahead or on demand."""

from __future__ import annotations

import contextlib
import queue
import threading
from typing import Any

import jax
import numpy as np

from distacme import core
from distacme import types


class Batches:
  """Batches drawn when they are asked for, in the learner's own thread."""

  def __init__(self, sampler: core.Sampler):
    self._sampler = sampler

  def get(
    self, timeout_s: float | None = None
  ) -> tuple[Any, types.SampleInfo] | None:
    """Returns the next batch, or None if there was none within `timeout_s`."""
    del timeout_s  # A sampler of one process answers at once.
    return self._sampler.sample()

  def update_priorities(self, key: np.ndarray, priority: np.ndarray) -> None:
    """Hands priorities to the sampler."""
    self._sampler.update_priorities(key, priority)

  def describe(self) -> str:
    """Says in a sentence what there is to be sampled."""
    return self._sampler.describe()

  def close(self) -> None:
    """Stops drawing."""


class PrefetchedBatches(Batches):
  """Batches drawn ahead by a thread and put on the learner's device."""

  def __init__(self, sampler: core.Sampler, depth: int = 2):
    """Starts the thread.

    Args:
      sampler: used by the thread alone, but for its priorities.
      depth: batches held ready.
    """
    super().__init__(sampler)
    self._closed = False
    self._queue: queue.Queue[Any] = queue.Queue(depth)
    threading.Thread(target=self._run, daemon=True, name='prefetch').start()

  def get(
    self, timeout_s: float | None = None
  ) -> tuple[Any, types.SampleInfo] | None:
    """Returns the next batch, or None if there was none within `timeout_s`."""
    try:
      batch = self._queue.get(timeout=timeout_s)
    except queue.Empty:
      return None
    if isinstance(batch, Exception):
      self._queue.put(batch)  # for whoever asks again; the thread has ended
      raise batch
    return batch

  def _run(self) -> None:
    try:
      while not self._closed:
        data, info = self._sampler.sample()
        self._queue.put((jax.device_put(data), info))
    except Exception as error:  # reaches the learner, which raises it
      self._queue.put(error)

  def close(self) -> None:
    """Lets the thread end, once replay has answered it."""
    self._closed = True
    with contextlib.suppress(queue.Empty):
      while True:
        self._queue.get_nowait()
