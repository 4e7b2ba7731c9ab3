"""New priorities on their way from the learner back to replay."""

from __future__ import annotations

from collections.abc import Callable
from concurrent import futures

import jax
import numpy as np

from distacme import types

_MAX_PENDING = 2  # sendings that may wait for the one under way
_LAST_S = 1.0


class PrioritySender:
  """Collects priorities and sends those of several updates in one call.

  Used by the learner's thread; an executor does the sending, and the waiting
  for the device to have computed what is sent.
  """

  def __init__(
    self,
    write: Callable[[types.SampleInfo, np.ndarray], None],
    executor: futures.Executor,
    together: int = 1,
  ):
    """Sends nothing yet.

    Args:
      write: takes how items were drawn and their priorities, both flat.
      executor: of one thread, or none.
      together: calls of `add` that are sent as one.
    """
    self._write = write
    self._executor = executor
    self._together = together
    self._collected: list[tuple[types.SampleInfo, jax.Array]] = []
    self._pending: list[futures.Future[None]] = []

  def add(self, info: types.SampleInfo, priorities: jax.Array) -> bool:
    """Adds the priorities [B] of items; raises an earlier sending's error.

    Returns:
      Whether the learner should wait; see `behind`.
    """
    self._collected.append((info, priorities))
    if len(self._collected) >= self._together:
      self.send()
    return self.behind()

  def send(self) -> None:
    """Sends what was collected; raises what an earlier sending met."""
    if self._collected:
      collected, self._collected = self._collected, []
      self._pending.append(self._executor.submit(self._send, collected))
    while self._pending and self._pending[0].done():
      self._pending.pop(0).result()

  def behind(self) -> bool:
    """Whether so much waits to be sent that the learner should wait, too."""
    return len(self._pending) > _MAX_PENDING

  def wait(self, timeout_s: float) -> None:
    """Waits for the sending under way, no longer than that."""
    futures.wait(self._pending[:1], timeout_s)
    self.send()

  def close(self) -> None:
    """Ends the sending; gives up what a replay server does not answer."""
    self._executor.shutdown(wait=False, cancel_futures=True)
    pending = [future for future in self._pending if not future.cancelled()]
    futures.wait(pending, timeout=_LAST_S)

  def _send(self, collected: list[tuple[types.SampleInfo, jax.Array]]) -> None:
    infos, priorities = zip(*collected, strict=True)
    self._write(
      jax.tree.map(lambda *leaves: np.concatenate(leaves), *infos),
      np.concatenate([np.asarray(each, np.float64) for each in priorities]),
    )
