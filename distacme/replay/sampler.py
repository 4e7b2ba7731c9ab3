"""Samples a learner's batches from a replay worker, wherever it is."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from distacme import replay_spec
from distacme import types
from distacme.replay import batch
from distacme.replay import following_outlet
from distacme.replay.items import rows as rows_lib

Outlet = following_outlet.Outlet


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
    self._layout = layout
    self._describe = describe
    self._outlet = following_outlet.FollowingOutlet(open_outlet, stopped)
    self._outlet.open()

  def sample(self) -> tuple[Any, types.SampleInfo]:
    """Waits for the next batch; see `core.Sampler`.

    Raises:
      ConnectionError: if the sampler is closed meanwhile.
    """
    return batch.read(self._layout, self._outlet.next())

  def update_priorities(
    self, info: types.SampleInfo, priority: np.ndarray
  ) -> None:
    """Sets priorities; see `core.Sampler`."""
    replay_spec.check_priorities(priority)
    self._outlet.update_priorities(info.table, info.key, priority)

  def describe(self) -> str:
    """Describes the tables and the side that waits; see `core.Sampler`."""
    try:
      described = self._describe()
    except OSError as error:
      return f'replay does not answer ({error}); it is tried again.'
    return f'{described} The learner waits for the actors to insert more.'

  def close(self) -> None:
    """Ends a `sample` that waits."""
    self._outlet.close()
