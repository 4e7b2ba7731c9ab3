"""Samples a learner's batches from a replay worker, wherever it is."""

from __future__ import annotations

from collections.abc import Callable
import logging
import threading
from typing import Any, Protocol

import numpy as np

from distacme import replay_spec
from distacme import types
from distacme.replay import batch
from distacme.replay import tables
from distacme.replay.items import rows as rows_lib
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


class Sampler:
  """A `core.Sampler` over an outlet; opens another one if replay was restarted."""

  def __init__(
    self,
    open_outlet: Callable[[], Outlet],
    layout: rows_lib.RowLayout,
    describe: Callable[[], str],
    stopped: Callable[[], bool] = lambda: False,
  ):
    """Opens the outlet; waits for replay while the run goes on.

    Args:
      open_outlet: opens an outlet; raises OSError if replay is not there.
      layout: of the rows.
      describe: returns a sentence on the tables; raises OSError if replay does not
        answer.
      stopped: returns whether the run is over.
    """
    self._open_outlet = open_outlet
    self._layout = layout
    self._describe = describe
    self._stopped = stopped
    self._closed = threading.Event()
    self._lost_priorities = 0  # sendings
    self._outlet: Outlet | None = None
    self._open()

  def _open(self) -> Outlet | None:
    """Returns an outlet as soon as there is one; None once the run is over."""
    patience = patience_lib.Patience(_EXPLAIN_AFTER_S)
    tries = 0
    while not self._stopped() and not self._closed.is_set():
      tries += 1
      try:
        self._outlet = self._open_outlet()
      except OSError as error:
        if patience.is_over():
          logging.getLogger(__name__).warning(
            'replay has not answered the learner for %.1f s, in %d tries (%s). It '
            'may be loading a checkpoint: its log says whether it is alive.',
            patience.waited_s,
            tries,
            error,
          )
        self._closed.wait(_LOOK_S)
        continue
      if tries > 1:
        logging.getLogger(__name__).warning(
          'sampling from replay goes on: it was tried %d times in vain.',
          tries - 1,
        )
      return self._outlet
    return None

  def sample(self) -> tuple[Any, types.SampleInfo]:
    """Waits for the next batch; see `core.Sampler`.

    Raises:
      ConnectionError: if the sampler is closed meanwhile.
    """
    while not self._closed.is_set():
      outlet = self._outlet
      if outlet is None:  # the run is over
        self._closed.wait()
        break
      try:
        return batch.read(self._layout, outlet.next())
      except OSError:
        outlet.close()
        self._outlet = None
        self._open()
    raise ConnectionError('the sampler is closed')

  def update_priorities(
    self, info: types.SampleInfo, priority: np.ndarray
  ) -> None:
    """Sets priorities; see `core.Sampler`.

    Priorities for a replay that is gone are lost, as its items may be.
    """
    replay_spec.check_priorities(priority)
    outlet = self._outlet
    try:
      if outlet is None:
        raise ConnectionError('it is gone')
      outlet.update_priorities(info.table, info.key, priority)
    except OSError as error:
      self._lost_priorities += 1
      if self._lost_priorities.bit_count() == 1:  # 1, 2, 4, ... times
        logging.getLogger(__name__).warning(
          'replay did not take priorities, %d times so far: %s',
          self._lost_priorities,
          error,
        )

  def describe(self) -> str:
    """Describes the tables and the side that waits; see `core.Sampler`."""
    try:
      described = self._describe()
    except OSError as error:
      return f'replay does not answer ({error}); it is tried again.'
    return f'{described} The learner waits for the actors to insert more.'

  def close(self) -> None:
    """Ends a `sample` that waits."""
    self._closed.set()
    if self._outlet is not None:
      self._outlet.close()
