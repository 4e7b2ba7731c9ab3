"""An outlet of a replay worker that may be restarted meanwhile."""

from __future__ import annotations

from collections.abc import Callable
import logging
import threading
from typing import Protocol

import numpy as np

from distacme.replay import tables
from distacme.run import patience as patience_lib

_LOOK_S = 0.5  # between looks for a replay worker that is gone
_EXPLAIN_AFTER_S = 5.0  # of looking, before a warning says so


class Outlet(Protocol):
  """A way for batches from replay to a learner, and for priorities back."""

  def next(self) -> tables.DrawnItems:
    """Waits for the next batch; its arrays may be views until the next call.

    Raises:
      OSError: if replay is gone, or the outlet was closed.
      ValueError: if replay refuses.
    """

  def update_priorities(
    self, tables: np.ndarray, keys: np.ndarray, priorities: np.ndarray
  ) -> None:
    """Sets the priorities [N] of items; raises OSError if replay is gone."""

  def close(self) -> None:
    """Ends the outlet, and a `next` that waits."""


class FollowingOutlet:
  """Opens another outlet whenever replay is gone. One thread takes batches."""

  def __init__(
    self,
    open_outlet: Callable[[], Outlet],
    stopped: Callable[[], bool],
    on_loss: Callable[[], None] = lambda: None,
    name: str = 'replay',
  ):
    """Opens nothing yet.

    Args:
      open_outlet: opens an outlet; raises OSError if replay is not there.
      stopped: returns whether the run is over.
      on_loss: called when replay is found to be gone.
      name: of the replay worker, for messages.
    """
    self._open_outlet = open_outlet
    self._stopped = stopped
    self._on_loss = on_loss
    self._name = name
    self._closed = threading.Event()
    self._lost_priorities = 0  # sendings
    self._outlet: Outlet | None = None

  def open(self) -> None:
    """Waits until replay is there, or the run is over."""
    patience = patience_lib.Patience(_EXPLAIN_AFTER_S)
    tries = 0
    while not self._stopped() and not self._closed.is_set():
      tries += 1
      try:
        self._outlet = self._open_outlet()
      except OSError as error:
        if patience.is_over():
          logging.getLogger(__name__).warning(
            '%s has not answered the learner for %.1f s, in %d tries (%s). It '
            'may be loading a checkpoint: its log says whether it is alive.',
            self._name,
            patience.waited_s,
            tries,
            error,
          )
        self._closed.wait(_LOOK_S)
        continue
      if tries > 1:
        logging.getLogger(__name__).warning(
          'sampling from %s goes on: it was tried %d times in vain.',
          self._name,
          tries - 1,
        )
      return

  def next(self) -> tables.DrawnItems:
    """Waits for the next batch; its arrays may be views until the next call.

    Raises:
      ConnectionError: if the outlet is closed meanwhile.
      ValueError: if replay refuses.
    """
    while not self._closed.is_set():
      outlet = self._outlet
      if outlet is None:  # the run is over
        self._closed.wait()
        break
      try:
        return outlet.next()
      except OSError:
        outlet.close()
        self._outlet = None
        self._on_loss()
        self.open()
    raise ConnectionError('the sampler is closed')

  def leave(self) -> None:
    """Closes the present outlet: what it still has is of a replay that is gone."""
    outlet, self._outlet = self._outlet, None
    if outlet is not None:
      outlet.close()

  def try_next(self) -> tables.DrawnItems | None:
    """Waits for the next batch, but for no replay; None if there is none.

    Raises:
      ConnectionError: if the outlet is closed meanwhile.
      ValueError: if replay refuses.
    """
    try:
      if self._outlet is None:
        self._outlet = self._open_outlet()
      if not self._closed.is_set():
        return self._outlet.next()
    except OSError:
      pass
    self.leave()
    if self._closed.is_set():
      raise ConnectionError('the sampler is closed')
    return None

  def update_priorities(
    self, tables: np.ndarray, keys: np.ndarray, priorities: np.ndarray
  ) -> None:
    """Sets the priorities [N] of items.

    Priorities for a replay that is gone are lost, as its items may be.
    """
    outlet = self._outlet
    try:
      if outlet is None:
        raise ConnectionError('it is gone')
      outlet.update_priorities(tables, keys, priorities)
    except OSError as error:
      self._lost_priorities += 1
      if self._lost_priorities.bit_count() == 1:  # 1, 2, 4, ... times
        logging.getLogger(__name__).warning(
          '%s did not take priorities, %d times so far: %s',
          self._name,
          self._lost_priorities,
          error,
        )

  def close(self) -> None:
    """Ends a `next` that waits."""
    self._closed.set()
    outlet = self._outlet
    if outlet is not None:
      outlet.close()
