"""A file of named arrays: a zip archive of `.npy` files, as `np.load` reads it.

`np.savez` would need all frames in one array first, a second copy of the largest
part of replay.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
import os
import pathlib
from typing import IO
import zipfile

import numpy as np

_ROWS = 'rows/'  # begins the names of arrays that are lists of rows here
_AT_ONCE = 64  # rows


def write(
  path: pathlib.Path,
  arrays: Mapping[str, np.ndarray],
  rows: Mapping[str, Sequence[np.ndarray]],
) -> None:
  """Writes a file; it is on the disk when this returns.

  Args:
    path: of the file.
    arrays: by name.
    rows: by name, the rows of an array, uint8 and of the same length.
  """
  with open(path, 'wb') as file:
    with zipfile.ZipFile(file, 'w') as archive:
      for name, array in arrays.items():
        with archive.open(f'{name}.npy', 'w', force_zip64=True) as entry:
          np.lib.format.write_array(entry, array, allow_pickle=False)
      for name, parts in rows.items():
        entry_name = f'{_ROWS}{name}.npy'
        with archive.open(entry_name, 'w', force_zip64=True) as entry:
          _write_rows(entry, parts)
    file.flush()
    os.fsync(file.fileno())


def read(
  path: pathlib.Path,
) -> tuple[dict[str, np.ndarray], dict[str, list[np.ndarray]]]:
  """Returns the arrays and the rows that `write` was given.

  Raises:
    zipfile.BadZipFile: if a byte of the file changed; or another error, of
      reading.
  """
  arrays: dict[str, np.ndarray] = {}
  rows: dict[str, list[np.ndarray]] = {}
  with zipfile.ZipFile(path) as archive:
    for entry_name in archive.namelist():
      name = entry_name.removesuffix('.npy')
      with archive.open(entry_name) as entry:  # compares checksums
        if name.startswith(_ROWS):
          rows[name.removeprefix(_ROWS)] = _read_rows(entry)
        else:
          arrays[name] = np.lib.format.read_array(entry, allow_pickle=False)
  return arrays, rows


def _write_rows(entry: IO[bytes], rows: Sequence[np.ndarray]) -> None:
  header = {
    'descr': '|u1',
    'fortran_order': False,
    'shape': (len(rows), len(rows[0]) if rows else 0),
  }
  np.lib.format.write_array_header_1_0(entry, header)
  for start in range(0, len(rows), _AT_ONCE):
    entry.write(np.concatenate(rows[start : start + _AT_ONCE]).data)


def _read_rows(entry: IO[bytes]) -> list[np.ndarray]:
  """Returns rows in pieces of memory, which are freed one after the other."""
  np.lib.format.read_magic(entry)
  (count, size), _, _ = np.lib.format.read_array_header_1_0(entry)
  rows: list[np.ndarray] = []
  for start in range(0, count, _AT_ONCE):
    number = min(_AT_ONCE, count - start)
    piece = np.frombuffer(entry.read(number * size), np.uint8)
    rows.extend(piece.reshape(number, size))
  return rows
