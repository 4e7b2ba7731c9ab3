"""Messages of a learner and replay over a socket of their host.

A message is a kind, one byte, the length of its body, four bytes, and the body:

  learner to replay   HELLO       JSON of `form.Form`; the first message
                      FREE        the number of a slot, one byte
                      PRIORITIES  of `form.priorities_to_bytes`
  replay to learner   MEMORY      number of slots, one byte; with a descriptor
                      FULL        the number of a slot, one byte
                      ERROR       a sentence, after which replay hangs up

The kernel lets only the user of the run open the socket, and tells either side when
the other is gone.
"""

from __future__ import annotations

from collections.abc import Iterator
import contextlib
import os
import pathlib
import socket
import struct
import sys

HELLO, FREE, PRIORITIES = b'H', b'F', b'P'
MEMORY, FULL, ERROR = b'M', b'N', b'E'
_HEADER = struct.Struct('<cI')
_MAX_BODY = 64 << 20


def send(
  to: socket.socket, kind: bytes, body: bytes = b'', file: int | None = None
) -> None:
  """Sends a message, with a descriptor if one is given.

  Raises:
    OSError: if the other side is gone.
  """
  data = _HEADER.pack(kind, len(body)) + body
  if file is None:
    to.sendall(data)
  else:
    sent = socket.send_fds(to, [data], [file])
    assert sent == len(data)  # a few bytes


def receive(of: socket.socket) -> tuple[bytes, bytes]:
  """Returns kind and body of the next message.

  Raises:
    OSError: if the other side is gone, or sends anything else.
  """
  return _receive(of, _exactly(of, _HEADER.size))


def receive_file(of: socket.socket) -> tuple[bytes, bytes, int | None]:
  """Returns kind and body of the next message, and the descriptor with it."""
  data, files, _, _ = socket.recv_fds(of, _HEADER.size, 1)
  try:
    data += _exactly(of, _HEADER.size - len(data)) if data else b''
    if not data:
      raise ConnectionError('replay hung up')
    kind, body = _receive(of, data)
  except BaseException:
    for file in files:
      os.close(file)
    raise
  return kind, body, files[0] if files else None


def _receive(of: socket.socket, header: bytes) -> tuple[bytes, bytes]:
  kind, length = _HEADER.unpack(header)
  if length > _MAX_BODY:
    raise ConnectionError(f'a message of {length} bytes came')
  return kind, _exactly(of, length)


def _exactly(of: socket.socket, size: int) -> bytes:
  data = bytearray(size)
  view = memoryview(data)
  while len(view):
    count = of.recv_into(view)
    if not count:
      raise ConnectionError('the other side hung up')
    view = view[count:]
  return bytes(data)


@contextlib.contextmanager
def _short(path: pathlib.Path) -> Iterator[str]:
  """Yields a name of a path's file that is short enough for a socket."""
  if sys.platform != 'linux':
    yield str(path)
    return
  folder = os.open(path.parent, os.O_PATH | os.O_DIRECTORY)
  try:
    yield f'/proc/self/fd/{folder}/{path.name}'
  finally:
    os.close(folder)


def listen(path: pathlib.Path) -> socket.socket:
  """Returns a socket that listens at `path`, for this user alone.

  Raises:
    OSError: if the file system or the system has no such sockets.
  """
  path.unlink(missing_ok=True)
  listener = socket.socket(socket.AF_UNIX)
  try:
    with _short(path) as name:
      listener.bind(name)
    path.chmod(0o600)  # nobody can connect before it listens
    listener.listen()
  except BaseException:
    listener.close()
    raise
  return listener


def connect(path: pathlib.Path) -> socket.socket:
  """Returns a socket to who listens at `path`.

  Raises:
    OSError: if nobody does on this host.
  """
  connection = socket.socket(socket.AF_UNIX)
  try:
    with _short(path) as name:
      connection.connect(name)
  except BaseException:
    connection.close()
    raise
  return connection
