"""The protocol of the replay service: gRPC methods, and bytes on the wire.

  Insert    visit, piece, piece, ...     ->  count, count, ...
  Batches   form, ask, ask, ...          ->  b'', piece, piece, ...
  Describe  b''                          ->  a sentence, UTF-8
  Exchange  room, room, ...              ->  holdings, ...; see `exchange`

**Insert.** An actor's stream of packs (`replay.packs`), each cut every `pieces.BYTES`. The
pack's own header tells how long it is. `visit` is the actor's random number, which stays
the same when it connects again, and the number of the first pack that follows. `count`,
uint64, is the number of the actor's packs that are in the tables, those of former visits
included. A pack that is in the tables already is not inserted again.

**Batches.** A learner's stream. `form` is JSON of `form.Form`, the sizes of a batch;
b'' says that replay took it. An `ask` is ASK, after which replay draws one more batch,
or PRIORITIES and their bytes. A batch is a header and arrays, cut every `pieces.BYTES`.
Both sides know the sizes but for the number of frames, which has a limit.

A call that replay refuses ends with INVALID_ARGUMENT and a sentence. Integers and floats
are little endian. Nothing is ever unpickled. No message exceeds gRPC's default limit of
4 MiB, which stays in force; larger things are taken from those who have the run's token
only, and no further than the size that their header tells.
"""

from __future__ import annotations

from collections.abc import Iterator
import struct
from typing import Any, NamedTuple

import numpy as np

from distacme.replay import form as form_lib
from distacme.replay import packs
from distacme.replay import tables
from distacme.rpc import line as line_lib
from distacme.rpc import pieces
from distacme.rpc import service

SERVICE = service.Service('distacme.Replay', 'replay server')
ASK, PRIORITIES = b'A', b'P'

_ANSWER_S = 2.0
_VISIT = struct.Struct('<QQ')
_COUNT = struct.Struct('<Q')
# Bytes in all; items and bytes of each; frames and bytes of each.
_BATCH = struct.Struct('<QQQQQ')
_MAX_PRIORITIES = 32_768  # in a message


def describe(line: line_lib.Line) -> str:
  """Asks for a sentence on the contents of the tables.

  Raises:
    ConnectionError: if the service does not answer.
  """
  return line.call('Describe', b'', _ANSWER_S).decode()


class Visit(NamedTuple):
  """The first message of `Insert`.

  Attributes:
    actor: a random number.
    first: number of the actor's next pack.
  """

  actor: int
  first: int

  def to_bytes(self) -> bytes:
    """Returns the message."""
    return _VISIT.pack(*self)

  @classmethod
  def from_bytes(cls, data: bytes) -> Visit:
    """Undoes `to_bytes`; raises ValueError for other data."""
    if len(data) != _VISIT.size:
      raise ValueError(f'No first message of an actor: {data!r:.80}.')
    return cls(*_VISIT.unpack(data))


def count_to_bytes(count: int) -> bytes:
  """Returns an answer of `Insert`."""
  return _COUNT.pack(count)


def count_from_bytes(data: bytes) -> int:
  """Undoes `count_to_bytes`; raises ValueError for other data."""
  if len(data) != _COUNT.size:
    raise ValueError(f'No number of packs: {data!r:.80}.')
  return int(_COUNT.unpack(data)[0])


class Joining:
  """Joins the pieces of one pack or batch; memory is taken once its size is known.

  Attributes:
    whole: whether all pieces are there.
  """

  def __init__(self, size: int, first: bytes):
    """Takes the first piece.

    Args:
      size: bytes of all pieces.
      first: the first piece.

    Raises:
      ValueError: as `add`.
    """
    self._size = size
    self._have = 0
    self._memory: bytes | np.ndarray = b''
    self.whole = False
    self.add(first)

  @property
  def data(self) -> bytes | memoryview:
    """The bytes, once it is whole."""
    assert self.whole
    memory = self._memory
    return memory if isinstance(memory, bytes) else memory.data

  def add(self, piece: bytes) -> None:
    """Takes the next piece.

    Raises:
      ValueError: if the piece has another length than its place asks for.
    """
    end = pieces.check(self._size, self._have, piece)
    if len(piece) == self._size:
      self._memory = piece  # no copy
    else:
      if not self._have:
        self._memory = np.empty(self._size, np.uint8)
      assert isinstance(self._memory, np.ndarray)
      self._memory[self._have : end] = np.frombuffer(piece, np.uint8)
    self._have = end
    self.whole = end == self._size


