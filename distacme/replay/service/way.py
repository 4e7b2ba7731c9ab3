"""Brings an actor's packs to the replay service."""

from __future__ import annotations

import collections
from collections.abc import Iterator
import logging
import secrets
import threading

from distacme.replay.service import wire
from distacme.rpc import line as line_lib
from distacme.rpc import pieces
from distacme.run import endpoints

_RETRY_S = 0.2


class GrpcWay:
  """A `replay.pack_inserter.Way`: one stream, which is opened again if it breaks.

  Packs are kept until replay says that they are in the tables. A replay worker that
  was restarted gets the others again.
  """

  def __init__(
    self, endpoint: endpoints.Endpoint, find: line_lib.Find | None = None
  ):
    """Starts to connect, in a thread; replay need not be there yet.

    Args:
      endpoint: of the replay service.
      find: returns where the service listens now, or None if that is not known.

    Raises:
      ConnectionError: if the key or the token of `endpoint` cannot be used.
    """
    self._line = line_lib.Line(wire.SERVICE, endpoint, find, line_lib.WATCHED)
    self._actor = secrets.randbits(64)
    self._changed = threading.Condition()  # for all that follows
    self._inserted = 0  # packs in the tables
    self._packs: collections.deque[bytes] = collections.deque()  # the next ones
    self._visit = 0  # number of the stream
    self._sent = 0  # of `_packs`, in this stream
    self._refusal = ''
    self._in_vain = 0  # streams that brought no answer
    self._closed = threading.Event()
    self._thread = threading.Thread(
      target=self._run, name='packs to replay', daemon=True
    )
    self._thread.start()

  def send(self, pack: bytes) -> None:
    """Starts to send a pack; does not wait."""
    with self._changed:
      self._packs.append(pack)
      self._changed.notify_all()

  def wait(self, on_the_way: int, timeout_s: float) -> bool:
    """Waits until at most so many packs are not inserted yet; see `Way`.

    Raises:
      ValueError: if replay refuses a pack.
    """

    def done() -> bool:
      if self._refusal:
        raise ValueError(self._refusal)
      return len(self._packs) <= on_the_way

    with self._changed:
      return self._changed.wait_for(done, timeout_s)

  def describe(self) -> str:
    """Returns a sentence on what the packs wait for."""
    try:
      answer = wire.describe(self._line)
    except ConnectionError as error:
      return f'{error}. It is tried again.'
    waiting = 'The actors wait for the learner to sample more.'
    if self._in_vain:
      waiting = (
        f'It was tried {self._in_vain} times in vain and is connected to again.'
      )
    return f'{answer} {waiting}'

  def close(self) -> None:
    """Ends the way; packs that are still on it may be lost."""
    self._closed.set()
    self._line.close()
    self._thread.join()

  def _run(self) -> None:
    while not self._closed.is_set():
      try:
        self._talk()
      except ValueError as error:
        if not self._closed.is_set():
          with self._changed:
            self._refusal = str(error)
            self._changed.notify_all()
          return
      except ConnectionError as error:
        logging.getLogger(__name__).debug('no packs reach replay: %s', error)
      self._in_vain += 1
      self._closed.wait(_RETRY_S)

  def _talk(self) -> None:
    """Sends packs, until the stream breaks or the server ends it."""
    with self._changed:
      self._sent = 0
      requests = self._requests(self._visit, self._inserted)
    try:
      for answer in self._line.stream('Insert', requests):
        self._note(wire.count_from_bytes(answer))
    finally:
      with self._changed:
        self._visit += 1
        self._changed.notify_all()  # ends `_requests`

  def _requests(self, visit: int, first: int) -> Iterator[bytes]:
    """Yields the messages of a stream, in a thread of gRPC."""
    yield wire.Visit(self._actor, first).to_bytes()
    while True:
      with self._changed:
        self._changed.wait_for(
          lambda: self._visit != visit or self._sent < len(self._packs)
        )
        if self._visit != visit:
          return
        pack = self._packs[self._sent]
        self._sent += 1
      yield from pieces.cut([memoryview(pack)])

  def _note(self, count: int) -> None:
    """Drops the packs that are in the tables now."""
    with self._changed:
      new = count - self._inserted
      if not 0 <= new <= self._sent:
        raise ValueError(
          f'replay says that it has {count} packs, of which '
          f'{self._inserted + self._sent} were sent.'
        )
      for _ in range(new):
        self._packs.popleft()
      self._inserted = count
      self._sent -= new
      in_vain, self._in_vain = self._in_vain, 0
      self._changed.notify_all()
    if in_vain:
      logging.getLogger(__name__).warning(
        'inserting into replay goes on: the replay server at %s was tried %d '
        'times in vain.',
        self._line.address,
        in_vain,
      )
