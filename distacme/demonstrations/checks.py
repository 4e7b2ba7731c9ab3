"""Holds recorded episodes against the specs of an environment."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import tree

from distacme import specs
from distacme import types
from distacme.demonstrations import episodes


def checked(
  episode: episodes.Episode, spec: specs.EnvironmentSpec, name: str
) -> episodes.Episode:
  """Returns an episode in the dtypes of the specs, or raises ValueError."""
  episodes.check_lengths(episode, name)
  discounts = _narrowed('discounts', episode.discounts, np.float32, name)
  if isinstance(spec.discounts, specs.BoundedArray):
    _check_bounds('discounts', discounts, spec.discounts, name)
  return episodes.Episode(
    _checked_nest(
      'observations', episode.observations, spec.observations, name
    ),
    _checked_nest('actions', episode.actions, spec.actions, name),
    _narrowed('rewards', episode.rewards, np.float32, name),
    discounts,
  )


def _checked_nest(
  field: str, nest: types.NestedArray, spec: types.NestedSpec, name: str
) -> types.NestedArray:
  _check_structure(f'{field} of {name}', nest, spec)
  leaves = [
    _checked_leaf(leaf_name, leaf, leaf_spec, name)
    for (leaf_name, leaf), leaf_spec in zip(
      specs.named_leaves(field, nest), tree.flatten(spec), strict=True
    )
  ]
  return tree.unflatten_as(spec, leaves)


def _checked_leaf(
  leaf_name: str, leaf: np.ndarray, spec: specs.Array, name: str
) -> np.ndarray:
  if leaf.shape[1:] != spec.shape or not _is_convertible(
    leaf.dtype, spec.dtype
  ):
    raise ValueError(
      f'{leaf_name} of {name} are {leaf.dtype}{list(leaf.shape[1:])}, and the '
      f"environment's are {spec.dtype}{list(spec.shape)}. {_SAME_ENVIRONMENT}"
    )
  if isinstance(spec, specs.BoundedArray):
    _check_bounds(leaf_name, leaf, spec, name)
  return _narrowed(leaf_name, leaf, spec.dtype, name)


def _narrowed(
  leaf_name: str, leaf: np.ndarray, dtype: Any, name: str
) -> np.ndarray:
  """Returns numbers in a dtype that can hold them, or raises ValueError."""
  with np.errstate(over='ignore', invalid='ignore'):
    made: np.ndarray = np.asarray(leaf).astype(dtype, copy=False)
  if made.dtype.kind == 'f':
    wrong = ~np.isfinite(made)
  else:
    wrong = made != leaf  # an integer that wrapped
  if wrong.any():
    # Observations may be infinite where their spec says so, but never learnt from.
    raise ValueError(
      f'{leaf_name} of {name} hold {leaf[wrong][0]}, from which nothing can be '
      f'learnt in {made.dtype}. Leave the episode out.'
    )
  return made


def _is_convertible(dtype: np.dtype[Any], to: np.dtype[Any]) -> bool:
  """Returns whether numbers of one kind may become those of another.

  Integers of any sign and size may: their values are looked at.
  """
  integers = dtype.kind in 'iu' and to.kind in 'iu'
  return integers or np.can_cast(dtype, to, 'same_kind')


# Actions at a bound, recorded in another precision, are beyond it by this much.
_ROUNDING = 1e-5


def _check_bounds(
  leaf_name: str, leaf: np.ndarray, spec: specs.BoundedArray, name: str
) -> None:
  low, high = np.asarray(spec.minimum), np.asarray(spec.maximum)
  slack = np.zeros(())
  if leaf.dtype.kind == 'f':
    with np.errstate(over='ignore', invalid='ignore'):
      size = np.where(np.isfinite(high - low), high - low, 0.0)
    slack = _ROUNDING * size
  beyond = (leaf < low - slack) | (leaf > high + slack)
  if beyond.any():
    least, most = (
      np.broadcast_to(b, leaf.shape)[beyond][0] for b in (low, high)
    )
    raise ValueError(
      f'{leaf_name} of {name} hold {leaf[beyond][0]}, and there those of the '
      f'environment are from {least} to {most}. '
      f'{_SAME_ENVIRONMENT}'
    )


def _check_structure(name: str, found: Any, want: Any) -> None:
  try:
    tree.assert_same_structure(want, found, check_types=False)
    tree.flatten_up_to(want, found, check_types=False)  # compares keys
  except (TypeError, ValueError) as error:
    raise ValueError(
      f'{name} are {_form(found)}, and those of the environment are '
      f'{_form(want)}. {_SAME_ENVIRONMENT}'
    ) from error


def _form(nest: Any) -> str:
  """Returns a nest's form in short: names in place of leaves."""
  if isinstance(nest, Mapping):
    inner = ', '.join(f'{key!r}: {_form(each)}' for key, each in nest.items())
    return f'{{{inner}}}'
  if isinstance(nest, (tuple, list)):
    return f'({", ".join(map(_form, nest))})'
  return 'an array'


def check_specs(
  field: str, theirs: types.NestedSpec, ours: types.NestedSpec, source: str
) -> None:
  """Checks that a source's specs are those of the environment.

  Bounds of observations may differ: the values are held against ours. Those of
  actions must not, as they say what an action does, nor may the number of values
  of anything discrete.

  Raises:
    ValueError: if they differ; the message names the leaf and both specs.
  """
  _check_structure(f'{field}s of {source}', theirs, ours)
  for (leaf_name, leaf), our_leaf in zip(
    specs.named_leaves(field, theirs), tree.flatten(ours), strict=True
  ):
    if not _alike(leaf, our_leaf, bounds=field == 'action'):
      raise ValueError(
        f"{leaf_name} of {source} is {_described(leaf)}, and the environment's "
        f'is {_described(our_leaf)}. {_SAME_ENVIRONMENT}'
      )


def _described(spec: specs.Array) -> str:
  """Returns a spec in short."""
  if isinstance(spec, specs.DiscreteArray):
    return f'one of {spec.num_values} values'
  form = f'{spec.dtype}{list(spec.shape)}'
  if isinstance(spec, specs.BoundedArray):
    form += f' from {np.min(spec.minimum):.6g} to {np.max(spec.maximum):.6g}'
  return form


def _alike(theirs: specs.Array, ours: specs.Array, bounds: bool) -> bool:
  if theirs.shape != ours.shape or not _is_convertible(
    theirs.dtype, ours.dtype
  ):
    return False
  discrete = isinstance(theirs, specs.DiscreteArray) and isinstance(
    ours, specs.DiscreteArray
  )
  compared = bounds or discrete
  if not compared or not isinstance(ours, specs.BoundedArray):
    return True
  return (
    isinstance(theirs, specs.BoundedArray)
    and isinstance(theirs, specs.DiscreteArray)
    == isinstance(ours, specs.DiscreteArray)
    and np.allclose(theirs.minimum, ours.minimum, rtol=_ROUNDING)
    and np.allclose(theirs.maximum, ours.maximum, rtol=_ROUNDING)
  )


_SAME_ENVIRONMENT = (
  'Give episodes as the environment of the run has them, its wrappers included.'
)