def join_pack(first: bytes) -> Joining:
  """Begins a pack with its first piece; raises ValueError if it is none."""
  return Joining(packs.size_of(first), first)


def batch_to_pieces(
  form: form_lib.Form, drawn: tables.DrawnItems
) -> list[bytes]:
  """Returns the pieces of a batch.

  Raises:
    ValueError: if the batch is of another form.
  """
  form.check(drawn)
  frames: list[np.ndarray] = []
  lengths = np.zeros(0, '<u4')
  if drawn.frames is not None:
    lengths = np.array([len(named) for named in drawn.frames], '<u4')
    frames = [frame for named in drawn.frames for frame in named]
  size = _batch_size(form, len(frames))
  parts = [drawn.keys, drawn.probability, drawn.tables, lengths, drawn.items]
  flat = [
    memoryview(
      _BATCH.pack(size, *drawn.items.shape, len(frames), form.frame_bytes)
    )
  ]
  flat += [
    np.ascontiguousarray(part).reshape(-1).view(np.uint8).data for part in parts
  ]
  flat += [frame.data for frame in frames]
  if sum(map(len, flat)) != size:
    raise ValueError('the frames of items differ in their sizes.')
  return list(pieces.cut(flat))


def join_batch(form: form_lib.Form, first: bytes) -> Joining:
  """Begins a batch with its first piece.

  Raises:
    ValueError: if it is none, or a batch of another form.
  """
  if len(first) < _BATCH.size:
    raise ValueError(f'{len(first)} bytes are no batch.')
  size, items, item_bytes, frames, frame_bytes = _BATCH.unpack_from(first)
  wanted = (form.items, form.item_bytes, form.frame_bytes)
  if (items, item_bytes, frame_bytes) != wanted or frames > form.max_frames:
    raise ValueError(
      f'a batch of {items} items of {item_bytes} bytes and {frames} frames of '
      f'{frame_bytes} came, where {form} was asked for.'
    )
  if size != _batch_size(form, frames):
    raise ValueError(f'a batch says that it has {size} bytes.')
  return Joining(size, first)


def _batch_size(form: form_lib.Form, frames: int) -> int:
  of_item = 8 + 8 + 4 + (4 if form.frame_bytes else 0) + form.item_bytes
  return _BATCH.size + form.items * of_item + frames * form.frame_bytes


def batch_from_bytes(
  form: form_lib.Form, data: bytes | memoryview
) -> tables.DrawnItems:
  """Reads what `join_batch` joined; arrays are views on `data`.

  Raises:
    ValueError: if the frames of the items are not those that came.
  """
  at = _BATCH.size

  def take(dtype: str, *shape: int) -> np.ndarray:
    nonlocal at
    count = int(np.prod(shape, dtype=object))
    array = np.frombuffer(data, dtype, count, at).reshape(shape)
    at += array.nbytes
    return array

  count = form.items
  keys, probability = take('<u8', count), take('<f8', count)
  table = take('<i4', count)
  lengths = take('<u4', count if form.frame_bytes else 0)
  items = take('u1', count, form.item_bytes)
  frames: list[Any] | None = None
  if form.frame_bytes:
    flat = take('u1', (len(data) - at) // form.frame_bytes, form.frame_bytes)
    ends = np.cumsum(lengths, dtype=np.int64).tolist()
    if (ends[-1] if ends else 0) != len(flat):
      raise ValueError(f'a batch has {len(flat)} frames, and not {ends[-1]}.')
    frames = [
      flat[start:end] for start, end in zip([0, *ends], ends, strict=False)
    ]
  return tables.DrawnItems(items, keys, probability, table, frames)


def priorities_to_messages(
  tables: np.ndarray, keys: np.ndarray, priorities: np.ndarray
) -> Iterator[bytes]:
  """Yields messages with the priorities [N] of items."""
  for start in range(0, len(keys), _MAX_PRIORITIES):
    part = slice(start, start + _MAX_PRIORITIES)
    yield PRIORITIES + form_lib.priorities_to_bytes(
      tables[part], keys[part], priorities[part]
    )
