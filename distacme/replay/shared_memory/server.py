"""Hands batches to learners of the same host."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import pathlib
import queue
import socket
import threading
import time

from distacme.replay import form as form_lib
from distacme.replay import store as store_lib
from distacme.replay.shared_memory import messages
from distacme.replay.shared_memory import slots as slots_lib

# Time in which a draw that waits notices that its learner is gone.
_LOOK_S = 0.1


class LocalServer:
  """Serves a `Store` at a socket; a thread for each learner that is connected."""

  def __init__(self, store: store_lib.Store, path: pathlib.Path):
    """Starts to listen.

    Args:
      store: has the tables.
      path: of the socket.

    Raises:
      OSError: if sockets cannot be had there.
    """
    self._store = store
    self._path = path
    self._listener = messages.listen(path)
    self._open: set[socket.socket] = set()
    self._stopped = False
    threading.Thread(
      target=self._accept, name='replay door', daemon=True
    ).start()

  def stop(self) -> None:
    """Hangs up on all learners."""
    self._stopped = True
    self._path.unlink(missing_ok=True)
    for each in [self._listener, *self._open]:
      with contextlib.suppress(OSError):
        each.shutdown(socket.SHUT_RDWR)
      each.close()

  def _accept(self) -> None:
    while True:
      try:
        connection, _ = self._listener.accept()
      except OSError as error:
        if self._stopped:
          return
        # As for lack of descriptors, which may be there again.
        logging.getLogger(__name__).warning(
          'A learner could not connect to replay: %s', error
        )
        time.sleep(_LOOK_S)
        continue
      self._open.add(connection)
      threading.Thread(
        target=self._serve,
        args=(connection,),
        name='replay learner',
        daemon=True,
      ).start()

  def _serve(self, connection: socket.socket) -> None:
    try:
      _, body = messages.receive(connection)
      form = form_lib.Form.from_dict(json.loads(body))
      _Visit(self._store, connection, form).run()
    except ValueError as error:
      with contextlib.suppress(OSError):
        messages.send(connection, messages.ERROR, str(error).encode())
      logging.getLogger(__name__).warning('The learner was refused: %s', error)
    except ConnectionError:
      pass  # it is gone
    except OSError as error:
      if connection.fileno() >= 0:  # else this server has stopped
        logging.getLogger(__name__).warning(
          'Replay shares no memory with the learner: %s', error
        )
    finally:
      self._open.discard(connection)
      connection.close()


class _Visit:
  """A learner that is connected."""

  def __init__(
    self,
    store: store_lib.Store,
    connection: socket.socket,
    form: form_lib.Form,
  ):
    self._store = store
    self._connection = connection
    self._slots = slots_lib.Slots(form, form_lib.DRAWN)
    self._free: queue.SimpleQueue[int | None] = queue.SimpleQueue()
    self._sending = threading.Lock()
    self._gone = False

  def run(self) -> None:
    """Reads what the learner says, until it is gone."""
    try:
      self._send(messages.MEMORY, len(self._slots), self._slots.file)
    finally:
      os.close(self._slots.file)  # the memory stays mapped
    for slot in range(len(self._slots)):
      self._free.put(slot)
    threading.Thread(
      target=self._draw, name='replay draws', daemon=True
    ).start()
    try:
      while True:
        kind, body = messages.receive(self._connection)
        if kind == messages.FREE and body[0] < len(self._slots):
          self._free.put(body[0])
        elif kind == messages.PRIORITIES:
          self._store.update_priorities(*form_lib.priorities_from_bytes(body))
        else:
          raise ValueError(f'no message of a learner: {kind!r}.')
    finally:
      self._gone = True
      self._free.put(None)

  def _draw(self) -> None:
    """Fills free slots with batches."""
    try:
      while (slot := self._free.get()) is not None:
        drawn = None
        while drawn is None:
          if self._gone:
            return
          drawn = self._store.draw(_LOOK_S)
        self._slots.write(slot, drawn)
        self._send(messages.FULL, slot)
    except OSError:
      pass  # the learner is gone
    except Exception as error:  # for the learner, which ends by it
      sentence = str(error) or type(error).__name__
      with contextlib.suppress(OSError), self._sending:
        messages.send(self._connection, messages.ERROR, sentence.encode())

  def _send(self, kind: bytes, number: int, file: int | None = None) -> None:
    with self._sending:
      messages.send(self._connection, kind, bytes([number]), file)
