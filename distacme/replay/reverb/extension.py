"""Reverb's C++ extension, without the import of TensorFlow.

`import reverb` costs about 4 s and 300 MB, because Reverb's Python layer imports
TensorFlow. The extension below this layer links one small library of TensorFlow's.
Loading the two by hand takes 0.2 s and 50 MB. This depends on the layout of the
pinned wheel; for another layout the plain import is used.
"""

from __future__ import annotations

from collections.abc import Iterator
import ctypes
import functools
import importlib
import importlib.util
import pathlib
import sys
import types
from typing import Any, NamedTuple


@functools.lru_cache(maxsize=1)
def load() -> Any:
  """Returns the extension module, with Client, Server, Table and so on.

  Raises:
    ImportError: if Reverb is not installed.
  """
  if 'reverb' in sys.modules:  # other code imported Reverb in full
    return importlib.import_module('reverb.pybind')
  try:
    return _load_alone()
  except (ImportError, OSError):
    pass
  try:
    return importlib.import_module('reverb.pybind')
  except ImportError as error:
    raise ImportError(
      'Reverb, the replay server of multi-process programs, is not '
      "installed. Use Python 3.10 on Linux and install 'distacme[launch]', "
      "or run in one process with '--mode local'."
    ) from error


def library() -> str:
  """Returns the path of the shared library of the extension."""
  return str(_folder('reverb') / 'libpybind.so')


def _load_alone() -> Any:
  package, tensorflow = (_folder(name) for name in ('reverb', 'tensorflow'))
  library = tensorflow / 'libtensorflow_framework.so.2'
  # Not RTLD_GLOBAL: the library's copy of BoringSSL would shadow the OpenSSL of later
  # imports (hashlib, ssl), which crashes the interpreter.
  ctypes.CDLL(str(library))
  # The extension's name is reverb.libpybind. With an empty package `reverb` Python
  # finds the extension without running reverb/__init__.py.
  stand_in = types.ModuleType('reverb')
  stand_in.__path__ = [str(package)]
  sys.modules['reverb'] = stand_in
  try:
    return importlib.import_module('reverb.libpybind')
  finally:
    del sys.modules['reverb']


def _folder(name: str) -> pathlib.Path:
  spec = importlib.util.find_spec(name)
  if spec is None or spec.origin is None:
    raise ImportError(f'{name} is not installed')
  return pathlib.Path(spec.origin).parent


class TableStats(NamedTuple):
  """A table's state, in items."""

  name: str
  size: int
  inserted: int
  sampled: int
  min_size: int


def table_stats(info: bytes) -> TableStats:
  """Reads the counters of a serialised TableInfo message.

  Reverb's own message classes need TensorFlow. The field numbers used, of Reverb's
  schema.proto, are: TableInfo.rate_limiter_info = 5, current_size = 7
  and name = 8; RateLimiterInfo.min_size_to_sample = 4, insert_stats = 5 and
  sample_stats = 6; RateLimiterCallStats.completed = 2.
  """
  table = dict(_fields(info))
  limiter = dict(_fields(table.get(5, b'')))

  def completed(field: int) -> int:
    return int(dict(_fields(limiter.get(field, b''))).get(2, 0))

  return TableStats(
    name=bytes(table.get(8, b'')).decode(),
    size=int(table.get(7, 0)),
    inserted=completed(5),
    sampled=completed(6),
    min_size=int(limiter.get(4, 0)),
  )


def _fields(message: bytes) -> Iterator[tuple[int, Any]]:
  """Yields (field number, value) of a protocol buffer: varints and bytes."""
  position = 0

  def varint() -> int:
    nonlocal position
    value = shift = 0
    while True:
      byte = message[position]
      position += 1
      value |= (byte & 0x7F) << shift
      shift += 7
      if byte < 0x80:
        return value

  while position < len(message):
    tag = varint()
    wire_type = tag & 7
    if wire_type == 0:
      yield tag >> 3, varint()
      continue
    size = {1: 8, 5: 4}.get(wire_type) or varint()
    yield tag >> 3, message[position : position + size]
    position += size
