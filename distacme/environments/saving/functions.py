"""Saves functions by the variables that they close over: handlers for `states`."""

from __future__ import annotations

from collections.abc import Iterable
import contextlib
import dis
import functools
import random
import types
from typing import Any

import numpy as np

from distacme.environments.saving import states


def save_function(state: states.State, function: types.FunctionType) -> None:
  """Saves the variables of outer functions, attributes and default arguments."""
  known = state.known.functions.get(id(function))
  if known is None:
    constant = _is_constant(state.handlers, function, frozenset())
    # The function is kept, too, lest another one get its id.
    known = state.known.functions[id(function)] = function, constant
  if (known[1] and not function.__dict__) or not state.is_new(function):
    return
  for name, cell in zip(
    function.__code__.co_freevars, function.__closure__ or (), strict=True
  ):
    _save_cell(state, name, cell)
  state.visit(_defaults(function))
  if function.__dict__:
    content = function.__dict__.copy()
    state.attributes.append((function, content))
    state.visit_attributes(content)


def save_method(state: states.State, method: Any) -> None:
  """Saves the object of a bound method."""
  state.visit_attributes({'__self__': method.__self__})


def save_partial(state: states.State, partial: functools.partial[Any]) -> None:
  """Saves a function and its arguments."""
  state.visit((partial.func, *partial.args, *partial.keywords.values()))


def save_module(state: states.State, module: types.ModuleType) -> None:
  """Takes modules as constants, except those that are generators themselves."""
  del state
  if module in (random, np.random):
    raise states.NotSaved(
      f'is the module {module.__name__}, whose random numbers the whole process '
      'shares; use a generator of its own, such as np.random.RandomState(seed)'
    )


def _save_cell(state: states.State, name: str, cell: types.CellType) -> None:
  """Saves a variable of an outer function."""
  if not state.is_new(cell):
    return
  try:
    content = cell.cell_contents
  except ValueError:  # It has no value as yet.
    state.others.append((_empty, cell))
    return
  fill = functools.partial(setattr, cell, 'cell_contents')
  state.others.append((fill, content))
  state.visit_attributes({name: content})


def _empty(cell: types.CellType) -> None:
  with contextlib.suppress(ValueError):  # It is empty still.
    del cell.cell_contents


def _is_constant(
  handlers: states.Handlers, value: Any, within: frozenset[int]
) -> bool:
  """Returns whether a value never changes.

  Args:
    handlers: of all types.
    value: anything; a function is constant if what it closes over is.
    within: ids of the functions that close over the value.
  """
  handler = handlers[type(value)]
  if handler is None or id(value) in within:
    return True
  if isinstance(value, (tuple, frozenset)):
    return all(_is_constant(handlers, item, within) for item in value)
  if not isinstance(value, types.FunctionType) or value.__dict__:
    return False
  if _assigns(value.__code__, value.__code__.co_freevars):
    return False
  try:
    contents = [cell.cell_contents for cell in value.__closure__ or ()]
  except ValueError:  # One has no value as yet.
    return False
  within = within | {id(value)}
  return all(
    _is_constant(handlers, content, within)
    for content in (*contents, *_defaults(value))
  )


def _assigns(code: types.CodeType, names: Iterable[str]) -> bool:
  """Returns whether code, or a function in it, assigns to outer variables."""
  names = set(names).intersection(code.co_freevars)
  return any(
    instruction.opname in ('STORE_DEREF', 'DELETE_DEREF')
    and instruction.argval in names
    for instruction in dis.get_instructions(code)
  ) or any(
    _assigns(inner, names)
    for inner in code.co_consts
    if isinstance(inner, types.CodeType)
  )


def _defaults(function: types.FunctionType) -> tuple[Any, ...]:
  """Returns the values of arguments that a call may leave out."""
  named = function.__kwdefaults__ or {}
  return *(function.__defaults__ or ()), *named.values()
