"""The form in which observations and actions lie in a dataset of ours.

Three things differ from the plain arrays, and only where they must:
  An array that Minari would take for a picture has a leading axis of 1, since Minari
    keeps pictures as JPEG, which changes pixels.
  Of a `specs.FrameStack` only the newest frame of each observation is kept.
  Keys of dicts are spelled so that HDF5 takes them.
The first two are noted in the dataset's metadata, by the names of leaves.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
import re
from typing import Any, NamedTuple
import urllib.parse

import numpy as np
import tree

from distacme import specs
from distacme import types
from distacme.environments import leaves as leaves_lib

_LEAST_SIDE = 32  # of an array that Minari takes for a picture
_MOST_FRAMES = 10_000


class LeafForm(NamedTuple):
  """The form of one leaf.

  Attributes:
    frames: in a stack, of which one a step is kept; 0 if the leaf is kept whole.
    extra_axis: whether there is a leading axis of 1, after that of time.
  """

  frames: int = 0
  extra_axis: bool = False

  def stored_spec(self, spec: specs.Array) -> specs.Array:
    """Returns the spec of the values as they are stored."""
    if self.frames:
      spec = _frame_spec(spec)
    return spec.replace(shape=(1, *spec.shape)) if self.extra_axis else spec

  def spec(self, stored: specs.Array) -> specs.Array:
    """Undoes `stored_spec`."""
    if self.extra_axis:
      stored = _row_spec(stored)
    return (
      leaves_lib.stacked_spec(stored, self.frames) if self.frames else stored
    )

  def store(self, leaf: np.ndarray) -> np.ndarray:
    """Returns a leaf [N, ...] as it is stored."""
    if self.frames:
      leaf = leaf[..., -1]
    return leaf[:, np.newaxis] if self.extra_axis else leaf

  def restore(self, leaf: np.ndarray) -> np.ndarray:
    """Undoes `store`."""
    if self.extra_axis:
      leaf = leaf[:, 0]
    return _stacked(leaf, self.frames) if self.frames else leaf


class Form:
  """The form of the nests of one field, like 'observation'."""

  def __init__(
    self,
    field: str,
    spec: types.NestedSpec,
    leaf_forms: Sequence[LeafForm],
    spelled: bool = True,
  ):
    """Takes the forms of the leaves, in the order of `tree`.

    Args:
      field: role of the nests.
      spec: of the nests as agents see them.
      leaf_forms: one for each leaf.
      spelled: whether keys of dicts are spelled for HDF5.
    """
    self.spec = spec
    self._field = field
    self._leaf_forms = tuple(leaf_forms)
    self._spelled = spelled

  @classmethod
  def for_writing(
    cls, field: str, spec: types.NestedSpec, stacks_once: bool
  ) -> Form:
    """Returns the form in which nests of `spec` are written.

    Args:
      field: role of the nests.
      spec: of the nests.
      stacks_once: whether of a stack only the newest frame is kept.
    """
    return cls(
      field,
      spec,
      [_form_for_writing(leaf, stacks_once) for leaf in tree.flatten(spec)],
    )

  @classmethod
  def plain(cls, field: str, spec: types.NestedSpec) -> Form:
    """Returns the form of datasets that are not ours."""
    forms = [LeafForm() for _ in tree.flatten(spec)]
    return cls(field, spec, forms, spelled=False)

  @classmethod
  def from_notes(cls, field: str, stored: types.NestedSpec, notes: Any) -> Form:
    """Returns the form that the notes of a dataset tell of.

    Args:
      field: role of the nests.
      stored: spec of the nests as they are stored.
      notes: as `notes` returned them; they may have been changed.

    Raises:
      ValueError: if they are no such notes.
    """
    stored = _renamed(stored, _key)
    forms, specs_ = [], []
    for name, leaf in specs.named_leaves(field, stored):
      form = _form_from_note(name, leaf, notes)
      forms.append(form)
      specs_.append(form.spec(leaf))
    return cls(field, tree.unflatten_as(stored, specs_), forms)

  def notes(self) -> dict[str, dict[str, Any]]:
    """Returns the forms of the leaves that are not plain, by name, for JSON."""
    names = [name for name, _ in specs.named_leaves(self._field, self.spec)]
    return {
      name: form._asdict()
      for name, form in zip(names, self._leaf_forms, strict=True)
      if form != LeafForm()
    }

  def stored_spec(self) -> types.NestedSpec:
    """Returns the spec of the nests as they are stored."""
    return self._stored(LeafForm.stored_spec, self.spec)

  def store(self, nest: types.NestedArray) -> types.NestedArray:
    """Returns a nest of [N, ...] as it is stored."""
    return self._stored(LeafForm.store, nest)

  def restore(self, nest: types.NestedArray) -> types.NestedArray:
    """Undoes `store`."""
    if self._spelled:
      nest = _renamed(nest, _key)
    return self._mapped(LeafForm.restore, nest)

  def keeps(self, nest: types.NestedArray) -> bool:
    """Returns whether a nest of one whole episode comes back unchanged."""
    return all(
      not form.frames or _is_stacked(leaf, form.frames)
      for form, leaf in zip(self._leaf_forms, tree.flatten(nest), strict=True)
    )

  def _stored(self, function: Callable[..., Any], nest: Any) -> Any:
    return _renamed(self._mapped(function, nest), _spelled_key)

  def _mapped(self, function: Callable[..., Any], nest: Any) -> Any:
    flat = tree.flatten(nest)
    made = map(function, self._leaf_forms, flat)
    return tree.unflatten_as(nest, list(made))


def _form_for_writing(spec: specs.Array, stacks_once: bool) -> LeafForm:
  stack = stacks_once and isinstance(spec, specs.FrameStack)
  form = LeafForm(frames=spec.shape[-1] if stack else 0)
  return form._replace(extra_axis=_may_be_picture(form.stored_spec(spec)))


def _may_be_picture(spec: specs.Array) -> bool:
  """Returns whether some version of Minari may take the values for pictures."""
  return (
    spec.dtype == np.uint8
    and len(spec.shape) in (2, 3)
    and min(spec.shape[:2]) >= _LEAST_SIDE
  )


def _form_from_note(name: str, stored: specs.Array, notes: Any) -> LeafForm:
  if not isinstance(notes, dict):
    raise ValueError(
      f'the notes of {name.partition("[")[0]} are {notes!r:.100}'
    )
  if name not in notes:
    return LeafForm()
  try:
    form = LeafForm(**notes[name])
    right = (
      type(form.extra_axis) is bool
      and type(form.frames) is int
      and 0 <= form.frames <= _MOST_FRAMES
      and (not form.extra_axis or stored.shape[:1] == (1,))
    )
  except TypeError:
    right = False
  if not right:
    raise ValueError(
      f'the note of {name}, which is stored as {list(stored.shape)}, is '
      f'{notes[name]!r:.100}'
    )
  return form


def _frame_spec(stack: specs.FrameStack) -> specs.BoundedArray:
  """Returns the spec of the newest frame of a stack."""
  low, high = (
    np.broadcast_to(bound, stack.shape)[..., -1] if bound.ndim else bound
    for bound in (stack.minimum, stack.maximum)
  )
  return specs.BoundedArray(
    stack.shape[:-1], stack.dtype, low, high, stack.name
  )


def _row_spec(spec: specs.Array) -> specs.Array:
  """Returns the spec of an array's first row."""
  if not isinstance(spec, specs.BoundedArray):
    return spec.replace(shape=spec.shape[1:])
  low, high = (
    np.broadcast_to(bound, spec.shape)[0]
    for bound in (spec.minimum, spec.maximum)
  )
  return spec.replace(shape=spec.shape[1:], minimum=low, maximum=high)


