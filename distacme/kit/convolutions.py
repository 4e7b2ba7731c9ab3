"""Convolutions of pictures: those of papers, and one for smaller pictures."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal

import haiku as hk
import jax
import jax.numpy as jnp

from distacme.kit import initializers


class ConvTorso(hk.Module):
  """Plain convolutions, each with a rectifier."""

  def __init__(
    self,
    layers: Sequence[tuple[int, int, int]],
    initialization: initializers.Initialization = 'lecun',
    name: str | None = None,
  ):
    """Takes the layers and their form.

    Args:
      layers: channels, kernel size and stride of each.
      initialization: of the layers' weights.
      name: of the module.
    """
    super().__init__(name)
    self._layers = layers
    self._w_init = initializers.weights(initialization, initializers.HIDDEN)

  def __call__(self, image: jax.Array) -> jax.Array:
    """Maps [B, H, W, C], uint8 or floats in [0, 1], to features [B, F]."""
    features = _in_unit(image)
    for channels, size, stride in self._layers:
      convolution = hk.Conv2D(
        channels, size, stride, padding='VALID', w_init=self._w_init
      )
      features = jax.nn.relu(convolution(features))
    return features.reshape(features.shape[0], -1)


class NatureTorso(ConvTorso):
  """The convolutions of Mnih et al. 2015 (Nature 518), up to the hidden layer.

  The hidden layer has 512 units in the paper. A picture of 84 x 84 gives 3,136
  features.
  """

  def __init__(self, *args: Any, **kwargs: Any):
    """Takes the arguments of `ConvTorso`, but for the layers."""
    super().__init__(((32, 8, 4), (64, 4, 2), (64, 3, 1)), *args, **kwargs)


class ShallowTorso(ConvTorso):
  """The shallow convolutions of Espeholt et al. 2018 (fig. 3, left).

  A hidden layer of 256 units follows in the paper. A picture of 84 x 84 gives 2,592
  features.
  """

  def __init__(self, *args: Any, **kwargs: Any):
    """Takes the arguments of `ConvTorso`, but for the layers."""
    super().__init__(((16, 8, 4), (32, 4, 2)), *args, **kwargs)


class SmallTorso(ConvTorso):
  """Convolutions for pictures that are too small for the other torsos.

  A picture with a side of less than 16 pixels goes through the one layer of Young and
  Tian 2019 (MinAtar, arXiv:1903.03176), which gives 1,024 features for 10 x 10. A
  larger one goes through two layers that halve the sides.
  """

  def __init__(self, side: int, *args: Any, **kwargs: Any):
    """Takes the shorter side, and the arguments of `ConvTorso` but the layers."""
    layers = ((16, 3, 1),) if side < 16 else ((32, 4, 2), (64, 3, 2))
    super().__init__(layers, *args, **kwargs)


class DeepTorso(hk.Module):
  """The residual convolutions of Espeholt et al. 2018 (fig. 3, right).

  A hidden layer of 256 units follows in the paper. A picture of 84 x 84 gives 3,872
  features.
  """

  def __init__(
    self,
    initialization: initializers.Initialization = 'lecun',
    name: str | None = None,
  ):
    """Takes the arguments of `ConvTorso`, but for the layers."""
    super().__init__(name)
    self._w_init = initializers.weights(initialization, initializers.HIDDEN)

  def __call__(self, image: jax.Array) -> jax.Array:
    """Maps [B, H, W, C], uint8 or floats in [0, 1], to features [B, F]."""

    def layer(channels: int, features: jax.Array) -> jax.Array:
      return hk.Conv2D(channels, 3, w_init=self._w_init)(features)

    features = _in_unit(image)
    for channels in (16, 32, 32):
      features = layer(channels, features)
      features = hk.max_pool(
        features, (1, 3, 3, 1), (1, 2, 2, 1), padding='SAME'
      )
      for _ in range(2):
        residual = layer(channels, jax.nn.relu(features))
        features += layer(channels, jax.nn.relu(residual))
    features = jax.nn.relu(features)
    return features.reshape(features.shape[0], -1)


def _in_unit(image: jax.Array) -> jax.Array:
  """Returns pictures as floats in [0, 1]."""
  scale = 255.0 if image.dtype == jnp.uint8 else 1.0
  return image.astype(jnp.float32) / scale


Convolutions = Literal['nature', 'shallow', 'deep']
_TORSOS: dict[Convolutions, Callable[..., hk.Module]] = {
  'nature': NatureTorso,
  'shallow': ShallowTorso,
  'deep': DeepTorso,
}
# Pixels; the last layer of `NatureTorso` has no output for smaller pictures.
_LEAST_NATURE_SIDE = 36


def torso(
  convolutions: Convolutions,
  side: int,
  initialization: initializers.Initialization,
) -> hk.Module:
  """Returns the convolutions for pictures with a shorter side of `side` pixels."""
  if side < _LEAST_NATURE_SIDE:
    return SmallTorso(side, initialization)
  return _TORSOS[convolutions](initialization)
