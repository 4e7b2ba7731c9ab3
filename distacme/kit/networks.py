"""Torsos and heads for several agents, and checks of networks."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import haiku as hk
import jax
import jax.numpy as jnp

from distacme import types
from distacme.kit import convolutions as convolutions_lib
from distacme.kit import initializers
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


# Key i of `jax.random.split` equals `fold_in` of i. This number is larger than any
# number of keys that are split from one key.
_OF_NETWORKS = 0x6E6574


def network_key(key: types.Key) -> types.Key:
  """Returns a key for a network's own draws (`hk.next_rng_key`).

  The key is independent of all other draws with `key`, and of keys split from `key`:
  random networks do not change an agent's other draws.
  """
  return jax.random.fold_in(key, _OF_NETWORKS)


def network_keys(key: types.Key, num: int) -> jax.Array:
  """Returns keys [num] for several calls of networks; see `network_key`."""
  return jax.random.split(network_key(key), num)


def check_outputs(
  init: Callable[..., hk.Params],
  apply: Callable[..., types.NestedArray],
  inputs: tuple[types.NestedArray, ...],
  shapes: types.NestedArray,
  expected: str,
  name: str = 'network',
  hint: str = 'Look at its last layer.',
) -> None:
  """Checks the shapes of a network's outputs for a batch of one.

  Args:
    init: (key, *inputs) to params.
    apply: (params, key, *inputs) to a nest of outputs.
    inputs: the batch.
    shapes: nest of the shapes that the outputs must have.
    expected: the expected outputs, in words.
    name: of the network, for the message.
    hint: a remedy, for the message.

  Raises:
    ValueError: if the outputs have other shapes.
  """
  key = jax.random.key_data(jax.random.key(0))
  params = jax.eval_shape(init, key, *inputs)
  output = jax.eval_shape(apply, params, key, *inputs)
  if jax.tree.map(lambda leaf: leaf.shape, output) != shapes:
    raise ValueError(
      f'the {name} must map a batch of 1 to {expected}, got {output}. {hint}'
    )


class MLPTorso(hk.Module):
  """A fully connected network with a rectifier after every layer."""

  def __init__(
    self,
    hidden_sizes: Sequence[int],
    initialization: initializers.Initialization = 'lecun',
    activation: Callable[[jax.Array], jax.Array] = jax.nn.relu,
    name: str | None = None,
  ):
    super().__init__(name)
    self._hidden_sizes = hidden_sizes
    self._w_init = initializers.weights(initialization, initializers.HIDDEN)
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
  """Layers for any observation: an MLP, after convolutions of pictures.

  `observations` makes features of leaves that are no pictures.
  """

  def __init__(
    self,
    observation_specs: types.NestedSpec,
    hidden_sizes: Sequence[int],
    convolutions: convolutions_lib.Convolutions = 'nature',
    initialization: initializers.Initialization = 'lecun',
    activation: Callable[[jax.Array], jax.Array] = jax.nn.relu,
    name: str | None = None,
  ):
    """Takes the observations' specs and the form of the layers.

    Args:
      observation_specs: of one environment.
      hidden_sizes: of the MLP.
      convolutions: for pictures with sides of at least 36 pixels; smaller pictures
        go through `SmallTorso`.
      initialization: of all weights.
      activation: of the MLP.
      name: of the module.
    """
    super().__init__(name)
    self._specs = jax.tree.leaves(observation_specs)
    self._hidden_sizes = hidden_sizes
    self._convolutions = convolutions
    self._initialization = initialization
    self._activation = activation

  def __call__(self, observation: types.NestedArray) -> jax.Array:
    """Maps a nest of [B, ...] to features [B, hidden_sizes[-1]]."""
    leaves = []
    for spec, leaf in zip(
      self._specs, jax.tree.leaves(observation), strict=True
    ):
      if observations_lib.is_image(spec):
        torso = convolutions_lib.torso(
          self._convolutions,
          min(observations_lib.image_size(spec)),
          self._initialization,
        )
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
    initialization: initializers.Initialization = 'lecun',
    name: str | None = None,
  ):
    """Takes the number of params, and the number of last params that are constant.

    Constant params are the same in all states.
    """
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
      of_values: [B, F] features for the values; None for the same.
    """
    # Near zero, else the first policy would be nearly deterministic.
    small = initializers.weights(self._initialization, 0.01)
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
      1, w_init=initializers.weights(self._initialization, 1.0), name='value'
    )(features if of_values is None else of_values)
    return policy, value[:, 0]


def check_policy_and_value(
  init: Callable[..., hk.Params],
  apply: Callable[..., types.NestedArray],
  observations: types.NestedSpec,
  num_params: int,
) -> None:
  """Checks the outputs of a network for policy and value.

  Args:
    init: (key, observation [B, ...]) to params.
    apply: (params, key, observation [B, ...]) to outputs.
    observations: spec of the observations.
    num_params: of the policy.

  Raises:
    ValueError: if outputs have other shapes than [B, num_params] and [B].
  """
  shapes = ((1, num_params), (1,))
  expected = (
    f'a tuple of params of the policy, shape {shapes[0]}, and values, shape '
    f'{shapes[1]}'
  )
  check_outputs(init, apply, (example(observations),), shapes, expected)


def check_action_values(
  init: Callable[..., hk.Params],
  apply: Callable[..., types.NestedArray],
  observations: types.NestedSpec,
  num_actions: int,
) -> None:
  """Checks the outputs of a network for action values.

  Args:
    init: (key, observation [B, ...]) to params.
    apply: (params, key, observation [B, ...]) to outputs.
    observations: spec of the observations.
    num_actions: number of values for each observation.

  Raises:
    ValueError: if the output has another shape than [B, num_actions].
  """
  shape = (1, num_actions)
  check_outputs(
    init,
    apply,
    (example(observations),),
    shape,
    f'action values of shape {shape}',
    hint='Its last layer needs one output per action and no squeeze.',
  )
