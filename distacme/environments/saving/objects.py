"""Saves instances of Python classes, containers and arrays: handlers for `states`."""

from __future__ import annotations

import collections
from collections.abc import Iterable
from typing import Any

import numpy as np

from distacme.environments.saving import states


def save_instance(state: states.State, value: Any) -> None:
  """Saves an object by its attributes."""
  if state.is_new(value):
    content = value.__dict__.copy()
    state.attributes.append((value, content))
    state.visit_attributes(content)


def except_constants(names: Iterable[str]) -> states.Handler:
  """Returns the handler of objects whose attributes `names` are constant."""
  constant = frozenset(names)

  def handle(state: states.State, value: Any) -> None:
    if state.is_new(value):
      content = value.__dict__.copy()
      state.attributes.append((value, content))
      state.visit_attributes(
        {k: v for k, v in content.items() if k not in constant}
      )

  return handle


def with_slots(names: tuple[str, ...]) -> states.Handler:
  """Returns the handler of objects that have slots, and perhaps attributes."""

  def handle(state: states.State, value: Any) -> None:
    if not state.is_new(value):
      return

    def restore(content: dict[str, Any]) -> None:
      for name in names:
        if name in content:
          object.__setattr__(value, name, content[name])
        elif hasattr(value, name):
          object.__delattr__(value, name)

    content = {n: getattr(value, n) for n in names if hasattr(value, n)}
    state.others.append((restore, content))
    state.visit_attributes(content)
    if hasattr(value, '__dict__'):
      attributes = value.__dict__.copy()
      state.attributes.append((value, attributes))
      state.visit_attributes(attributes)

  return handle


def save_array(state: states.State, array: np.ndarray) -> None:
  """Saves an array of numbers."""
  if not state.is_new(array):
    return
  if array.dtype.hasobject:
    raise states.NotSaved('is a numpy array of objects; use a list')
  if array.flags.writeable:
    state.add_bytes(array.nbytes)
    state.arrays.append((array, array.copy()))
  elif isinstance(array.base, np.ndarray):
    # What cannot be written may change through the array whose memory it shows.
    state.handlers[type(array.base)](state, array.base)  # type: ignore[misc]


def save_list(state: states.State, items: list[Any]) -> None:
  """Saves a list."""
  if state.is_new(items):
    state.add_bytes(states.POINTER_BYTES * len(items))
    content = items.copy()
    state.lists.append((items, content))
    state.visit(content)


def save_dict(state: states.State, items: dict[Any, Any]) -> None:
  """Saves a dict, and the order of its keys."""
  if not state.is_new(items):
    return

  def restore(content: dict[Any, Any]) -> None:
    items.clear()
    items.update(content)

  state.add_bytes(3 * states.POINTER_BYTES * len(items))
  content = dict(items)
  state.others.append((restore, content))
  state.visit(content)
  key = None
  try:
    for key, value in content.items():  # noqa: B007, the error names it
      handler = state.handlers[type(value)]
      if handler:
        handler(state, value)
  except states.NotSaved as error:
    raise error.within(f'[{key!r}]') from None
  if isinstance(items, collections.defaultdict):
    state.visit((items.default_factory,))


def save_deque(state: states.State, items: collections.deque[Any]) -> None:
  """Saves a deque."""
  if not state.is_new(items):
    return

  def restore(content: tuple[Any, ...]) -> None:
    items.clear()
    items.extend(content)

  state.add_bytes(states.POINTER_BYTES * len(items))
  content = tuple(items)
  state.others.append((restore, content))
  state.visit(content)


def save_set(state: states.State, items: set[Any]) -> None:
  """Saves a set. A set that has changed may come back in another order."""
  if not state.is_new(items):
    return

  def restore(content: set[Any]) -> None:
    if items != content:
      items.clear()
      items.update(content)

  state.add_bytes(states.POINTER_BYTES * len(items))
  content = items.copy()
  state.others.append((restore, content))
  state.visit(content)
