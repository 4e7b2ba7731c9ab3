"""Reverb's C++ extension, without the import of TensorFlow.

`import reverb` costs about 4 s and 300 MB, because Reverb's Python layer imports
TensorFlow. The extension below this layer links one small library of TensorFlow's.
Loading the two by hand takes 0.2 s and 50 MB. This depends on the layout of the
pinned wheel; for another layout the plain import is used.
"""

from __future__ import annotations

import ctypes
import functools
import importlib
import importlib.util
import pathlib
import sys
import threading
import types
from typing import Any

# Replay workers may be threads of one process, and start at once.
_loading = threading.Lock()


def load() -> Any:
  """Returns the extension module, with Client, Server, Table and so on.

  Raises:
    ImportError: if Reverb is not installed.
  """
  with _loading:
    return _load()


@functools.lru_cache(maxsize=1)
def _load() -> Any:
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
      'Reverb is not installed. Use Python 3.10 on Linux x86-64 and install '
      "'distacme[launch]', or '--replay-transport grpc'."
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
