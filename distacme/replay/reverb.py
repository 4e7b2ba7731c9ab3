"""Replay in a Reverb server: the server, an actor's way in, a learner's way out.

An item is one packed row (or a block of them) in a single column and a single
chunk, because Reverb's cost is per item, column and chunk touched. The frames of
stacked observations are in columns of their own, so that items share them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
import itertools
import logging
import math
import pathlib
import socket
import time
from typing import Any
import weakref

import numpy as np

from distacme import run_directory
from distacme import types
from distacme.replay import checkpoints
from distacme.replay import records
from distacme.replay import reverb_connection
from distacme.replay import reverb_extension
from distacme.replay import reverb_loopback
from distacme.replay import spec as replay_spec

_TABLE = 'experience'
_MAX_IN_FLIGHT = 40  # items; Reverb's writer complains from 50 on
# Items are collected and sent together, since every sending wakes Reverb's
# threads, and those the actor's core; what is inserted so long after the last
# sending goes at once.
_SEND_TOGETHER = 8
_SEND_AFTER_S = 0.05
_FRAMES_PER_CHUNK = 4  # sampled as a whole, and so long a window may wait
_POLL_MS = 100  # how soon a blocked writer notices a stop
_SAVING_S = 60  # the same, while the table may be being saved


class ReplayServer:
  """A Reverb server with the table that a `ReplaySpec` asks for.

  It starts with what the newest checkpoint in `directory` holds.
  """

  def __init__(
    self,
    spec: replay_spec.ReplaySpec,
    port: int,
    directory: pathlib.Path | None = None,
  ):
    """Starts the server.

    It listens on loopback if `reverb_loopback` can make it, else on all
    interfaces.

    Args:
      spec: of the table.
      port: to listen on.
      directory: of checkpoints; None for a table that is not saved.

    Raises:
      OSError: if the port is taken.
    """
    _check_free(port)
    self._spec = spec
    self._port = port
    self._checkpoints: checkpoints.Checkpoints | None = None
    if directory is None:
      self._server = self._start(None)
    else:
      self._checkpoints = checkpoints.Checkpoints(directory, 'reverb', spec)
      self._server = self._checkpoints.restore(self._start)
      self._server = self._server or self._start(None)
    # A restored table is not the one that the server was given.
    self._client = reverb_connection.connect(
      f'127.0.0.1:{port}', timeout_s=_SAVING_S
    )

  def _start(self, checkpoint: pathlib.Path | None) -> Any:
    """Returns a running server; raises RuntimeError if it cannot restore."""
    reverb = reverb_extension.load()
    reverb_loopback.confine(reverb_extension.library())
    checkpointer = None
    if self._checkpoints is not None:
      # It looks for a checkpoint where it writes, in vain, and then here.
      checkpointer = reverb.create_default_checkpointer(
        str(self._checkpoints.unfinished), '', checkpoint and str(checkpoint)
      )
    table = _make_table(self._spec)
    return reverb.Server([table], self._port, checkpointer)

  def metrics(self) -> dict[str, float]:
    """Returns size, inserts and samples so far, and the ratio reached."""
    (info,) = self._client.ServerInfo(_SAVING_S)
    stats = reverb_extension.table_stats(info)
    block = self._spec.block_size
    return replay_spec.table_metrics(
      self._spec.rate_limits,
      stats.size * block,
      stats.inserted * block,
      stats.sampled * block,
    )

  def save(self) -> pathlib.Path:
    """Writes a checkpoint and returns its path; from any one thread.

    It takes some 25 us for a transition; for 3 of them inserts and samples wait.
    """
    assert self._checkpoints is not None
    directory = self._checkpoints.unfinished.parent
    try:
      with run_directory.writing_to(directory, RuntimeError):  # Reverb's
        return self._checkpoints.add(pathlib.Path(self._client.Checkpoint()))
    except Exception:
      self._checkpoints.clear_unfinished()
      raise

  def stop(self) -> None:
    """Ends the server; waits some seconds for clients that are still there."""
    self._server.Stop()


def _check_free(port: int) -> None:
  """Raises OSError if somebody listens on the port.

  Before a checkpoint is loaded, which Reverb would be found unable to. Nor does it
  refuse the port of another Reverb: each would get half of the clients.
  """
  with socket.socket() as probe:
    # What a server before this one left in closing does not count.
    probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
      probe.bind(('127.0.0.1', port))
    except OSError as error:
      raise OSError(
        f'the replay server cannot listen on 127.0.0.1:{port}: {error}. End what '
        f'listens there (ss -ltnp sport = :{port} says who), or start the run '
        'anew, which chooses other ports.'
      ) from None


def _make_table(spec: replay_spec.ReplaySpec) -> Any:
  reverb = reverb_extension.load()
  limits, block = spec.rate_limits, spec.block_size
  sampler = reverb.UniformSelector()
  if spec.used_once:
    sampler = reverb.FifoSelector()
  elif spec.prioritized:
    sampler = reverb.PrioritizedSelector(spec.priority_exponent)
  return reverb.Table(
    name=_TABLE,
    sampler=sampler,
    remover=reverb.FifoSelector(),
    max_size=spec.max_items,
    # 0: as often as it is drawn.
    max_times_sampled=1 if spec.used_once else 0,
    # Reverb counts items, and its limits are balances in items.
    rate_limiter=reverb.RateLimiter(
      limits.samples_per_insert,
      limits.min_size // block,
      limits.min_balance / block,
      limits.max_balance / block,
    ),
    extensions=[],
    signature=None,
  )


class ReverbInserter:
  """An `assembly.Inserter`; blocks while the rate limits ask it to.

  Used by one thread. `stopped` is asked while it is blocked: once it says yes,
  what is in flight is given up, and `insert` does nothing any more.
  """

  def __init__(
    self,
    address: str,
    layout: records.RowLayout,
    stopped: Callable[[], bool],
    *,
    at_once: bool = False,
    explain_after_s: float = reverb_connection.EXPLAIN_AFTER_S,
  ):
    """Connects to the server; waits for it as long as the run goes on.

    Args:
      address: of the server.
      layout: of the rows.
      stopped: whether the run is over.
      at_once: whether an insert lasts until its items are in the table, so that
        nothing is under way while replay asks actors to wait.
      explain_after_s: how long to be blocked before a warning says why; four
        times as long until the next, and so on.
    """
    reverb = reverb_extension.load()
    client = reverb_connection.connect(address, stopped)
    self._watch = reverb_connection.Watch(
      address,
      client,
      'writing to replay',
      'The actor waits for the learner to sample more.',
    )
    self._writer = client.NewTrajectoryWriter(
      reverb.ConstantChunkerOptions(1, 1), False
    )
    # A writer that is destroyed open flushes, holding Python's lock, perhaps for
    # ever: an actor that fails while it is blocked would freeze its process.
    self._close = weakref.finalize(self, self._writer.Close)
    self._layout = layout
    self._stopped = stopped
    self._at_once = at_once
    self._explain_after_s = explain_after_s
    self._items: list[tuple[np.ndarray, float, Any]] = []  # collected
    self._frame_columns = 0  # one for each environment, after that of the rows
    self._send_at = 0.0
    # A sequence costs little for each of its steps, and the next is far.
    transitions = isinstance(layout.nest, types.Transition)
    self._together = _SEND_TOGETHER if transitions else 1
    self._given_up = False
    self.blocked_s = 0.0  # time spent waiting for the rate limits, in all

  def insert_frames(self, frames: np.ndarray) -> list[Any]:
    """Inserts frames; see `assembly.Inserter`."""
    if self._given_up:
      return [None] * len(frames)
    if not self._frame_columns:
      self._make_frame_columns(len(frames))
    data = frames.view(np.uint8).reshape(len(frames), -1)
    references: list[Any] = self._writer.Append([None, *data])[1:]
    return references

  def _make_frame_columns(self, count: int) -> None:
    """Gives each environment a column, whose frames come in small chunks."""
    layout = self._layout.frames
    assert layout is not None
    # Of what is named later: windows that wait for their priority, or are
    # collected.
    keep = layout.moments + layout.stack + 2 * _SEND_TOGETHER
    options = reverb_extension.load().ConstantChunkerOptions(
      _FRAMES_PER_CHUNK, keep
    )
    for column in range(1, count + 1):
      self._writer.ConfigureChunker(column, options)
    self._frame_columns = count

  def insert(
    self,
    rows: np.ndarray,
    priorities: np.ndarray,
    frames: Sequence[Sequence[Any]] | None = None,
  ) -> None:
    """Inserts items, perhaps a little later; see `assembly.Inserter`."""
    numbers = priorities.tolist()
    # Four numpy calls would cost half of what Reverb takes for an item.
    if not all([0 <= number < math.inf for number in numbers]):
      replay_spec.check_priorities(priorities)  # says which is wrong
    data = self._layout.to_bytes(rows)
    named = itertools.repeat(None) if frames is None else frames
    self._items += zip(data, numbers, named, strict=False)
    if self._at_once:
      self.flush()
      return
    now = time.monotonic()
    if len(self._items) >= self._together or now >= self._send_at:
      self._send_at = now + _SEND_AFTER_S
      self._send()

  def flush(self) -> None:
    """Waits until all is inserted, unless the run stops."""
    self._send()
    self._wait(0)

  def close(self) -> None:
    """Waits until all is inserted, unless the run has stopped."""
    if self._close.alive and not self._stopped():
      self.flush()
    self._close()

  def _send(self) -> None:
    """Hands what was collected to Reverb."""
    items, self._items = self._items, []
    append, create_item = self._writer.Append, self._writer.CreateItem
    for start in range(0, len(items), _SEND_TOGETHER):
      if self._given_up:
        return
      for item, priority, frames in items[start : start + _SEND_TOGETHER]:
        row = append([item])[:1]
        if frames is None:
          create_item(_TABLE, priority, [row], [True])
        else:
          create_item(_TABLE, priority, [row, frames], [True, False])
      self._wait(_MAX_IN_FLIGHT)

  def _wait(self, in_flight: int) -> None:
    """Waits until at most `in_flight` items are not yet in the table."""
    start = time.monotonic()
    explain_after_s = self._explain_after_s
    look_after_s = reverb_connection.LOOK_S
    while not self._flushed(in_flight):
      if self._stopped():
        self._given_up = True
        break
      blocked_s = time.monotonic() - start
      if blocked_s > look_after_s:
        look_after_s = blocked_s + reverb_connection.LOOK_S
        self._watch.look()
      if blocked_s > explain_after_s:
        explain_after_s *= 4
        logging.warning(
          'writing to replay has been blocked for %.1f s: %s',
          blocked_s,
          self._watch.describe(),
        )
    else:
      self._watch.note_use()
    self.blocked_s += time.monotonic() - start

  def _flushed(self, in_flight: int) -> bool:
    try:
      self._writer.Flush(in_flight, _POLL_MS)
    except RuntimeError as error:
      if 'Timeout' not in str(error):
        raise
      return False
    return True


class ReverbSampler:
  """A `core.Sampler` that collects batches from a Reverb server."""

  def __init__(
    self,
    address: str,
    spec: replay_spec.ReplaySpec,
    layout: records.RowLayout,
    stopped: Callable[[], bool] = lambda: False,
  ):
    """Connects to the server; waits for it as long as the run goes on."""
    self._address = address
    self._client = reverb_connection.connect(address, stopped)
    self._watch = reverb_connection.Watch(
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
    self._sampler = self._client.NewSampler(_TABLE, -1, self._items)
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
      params_version=rows[records.PARAMS_VERSION],
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
      self._client.MutatePriorities(_TABLE, updates, [])
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
