"""Scales bounded continuous actions, for all agents.

`environments.wrappers.CanonicalActions` scales the actions of an environment to
[-1, 1] for users; agents do not need that wrapper.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from distacme import specs
from distacme import types

# The actions that agents for continuous control need, for messages.
NEEDED = (
  'actions that are one array of floats with finite bounds (specs.BoundedArray)'
)


class Bounds:
  """Maps actions of any shape to vectors in [-1, 1], and back.

  Attributes:
    size: elements of an action.
  """

  def __init__(self, spec: types.NestedSpec, agent: str):
    """Takes the action spec, and the agent's name for the message.

    Raises:
      ValueError: if the spec is not of one array of floats with finite bounds.
    """
    if not specs.is_bounded(spec):
      raise ValueError(refusal(spec, f'{agent} needs {NEEDED}'))
    self._shape = spec.shape
    self.size = int(np.prod(spec.shape))
    # JAX has no float64 by default, and dm_control's specs ask for float64.
    self._dtype = jax.dtypes.canonicalize_dtype(spec.dtype)
    self._low, self._high = (
      np.broadcast_to(bound, spec.shape)
      for bound in specs.narrowed(spec, self._dtype)
    )

  def action(self, vector: jax.Array) -> jax.Array:
    """Returns actions in the spec's shape and dtype, given vectors [..., size].

    Elements outside of [-1, 1] are clipped.
    """
    vector = vector.reshape(*vector.shape[:-1], *self._shape)
    low, high = self._like(vector)
    # Halves first: the sum of two large bounds is infinite.
    scaled = low / 2 + high / 2 + (high / 2 - low / 2) * vector
    return jnp.clip(scaled, low, high).astype(self._dtype)

  def vector(self, action: jax.Array) -> jax.Array:
    """Returns vectors [..., size], float32, given actions of the spec's shape."""
    low, high = self._like(action)
    # An element with one possible value has a range of 0; any divisor will do.
    half = jnp.where(high > low, high / 2 - low / 2, 1.0)
    vector = (action - (low / 2 + high / 2)) / half
    lead = action.shape[: action.ndim - len(self._shape)]
    return vector.reshape(*lead, self.size).astype(jnp.float32)

  def _like(self, action: jax.Array) -> tuple[np.ndarray, np.ndarray]:
    """Returns the bounds with as many axes as `action`."""
    lead = (1,) * (action.ndim - len(self._shape))
    return (
      np.reshape(self._low, (*lead, *self._shape)),
      np.reshape(self._high, (*lead, *self._shape)),
    )


def refusal(spec: types.NestedSpec, need: str) -> str:
  """Returns a message with the fault of an action spec and a remedy."""
  if _is_of_floats(spec):
    remedy = (
      'Give them bounds in a wrapper around the environment: class '
      'Bounded(distacme.environments.wrappers.Wrapper): def action_spec(self): '
      f"return specs.BoundedArray({spec.shape}, '{spec.dtype}', -1.0, 1.0)"
    )
  else:
    remedy = (
      'Put a wrapper around the environment that offers them, or choose another '
      'agent'
    )
  return f'{need}, got {_described(spec)}. {remedy}.'


def _is_of_floats(spec: types.NestedSpec) -> bool:
  return (
    isinstance(spec, specs.Array)
    and np.issubdtype(spec.dtype, np.floating)
    and 0 not in spec.shape
  )


def _described(spec: types.NestedSpec) -> str:
  """Returns the fault of a spec in words, by field."""
  if not isinstance(spec, specs.Array):
    return f'the action spec {spec}'
  if isinstance(spec, specs.BoundedArray):
    for name in ('minimum', 'maximum'):
      if not np.isfinite(getattr(spec, name)).all():
        return f'{name}={getattr(spec, name)} in the action spec {spec}'
  if 0 in spec.shape:
    return f'the action spec {spec}, which has no elements'
  if np.issubdtype(spec.dtype, np.floating):
    return f'the action spec {spec}, which has no bounds to speak of'
  return f'dtype={spec.dtype} in the action spec {spec}'
