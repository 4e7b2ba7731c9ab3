"""Stacks again what replay holds as single frames; runs under `jax.jit`."""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp

from distacme import core
from distacme import types
from distacme.replay.items import frames as frames_lib
from distacme.replay.items import rows


def learning_from(layout: rows.RowLayout, agent: core.Agent) -> core.Agent:
  """Returns the agent whose `update` takes what replay gives by `layout`."""
  return agent if layout.frames is None else _Unpacking(agent, layout.frames)


class _Unpacking:
  """An agent, but for single frames where `update` gets stacks."""

  def __init__(self, agent: core.Agent, layout: frames_lib.FrameLayout):
    self._agent = agent
    self._layout = layout

  def __getattr__(self, name: str) -> Any:
    return getattr(self._agent, name)

  def update(
    self, state: types.LearnerState, batch: types.Batch
  ) -> tuple[types.LearnerState, types.UpdateOutput]:
    """Takes one step of learning."""
    data = unpack(self._layout, batch.data)
    return self._agent.update(state, batch._replace(data=data))


def unpack(layout: frames_lib.FrameLayout, data: Any) -> Any:
  """Returns a batch whose observations are stacks, as the agent saw them.

  Args:
    layout: of the frames.
    data: a `types.Transition` or `types.Sequence` as replay gives it: single
      frames [B, slots, ...] in the place of stacks.
  """
  if isinstance(data, types.Transition):
    assert layout.ends is not None
    at_ends = functools.partial(_last_axis, axis=1 + len(layout.ends))
    return data._replace(
      observation=_map(layout, _last_axis, data.observation),
      next_observation=_map(layout, at_ends, data.next_observation),
    )

  shown = _shown(data.step_type, layout.stack)

  def stack(frames: jax.Array) -> jax.Array:
    length = data.step_type.shape[1]
    lags = [
      _masked(frames[:, oldest : oldest + length], shown[..., oldest])
      for oldest in range(layout.stack)
    ]
    return jnp.stack(lags, axis=-1)

  return data._replace(observation=_map(layout, stack, data.observation))


def _shown(step_type: jax.Array, stack: int) -> jax.Array:
  """Returns which frames of its stack each row shows: [B, L, stack] bool.

  Those from before the row's episode are blank; the newest comes last.
  """
  first = step_type == types.FIRST
  shown = [jnp.ones_like(first)]
  for lag in range(1, stack):
    # No episode starts in the last `lag` rows; what was before the sequence is
    # blank already if it is of another.
    since = jnp.pad(first, ((0, 0), (lag - 1, 0)))[:, : first.shape[1]]
    shown.append(shown[-1] & ~since)
  return jnp.stack(shown[::-1], axis=-1)


def _masked(frames: jax.Array, shown: jax.Array) -> jax.Array:
  return frames * shown.reshape(
    shown.shape + (1,) * (frames.ndim - shown.ndim)
  ).astype(frames.dtype)


def _last_axis(frames: jax.Array, axis: int = 1) -> jax.Array:
  return jnp.moveaxis(frames, axis, -1)


def _map(
  layout: frames_lib.FrameLayout, function: Any, observation: types.NestedArray
) -> types.NestedArray:
  """Applies a function to the leaves that are frames."""
  leaves, structure = jax.tree.flatten(observation)
  for i in layout.indices:
    leaves[i] = function(leaves[i])
  return jax.tree.unflatten(structure, leaves)
