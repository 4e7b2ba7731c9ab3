"""Networks for continuous control: a policy, and a critic of its actions."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import haiku as hk
import jax
import jax.numpy as jnp

from distacme import types
from distacme.kit import networks


class ActorCritic(NamedTuple):
  """A network for the policy and one for the values, made within `hk.transform`.

  Attributes:
    policy: maps a nest of observations [B, ...] to [B, num_params].
    critic: maps observations [B, ...] and action vectors [B, size] in [-1, 1] to
      values [B, num_values].
  """

  policy: Callable[[types.NestedArray], jax.Array]
  critic: Callable[[types.NestedArray, jax.Array], jax.Array]


# Makes policy and critic, given the number of the policy's outputs.
MakeActorCritic = Callable[[int], ActorCritic]


class Params(NamedTuple):
  """The params of policy and critic."""

  policy: hk.Params
  critic: hk.Params


def transformed(
  make: Callable[[], ActorCritic],
  observations: types.NestedSpec,
  size: int,
  num_params: int,
  num_values: int = 1,
) -> tuple[hk.Transformed, hk.Transformed]:
  """Returns the pure functions, `init` and `apply`, of a policy and a critic.

  Args:
    make: makes policy and critic; may use Haiku modules.
    observations: spec of the observations.
    size: of an action vector.
    num_params: outputs that the policy must have.
    num_values: outputs that the critic must have.

  Raises:
    ValueError: if a network has another number of outputs.
  """
  policy = hk.transform(lambda o: make().policy(o))
  critic = hk.transform(lambda o, a: make().critic(o, a))
  inputs = (networks.example(observations), jnp.zeros((1, size)))
  for name, network, given, width in (
    ('policy', policy, inputs[:1], num_params),
    ('critic', critic, inputs, num_values),
  ):
    shape = (1, width)
    networks.check_outputs(
      network.init, network.apply, given, shape, f'shape {shape}', name
    )
  return policy, critic


def twin(network: hk.Transformed) -> hk.Transformed:
  """Returns a pair of networks; params and outputs get a leading axis [2].

  If the network is random, each of the two draws independently.
  """

  def init(key: types.Key, *inputs: types.NestedArray) -> hk.Params:
    return jax.vmap(lambda one: network.init(one, *inputs))(
      jax.random.split(key)
    )

  def apply(
    params: hk.Params, key: types.Key, *inputs: types.NestedArray
  ) -> types.NestedArray:
    return jax.vmap(lambda one, own: network.apply(one, own, *inputs))(
      params, jax.random.split(key)
    )

  return hk.Transformed(init, apply)


class LayerNormMLP(hk.Module):
  """A fully connected network with a normalised and bounded first layer.

  Hoffman et al. 2020 (arXiv:2006.00979) use this network for continuous control:
  inputs of any size do no harm. Exponential units follow the first layer.
  """

  def __init__(self, hidden_sizes: Sequence[int], name: str | None = None):
    super().__init__(name)
    self._hidden_sizes = hidden_sizes

  def __call__(self, features: jax.Array) -> jax.Array:
    """Maps features [B, F] to [B, hidden_sizes[-1]]."""
    if not self._hidden_sizes:
      return features
    first, *others = self._hidden_sizes
    features = hk.LayerNorm(-1, True, True)(hk.Linear(first)(features))
    features = jnp.tanh(features)
    for size in others:
      features = jax.nn.elu(hk.Linear(size)(features))
    return features


def layer_norm_actor_critic(
  observations: types.NestedSpec,
  hidden_sizes: Sequence[int],
  num_params: int,
  num_values: int = 1,
) -> ActorCritic:
  """Returns two `LayerNormMLP`, after convolutions of pictures.

  Args:
    observations: spec of the observations.
    hidden_sizes: of both networks.
    num_params: outputs of the policy, near zero at first.
    num_values: outputs of the critic.
  """

  def policy(observation: types.NestedArray) -> jax.Array:
    features = LayerNormMLP(hidden_sizes)(
      networks.ObservationTorso(observations, ())(observation)
    )
    small = hk.initializers.VarianceScaling(1e-4)
    return hk.Linear(num_params, w_init=small)(features)

  def critic(observation: types.NestedArray, action: jax.Array) -> jax.Array:
    features = networks.ObservationTorso(observations, ())(observation)
    features = jnp.concatenate([features, action], axis=-1)
    return hk.Linear(num_values)(LayerNormMLP(hidden_sizes)(features))

  return ActorCritic(policy, critic)
