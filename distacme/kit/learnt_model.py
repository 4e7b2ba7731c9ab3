"""Networks that step states of their own: learnt models of environments."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import haiku as hk
import jax
import jax.numpy as jnp

from distacme import types
from distacme.kit import convolutions as convolutions_lib
from distacme.kit import initializers
from distacme.kit import networks


class Prediction(NamedTuple):
  """The network's view of its states.

  Attributes:
    logits: [B, num_actions] of the policy.
    value: [B], in the scale of `returns.rescale`.
  """

  logits: jax.Array
  value: jax.Array


class Dynamics(NamedTuple):
  """The network's step of its states.

  Attributes:
    state: [B, ...] the next state.
    reward: [B], in the scale of `returns.rescale`.
    goes_on: [B] logit of the chance that the episode does not end.
  """

  state: jax.Array
  reward: jax.Array
  goes_on: jax.Array


class ModelNetwork(NamedTuple):
  """The parts of a learnt model, made within `hk.multi_transform`.

  Attributes:
    represent: maps a nest of observations [B, ...] to states [B, ...].
    step: maps states and actions [B, num_actions], one-hot, to `Dynamics`.
    predict: maps states to a `Prediction`.
  """

  represent: Callable[[types.NestedArray], jax.Array]
  step: Callable[[jax.Array, jax.Array], Dynamics]
  predict: Callable[[jax.Array], Prediction]


def transformed(
  make: Callable[[], ModelNetwork],
) -> hk.MultiTransformed:
  """Returns the pure functions of a model.

  Args:
    make: makes the parts; may use Haiku modules.

  Returns:
    `init`, (key, observation [B, ...]) to params; and `apply`, the functions of a
    `ModelNetwork` with (params, key) before their arguments.
  """

  def parts() -> tuple[Callable[..., Prediction], ModelNetwork]:
    network = make()

    def init(observation: types.NestedArray) -> Prediction:
      state = network.represent(observation)
      num_actions = network.predict(state).logits.shape[-1]
      action = jnp.zeros((state.shape[0], num_actions))
      return network.predict(network.step(state, action).state)

    return init, network

  return hk.multi_transform(parts)


_MOST = 3.0  # root mean square of a state; at first it is below 1


def bounded(state: jax.Array) -> jax.Array:
  """Returns states [B, F] scaled down to a bound of their root mean square.

  Otherwise states and values grow with the depth of a search, beyond all that was
  learnt, up to infinity. Scaled to [0, 1] in each row (Schrittwieser et al. 2020,
  appendix G), the states of catch were learnt several times more slowly.
  """
  size = jnp.sqrt((state**2).mean(axis=-1, keepdims=True) + 1e-8)
  return state / jnp.maximum(1.0, size / _MOST)


def mlp_network(
  observations: types.NestedSpec,
  num_actions: int,
  state_size: int,
  hidden_sizes: Sequence[int],
  convolutions: convolutions_lib.Convolutions,
  initialization: initializers.Initialization,
) -> ModelNetwork:
  """Returns a model of MLPs, after convolutions of pictures.

  Args:
    observations: spec of the observations.
    num_actions: number of actions.
    state_size: width of the model's states.
    hidden_sizes: of each part.
    convolutions: for pictures; see `networks.ObservationTorso`.
    initialization: of the observations' layers.
  """
  torso = networks.ObservationTorso(
    observations, hidden_sizes, convolutions, initialization
  )
  to_state = hk.Linear(state_size, name='state')
  stepped = networks.MLPTorso(hidden_sizes, name='dynamics')
  to_next = hk.Linear(state_size, name='next_state')
  to_reward = hk.Linear(1, name='reward')
  ended = networks.MLPTorso(hidden_sizes, name='end')
  to_goes_on = hk.Linear(1, name='goes_on')
  predicted = networks.MLPTorso(hidden_sizes, name='prediction')
  head = networks.PolicyValueHead(num_actions)

  def represent(observation: types.NestedArray) -> jax.Array:
    return bounded(to_state(torso(observation)))

  def step(state: jax.Array, action: jax.Array) -> Dynamics:
    features = stepped([state, action])
    # An action changes little of the state.
    next_state = bounded(state + to_next(features))
    # Where episodes end is learnt first, and would leave no room in the states for
    # the rest.
    ends = ended([jax.lax.stop_gradient(state), action])
    return Dynamics(
      next_state, to_reward(features)[:, 0], to_goes_on(ends)[:, 0]
    )

  def predict(state: jax.Array) -> Prediction:
    return Prediction(*head(predicted([state])))

  return ModelNetwork(represent, step, predict)
