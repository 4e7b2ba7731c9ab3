"""Convolutions of pictures: those of papers, and one for smaller pictures."""

from __future__ import annotations

from collections.abc import Callable, Sequence
import functools
import operator
from typing import Any, Literal

import haiku as hk
import jax
import jax.numpy as jnp
import numpy as np

from distacme.kit import initializers

Padding = Literal['SAME', 'VALID']


def convolve_by_products(
  image: jax.Array, w: jax.Array, stride: int, padding: Padding = 'VALID'
) -> jax.Array:
  """Returns a convolution, as a sum of matrix products.

  XLA's CPU compiler is 36 times slower on a convolution inside of a loop than
  outside. It is as fast on these products inside; running the products takes 1.3
  times as long as a convolution outside. The pixels of a stride become channels
  first, so that few products are left: 4 for the first layer of `NatureTorso`.

  Args:
    image: [B, H, W, C].
    w: [size, size, C, channels].
    stride: pixels between two outputs; 1 if `padding` is SAME.
    padding: by XLA's names.
  """
  size = w.shape[0]
  if padding == 'SAME':
    assert stride == 1
    room = ((size - 1) // 2, size // 2)
    image = jnp.pad(image, ((0, 0), room, room, (0, 0)))
  batch, height, width, channels = image.shape
  rows, columns = (height - size) // stride + 1, (width - size) // stride + 1
  blocks = -(-size // stride)  # of the kernel, each as long as a stride
  rest = blocks * stride - size
  w = jnp.pad(w, ((0, rest), (0, rest), (0, 0), (0, 0)))
  w = w.reshape(blocks, stride, blocks, stride, channels, -1)
  w = w.transpose(0, 2, 1, 3, 4, 5)
  w = w.reshape(blocks, blocks, stride * stride * channels, -1)
  high, wide = rows + blocks - 1, columns + blocks - 1
  image = jnp.pad(
    image,
    (
      (0, 0),
      (0, max(0, high * stride - height)),
      (0, max(0, wide * stride - width)),
      (0, 0),
    ),
  )[:, : high * stride, : wide * stride]
  image = image.reshape(batch, high, stride, wide, stride, channels)
  image = image.transpose(0, 1, 3, 2, 4, 5)
  image = image.reshape(batch, high, wide, -1)
  products = (
    image[:, i : i + rows, j : j + columns] @ w[i, j]
    for i in range(blocks)
    for j in range(blocks)
  )
  return functools.reduce(operator.add, products)


class Convolution(hk.Module):
  """`hk.Conv2D`, but as fast inside of a loop on the CPU."""

  def __init__(
    self,
    channels: int,
    size: int,
    stride: int = 1,
    padding: Padding = 'VALID',
    w_init: hk.initializers.Initializer | None = None,
    in_loop: bool = False,
  ):
    """Takes the arguments of `hk.Conv2D`, and whether it stands in a loop."""
    super().__init__('conv2_d')
    self._channels = channels
    self._size = size
    self._stride = stride
    self._padding = padding
    self._w_init = w_init
    self._in_loop = in_loop

  def __call__(self, image: jax.Array) -> jax.Array:
    """Maps [B, H, W, C] to [B, H', W', channels]."""
    size, shape = self._size, image.shape
    w_shape = (size, size, shape[-1], self._channels)
    default = hk.initializers.TruncatedNormal(np.prod(w_shape[:3]) ** -0.5)
    w = hk.get_parameter('w', w_shape, init=self._w_init or default)
    b = hk.get_parameter('b', (self._channels,), init=jnp.zeros)
    by_products = functools.partial(
      convolve_by_products, stride=self._stride, padding=self._padding
    )
    by_convolution = functools.partial(
      jax.lax.conv_general_dilated,
      window_strides=(self._stride, self._stride),
      padding=self._padding,
      dimension_numbers=('NHWC', 'HWIO', 'NHWC'),
    )
    if self._in_loop:
      output = jax.lax.platform_dependent(
        image, w, cpu=by_products, default=by_convolution
      )
    else:
      output = by_convolution(image, w)
    return output + b.reshape(1, 1, 1, -1)


class ConvTorso(hk.Module):
  """Plain convolutions, each with a rectifier."""

  def __init__(
    self,
    layers: Sequence[tuple[int, int, int]],
    initialization: initializers.Initialization = 'lecun',
    in_loop: bool = False,
    name: str | None = None,
  ):
    """Takes the layers and their form.

    Args:
      layers: channels, kernel size and stride of each.
      initialization: of the layers' weights.
      in_loop: whether the network stands inside of a compiled loop.
      name: of the module.
    """
    super().__init__(name)
    self._layers = layers
    self._w_init = initializers.weights(initialization, initializers.HIDDEN)
    self._in_loop = in_loop

  def __call__(self, image: jax.Array) -> jax.Array:
    """Maps [B, H, W, C], uint8 or floats in [0, 1], to features [B, F]."""
    features = _in_unit(image)
    for channels, size, stride in self._layers:
      convolution = Convolution(
        channels, size, stride, 'VALID', self._w_init, self._in_loop
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
    in_loop: bool = False,
    name: str | None = None,
  ):
    """Takes the arguments of `ConvTorso`, but for the layers."""
    super().__init__(name)
    self._w_init = initializers.weights(initialization, initializers.HIDDEN)
    self._in_loop = in_loop

  def __call__(self, image: jax.Array) -> jax.Array:
    """Maps [B, H, W, C], uint8 or floats in [0, 1], to features [B, F]."""

    def layer(channels: int, features: jax.Array) -> jax.Array:
      convolution = Convolution(
        channels, 3, 1, 'SAME', self._w_init, self._in_loop
      )
      return convolution(features)

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
  in_loop: bool,
) -> hk.Module:
  """Returns the convolutions for pictures with a shorter side of `side` pixels."""
  if side < _LEAST_NATURE_SIDE:
    return SmallTorso(side, initialization, in_loop)
  return _TORSOS[convolutions](initialization, in_loop)
