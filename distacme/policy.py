"""An agent's `act`, compiled and fed in the cheapest way the CPU knows.

Measured with an MLP on one core: 15 us a call like this, 0.7 ms written
plainly. What makes the difference is that nothing runs eagerly: params go to
the device once per version, keys are split in blocks, observations enter and
actions leave as numpy arrays.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from distacme import core
from distacme import types

_KEYS_PER_BLOCK = 256


class Policy:
  """Acts for `batch_size` environments with the newest params; one thread."""

  def __init__(
    self,
    agent: core.Agent,
    source: core.ParamsSource,
    batch_size: int,
    key: types.Key,
    streams: types.Streams | None = None,
  ):
    """Prepares to act.

    Args:
      agent: whose `act` to use.
      source: of params; asked before every action.
      batch_size: B, environments acted for.
      key: consumed; decides all exploration.
      streams: see `core.Agent.initial_actor_state`; None evaluates.
    """
    self.version = -1  # of the params that acted last
    self._source = source
    self._params: Any = None
    self._initial_state, self._state_structure = jax.tree.flatten(
      agent.initial_actor_state(batch_size, streams)
    )
    self._state = jax.device_put(self._initial_state)
    self._key = key
    self._keys = np.empty((0, 2), np.uint32)
    self._next_key = 0
    self._structure: Any = None
    self._act = jax.jit(self._flat_act)
    self._agent = agent

  @property
  def ready(self) -> bool:
    """Whether there are params to act with."""
    return self._source.newest() is not None

  def act(self, observation: Any, first: np.ndarray) -> types.ActorOutput:
    """Returns actions, extras and values as numpy arrays [B, ...].

    Args:
      observation: nest of [B, ...].
      first: [B] bool, rows where an episode starts: their state is reset.
    """
    self._refresh_params()
    if self._next_key == len(self._keys):
      self._draw_keys()
    key = self._keys[self._next_key]
    self._next_key += 1
    leaves, changed = self._act(
      self._params, key, observation, self._state, first
    )
    self._state = [
      old if new is None else new
      for old, new in zip(self._state, changed, strict=True)
    ]
    return jax.tree.unflatten(
      self._structure, [np.asarray(leaf) for leaf in leaves]
    )

  def _flat_act(
    self, params: Any, key: Any, observation: Any, state: list[Any], first: Any
  ) -> tuple[list[jax.Array], list[Any]]:
    before = [
      jnp.where(_expand(first, leaf), initial, leaf)
      for initial, leaf in zip(self._initial_state, state, strict=True)
    ]
    output = self._agent.act(
      params,
      key,
      observation,
      jax.tree.unflatten(self._state_structure, before),
    )
    # A leaf that goes straight through costs 50 us as an output on the CPU, for
    # nothing: it is as it was at the start.
    changed = [
      None if new is old else new
      for old, new in zip(before, jax.tree.leaves(output.state), strict=True)
    ]
    leaves, self._structure = jax.tree.flatten(output._replace(state=()))
    return leaves, changed

  def _refresh_params(self) -> None:
    newest = self._source.newest()
    if newest is None:
      raise RuntimeError('there are no params yet: wait until `ready`.')
    if newest.version != self.version:
      self._params = jax.device_put(newest.params)
      self.version = newest.version

  def _draw_keys(self) -> None:
    keys = jax.random.split(self._key, _KEYS_PER_BLOCK + 1)
    self._key = keys[0]
    self._keys = np.asarray(keys[1:])
    self._next_key = 0


def _expand(mask: jax.Array, leaf: jax.Array) -> jax.Array:
  return mask.reshape(mask.shape + (1,) * (leaf.ndim - 1))
