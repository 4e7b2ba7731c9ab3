"""Says how each type of object is saved, and which types are refused.

Types that keep their state in C, and are not known here, are refused: that is better
than to restore a part.
"""

from __future__ import annotations

import collections
from collections.abc import Callable
import datetime
import decimal
import enum
import fractions
import functools
import inspect
import logging
import pathlib
import random
import re
import types
from typing import Any

import dm_env
import numpy as np

from distacme.environments.saving import functions
from distacme.environments.saving import objects
from distacme.environments.saving import random_sources
from distacme.environments.saving import states


def save(root: Any, known: states.Known) -> states.State:
  """Returns the state of `root` and of all objects that it holds.

  Args:
    root: the first object.
    known: from earlier calls with the same root.

  Raises:
    NotSaved: if an object cannot be saved.
  """
  known.forget()
  state = states.State(known, _HANDLERS)
  handler = _HANDLERS[type(root)]
  if handler:
    handler(state, root)
  return state


def saves_itself(kind: type) -> bool:
  """Returns whether instances have the methods of a `core.Simulator`.

  Looks at the class: a wrapper passes on the methods of its environment, and these do
  not save the wrapper.
  """
  methods = getattr(kind, 'save', None), getattr(kind, 'restore', None)
  if not all(map(callable, methods)):
    return False
  try:
    inspect.signature(kind.save).bind(None)  # type: ignore[attr-defined]
    inspect.signature(kind.restore).bind(None, None, seed=None)  # type: ignore[attr-defined]
  except (TypeError, ValueError):
    return False  # They do something else, such as writing a file.
  return True


class _Emulator:
  """Atari's emulator in ale_py, without chance: a `states.Source`."""

  def __init__(self, ale: Any):
    """Takes an ALEInterface.

    Raises:
      NotSaved: if actions stick.
    """
    if ale.getFloat('repeat_action_probability'):
      raise states.NotSaved(
        "is an emulator with sticky actions, and ale_py's states lack the action "
        'that sticks. Make the game without, as in '
        "'gymnasium:ale_py:ALE/Pong-v5?repeat_action_probability=0'"
      )
    self._ale = ale

  def save(self) -> Any:
    """Returns the emulator's state."""
    return self._ale.cloneState()

  def restore(self, saved: Any, seed: int | None) -> None:
    """Returns to a saved state."""
    del seed
    self._ale.restoreState(saved)


def _by_source(make: Callable[[Any], states.Source]) -> states.Handler:
  """Returns the handler of objects whose sources `make` makes."""

  def handle(state: states.State, value: Any) -> None:
    if not state.is_new(value):
      return
    known = state.known.sources.get(id(value))
    if known is None:
      # The object is kept, too, lest another one get its id.
      known = state.known.sources[id(value)] = make(value), value
    source, _ = known
    state.sources.append((source, source.save()))

  return handle


def _save_space(state: states.State, space: Any) -> None:
  """Saves the generator of a Gymnasium space; the rest is constant."""
  if not state.is_new(space):
    return
  generator = space.__dict__.get('_np_random')
  fill = functools.partial(setattr, space, '_np_random')
  state.others.append((fill, generator))
  state.visit_attributes({'_np_random': generator})
  inner = space.__dict__.get('spaces', ())
  state.visit(inner.values() if isinstance(inner, dict) else inner)


def _refuse(state: states.State, value: Any) -> None:
  """Refuses a type."""
  del state
  kind = type(value)
  module = getattr(kind, '__module__', 'C')
  raise states.NotSaved(
    f'is of type {module}.{kind.__qualname__}, whose state cannot be read'
  )


_VALUES = (
  types.NoneType, bool, int, float, complex, str, bytes, range, slice, re.Pattern,
  datetime.date, datetime.timedelta, decimal.Decimal, fractions.Fraction,
  pathlib.PurePath, types.EllipsisType, np.bool_, np.number, np.character,
)  # fmt: skip
_CONSTANTS = (
  type, enum.Enum, types.CodeType, logging.Logger, np.dtype, np.ufunc,
  dm_env.specs.Array,
)  # fmt: skip
_BY_TYPE: dict[type, states.Handler] = {
  np.ndarray: objects.save_array,
  list: objects.save_list,
  dict: objects.save_dict,
  collections.OrderedDict: objects.save_dict,
  collections.defaultdict: objects.save_dict,
  collections.Counter: objects.save_dict,
  collections.deque: objects.save_deque,
  set: objects.save_set,
  frozenset: states.State.visit,
  types.FunctionType: functions.save_function,
  types.MethodType: functions.save_method,
  types.BuiltinFunctionType: functions.save_method,
  types.ModuleType: functions.save_module,
  functools.partial: functions.save_partial,
  random.Random: _by_source(random_sources.PythonRandom),
  np.random.RandomState: _by_source(random_sources.NumpyRandomState),
  np.random.Generator: _by_source(random_sources.NumpyGenerator),
}
# By module and name, since the library may be absent.
_BY_NAME: dict[tuple[str, str], states.Handler | None] = {
  ('gymnasium.spaces.space', 'Space'): _save_space,
  ('gymnasium.envs.registration', 'EnvSpec'): None,
  ('ale_py._ale_py', 'ALEInterface'): _by_source(_Emulator),
}
# Gymnasium documents these as the rules of the game, which do not change.
_RULES = ('P', 'desc', 'initial_state_distrib')


def _handler_of(kind: type) -> states.Handler | None:
  """Returns the handler of a type, None for constants."""
  if kind in _BY_TYPE:
    return _BY_TYPE[kind]
  if issubclass(kind, tuple) and not kind.__dictoffset__:
    return states.State.visit
  if issubclass(kind, _CONSTANTS) or (
    issubclass(kind, _VALUES) and not kind.__dictoffset__
  ):
    return None
  if issubclass(kind, np.random.BitGenerator):
    return _by_source(random_sources.NumpyGenerator)
  # Some types made in C have no module.
  modules = [str(getattr(base, '__module__', '')) for base in kind.__mro__]
  for module, base in zip(modules, kind.__mro__, strict=True):
    if (module, base.__name__) in _BY_NAME:
      return _BY_NAME[module, base.__name__]
  if modules[0].partition('.')[0] == 'pygame':
    return None  # Pictures and their clock: no step depends on what is drawn.
  if saves_itself(kind):
    return _by_source(lambda value: value)
  slots = tuple(
    name
    for base in kind.__mro__
    for name, member in vars(base).items()
    if isinstance(member, types.MemberDescriptorType)
  )
  if not _is_plain(kind, len(slots)):
    return _refuse
  if slots:
    return objects.with_slots(slots)
  if any(name.startswith('gymnasium.envs.toy_text.') for name in modules):
    return objects.except_constants(_RULES)
  return objects.save_instance


def _is_plain(kind: type, num_slots: int) -> bool:
  """Returns whether instances hold attributes, slots, and nothing in C."""
  # Offsets are negative where Python keeps the field in front of the object.
  fields = (kind.__dictoffset__ > 0) + (kind.__weakrefoffset__ > 0) + num_slots
  size = object.__basicsize__ + states.POINTER_BYTES * fields
  return (
    kind.__itemsize__ == 0
    and kind.__basicsize__ == size
    and bool(kind.__dictoffset__ or num_slots)
  )


class _Handlers(dict[type, states.Handler | None]):
  """Handlers by type, each found when the first object of its type comes."""

  def __missing__(self, kind: type) -> states.Handler | None:
    handler = self[kind] = _handler_of(kind)
    return handler


_HANDLERS = _Handlers()
