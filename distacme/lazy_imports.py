"""Modules that are imported when they are first used.

An agent's file needs optimisers and losses to learn but not to act. Actors must not
pay for these imports. No process should pay for libraries that another library
imports and hardly uses: under rlax, TensorFlow Probability takes 0.3 s (1.5 without
bytecode) and 40 MB.
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
_NAMES: dict[str, None] = {}  # of all stand-ins, in order

# rlax imports it for a few functions that rlax calls deprecated; it imports TensorFlow
# Probability.
_BROUGHT_ALONG = 'distrax'


def module(name: str) -> types.ModuleType:
  """Returns a stand-in for the module `name`, imported at its first use."""
  _NAMES[name] = None
  return _LazyModule(name)


@contextlib.contextmanager
def stand_in(name: str) -> Iterator[None]:
  """Gives imports within the context a stand-in instead of the module `name`.

  For a library that imports the module and may never use it. Names that the library
  takes from the module during the library's own import are taken to be for
  annotations, and are `Any`.
  """
  with _IMPORT_LOCK:
    if name in sys.modules:
      yield
      return
    sys.modules[name] = stand_in = _LazyModule(name)
    stand_in.__dict__['_placeholder'] = True
    try:
      yield
    finally:
      del stand_in.__dict__['_placeholder']
      del sys.modules[name]


def load_all() -> None:
  """Imports the modules of all stand-ins made so far.

  Call this before threads start that import TensorFlow: a stand-in's first use
  hides TensorFlow from the whole process for a while.
  """
  for name in _NAMES:
    _load(name)


def _load(name: str) -> types.ModuleType:
  with _IMPORT_LOCK:
    if name in sys.modules:
      return importlib.import_module(name)
    brought: contextlib.AbstractContextManager[None] = (
      contextlib.nullcontext()
      if name == _BROUGHT_ALONG
      else stand_in(_BROUGHT_ALONG)
    )
    with _tensorflow_hidden(), brought:
      return importlib.import_module(name)


class _LazyModule(types.ModuleType):
  def __getattr__(self, attribute: str) -> Any:
    if '_placeholder' in self.__dict__:
      return Any
    loaded = _load(self.__name__)
    value = getattr(loaded, attribute)
    setattr(self, attribute, value)
    return value


@contextlib.contextmanager
def _tensorflow_hidden() -> Iterator[None]:
  """Makes `import tensorflow` fail within the context.

  TensorFlow Probability imports TensorFlow, if there is one, on the way to its own
  JAX half, and raises if TensorFlow is as old as Reverb's. The JAX half does not
  need TensorFlow: with TensorFlow hidden, rlax loads in 2 s and 190 MB instead of
  7 s and 530 MB.
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
