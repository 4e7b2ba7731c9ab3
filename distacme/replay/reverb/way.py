"""An actor's packs on their way to replay, by Reverb's writer."""

from __future__ import annotations

from collections.abc import Callable
import logging
import time
from typing import Any
import weakref

from distacme.replay.reverb import connection
from distacme.replay.reverb import extension
from distacme.replay.reverb import queue

_LOOK_S = 1.0  # between looks for a server that may be gone


class ReverbWay:
  """A `replay.pack_inserter.Way`; packs count as inserted once Reverb has them."""

  def __init__(
    self,
    address: str,
    stopped: Callable[[], bool],
    describe: Callable[[], str],
  ):
    """Connects to the queue; waits for its server while the run goes on.

    Args:
      address: of the server.
      stopped: returns whether the run is over.
      describe: returns a sentence on replay's tables; raises ConnectionError if
        replay does not answer.
    """
    self._address = address
    self._describe = describe
    client = connection.connect(address, stopped)
    options = extension.load().ConstantChunkerOptions
    self._writer = client.NewTrajectoryWriter(options(1, 1), False)
    for column in queue.COLUMNS:
      self._writer.ConfigureChunker(column, options(1, queue.MAX_CELLS))
    # An open writer flushes when it is destroyed, and holds the GIL, perhaps for
    # ever: an actor that fails while blocked would freeze its process.
    self._close = weakref.finalize(self, self._writer.Close)
    self._look_at = 0.0
    self._in_vain = 0  # looks for a server that was gone

  def send(self, pack: bytes) -> None:
    """Starts to send a pack; see `pack_inserter.Way`."""
    column, cells = queue.to_cells(pack)
    columns: list[Any] = [None] * len(queue.COLUMNS)
    references = []
    for cell in cells:
      columns[column] = cell
      references.append(self._writer.Append(columns)[column])
    self._writer.CreateItem(queue.TABLE, 1.0, [references], [False])

  def wait(self, on_the_way: int, timeout_s: float) -> bool:
    """Waits until Reverb has all but so many packs; see `pack_inserter.Way`."""
    try:
      # 0 would be without limit.
      self._writer.Flush(on_the_way, max(1, int(1000 * timeout_s)))
    except RuntimeError as error:
      if 'Timeout' not in str(error):
        raise
      if timeout_s:
        self._look()
      return False
    if self._in_vain:
      in_vain, self._in_vain = self._in_vain, 0
      logging.getLogger(__name__).warning(
        'writing to replay goes on: the server at %s was tried %d times in vain.',
        self._address,
        in_vain,
      )
    return True

  def _look(self) -> None:
    """Notes whether the server is gone; Reverb's writer tries again in silence."""
    now = time.monotonic()
    if now < self._look_at:
      return
    self._look_at = now + _LOOK_S
    try:
      connection.knock(self._address)
    except OSError:
      self._in_vain += 1

  def describe(self) -> str:
    """Describes replay and who waits; see `pack_inserter.Way`."""
    try:
      described = self._describe()
    except ConnectionError as error:
      return f'{error}. It is tried again.'
    if self._in_vain:
      return (
        f'{described} Its server was tried {self._in_vain} times in vain; it is '
        'tried again.'
      )
    return f'{described} The actor waits for the learner to sample more.'

  def close(self) -> None:
    """Ends the way; see `pack_inserter.Way`."""
    self._close()
