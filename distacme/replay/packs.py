"""Packs: items on their way from an actor to replay, as one run of bytes.

Replay's cost is per message, lock and tree, so items travel together. A pack also
holds the frames of stacked observations that its actor has seen since its last pack.
Frames are numbered, and items, also those of later packs, name theirs by number.
"""

from __future__ import annotations

import secrets
import struct
from typing import NamedTuple

import numpy as np

# Of a pack's bytes. An actor whose items are larger is refused at its start.
MAX_BYTES = 64 << 20
_MAGIC = b'DAPACK1\0'
# Magic; bytes in all; bit mask of tables; items and bytes of each; stream of frames,
# number of the first and of the oldest; frames and bytes of each; names.
_HEADER = struct.Struct('<8sQQIIQQQIIQ')


class Frames(NamedTuple):
  """The frames of a pack, and those that its items name.

  Attributes:
    stream: number of the actor's stream, from `stream`.
    first: number of the first of `new` in the stream.
    oldest: number of the oldest frame that this and later packs name.
    new: [F, frame_bytes] uint8.
    lengths: [N] uint32, number of frames of each item.
    named: [sum of lengths] uint64, numbers of the frames of each item in turn.
  """

  stream: int
  first: int
  oldest: int
  new: np.ndarray
  lengths: np.ndarray
  named: np.ndarray


class Pack(NamedTuple):
  """Items for some tables.

  Attributes:
    tables: indices of the tables that get all of the items.
    items: [N, item_bytes] uint8.
    priorities: [N] float64.
    frames: None if the rows have none.
  """

  tables: tuple[int, ...]
  items: np.ndarray
  priorities: np.ndarray
  frames: Frames | None


def stream(actor: int | None) -> int:
  """Returns a new number for a stream of frames.

  Args:
    actor: the number of the actor, whose former streams end; None for another one
      than any.
  """
  number = secrets.randbits(31) + 2**31 if actor is None else actor
  return number << 32 | secrets.randbits(32)


def actor_of(stream: int) -> int:
  """Returns the number of the actor that a stream is of."""
  return stream >> 32


def encode(pack: Pack) -> bytes:
  """Returns the bytes of a pack.

  Raises:
    ValueError: if they are more than MAX_BYTES.
  """
  frames = pack.frames or _NO_FRAMES
  header = (
    sum(1 << table for table in pack.tables),
    *pack.items.shape,
    frames.stream,
    frames.first,
    frames.oldest,
    *frames.new.shape,
    len(frames.named),
  )
  arrays = [pack.priorities, frames.named, frames.lengths, pack.items]
  parts = [np.ascontiguousarray(part).data for part in [*arrays, frames.new]]
  size = _HEADER.size + sum(part.nbytes for part in parts)
  check_size(size)
  return b''.join([_HEADER.pack(_MAGIC, size, *header), *parts])


def check_size(size: int) -> None:
  """Refuses a pack that is too large.

  Raises:
    ValueError: if `size` bytes are more than MAX_BYTES.
  """
  if size > MAX_BYTES:
    raise ValueError(
      f'a pack of {size} bytes is too large for replay, which takes '
      f'{MAX_BYTES} at most. Make observations or windows smaller.'
    )


def size_of(data: bytes | memoryview) -> int:
  """Returns the bytes of a pack that `data` begins with.

  Raises:
    ValueError: if `data` begins with no pack.
  """
  if len(data) < _HEADER.size:
    raise ValueError(f'{len(data)} bytes are no pack.')
  magic, size, *_ = _HEADER.unpack_from(data)
  if magic != _MAGIC or size > MAX_BYTES:
    raise ValueError(f'No pack of items: it starts with {magic!r}, {size}.')
  return int(size)


def decode(data: bytes | memoryview) -> Pack:
  """Reads a pack from a peer that is not trusted; arrays are views on `data`.

  Raises:
    ValueError: if `data` is anything else than the bytes of one pack.
  """
  if size_of(data) != len(data):
    raise ValueError(f'A pack of {size_of(data)} bytes has {len(data)}.')
  fields = _HEADER.unpack_from(data)[2:]
  mask, count, item_bytes, stream, first, oldest, *rest = fields
  new, frame_bytes, names = rest
  has_frames = frame_bytes > 0
  layout = (
    (np.float64, (count,)),
    (np.uint64, (names,)),
    (np.uint32, (count if has_frames else 0,)),
    (np.uint8, (count, item_bytes)),
    (np.uint8, (new, frame_bytes)),
  )
  arrays = []
  start = _HEADER.size
  for dtype, shape in layout:
    size = int(np.prod(shape, dtype=object)) * np.dtype(dtype).itemsize
    if start + size > len(data):
      raise ValueError(f'A pack of {len(data)} bytes has parts of {shape}.')
    part = np.frombuffer(data, np.uint8, size, start)
    arrays.append(part.view(dtype).reshape(shape))
    start += size
  if start != len(data) or not mask or (count and not item_bytes):
    raise ValueError(f'A pack of {len(data)} bytes has parts of {start}.')
  priorities, named, lengths, items, frames = arrays
  if has_frames and int(lengths.sum(dtype=np.uint64)) != names:
    raise ValueError(f'A pack names {names} frames, in other items.')
  tables = tuple(index for index in range(64) if mask >> index & 1)
  return Pack(
    tables,
    items,
    priorities,
    Frames(stream, first, oldest, frames, lengths, named)
    if has_frames
    else None,
  )


_NO_FRAMES = Frames(
  0,
  0,
  0,
  np.empty((0, 0), np.uint8),
  np.empty(0, np.uint32),
  np.empty(0, np.uint64),
)
