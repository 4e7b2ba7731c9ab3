"""Replay in a Reverb server: the server, an actor's way in, a learner's way out.

An item is one packed row (or a block of them) in a single column and a single
chunk, because Reverb's cost is per item, column and chunk touched.
"""

from __future__ import annotations

from collections.abc import Callable
import logging
import time
from typing import Any

import numpy as np

from distacme import types
from distacme.replay import records
from distacme.replay import reverb_extension
from distacme.replay import spec as replay_spec

_TABLE = 'experience'
_MAX_IN_FLIGHT = 40  # items; Reverb's writer complains from 50 on
_FLUSH_EVERY = 8  # items
_POLL_MS = 100  # how soon a blocked writer notices a stop
_EXPLAIN_AFTER_S = 5.0  # how long a side is blocked before it says so


class ReplayServer:
  """A Reverb server with the table that a `ReplaySpec` asks for."""

  def __init__(self, spec: replay_spec.ReplaySpec, port: int):
    """Starts the server; it listens on all interfaces, as Reverb always does."""
    reverb = reverb_extension.load()
    limits, block = spec.rate_limits, spec.block_size
    self._block = block
    self._spec = spec
    sampler = (
      reverb.PrioritizedSelector(spec.priority_exponent)
      if spec.prioritized
      else reverb.UniformSelector()
    )
    self._table = reverb.Table(
      name=_TABLE,
      sampler=sampler,
      remover=reverb.FifoSelector(),
      max_size=spec.max_size // block,
      max_times_sampled=0,
      # Reverb counts items, and its limits are balances in items.
      rate_limiter=reverb.RateLimiter(
        limits.samples_per_insert,
        -(-limits.min_size // block),
        limits.min_balance / block,
        limits.max_balance / block,
      ),
      extensions=[],
      signature=None,
    )
    self._server = reverb.Server([self._table], port, None)

  def metrics(self) -> dict[str, float]:
    """Returns size, inserts and samples so far, and the ratio reached."""
    stats = reverb_extension.table_stats(self._table.info())
    beyond = stats.inserted * self._block - self._spec.min_size
    sampled = stats.sampled * self._block
    return {
      'size': stats.size * self._block,
      'inserted': stats.inserted * self._block,
      'sampled': sampled,
      'samples_per_insert': sampled / beyond if beyond > 0 else 0.0,
    }

  def stop(self) -> None:
    """Ends the server; waits some seconds for clients that are still there."""
    self._server.Stop()


def connect(address: str, timeout_s: float = 60.0) -> Any:
  """Returns a client once the server at `address` answers.

  Raises:
    ConnectionError: if it does not within `timeout_s`.
  """
  client = reverb_extension.load().Client(address)
  try:
    client.ServerInfo(int(timeout_s))
  except RuntimeError as error:
    raise ConnectionError(
      f'no replay server answered at {address} within {timeout_s:.0f} s '
      f'({error}). Look at the log of the replay worker.'
    ) from error
  return client


class ReverbInserter:
  """An `assembly.Inserter`; blocks while the rate limits ask it to.

  Used by one thread. `stopped` is asked while it is blocked: once it says yes,
  what is in flight is given up and `insert` returns.
  """

  def __init__(
    self, address: str, layout: records.RowLayout, stopped: Callable[[], bool]
  ):
    reverb = reverb_extension.load()
    self._address = address
    self._client = connect(address)
    self._writer = self._client.NewTrajectoryWriter(
      reverb.ConstantChunkerOptions(1, 1), False
    )
    self._layout = layout
    self._stopped = stopped
    self._since_flush = 0
    self.blocked_s = 0.0  # time spent waiting for the rate limits, in all

  def insert(self, rows: np.ndarray, priorities: np.ndarray) -> None:
    """Inserts items; see `assembly.Inserter`."""
    data = self._layout.to_bytes(rows)
    for item, priority in zip(data, priorities.tolist(), strict=True):
      column = self._writer.Append([item])
      self._writer.CreateItem(_TABLE, priority, [column], [True])
    self._since_flush += len(data)
    if self._since_flush >= _FLUSH_EVERY:
      self._since_flush = 0
      self._flush(_MAX_IN_FLIGHT)

  def close(self) -> None:
    """Waits until all is inserted, unless the run has stopped."""
    if not self._stopped():
      self._flush(0)
    # Otherwise the destructor flushes, holding Python's lock, perhaps for ever.
    self._writer.Close()

  def _flush(self, in_flight: int) -> None:
    """Waits until at most `in_flight` items are not yet in the table."""
    start = time.monotonic()
    explain_at = start + _EXPLAIN_AFTER_S
    while True:
      try:
        self._writer.Flush(in_flight, _POLL_MS)
        break
      except RuntimeError as error:
        if 'Timeout' not in str(error):
          raise
      if self._stopped():
        break
      if time.monotonic() > explain_at:
        explain_at = float('inf')
        logging.warning(
          'writing to replay has been blocked for %.0f s: %s The actor waits '
          'for the learner to sample more.',
          _EXPLAIN_AFTER_S,
          describe(self._client, self._address),
        )
    self.blocked_s += time.monotonic() - start


class ReverbSampler:
  """A `core.Sampler` that collects batches from a Reverb server."""

  def __init__(
    self,
    address: str,
    spec: replay_spec.ReplaySpec,
    layout: records.RowLayout,
  ):
    self._address = address
    self._client = connect(address)
    self._layout = layout
    self._block = spec.block_size
    self._items = spec.batch_size // spec.block_size
    # Items are fetched ahead, at most one batch of them: what is fetched counts
    # as sampled, so more would blur the rate limits.
    self._sampler = self._client.NewSampler(_TABLE, -1, self._items)

  def sample(self) -> tuple[types.Transition, types.SampleInfo]:
    """Collects a batch; see `core.Sampler`. Blocks without a time limit."""
    keys = np.empty(self._items, np.uint64)
    probability = np.empty(self._items)
    data = np.empty((self._items, self._block, self._layout.itemsize), np.uint8)
    for i in range(self._items):
      keys[i], probability[i], _, _, _, data[i] = (
        self._sampler.GetNextTrajectory()
      )
    rows = self._layout.from_bytes(data).reshape(-1)
    info = types.SampleInfo(
      key=np.repeat(keys, self._block),
      probability=np.repeat(probability, self._block),
      params_version=rows[records.PARAMS_VERSION],
    )
    return self._layout.views(rows), info

  def update_priorities(self, key: np.ndarray, priority: np.ndarray) -> None:
    """Sets priorities; see `core.Sampler`."""
    updates = list(zip(key.tolist(), priority.tolist(), strict=True))
    self._client.MutatePriorities(_TABLE, updates, [])

  def describe(self) -> str:
    """Says in a sentence what the table holds, for messages."""
    return describe(self._client, self._address)


def describe(client: Any, address: str) -> str:
  """Says in a sentence what the table at `address` holds.

  Raises:
    ConnectionError: if the server does not answer.
  """
  try:
    (info,) = client.ServerInfo(2)
  except RuntimeError as error:
    raise ConnectionError(
      f'the replay server at {address} does not answer any more ({error}).'
    ) from error
  stats = reverb_extension.table_stats(info)
  return (
    f'the replay server at {address} holds {stats.size} items, '
    f'{stats.inserted} inserted and {stats.sampled} sampled so far.'
  )
