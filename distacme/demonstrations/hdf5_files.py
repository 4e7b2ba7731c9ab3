"""Files of HDF5: nests of arrays in Minari's layout, on disks that may be full."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
import contextlib
import pathlib
from typing import Any

from distacme import types

_COMPRESSED_FROM = 1 << 16  # bytes; smaller arrays lie in one piece
_CHUNK_BYTES = 1 << 20


def write(group: Any, name: str, values: types.NestedArray) -> None:
  """Writes a nest of arrays [N, ...] below a group, as Minari lays it out."""
  if isinstance(values, tuple):
    values = {f'_index_{index}': each for index, each in enumerate(values)}
  if isinstance(values, Mapping):
    inner = group.create_group(name)
    for key, each in values.items():
      write(inner, key, each)
  elif values.nbytes < _COMPRESSED_FROM:
    group.create_dataset(name, data=values)
  else:
    rows = max(1, _CHUNK_BYTES * len(values) // values.nbytes)
    group.create_dataset(
      name,
      data=values,
      chunks=(min(rows, len(values)), *values.shape[1:]),
      compression='gzip',
      compression_opts=1,  # Pong: a 60th of the room, twice the time
      shuffle=values.itemsize > 1,
    )


class Sink:
  """A file that HDF5 writes to, and that keeps the disk's error to itself.

  An error would leave HDF5 with what it cannot write: it would try again with every
  object that is freed, and complain on stderr.
  """

  def __init__(self, path: pathlib.Path):
    """Makes the file."""
    self._file = open(path, 'w+b', buffering=0)
    self.error: OSError | None = None

  def write(self, data: Any) -> int:
    """Writes bytes, if no error came before."""
    left = memoryview(data).cast('B')
    size = len(left)
    with self._kept():
      while left and self.error is None:
        left = left[self._file.write(left) :]
    return size

  def truncate(self, size: int) -> int:
    """Sets the file's size, if no error came before."""
    with self._kept():
      if self.error is None:
        self._file.truncate(size)
    return size

  def flush(self) -> None:
    """Does nothing: nothing is held back."""

  def close(self) -> None:
    """Closes the file."""
    self._file.close()

  def __getattr__(self, name: str) -> Any:
    return getattr(self._file, name)  # seek, tell, readinto

  @contextlib.contextmanager
  def _kept(self) -> Iterator[None]:
    try:
      yield
    except OSError as error:
      self.error = self.error or error
