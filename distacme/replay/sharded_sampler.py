"""Samples a learner's batches from several replay workers, as if they were one."""

from __future__ import annotations

import collections
from collections.abc import Callable, Iterator, Sequence
import functools
import threading
from typing import Any, NamedTuple

import numpy as np

from distacme import replay_spec
from distacme import types
from distacme.replay import balance as balance_lib
from distacme.replay import batch as batch_lib
from distacme.replay import following_outlet
from distacme.replay import pool as pool_lib
from distacme.replay import tables
from distacme.replay.items import rows as rows_lib

# The bits of a key that count a shard's items; the number of the shard is above.
_KEY_BITS = 48
_LOOK_S = 0.5  # between looks for a shard that is gone
# Between two messages on how much a shard may take. Actors have so much room ahead of
# the learner that they hardly wait for one.
_PERIOD_S = 0.01


class Shard(NamedTuple):
  """The ways between a learner and one replay worker.

  Attributes:
    name: of the worker, for messages.
    open_outlet: opens an outlet; raises OSError if the worker is not there.
    exchange: tells the worker until how many windows actors may insert, and yields
      the worker's holdings as they change; raises OSError once the worker is gone.
    describe: returns a sentence on the tables; raises OSError if the worker does
      not answer.
  """

  name: str
  open_outlet: Callable[[], following_outlet.Outlet]
  exchange: Callable[[Iterator[int]], Iterator[balance_lib.Holdings]]
  describe: Callable[[], str]


def make(
  shards: Sequence[Shard],
  spec: replay_spec.ReplaySpec,
  layout: rows_lib.RowLayout,
  stopped: Callable[[], bool] = lambda: False,
  seed: int | None = None,
) -> ShardedSampler:
  """Returns a sampler that begins to connect; waits for no shard.

  Args:
    shards: the ways to each.
    spec: of the whole.
    layout: of the rows.
    stopped: returns whether the run is over.
    seed: of the choice of shards; None for another one in every process.
  """
  if spec.used_once:
    return _Queues(shards, spec, layout, stopped)
  return _Tables(shards, spec, layout, stopped, seed)


class ShardedSampler:
  """A `core.Sampler` over the shards of one table; does without those that are gone."""

  def __init__(
    self,
    shards: Sequence[Shard],
    layout: rows_lib.RowLayout,
    stopped: Callable[[], bool],
  ):
    self._shards = shards
    self._layout = layout
    self._stopped = stopped
    self._closed = threading.Event()
    self._error: Exception | None = None
    self._changed = threading.Condition()  # for what several threads look at
    self._pools = [pool_lib.Pool() for _ in shards]
    self._outlets = [
      following_outlet.FollowingOutlet(
        shard.open_outlet,
        stopped,
        functools.partial(self._note_loss, number),
        shard.name,
      )
      for number, shard in enumerate(shards)
    ]

  def _start(self, work: Callable[[int], None]) -> None:
    """Starts a thread of `work` for each shard."""
    for number, shard in enumerate(self._shards):
      threading.Thread(
        target=self._noting_errors,
        args=(work, number),
        name=f'{work.__name__} {shard.name}',
        daemon=True,
      ).start()

  def _noting_errors(self, work: Callable[[int], None], number: int) -> None:
    try:
      work(number)
    except Exception as error:  # for the learner, which ends by it
      with self._changed:
        self._error = error
        self._changed.notify_all()

  def _wait_for(self, condition: Callable[[], Any]) -> None:
    """Waits for a condition; the lock is held.

    Raises:
      ConnectionError: if the sampler is closed meanwhile.
      ValueError: if a shard refuses.
    """

    def over() -> bool:
      if self._closed.is_set():
        raise ConnectionError('the sampler is closed')
      if self._error is not None:
        raise self._error
      return bool(condition())

    self._changed.wait_for(over)

  def _note_loss(self, number: int) -> None:
    """Takes note that a shard is gone; any thread."""
    raise NotImplementedError

  def _draw(self) -> tables.DrawnItems:
    """Waits for the next batch."""
    raise NotImplementedError

  def sample(self) -> tuple[Any, types.SampleInfo]:
    """Waits for the next batch; see `core.Sampler`.

    Raises:
      ConnectionError: if the sampler is closed meanwhile.
      ValueError: if a shard refuses.
    """
    return batch_lib.read(self._layout, self._draw())

  def update_priorities(
    self, info: types.SampleInfo, priority: np.ndarray
  ) -> None:
    """Sets priorities, each in the shard of its item; see `core.Sampler`."""
    replay_spec.check_priorities(priority)
    shards = info.key >> np.uint64(_KEY_BITS)
    keys = info.key & np.uint64((1 << _KEY_BITS) - 1)
    for number, outlet in enumerate(self._outlets):
      own = shards == number
      if own.any():
        outlet.update_priorities(info.table[own], keys[own], priority[own])

  def describe(self) -> str:
    """Describes the tables and the side that waits; see `core.Sampler`."""
    sentences = []
    for shard in self._shards:
      try:
        sentences.append(f'{shard.name}: {shard.describe()}')
      except OSError as error:
        sentences.append(
          f'{shard.name} does not answer ({error}); it is tried again.'
        )
    held = ' '.join(sentences)
    return f'{held} The learner waits for the actors to insert more.'

  def close(self) -> None:
    """Ends a `sample` that waits, and the threads."""
    self._closed.set()
    with self._changed:
      self._changed.notify_all()
    for outlet in self._outlets:
      outlet.close()


def _named(drawn: tables.DrawnItems, number: int) -> tables.DrawnItems:
  """Returns elements of a shard with keys that name the shard, too."""
  keys = drawn.keys | np.uint64(number << _KEY_BITS)
  return pool_lib.owned(drawn)._replace(keys=keys)


