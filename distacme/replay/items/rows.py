"""Rows: one window packed into one run of bytes.

Replay moves and stores bytes, and knows nothing of their leaves. A row is one element
of a numpy structured array; packing and unpacking are views, not copies.
"""

from __future__ import annotations

from collections.abc import Callable
import functools
import operator
from typing import Any

import numpy as np
import tree

from distacme import replay_spec
from distacme import specs
from distacme import types
from distacme.replay.items import frames as frames_lib

PARAMS_VERSION = 'params_version'  # a field that no agent sees


class RowLayout:
  """The place of each leaf of a window in a row; immutable."""

  def __init__(self, nest: Any, frames: frames_lib.FrameLayout | None = None):
    """Lays out windows.

    Args:
      nest: a `types.Transition` or `types.Sequence` of specs, without batch axis.
      frames: layout of the frames, which travel beside the rows and are not in
        `nest`.
    """
    self.nest = nest
    self.frames = frames
    leaves = tree.flatten_with_path(nest)
    self._names = ['/'.join(map(_escaped, path)) for path, _ in leaves]
    fields = [
      (name, leaf.dtype, leaf.shape)
      for name, (_, leaf) in zip(self._names, leaves, strict=True)
    ]
    fields.append((PARAMS_VERSION, np.dtype(np.int64), ()))
    if frames is not None:
      fields.append((frames_lib.FRAMES_BEFORE, np.dtype(np.uint8), ()))
    self.dtype = np.dtype(fields, align=True)
    places = tree.unflatten_as(nest, list(range(len(leaves))))
    self._read = _reader(places, self._names)

  @property
  def itemsize(self) -> int:
    """Bytes of one row."""
    return self.dtype.itemsize

  def views(self, rows: np.ndarray) -> Any:
    """Returns views on the leaves of `rows`, structured; each [*rows.shape, ...]."""
    return self._read(rows)

  def read(self, rows: np.ndarray, frames: frames_lib.Frames | None) -> Any:
    """Returns the data of a batch of rows [B], each leaf [B, ...].

    Args:
      rows: structured.
      frames: of each row, uint8 [frame_bytes] each; None if the layout has none.
    """
    data = self.views(rows)
    if self.frames is None:
      return data
    assert frames is not None
    before = rows[frames_lib.FRAMES_BEFORE]
    return self.frames.put(data, self.frames.gather(frames, before))

  def example(self, size: int) -> Any:
    """Returns a batch of zeros, each leaf [size, ...]."""
    rows = np.zeros(size, self.dtype)
    if self.frames is None:
      return self.views(rows)
    frame = np.zeros(self.frames.dtype.itemsize, np.uint8)
    return self.read(rows, [[frame]] * size)

  def from_bytes(self, items: np.ndarray) -> np.ndarray:
    """Returns the rows [N, block_size] of items, without a copy.

    Args:
      items: uint8 [N, block_size * itemsize].

    Raises:
      ValueError: if the items were written with another layout.
    """
    if items.shape[-1] % self.itemsize:
      raise ValueError(
        f'replay holds items of {items.shape[-1]} bytes, this agent and '
        f'environment need a multiple of {self.itemsize}: actors and learner '
        'do not agree about the environment spec, or what `act` stores. Give '
        'all of them the same.'
      )
    return items.view(self.dtype)


def make_layout(
  window: replay_spec.Window,
  spec: specs.EnvironmentSpec,
  extras: types.NestedSpec = (),
  start_state: types.NestedSpec = (),
  share_frames: bool = True,
) -> RowLayout:
  """Returns the layout of an agent's windows.

  Args:
    window: of the agent's replay.
    spec: of the environment.
    extras: specs of `types.ActorOutput.extras`, without batch axis.
    start_state: specs of `types.ActorOutput.start_state`, without batch axis.
    share_frames: whether windows share the frames of stacked observations.
  """
  observations = spec.observations
  frames = None
  if share_frames:
    frames = frames_lib.make_layout(observations, window)
  if frames is not None:
    observations = frames.without_frames(observations)
  scalar = specs.Array((), np.float32)
  if isinstance(window, replay_spec.NStep):
    at_ends = functools.partial(_repeated, window.ends)
    return RowLayout(
      types.Transition(
        observation=observations,
        action=spec.actions,
        reward=at_ends(scalar),
        discount=at_ends(scalar),
        next_observation=tree.map_structure(at_ends, observations),
        extras=extras,
      ),
      frames,
    )
  rows = types.Sequence(
    observation=observations,
    action=spec.actions,
    reward=scalar,
    discount=scalar,
    step_type=specs.Array((), np.int8),
    extras=extras,
  )
  rows = tree.map_structure(
    functools.partial(_repeated, (window.length,)), rows
  )
  return RowLayout(rows._replace(start_state=start_state), frames)


def _reader(node: Any, names: list[str]) -> Callable[[np.ndarray], Any]:
  """Returns a function from rows to a nest of their fields.

  Traversing a nest for every batch and every step would take several times as long.

  Args:
    node: nest of places in `names`.
    names: of the fields.
  """
  if isinstance(node, int):
    return operator.itemgetter(names[node])
  if isinstance(node, dict):
    parts = {key: _reader(value, names) for key, value in node.items()}
    return lambda rows: {key: read(rows) for key, read in parts.items()}
  if isinstance(node, tuple):
    make = getattr(node, '_make', tuple)
    reads = [_reader(value, names) for value in node]
    return lambda rows: make([read(rows) for read in reads])
  return lambda rows: tree.map_structure(lambda i: rows[names[i]], node)


def _repeated(axes: tuple[int, ...], leaf: specs.Array) -> specs.Array:
  return specs.Array((*axes, *leaf.shape), leaf.dtype)


def _escaped(key: Any) -> str:
  """Returns a key with slashes escaped, as in JSON pointers (RFC 6901)."""
  return str(key).replace('~', '~0').replace('/', '~1')


def spec_like(nest: Any) -> types.NestedSpec:
  """Returns specs of the rows of a batched nest: shape without axis 0, dtype."""
  return tree.map_structure(
    lambda leaf: specs.Array(leaf.shape[1:], np.dtype(leaf.dtype)), nest
  )
