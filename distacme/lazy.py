"""Modules that are imported when they are first used.

An agent's file needs optimisers and losses to learn but not to act. They cost
seconds and hundreds of megabytes (rlax brings TensorFlow Probability), which
actors must not pay.
"""

from __future__ import annotations

from collections.abc import Iterator
import contextlib
import importlib
import sys
import threading
import types
from typing import Any

_IMPORT_LOCK = threading.RLock()


def module(name: str) -> types.ModuleType:
  """Returns a stand-in for the module `name`, imported at its first use."""
  return _LazyModule(name)


class _LazyModule(types.ModuleType):
  def __getattr__(self, attribute: str) -> Any:
    with _IMPORT_LOCK, _tensorflow_hidden():
      loaded = importlib.import_module(self.__name__)
    value = getattr(loaded, attribute)
    setattr(self, attribute, value)
    return value


@contextlib.contextmanager
def _tensorflow_hidden() -> Iterator[None]:
  """Makes `import tensorflow` fail meanwhile.

  TensorFlow Probability, on its way to its JAX half, imports TensorFlow if it
  can, and raises if what it finds is as old as Reverb's. Its JAX half does not
  need it: hidden, rlax loads in 2 s and 190 MB instead of 7 s and 530 MB.
  """
  present = {
    name: loaded
    for name, loaded in sys.modules.items()
    if name == 'tensorflow' or name.startswith('tensorflow.')
  }
  for name in present:
    del sys.modules[name]
  sys.modules['tensorflow'] = None  # type: ignore[assignment]  # blocks imports
  try:
    yield
  finally:
    del sys.modules['tensorflow']
    sys.modules.update(present)
