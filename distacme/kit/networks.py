"""Torsos and heads that more than one agent uses, and what they must put out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
import functools
import operator
from typing import Any, Literal

import haiku as hk
import jax
import jax.numpy as jnp
import numpy as np

from distacme import types
from distacme.kit import observations as observations_lib


def flatten_observation(observation: types.NestedArray) -> jax.Array:
  """Joins the leaves of a batched nest into one float32 array [B, features]."""
  leaves = [
    leaf.reshape(leaf.shape[0], -1).astype(jnp.float32)
    for leaf in jax.tree.leaves(observation)
  ]
  return jnp.concatenate(leaves, axis=-1)


def example(observations: types.NestedSpec) -> types.NestedArray:
  """Returns a batch of one observation of zeros."""
  return jax.tree.map(
    lambda leaf: jnp.zeros((1, *leaf.shape), leaf.dtype), observations
  )


def check_outputs(
  init: Callable[..., hk.Params],
  apply: Callable[..., Any],
  inputs: tuple[types.NestedArray, ...],
  shapes: Any,
  expected: str,
  name: str = 'network',
  hint: str = 'Look at its last layer.',
) -> None:
  """Checks what a network makes of a batch of one.

  Args:
    init: (key, *inputs) to params.
    apply: (params, *inputs) to a nest of outputs.
    inputs: the batch.
    shapes: the nest of shapes that they must have.
    expected: says in words what they must be.
    name: of the network, for the message.
    hint: what to do, for the message.

  Raises:
    ValueError: if they have others.
  """
  key = jax.random.key_data(jax.random.key(0))
  params = jax.eval_shape(init, key, *inputs)
  output = jax.eval_shape(apply, params, *inputs)
  if jax.tree.map(lambda leaf: leaf.shape, output) != shapes:
    raise ValueError(
      f'the {name} must map a batch of 1 to {expected}, got {output}. {hint}'
    )


Initialization = Literal['orthogonal', 'lecun']


def weights(initialization: Initialization, gain: float) -> Any:
  """Returns the initialiser of a layer's weights.

  Orthogonal ones of gain sqrt 2 keep the size of activations from layer to layer
  of rectifiers (Saxe et al. 2014, He et al. 2015), as is usual for actor-critics;
  Haiku's own, of variance 1 / inputs (LeCun et al. 1998), halve their square in
  each, as is usual for action values.

  Args:
    initialization: which of them.
    gain: of orthogonal ones.
  """
  if initialization == 'lecun':
    return None  # Haiku's own
  # Haiku's orthogonal one relies on the promotion of ranks.
  orthogonal = jax.nn.initializers.orthogonal(gain)
  return lambda shape, dtype: orthogonal(hk.next_rng_key(), shape, dtype)


_HIDDEN = float(np.sqrt(2.0))  # the gain before a rectifier or tanh


Padding = Literal['SAME', 'VALID']


def convolve_by_products(
  image: jax.Array, w: jax.Array, stride: int, padding: Padding = 'VALID'
) -> jax.Array:
  """Returns a convolution, as a sum of matrix products.

  XLA's CPU compiler is 36 times slower on a convolution inside of a loop than
  outside; on these products it is as fast inside, where they take 1.3 times what
  a convolution takes outside. Pixels of a stride become channels first, so that
  few products are left: 4 of the first layer of `NatureTorso`.

  Args:
    image: [B, H, W, C].
    w: [size, size, C, channels].
    stride: pixels between two outputs; 1 if sides are to stay the SAME.
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
  """`hk.Conv2D`, and as fast inside of a loop on the CPU."""

  def __init__(
    self,
    channels: int,
    size: int,
    stride: int = 1,
    padding: Padding = 'VALID',
    w_init: Any = None,
    in_loop: bool = False,
  ):
    """Takes what `hk.Conv2D` does, and whether it stands inside of a loop."""
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
    initialization: Initialization = 'lecun',
    in_loop: bool = False,
    name: str | None = None,
  ):
    """Takes (channels, kernel size, stride) of each layer.

    Args:
      layers: those.
      initialization: of their weights.
      in_loop: whether the network stands inside of a compiled loop.
      name: of the module.
    """
    super().__init__(name)
    self._layers = layers
    self._w_init = weights(initialization, _HIDDEN)
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

  That has 512 units in the paper; there are 3,136 features of 84 x 84.
  """

  def __init__(self, *args: Any, **kwargs: Any):
    """Takes what `ConvTorso` does, but for the layers."""
    super().__init__(((32, 8, 4), (64, 4, 2), (64, 3, 1)), *args, **kwargs)


class ShallowTorso(ConvTorso):
  """The shallow convolutions of Espeholt et al. 2018 (fig. 3, left).

  A hidden layer of 256 follows in the paper; there are 2,592 features of 84 x 84.
  """

  def __init__(self, *args: Any, **kwargs: Any):
    """Takes what `ConvTorso` does, but for the layers."""
    super().__init__(((16, 8, 4), (32, 4, 2)), *args, **kwargs)


class SmallTorso(ConvTorso):
  """For pictures whose sides are too short for the others.

  Of less than 16 pixels: the one layer of Young and Tian 2019 (MinAtar,
  arXiv:1903.03176), 1,024 features of 10 x 10; of more, two layers that halve.
  """

  def __init__(self, side: int, *args: Any, **kwargs: Any):
    """Takes the shorter side, and what `ConvTorso` does, but for the layers."""
    layers = ((16, 3, 1),) if side < 16 else ((32, 4, 2), (64, 3, 2))
    super().__init__(layers, *args, **kwargs)


class DeepTorso(hk.Module):
  """The residual convolutions of Espeholt et al. 2018 (fig. 3, right).

  A hidden layer of 256 follows in the paper; there are 3,872 features of 84 x 84.
  """

  def __init__(
    self,
    initialization: Initialization = 'lecun',
    in_loop: bool = False,
    name: str | None = None,
  ):
    """Takes what `ConvTorso` does, but for the layers."""
    super().__init__(name)
    self._w_init = weights(initialization, _HIDDEN)
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
_CONVOLUTIONS: dict[str, Callable[..., hk.Module]] = {
  'nature': NatureTorso,
  'shallow': ShallowTorso,
  'deep': DeepTorso,
}
# Pixels; with less the last layer of `NatureTorso` has nothing to see.
_LEAST_NATURE_SIDE = 36


class MLPTorso(hk.Module):
  """A fully connected network with a rectifier after every layer."""

  def __init__(
    self,
    hidden_sizes: Sequence[int],
    initialization: Initialization = 'lecun',
    activation: Callable[[jax.Array], jax.Array] = jax.nn.relu,
    name: str | None = None,
  ):
    super().__init__(name)
    self._hidden_sizes = hidden_sizes
    self._w_init = weights(initialization, _HIDDEN)
    self._activation = activation

  def __call__(self, observation: types.NestedArray) -> jax.Array:
    """Maps a nest of [B, ...] to features [B, hidden_sizes[-1]]."""
    features = flatten_observation(observation)
    if not self._hidden_sizes:
      return features
    layers = hk.nets.MLP(
      self._hidden_sizes,
      w_init=self._w_init,
      activation=self._activation,
      activate_final=True,
    )
    return layers(features)


class ObservationTorso(hk.Module):
  """Layers for any observation: an MLP, after convolutions of what is a picture.

  `observations` says what becomes of leaves that are none.
  """

  def __init__(
    self,
    observation_specs: types.NestedSpec,
    hidden_sizes: Sequence[int],
    convolutions: Convolutions = 'nature',
    initialization: Initialization = 'lecun',
    activation: Callable[[jax.Array], jax.Array] = jax.nn.relu,
    in_loop: bool = False,
    name: str | None = None,
  ):
    """Takes the observations' specs, and how to see and initialise.

    Args:
      observation_specs: of one environment.
      hidden_sizes: of the MLP.
      convolutions: for pictures whose sides are at least 36; the others go
        through `SmallTorso`.
      initialization: of all weights.
      activation: of the MLP.
      in_loop: whether the network stands inside of a compiled loop.
      name: of the module.
    """
    super().__init__(name)
    self._specs = jax.tree.leaves(observation_specs)
    self._hidden_sizes = hidden_sizes
    self._convolutions = _CONVOLUTIONS[convolutions]
    self._initialization = initialization
    self._activation = activation
    self._in_loop = in_loop

  def __call__(self, observation: types.NestedArray) -> jax.Array:
    """Maps a nest of [B, ...] to features [B, hidden_sizes[-1]]."""
    leaves = []
    for spec, leaf in zip(
      self._specs, jax.tree.leaves(observation), strict=True
    ):
      if observations_lib.is_image(spec):
        side = min(observations_lib.image_size(spec))
        torso: Any = self._convolutions
        if side < _LEAST_NATURE_SIDE:
          torso = functools.partial(SmallTorso, side)
        torso = torso(self._initialization, self._in_loop)
        leaves.append(torso(observations_lib.as_image(spec, leaf)))
      else:
        leaves.append(observations_lib.as_vector(spec, leaf))
    layers = MLPTorso(
      self._hidden_sizes, self._initialization, self._activation
    )
    return layers(leaves)


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


class PolicyValueHead(hk.Module):
  """Parameters of a distribution over actions, and a state value."""

  def __init__(
    self,
    num_params: int,
    num_constant: int = 0,
    initialization: Initialization = 'lecun',
    name: str | None = None,
  ):
    """Takes the number of params, and how many, the last, all states share."""
    super().__init__(name)
    self._num_params = num_params
    self._num_constant = num_constant
    self._initialization = initialization

  def __call__(
    self, features: jax.Array, of_values: jax.Array | None = None
  ) -> tuple[jax.Array, jax.Array]:
    """Maps features [B, F] to params [B, num_params] and values [B].

    Args:
      features: [B, F].
      of_values: [B, F] for the values, if they have some of their own.
    """
    # Near zero, or the first policy would be a decided one.
    small = weights(self._initialization, 0.01)
    policy = hk.Linear(
      self._num_params - self._num_constant,
      w_init=small or hk.initializers.VarianceScaling(1e-4),
      name='policy',
    )(features)
    if self._num_constant:
      shape = (1, self._num_constant)
      constant = hk.get_parameter('constant', shape, init=jnp.zeros)
      constant = jnp.repeat(constant, features.shape[0], axis=0)
      policy = jnp.concatenate([policy, constant], axis=-1)
    value = hk.Linear(
      1, w_init=weights(self._initialization, 1.0), name='value'
    )(features if of_values is None else of_values)
    return policy, value[:, 0]


def check_policy_and_value(
  init: Callable[..., Any],
  apply: Callable[..., Any],
  observations: types.NestedSpec,
  num_params: int,
) -> None:
  """Checks the outputs of a network for policy and value.

  Args:
    init: (key, observation [B, ...]) to params.
    apply: (params, observation [B, ...]) to outputs.
    observations: their spec.
    num_params: of the policy.

  Raises:
    ValueError: if they have other shapes than [B, num_params] and [B].
  """
  shapes = ((1, num_params), (1,))
  expected = (
    f'a tuple of params of the policy, shape {shapes[0]}, and values, shape '
    f'{shapes[1]}'
  )
  check_outputs(init, apply, (example(observations),), shapes, expected)