def _stacked(frames: np.ndarray, count: int) -> np.ndarray:
  """Returns stacks [N, ..., count] of frames [N, ...] of one whole episode."""
  stacks = np.zeros((*frames.shape, count), frames.dtype)
  for place in range(count):
    age = count - 1 - place
    stacks[age:, ..., place] = frames[: max(0, len(frames) - age)]
  return stacks


def _is_stacked(stacks: np.ndarray, count: int) -> bool:
  """Returns whether `_stacked` makes the same bits of the newest frames."""
  bits = stacks.view(f'u{stacks.itemsize}')
  newest = bits[..., -1]
  for place in range(count - 1):
    age = count - 1 - place
    older = bits[..., place]
    same = np.array_equal(older[age:], newest[: max(0, len(newest) - age)])
    if not same or older[:age].any():
      return False
  return True


def _renamed(nest: Any, rename: Callable[[str], str]) -> Any:
  """Returns a nest of dicts and tuples with other keys."""
  if isinstance(nest, Mapping):
    return {rename(key): _renamed(each, rename) for key, each in nest.items()}
  if isinstance(nest, (tuple, list)):
    return tuple(_renamed(each, rename) for each in nest)
  return nest


_NO_KEY = '%'  # stands for the key '', which HDF5 lacks
_NOT_IN_KEYS = re.compile(r'[%/\x00]|^\.$')


def _spelled_key(key: Any) -> str:
  """Returns a key as HDF5 takes it; `_key` undoes it."""
  if not isinstance(key, str):
    raise ValueError(
      f'{key!r} is a key of a dict of the environment, and datasets have only '
      'words. Use words.'
    )
  spelled = _NOT_IN_KEYS.sub(lambda match: f'%{ord(match[0]):02X}', key)
  return spelled or _NO_KEY


def _key(spelled: str) -> str:
  return '' if spelled == _NO_KEY else urllib.parse.unquote(spelled)
