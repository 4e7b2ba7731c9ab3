"""Places for batches in memory that two processes share."""

from __future__ import annotations

import contextlib
import itertools
import mmap
import os
import sys
import tempfile

import numpy as np

from distacme.replay import form as form_lib
from distacme.replay import tables

_ALIGNMENT = 64


class Slots:
  """Shared memory with room for some batches of one form."""

  def __init__(self, form: form_lib.Form, count: int, file: int | None = None):
    """Makes the memory, or maps that of another process.

    Args:
      form: of the batches.
      count: batches that fit.
      file: descriptor of the memory; None makes new memory.

    Raises:
      OSError: if there is not so much memory.
    """
    self._form = form
    parts = (
      ('items', np.uint8, (form.items, form.item_bytes)),
      ('keys', np.uint64, (form.items,)),
      ('probability', np.float64, (form.items,)),
      ('tables', np.int32, (form.items,)),
      ('lengths', np.int64, (form.items,)),
      ('frames', np.uint8, (form.max_frames, form.frame_bytes)),
    )
    self._size = 0  # of a slot
    places = []
    for name, dtype, shape in parts:
      size = int(np.prod(shape, dtype=object)) * np.dtype(dtype).itemsize
      places.append((name, dtype, shape, self._size, size))
      self._size += size + -size % _ALIGNMENT
    with contextlib.ExitStack() as opened:
      if file is None:
        file = _make_file()
        opened.callback(os.close, file)
        os.ftruncate(file, self._size * count)
      self._memory = mmap.mmap(file, self._size * count)
      opened.pop_all()  # the file is the caller's now
    self.file = file
    whole = np.frombuffer(self._memory, np.uint8)
    self._slots: list[dict[str, np.ndarray]] = [
      {
        name: whole[start + at : start + at + size].view(dtype).reshape(shape)
        for name, dtype, shape, at, size in places
      }
      for start in range(0, self._size * count, self._size)
    ]

  def __len__(self) -> int:
    """Returns the number of batches that fit."""
    return len(self._slots)

  def write(self, slot: int, drawn: tables.DrawnItems) -> None:
    """Writes a batch.

    Raises:
      ValueError: if the batch is of another form.
    """
    self._form.check(drawn)
    into = self._slots[slot]
    into['items'][:] = drawn.items
    into['keys'][:] = drawn.keys
    into['probability'][:] = drawn.probability
    into['tables'][:] = drawn.tables
    if drawn.frames is None:
      return
    into['lengths'][:] = [len(frames) for frames in drawn.frames]
    flat = [frame for frames in drawn.frames for frame in frames]
    if flat:
      # Four times as fast as `np.stack`.
      np.concatenate(flat, out=into['frames'][: len(flat)].reshape(-1))

  def read(self, slot: int) -> tables.DrawnItems:
    """Returns a batch.

    Its frames are views: they change once the slot is written to again.
    """
    of = self._slots[slot]
    frames = None
    if self._form.frame_bytes:
      every = iter(of['frames'])
      frames = [
        tuple(itertools.islice(every, n)) for n in of['lengths'].tolist()
      ]
    return tables.DrawnItems(
      of['items'].copy(),
      of['keys'].copy(),
      of['probability'].copy(),
      of['tables'].copy(),
      frames,
    )


def _make_file() -> int:
  """Returns a file in memory that has no name, so that nothing is left of it."""
  if sys.platform == 'linux':
    # Not in /dev/shm, which containers keep small.
    return os.memfd_create('distacme batches', os.MFD_CLOEXEC)
  with tempfile.TemporaryFile() as temporary:
    return os.dup(temporary.fileno())
