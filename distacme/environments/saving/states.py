"""A state of objects: each object, and its contents at one time."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
import hashlib
import types
from typing import Any, Protocol

import numpy as np

MAX_BYTES = 4 * 2**20
POINTER_BYTES = 8
_MAX_KNOWN = 256  # before all is forgotten, since old objects may be gone


class NotSaved(Exception):
  """An object cannot be saved.

  Attributes:
    path: from the first object, like '.world.bodies[3]'.
    reason: goes on with the sentence that the path begins.
  """

  def __init__(self, reason: str):
    super().__init__(reason)
    self.path = ''
    self.reason = reason

  def within(self, step: str) -> NotSaved:
    """Adds a step at the path's start."""
    self.path = step + self.path
    return self


class Source(Protocol):
  """An object that is saved by its own means, and may be random."""

  def save(self) -> Any:
    """Returns the object's state."""

  def restore(self, saved: Any, seed: int | None) -> None:
    """Returns to a saved state.

    Args:
      saved: a result of `save`.
      seed: of 31 bits, of all that is random from there on; None restores that, too.
    """


class Known:
  """Remembers from save to save what is slow to find out.

  Attributes:
    sources: the sources of objects by the objects' ids, with the objects.
    functions: functions by their ids, and whether they never change.
  """

  def __init__(self) -> None:
    self.sources: dict[int, tuple[Source, Any]] = {}
    self.functions: dict[int, tuple[types.FunctionType, bool]] = {}

  def forget(self) -> None:
    """Forgets all, if it has become much."""
    if len(self.sources) + len(self.functions) > _MAX_KNOWN:
      self.sources.clear()
      self.functions.clear()


class State:
  """The state of all objects that were visited.

  Objects stay the same objects, and arrays the same arrays: `restore` writes their
  contents back, so that all who share them see it. What is saved is never changed.

  Attributes:
    known: of the states before.
    handlers: functions (state, object) by the object's type; None for constants.
    attributes: [(object, its attributes)].
    arrays: [(array, copy)].
    lists: [(list, copy)].
    others: [(function that restores, its argument)].
    sources: [(source, what it saved)].
  """

  def __init__(self, known: Known, handlers: Handlers):
    self.known = known
    self.handlers = handlers
    self.attributes: list[tuple[Any, dict[str, Any]]] = []
    self.arrays: list[tuple[np.ndarray, np.ndarray]] = []
    self.lists: list[tuple[list[Any], list[Any]]] = []
    self.others: list[tuple[Callable[[Any], object], Any]] = []
    self.sources: list[tuple[Source, Any]] = []
    # Ids stay theirs: the lists above keep the objects alive.
    self._seen: set[int] = set()
    self._num_bytes = 0

  def restore(self, seed: int | None) -> None:
    """Writes all contents back; a seed replaces the state of what is random."""
    for owner, content in self.attributes:
      attributes = owner.__dict__
      attributes.update(content)
      if len(attributes) != len(content):  # More attributes have come.
        attributes.clear()
        attributes.update(content)
    for array, copy in self.arrays:
      array[...] = copy
    for items, copied in self.lists:
      items[:] = copied
    for restore, argument in self.others:
      restore(argument)
    for number, (source, saved) in enumerate(self.sources):
      source.restore(saved, None if seed is None else _hashed(seed, number))

  def is_new(self, value: Any) -> bool:
    """Returns whether `value` comes for the first time."""
    number = id(value)
    if number in self._seen:
      return False
    self._seen.add(number)
    return True

  def add_bytes(self, num_bytes: int) -> None:
    """Counts a part of the state.

    Raises:
      NotSaved: if the state has become too large.
    """
    self._num_bytes += num_bytes
    if self._num_bytes > MAX_BYTES:
      raise NotSaved(
        f'brings its state above {MAX_BYTES >> 20} MiB, too much to save in '
        'every step of a search'
      )

  def visit(self, values: Iterable[Any]) -> None:
    """Saves the elements of a sequence."""
    position = 0
    try:
      for value in values:
        handler = self.handlers[type(value)]
        if handler:
          handler(self, value)
        position += 1
    except NotSaved as error:
      raise error.within(f'[{position}]') from None

  def visit_attributes(self, content: Mapping[str, Any]) -> None:
    """Saves the values of attributes or of variables."""
    try:
      for name, value in content.items():  # noqa: B007, the error names it
        handler = self.handlers[type(value)]
        if handler:
          handler(self, value)
    except NotSaved as error:
      raise error.within(f'.{name}') from None


def _hashed(seed: int, number: int) -> int:
  """Returns a seed of 31 bits for one source.

  Hashing keeps sources apart, and a search from the seed that made the environment.
  """
  digest = hashlib.blake2b(b'%d,%d' % (seed, number), digest_size=4).digest()
  return int.from_bytes(digest, 'little') >> 1


Handler = Callable[[State, Any], None]
Handlers = Mapping[type, Handler | None]
