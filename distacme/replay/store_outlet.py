"""Takes batches from tables in the learner's own process."""

from __future__ import annotations

import threading

from distacme.replay import store as store_lib
from distacme.replay import tables as tables_lib

_LOOK_S = 0.1  # between looks whether the outlet was closed


class StoreOutlet:
  """A `replay.following_outlet.Outlet` of a store that no other process reaches."""

  def __init__(self, store: store_lib.Store):
    self._store = store
    self._closed = threading.Event()
    self.update_priorities = store.update_priorities

  def next(self) -> tables_lib.DrawnItems:
    """Waits for the next batch.

    Raises:
      ConnectionError: if the outlet was closed.
    """
    while not self._closed.is_set():
      drawn = self._store.draw(_LOOK_S)
      if drawn is not None:
        return drawn
    raise ConnectionError('the outlet is closed')

  def close(self) -> None:
    """Ends a `next` that waits."""
    self._closed.set()
