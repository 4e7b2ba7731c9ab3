"""Takes batches from a replay worker on the same host."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import pathlib
import socket
import threading

import numpy as np

from distacme.replay import form as form_lib
from distacme.replay import tables
from distacme.replay.shared_memory import messages
from distacme.replay.shared_memory import slots as slots_lib

_ANSWER_S = 2.0


class LocalOutlet:
  """A `replay.following_outlet.Outlet` through shared memory."""

  def __init__(self, path: pathlib.Path, form: form_lib.Form):
    """Connects.

    Args:
      path: where replay listens.
      form: of a batch.

    Raises:
      OSError: if nobody listens there on this host.
      ValueError: if replay refuses.
    """
    self._connection = messages.connect(path)
    # Replay may have no thread that answers, as where it lacks descriptors.
    self._connection.settimeout(_ANSWER_S)
    self._sending = threading.Lock()
    self._full: int | None = None  # the slot that was given out last
    with contextlib.ExitStack() as opened:
      opened.enter_context(self._connection)
      hello = json.dumps(dataclasses.asdict(form)).encode()
      messages.send(self._connection, messages.HELLO, hello)
      kind, body, file = messages.receive_file(self._connection)
      if file is not None:
        opened.callback(os.close, file)
      _check(kind, messages.MEMORY, body)
      if file is None:
        raise ConnectionError('this process lacks descriptors for the memory')
      self._slots = slots_lib.Slots(form, body[0], file)
      self._connection.settimeout(None)
      os.close(file)  # the memory stays mapped
      opened.pop_all()  # the connection stays open

  def next(self) -> tables.DrawnItems:
    """Waits for the next batch; its frames are views until the next call.

    Raises:
      OSError: if replay is gone, or this outlet was closed.
      ValueError: if replay refuses.
    """
    if self._full is not None:
      self._send(messages.FREE, bytes([self._full]))
      self._full = None
    kind, body = messages.receive(self._connection)
    _check(kind, messages.FULL, body)
    self._full = body[0]
    return self._slots.read(body[0])

  def update_priorities(
    self, tables: np.ndarray, keys: np.ndarray, priorities: np.ndarray
  ) -> None:
    """Sets the priorities [N] of items; skips those that are gone.

    Raises:
      OSError: if replay is gone.
    """
    self._send(
      messages.PRIORITIES,
      form_lib.priorities_to_bytes(tables, keys, priorities),
    )

  def close(self) -> None:
    """Hangs up; ends a `next` that waits."""
    with contextlib.suppress(OSError):
      self._connection.shutdown(socket.SHUT_RDWR)
    self._connection.close()

  def _send(self, kind: bytes, body: bytes) -> None:
    with self._sending:
      messages.send(self._connection, kind, body)


def _check(kind: bytes, wanted: bytes, body: bytes) -> None:
  if kind == messages.ERROR:
    raise ValueError(body.decode())
  if kind != wanted:
    raise ConnectionError(f'replay said {kind!r}')
