"""Haiku modules that more than one agent uses."""

from __future__ import annotations

from collections.abc import Sequence

import haiku as hk
import jax
import jax.numpy as jnp
import numpy as np

from distacme import specs
from distacme import types


def flatten_observation(observation: types.NestedArray) -> jax.Array:
  """Joins the leaves of a batched nest into one float32 array [B, features]."""
  leaves = [
    leaf.reshape(leaf.shape[0], -1).astype(jnp.float32)
    for leaf in jax.tree.leaves(observation)
  ]
  return jnp.concatenate(leaves, axis=-1)


_LEAST_SIDE = 36  # pixels; less and the last convolution has nothing to see


def is_image(spec: types.NestedSpec) -> bool:
  """Says whether `spec` is of one image [H, W, C] that `NatureTorso` takes."""
  return (
    isinstance(spec, specs.Array)
    and spec.dtype == np.uint8
    and len(spec.shape) == 3
    and min(spec.shape[:2]) >= _LEAST_SIDE
  )


class NatureTorso(hk.Module):
  """The convolutions of Mnih et al. 2015 (Nature 518), up to the hidden layer.

  That has 512 units in the paper.
  """

  def __call__(self, image: jax.Array) -> jax.Array:
    """Maps uint8 [B, H, W, C] to features [B, F]; F is 3,136 of 84 x 84."""
    features = image.astype(jnp.float32) / 255.0
    for channels, size, stride in ((32, 8, 4), (64, 4, 2), (64, 3, 1)):
      convolution = hk.Conv2D(channels, size, stride, padding='VALID')
      features = jax.nn.relu(convolution(features))
    return features.reshape(features.shape[0], -1)


class MLPTorso(hk.Module):
  """A fully connected network with a rectifier after every layer."""

  def __init__(self, hidden_sizes: Sequence[int], name: str | None = None):
    super().__init__(name)
    self._hidden_sizes = hidden_sizes

  def __call__(self, observation: types.NestedArray) -> jax.Array:
    """Maps a nest of [B, ...] to features [B, hidden_sizes[-1]]."""
    features = flatten_observation(observation)
    if not self._hidden_sizes:
      return features
    return hk.nets.MLP(self._hidden_sizes, activate_final=True)(features)


class DuelingHead(hk.Module):
  """Action values from a state value and advantages (Wang et al. 2016, eq. 9)."""

  def __init__(
    self, num_actions: int, hidden_size: int, name: str | None = None
  ):
    super().__init__(name)
    self._num_actions = num_actions
    self._hidden_size = hidden_size

  def __call__(self, features: jax.Array) -> jax.Array:
    """Maps features [B, F] to action values [B, num_actions]."""
    value = hk.nets.MLP([self._hidden_size, 1], name='value')(features)
    advantage = hk.nets.MLP(
      [self._hidden_size, self._num_actions], name='advantage'
    )(features)
    return value + advantage - advantage.mean(axis=-1, keepdims=True)
