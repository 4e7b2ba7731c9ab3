"""Torsos and heads that more than one agent uses, and what they must put out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal

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


_LEAST_SIDE = 36  # pixels; less and the last convolution has nothing to see


def is_image(spec: types.NestedSpec) -> bool:
  """Says whether `spec` is of one image [H, W, C] that `NatureTorso` takes."""
  return (
    isinstance(spec, specs.Array)
    and spec.dtype == np.uint8
    and len(spec.shape) == 3
    and min(spec.shape[:2]) >= _LEAST_SIDE
  )


def has_image(observations: types.NestedSpec) -> bool:
  """Says whether a nest of specs has one of an image."""
  return any(is_image(spec) for spec in jax.tree.leaves(observations))


class ConvTorso(hk.Module):
  """Plain convolutions, each with a rectifier."""

  def __init__(
    self,
    layers: Sequence[tuple[int, int, int]],
    name: str | None = None,
  ):
    """Takes (channels, kernel size, stride) of each layer."""
    super().__init__(name)
    self._layers = layers

  def __call__(self, image: jax.Array) -> jax.Array:
    """Maps uint8 [B, H, W, C] to features [B, F]."""
    features = image.astype(jnp.float32) / 255.0
    for channels, size, stride in self._layers:
      convolution = hk.Conv2D(channels, size, stride, padding='VALID')
      features = jax.nn.relu(convolution(features))
    return features.reshape(features.shape[0], -1)


class NatureTorso(ConvTorso):
  """The convolutions of Mnih et al. 2015 (Nature 518), up to the hidden layer.

  That has 512 units in the paper; there are 3,136 features of 84 x 84.
  """

  def __init__(self, name: str | None = None):
    super().__init__(((32, 8, 4), (64, 4, 2), (64, 3, 1)), name)


class ShallowTorso(ConvTorso):
  """The shallow convolutions of Espeholt et al. 2018 (fig. 3, left).

  A hidden layer of 256 follows in the paper; there are 2,592 features of 84 x 84.
  """

  def __init__(self, name: str | None = None):
    super().__init__(((16, 8, 4), (32, 4, 2)), name)


class DeepTorso(hk.Module):
  """The residual convolutions of Espeholt et al. 2018 (fig. 3, right).

  A hidden layer of 256 follows in the paper; there are 3,872 features of 84 x 84.
  """

  def __call__(self, image: jax.Array) -> jax.Array:
    """Maps uint8 [B, H, W, C] to features [B, F]."""
    features = image.astype(jnp.float32) / 255.0
    for channels in (16, 32, 32):
      features = hk.Conv2D(channels, 3)(features)
      features = hk.max_pool(
        features, (1, 3, 3, 1), (1, 2, 2, 1), padding='SAME'
      )
      for _ in range(2):
        residual = hk.Conv2D(channels, 3)(jax.nn.relu(features))
        features += hk.Conv2D(channels, 3)(jax.nn.relu(residual))
    features = jax.nn.relu(features)
    return features.reshape(features.shape[0], -1)


Convolutions = Literal['nature', 'shallow', 'deep']
_CONVOLUTIONS: dict[str, Callable[[], hk.Module]] = {
  'nature': NatureTorso,
  'shallow': ShallowTorso,
  'deep': DeepTorso,
}


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


class ObservationTorso(hk.Module):
  """Layers for any observation: an MLP, after convolutions of what is an image."""

  def __init__(
    self,
    observations: types.NestedSpec,
    hidden_sizes: Sequence[int],
    convolutions: Convolutions = 'nature',
    name: str | None = None,
  ):
    super().__init__(name)
    self._specs = jax.tree.leaves(observations)
    self._hidden_sizes = hidden_sizes
    self._convolutions = _CONVOLUTIONS[convolutions]

  def __call__(self, observation: types.NestedArray) -> jax.Array:
    """Maps a nest of [B, ...] to features [B, hidden_sizes[-1]]."""
    leaves = [
      self._convolutions()(leaf) if is_image(spec) else leaf
      for spec, leaf in zip(
        self._specs, jax.tree.leaves(observation), strict=True
      )
    ]
    return MLPTorso(self._hidden_sizes)(leaves)


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
    self, num_params: int, num_constant: int = 0, name: str | None = None
  ):
    """Takes the number of params, and how many, the last, all states share."""
    super().__init__(name)
    self._num_params = num_params
    self._num_constant = num_constant

  def __call__(
    self, features: jax.Array, of_values: jax.Array | None = None
  ) -> tuple[jax.Array, jax.Array]:
    """Maps features [B, F] to params [B, num_params] and values [B].

    Args:
      features: [B, F].
      of_values: [B, F] for the values, if they have some of their own.
    """
    # Near zero, or the first policy would be a decided one.
    small = hk.initializers.VarianceScaling(1e-4)
    policy = hk.Linear(
      self._num_params - self._num_constant, w_init=small, name='policy'
    )(features)
    if self._num_constant:
      shape = (1, self._num_constant)
      constant = hk.get_parameter('constant', shape, init=jnp.zeros)
      constant = jnp.repeat(constant, features.shape[0], axis=0)
      policy = jnp.concatenate([policy, constant], axis=-1)
    value = hk.Linear(1, name='value')(
      features if of_values is None else of_values
    )
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
