"""A learner's way out of a Reverb server."""

from __future__ import annotations

from collections.abc import Callable, Sequence
import logging
import math
from typing import Any

import numpy as np

from distacme import replay_spec
from distacme import types
from distacme.replay import mixture
from distacme.replay.items import rows as rows_lib
from distacme.replay.reverb import connection


class ReverbSampler:
  """A `core.Sampler` that collects batches from a Reverb server."""

  def __init__(
    self,
    address: str,
    spec: replay_spec.ReplaySpec,
    layout: rows_lib.RowLayout,
    stopped: Callable[[], bool] = lambda: False,
  ):
    """Connects to the server; waits for it as long as the run goes on."""
    self._address = address
    self._client = connection.connect(address, stopped)
    self._watch = connection.Watch(
      address,
      self._client,
      'sampling from replay',
      'The learner waits for the actors to insert more.',
    )
    self._watch.look_now_and_then()
    self._prioritized = [
      (index, table.name)
      for index, table in enumerate(spec.tables)
      if table.prioritized
    ]
    self._mixture = mixture.Mixture(spec, layout)
    self._batches = 0  # sampled
    self._samplers = [
      _TableSampler(self._client, table, share * spec.batch_size, layout)
      for table, share in zip(spec.tables, spec.mixture, strict=True)
    ]
    self._lost_priorities = 0  # sendings

  def sample(self) -> tuple[Any, types.SampleInfo]:
    """Collects a batch; see `core.Sampler`. Blocks without a time limit."""
    sampled = self._mixture.sample(
      self._batches, [sampler.draw for sampler in self._samplers]
    )
    self._batches += 1
    self._watch.note_use()
    return sampled

  def update_priorities(
    self, info: types.SampleInfo, priority: np.ndarray
  ) -> None:
    """Sets priorities; see `core.Sampler`.

    Those of a server that is gone are lost, as its items may be.
    """
    replay_spec.check_priorities(priority)
    for index, table in self._prioritized:
      of_table = info.table == index
      self._set_priorities(table, info.key[of_table], priority[of_table])

  def _set_priorities(
    self, table: str, key: np.ndarray, priority: np.ndarray
  ) -> None:
    updates = list(zip(key.tolist(), priority.tolist(), strict=True))
    if not updates:
      return
    try:
      self._client.MutatePriorities(table, updates, [])
    except RuntimeError as error:
      self._lost_priorities += 1
      if self._lost_priorities.bit_count() == 1:  # 1, 2, 4, ... times
        logging.warning(
          'the replay server at %s did not take priorities, %d times so far: %s',
          self._address,
          self._lost_priorities,
          error,
        )

  def describe(self) -> str:
    """Describes the tables and who waits for whom; see `core.Sampler`."""
    return self._watch.describe()


class _TableSampler:
  """Collects items of one table."""

  def __init__(
    self,
    client: Any,
    table: replay_spec.Table,
    windows: float,
    layout: rows_lib.RowLayout,
  ):
    """Begins to fetch items.

    Args:
      client: of the server.
      table: to sample from.
      windows: of the table in a batch, on average.
      layout: of the rows.
    """
    self._layout = layout
    self._block = table.block_size
    # At most a batch's share is fetched ahead: fetched items count as sampled,
    # so more would blur the rate limits.
    ahead = math.ceil(windows / self._block)
    self._sampler = client.NewSampler(table.name, -1, ahead)

  def draw(self, count: int) -> mixture.Drawn:
    """Collects so many items."""
    next_item = self._sampler.GetNextTrajectory
    items = [next_item() for _ in range(count)]
    keys, probability, _, _, _, data, *frames = zip(*items, strict=True)
    data = np.concatenate(data).reshape(count, -1)
    return mixture.Drawn(
      self._layout.from_bytes(data, self._block),
      np.array(keys, np.uint64),
      np.array(probability, np.float64),
      self._structured(*frames),
    )

  def _structured(
    self, windows: Sequence[np.ndarray] | None = None
  ) -> list[np.ndarray] | None:
    """Returns the frames of each window, given as bytes [m, size]."""
    if windows is None:
      return None
    assert self._layout.frames is not None
    dtype = self._layout.frames.dtype
    return [window.view(dtype)[:, 0] for window in windows]