class _Tables(ShardedSampler):
  """Shards whose items are drawn any number of times.

  Each shard draws whole batches by itself, from its own items and one ahead. An element
  of the learner's batch comes from a shard by chance, in proportion to the shard's part
  of the whole, and is the next one that the shard has drawn. The product of both
  chances is reported. The rate limits are held here, for all shards together.

  The thread that samples fetches what shards have drawn: another thread would have to
  be woken for each batch.
  """

  def __init__(
    self,
    shards: Sequence[Shard],
    spec: replay_spec.ReplaySpec,
    layout: rows_lib.RowLayout,
    stopped: Callable[[], bool],
    seed: int | None,
  ):
    super().__init__(shards, layout, stopped)
    self._random = np.random.default_rng(seed)
    self._items = spec.batch_size // spec.block_size
    self._windows = spec.batch_size
    self._batches = 0
    # For who holds the lock.
    self._balance = balance_lib.Balance(spec, len(shards))
    self._lost: set[int] = set()  # shards; what came from them is to be dropped
    self._start(self._exchange)

  def _exchange(self, number: int) -> None:
    """Tells a shard how much it may take, and is told what the shard holds."""
    while not self._closed.is_set() and not self._stopped():
      visited = threading.Event()  # the visit is over
      try:
        for holdings in self._shards[number].exchange(
          self._rooms(number, visited)
        ):
          with self._changed:
            self._balance.report(number, holdings)
            self._changed.notify_all()
      except OSError:
        pass  # it is tried again
      finally:
        visited.set()
      self._note_loss(number)
      self._closed.wait(_LOOK_S)

  def _rooms(self, number: int, visited: threading.Event) -> Iterator[int]:
    """Yields until how many windows a shard may take, in a thread of gRPC."""
    told = None
    while not self._closed.is_set() and not visited.wait(_PERIOD_S):
      with self._changed:
        room = self._balance.room(number)
      if room is not None and room != told:
        told = room
        yield room

  def _note_loss(self, number: int) -> None:
    with self._changed:
      self._balance.lose(number)
      self._lost.add(number)

  def _draw(self) -> tables.DrawnItems:
    while True:
      shares = self._wait_for_shares()
      counts = self._random.multinomial(self._items, shares).tolist()
      if all(map(self._fill, range(len(counts)), counts)):
        break  # else a shard is gone, and its elements come from the others
    # Not always the first shard's first, since metrics look at one element.
    first, self._batches = self._batches % len(counts), self._batches + 1
    parts = []
    for number in (*range(first, len(counts)), *range(first)):
      for part in self._pools[number].take(counts[number]):
        probability = part.probability * shares[number]
        parts.append(part._replace(probability=probability))
    with self._changed:
      self._balance.sampled += self._windows
    return pool_lib.joined(parts)

  def _wait_for_shares(self) -> np.ndarray:
    """Returns the chance of each shard, once a batch may be drawn."""
    with self._changed:
      self._wait_for(
        lambda: self._balance.can_sample(self._windows) and self._balance.any()
      )
      shares = self._balance.shares()
      lost, self._lost = self._lost, set()
    for number in lost:
      self._pools[number].clear()
      self._outlets[number].leave()
    return shares

  def _fill(self, number: int, count: int) -> bool:
    """Fetches so many elements of a shard; returns False if the shard is gone."""
    pool = self._pools[number]
    while len(pool) < count:
      drawn = self._outlets[number].try_next()
      if drawn is None:
        self._note_loss(number)
        return False
      pool.put(_named(drawn, number))
    return True


class _Queues(ShardedSampler):
  """Shards whose items are drawn once: taken from whichever shard has some, in turn.

  A shard hands out parts of a batch, so that no item waits for a whole batch of one
  shard. Its rate limits are its own. A thread for each shard waits for the next part.
  """

  def __init__(
    self,
    shards: Sequence[Shard],
    spec: replay_spec.ReplaySpec,
    layout: rows_lib.RowLayout,
    stopped: Callable[[], bool],
  ):
    super().__init__(shards, layout, stopped)
    self._part = replay_spec.of_shard(spec, 0, len(shards)).batch_size
    self._parts = spec.batch_size // self._part  # in a batch
    # For who holds the lock, as are the pools. Numbers of the shards whose parts came.
    self._arrived = collections.deque[int]()
    self._wanted = set(range(len(shards)))  # of which shards more is
    self._used: list[int] = []  # shards whose part the last batch has
    self._start(self._fetch)

  def _fetch(self, number: int) -> None:
    """Fetches what a shard has drawn, whenever more is wanted."""
    outlet = self._outlets[number]
    outlet.open()
    while not self._closed.is_set():
      try:
        drawn = _named(outlet.next(), number)
      except ConnectionError:  # it was closed
        return
      with self._changed:
        self._pools[number].put(drawn)
        self._arrived.append(number)
        self._wanted.discard(number)
        self._changed.notify_all()
        self._changed.wait_for(
          lambda: number in self._wanted or self._closed.is_set()
        )

  def _note_loss(self, number: int) -> None:
    """Keeps what the shard has handed out, which no other has."""

  def _draw(self) -> tables.DrawnItems:
    with self._changed:
      # Only now: what is fetched while the learner has enough grows old here.
      self._want_more()
      parts: list[tables.DrawnItems] = []
      while len(parts) < self._parts:
        if not self._arrived:
          self._want_more()
          self._wait_for(lambda: self._arrived)
        number = self._arrived.popleft()
        parts += self._pools[number].take(self._part)
        self._used.append(number)
    return pool_lib.joined(parts)

  def _want_more(self) -> None:
    """Lets the shards be asked whose parts were taken."""
    self._wanted.update(self._used)
    self._used.clear()
    self._changed.notify_all()
