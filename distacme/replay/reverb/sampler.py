"""A learner's way out of a Reverb server."""

from __future__ import annotations

from collections.abc import Callable, Sequence
import logging
from typing import Any

import numpy as np

from distacme import replay_spec
from distacme import types
from distacme.replay import rows as rows_lib
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
    self._layout = layout
    self._block = spec.block_size
    self._items = spec.batch_size // spec.block_size
    # Items are fetched ahead, at most one batch of them: what is fetched counts
    # as sampled, so more would blur the rate limits.
    self._sampler = self._client.NewSampler(connection.TABLE, -1, self._items)
    self._lost_priorities = 0  # sendings

  def sample(self) -> tuple[Any, types.SampleInfo]:
    """Collects a batch; see `core.Sampler`. Blocks without a time limit."""
    next_item = self._sampler.GetNextTrajectory
    items = [next_item() for _ in range(self._items)]
    self._watch.note_use()
    keys, probability, _, _, _, data, *frames = zip(*items, strict=True)
    data = np.concatenate(data).reshape(self._items, -1)
    rows = self._layout.from_bytes(data, self._block).reshape(-1)
    info = types.SampleInfo(
      key=np.repeat(np.array(keys, np.uint64), self._block),
      probability=np.repeat(np.array(probability, np.float64), self._block),
      params_version=rows[rows_lib.PARAMS_VERSION],
    )
    return self._layout.read(rows, self._structured(*frames)), info

  def _structured(
    self, windows: Sequence[np.ndarray] | None = None
  ) -> list[np.ndarray] | None:
    """Returns the frames of each window, which are bytes [m, size], as such."""
    if windows is None:
      return None
    assert self._layout.frames is not None
    dtype = self._layout.frames.dtype
    return [window.view(dtype)[:, 0] for window in windows]

  def update_priorities(self, key: np.ndarray, priority: np.ndarray) -> None:
    """Sets priorities; see `core.Sampler`.

    Those that a server is not there for are lost, as its items may be.
    """
    replay_spec.check_priorities(priority)
    updates = list(zip(key.tolist(), priority.tolist(), strict=True))
    try:
      self._client.MutatePriorities(connection.TABLE, updates, [])
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
    """Says what the table holds, and who waits for whom; see `core.Sampler`."""
    return self._watch.describe()
