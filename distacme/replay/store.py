"""The tables of a replay worker: shared by threads, blocking, saved."""

from __future__ import annotations

from collections.abc import Callable, Iterator
import contextlib
import logging
import math
import pathlib
import threading
import time

import numpy as np

from distacme import replay_spec
from distacme.replay import balance
from distacme.replay import checkpoints
from distacme.replay import filling
from distacme.replay import frame_streams
from distacme.replay import memory
from distacme.replay import packs
from distacme.replay import tables
from distacme.run import files
from distacme.run import notices

_LOOK_S = 0.1  # between looks whether the one who waits should give up


class Store:
  """A `Memory` that many threads use, and that waits for its rate limits.

  It starts with the items of the newest checkpoint in its directory, else with the
  run's demonstrations.
  """

  def __init__(
    self,
    spec: replay_spec.ReplaySpec,
    directory: pathlib.Path | None = None,
    demonstrations: pathlib.Path | None = None,
    learnt: int = 0,
    first_room: int | None = None,
  ):
    """Makes the tables.

    Args:
      spec: of the tables.
      directory: of checkpoints; None for tables that are not saved.
      demonstrations: folder of `filling.save`, which may be absent.
      learnt: steps that the learner has made already; see `filling.load`.
      first_room: of a shard of replay, the windows that it takes before the first
        `let_in`, those of its checkpoint included; None for no bound.

    Raises:
      ValueError: if the demonstrations are damaged.
    """
    self.spec = spec
    self._memory = memory.Memory(spec)
    self._frames = frame_streams.FrameStreams()
    self._lost = 0  # items, whose frames are unknown
    self._refused = 0  # packs
    # For all of the state, and told of every change.
    self._changed = threading.Condition(threading.Lock())
    self._on_room: list[Callable[[], None]] = []
    self._error: Exception | None = None
    self._checkpoints: checkpoints.Checkpoints | None = None
    held = None
    if directory is not None:
      self._checkpoints = checkpoints.Checkpoints(
        directory, memory.FORMAT, spec
      )
      held = self._checkpoints.restore(memory.read)
    if held is None and demonstrations is not None:
      held = filling.load(demonstrations, learnt)
    if held is not None:
      self._memory.load(held)
    if first_room is not None:
      self._memory.let_in(max(first_room, self.holdings().inserted))

  def check(self) -> None:
    """Raises what the tables failed with, as for lack of memory, if they did."""
    if self._error is not None:
      raise self._error

  @contextlib.contextmanager
  def _in_order(self) -> Iterator[None]:
    """Holds the lock, and notes a failure that is no caller's mistake."""
    with self._changed:
      try:
        yield
      except ValueError:
        raise
      except Exception as error:
        self._error = error
        raise

  def on_room(self, call: Callable[[], None]) -> None:
    """Calls `call`, in some thread, whenever there may be room for more items."""
    self._on_room.append(call)

  def insert(
    self, pack: packs.Pack, stopped: Callable[[], bool] = lambda: False
  ) -> bool:
    """Inserts a pack's items, as soon as the rate limits allow.

    Args:
      pack: the next one of its actor.
      stopped: returns whether to give up.

    Returns:
      Whether all items are inserted; False once `stopped`.

    Raises:
      ValueError: if the items do not fit into the tables.
    """
    waiting = self.begin(pack)
    while not self.insert_some(waiting):
      if stopped():
        return False
      with self._changed:
        if not self._memory.room(waiting.pack.tables):
          self._changed.wait(_LOOK_S)
    return True

  def wait_for_room(self, stopped: Callable[[], bool]) -> bool:
    """Waits until actors may insert an item; returns False once `stopped`."""
    tables = [self.spec.tables.index(t) for t in self.spec.tables_of_actors]
    with self._changed:
      while not self._memory.room(tables):
        if stopped():
          return False
        self._changed.wait(_LOOK_S)
    return True

  def begin(self, pack: packs.Pack) -> Waiting:
    """Takes a pack's frames; returns its items, for `insert_some`.

    Raises:
      ValueError: if it names a table that is not there.
    """
    unknown = [i for i in pack.tables if i >= len(self.spec.tables)]
    if unknown:
      raise ValueError(
        f'a pack is for table {unknown[0]} of {len(self.spec.tables)}.'
      )
    replay_spec.check_priorities(pack.priorities)
    if pack.frames is None:
      return Waiting(pack, None)
    with self._changed:
      whole, frames = self._frames.resolve(pack)
    self._note_lost(len(pack.items) - len(whole.items))
    return Waiting(whole, frames)

  def insert_some(self, waiting: Waiting) -> bool:
    """Inserts as many of a pack's items as there is room for; does not wait.

    Returns:
      Whether all of them are inserted now.
    """
    pack = waiting.pack
    start, count = waiting.inserted, len(pack.items)
    if start < count:
      with self._in_order():
        end = min(count, start + self._memory.room(pack.tables))
        if end > start:
          frames = waiting.frames
          self._memory.insert(
            pack.tables,
            pack.items[start:end],
            pack.priorities[start:end],
            None if frames is None else frames[start:end],
          )
          waiting.inserted = end
          self._changed.notify_all()
    return waiting.inserted == count

  def note_refused(self, error: ValueError) -> None:
    """Counts a pack that an actor is not told of; logs the 1st, 2nd, 4th, ..."""
    self._refused += 1
    if self._refused.bit_count() == 1:
      notices.warn_once(
        f'replay refused packs of actors, {self._refused} so far: {error}'
      )

  def _note_lost(self, count: int) -> None:
    if not count:
      return
    before, self._lost = self._lost, self._lost + count
    if before.bit_length() < self._lost.bit_length():  # 1, 2, 4, ... items
      logging.getLogger(__name__).info(
        '%d items so far named frames that are gone, as after a restart of '
        'replay, and were left out.',
        self._lost,
      )

  def draw(self, timeout_s: float = math.inf) -> tables.DrawnItems | None:
    """Draws a batch, as soon as the rate limits allow.

    Args:
      timeout_s: seconds to wait.

    Returns:
      The batch; None if the limits did not allow it in time.
    """
    until = time.monotonic() + timeout_s
    with self._in_order():
      while self._memory.blocking() is not None:
        left_s = until - time.monotonic()
        if left_s <= 0:
          return None
        self._changed.wait(min(left_s, threading.TIMEOUT_MAX))
      drawn = self._memory.draw()
      self._changed.notify_all()
    for call in self._on_room:
      call()
    return drawn

  def update_priorities(
    self, tables: np.ndarray, keys: np.ndarray, priorities: np.ndarray
  ) -> None:
    """Sets the priorities [N] of items; skips those that are gone.

    Raises:
      ValueError: if a priority makes no sense.
    """
    with self._changed:
      self._memory.update_priorities(tables, keys, priorities)

  def holdings(self) -> balance.Holdings:
    """Returns the content of the only table, as a shard of replay."""
    with self._changed:
      return self._memory.holdings

  def let_in(self, windows: int) -> None:
    """Lets actors insert until so many windows have come in all."""
    with self._changed:
      self._memory.let_in(windows)
      self._changed.notify_all()
    for call in self._on_room:
      call()

  def metrics(self) -> dict[str, float]:
    """Returns size, inserts and samples so far, and the ratio reached."""
    with self._changed:
      metrics = self._memory.metrics()
    if self._refused:
      metrics['refused_packs'] = self._refused
    return metrics

  def describe(self) -> str:
    """Returns a sentence on the contents of the tables, for messages."""
    with self._changed:
      return self._memory.describe()

  @property
  def saves(self) -> bool:
    """True if there is a directory for checkpoints."""
    return self._checkpoints is not None

  def save(self) -> pathlib.Path:
    """Writes a checkpoint and returns its path; one thread at a time.

    Inserts and samples wait while the tables are copied.
    """
    assert self._checkpoints is not None
    spare = self._memory.spare()
    with self._changed:
      held = self._memory.held(spare)
    folder = self._checkpoints.unfinished / 'tables'
    try:
      with files.writing_to(folder.parent.parent):
        folder.mkdir()
        held.write(folder)
        return self._checkpoints.add(folder)
    except Exception:
      self._checkpoints.clear_unfinished()
      raise


class Waiting:
  """A pack of which some items may not be inserted yet.

  Attributes:
    pack: the pack.
    frames: of each item; None if there are none.
    inserted: items that are inserted.
  """

  def __init__(self, pack: packs.Pack, frames: tables.Frames | None):
    self.pack = pack
    self.frames = frames
    self.inserted = 0
