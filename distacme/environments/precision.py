"""Narrows values to the 32 bits that specs promise (`specs.in_32_bits`).

An integer that does not fit raises ValueError, and so does a finite float
beyond float32.
"""

from __future__ import annotations

from collections.abc import Callable
import math
from typing import Any

import numpy as np
import tree

from distacme import specs
from distacme import types
from distacme.environments import checks


def reader(spec: specs.Array, name: str) -> Callable[[Any], np.ndarray]:
  """Returns the conversion of values to the dtype of `spec`.

  A value of another kind or size stays as it is: `checks` then reports that it
  breaks the spec.

  Args:
    spec: in 32 bits.
    name: of the value, for messages.

  Returns:
    A function that raises ValueError for a value that does not fit.
  """
  dtype = spec.dtype
  kinds = 'iu' if dtype.kind in 'iu' else dtype.kind
  convert = _float if dtype.kind == 'f' else _integer

  def read(value: Any) -> np.ndarray:
    array = np.asarray(value)
    if array.dtype == dtype:
      return array
    if array.dtype.newbyteorder('=') == dtype:
      return array.astype(dtype)
    if dtype.itemsize == 4 and array.dtype.kind in kinds and array.itemsize > 4:
      return convert(array, dtype, name)
    return array

  return read


def nest_function(
  functions: Any, structure: types.NestedSpec, field: str
) -> Callable[[types.NestedArray], types.NestedArray]:
  """Returns a function of nests from functions of their leaves.

  Args:
    functions: a nest of functions, or one function.
    structure: the specs of the nests.
    field: name of the nests, for messages.
  """
  if callable(functions):
    return functions
  flat = tree.flatten(functions)

  def of_nest(nest: types.NestedArray) -> types.NestedArray:
    leaves = checks.flatten(field, structure, nest)
    return tree.unflatten_as(
      structure, [f(leaf) for f, leaf in zip(flat, leaves, strict=True)]
    )

  return of_nest


def nest_reader(
  spec: types.NestedSpec, field: str
) -> Callable[[types.NestedArray], types.NestedArray]:
  """Returns the conversion of nests to the dtypes of `spec`; see `reader`."""
  leaves = [
    reader(leaf, name) for name, leaf in specs.named_leaves(field, spec)
  ]
  return nest_function(tree.unflatten_as(spec, leaves), spec, field)


def _integer(array: np.ndarray, dtype: np.dtype, name: str) -> np.ndarray:
  narrow = array.astype(dtype)
  if not array.ndim:  # Comparing scalars takes a third of the time.
    fits = narrow.item() == array.item()
  else:
    fits = not (narrow != array).any()
  if not fits:
    bounds = np.iinfo(dtype)
    raise ValueError(
      f'{name} is {array[narrow != array].flat[0]}, which is not in the '
      f'[{bounds.min}, {bounds.max}] of {dtype}, and JAX computes with 32-bit '
      'integers. Let the environment scale it, or give it as a float32.'
    )
  return narrow


def _float(array: np.ndarray, dtype: np.dtype, name: str) -> np.ndarray:
  narrow = array.astype(dtype)
  # A sum is the fastest sign that an element may be infinite.
  if not math.isfinite(np.add.reduce(narrow, axis=None)):
    lost = np.isinf(narrow) & np.isfinite(array)
    if lost.any():
      raise ValueError(
        f'{name} is {array[lost].flat[0]}, beyond float32, in which agents '
        'compute. Let the environment scale or clip it.'
      )
  return narrow
