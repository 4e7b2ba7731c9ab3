"""Acts by a search: the part of agents that plan which is the same for all of them."""

from __future__ import annotations

from collections.abc import Callable
import importlib.util
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from distacme import core
from distacme import types
from distacme.kit import networks
from distacme.kit import search as search_lib
from distacme.kit import settings as settings_lib


class ActorState(NamedTuple):
  """An actor's state between searches."""

  explores: jax.Array | np.ndarray  # [B] bool; False where evaluated
  steps: jax.Array | np.ndarray  # [B] int32, of the episode


def check_installed(agent: str) -> None:
  """Raises ValueError if mctx, which the agent of that name needs, is missing."""
  if importlib.util.find_spec('mctx') is None:
    raise ValueError(
      f'{agent} searches by mctx, which is not installed. Run: pip install '
      "'distacme[search]'"
    )


def initial_actor_state(
  batch_size: int, streams: types.Streams | None
) -> ActorState:
  """Returns the state at an episode's start; without streams nobody explores."""
  return ActorState(
    np.full(batch_size, streams is not None), np.zeros(batch_size, np.int32)
  )


def without_search(evaluation: search_lib.Evaluation) -> search_lib.Found:
  """Returns an outcome that says what the network says."""
  policy = jax.nn.softmax(evaluation.logits)
  nothing = jnp.zeros_like(evaluation.value, jnp.int32)
  return search_lib.Found(
    jnp.zeros_like(policy, jnp.int32),
    policy,
    evaluation.logits.argmax(axis=-1).astype(jnp.int32),
    evaluation.value,
    nothing,
  )


def act(
  settings: settings_lib.SearchConfig,
  key: types.Key,
  found: search_lib.Found,
  state: ActorState,
) -> types.ActorOutput:
  """Returns the output of an actor that acts by a search; consumes `key`.

  Its extras are the improved `policy` [B, A].
  """
  action = found.best
  if settings.search == 'puct':
    logits = jnp.where(
      found.policy > 0,
      jnp.log(found.policy.clip(1e-30)) / settings.temperature,
      -jnp.inf,
    )
    drawn = jax.random.categorical(key, logits).astype(jnp.int32)
    draws = state.explores & (state.steps < settings.temperature_steps)
    action = jnp.where(draws, drawn, action)
  metrics = {
    'simulations': found.visits.sum(axis=-1).astype(jnp.float32),
    'search_depth': found.depth.astype(jnp.float32),
    'root_value': found.value,
  }
  return types.ActorOutput(
    action,
    state._replace(steps=state.steps + 1),
    {'policy': found.policy},
    metrics=metrics,
  )


class Planner:
  """A `core.Planner` that searches by a `SearchConfig` and evaluates by a network."""

  def __init__(
    self,
    settings: settings_lib.SearchConfig,
    evaluate: Callable[
      [types.Params, types.Key, types.NestedArray], search_lib.Evaluation
    ],
  ):
    """Takes the settings, and a function of (params, key, observation)."""
    self.num_simulations = settings.num_simulations
    self._settings = settings
    self._evaluate = evaluate

  def plan(
    self,
    params: types.Params,
    key: types.Key,
    observation: types.NestedArray,
    state: ActorState,
    model: core.Model,
    root: Any,
  ) -> types.ActorOutput:
    """Chooses actions by a search of a model; see `core.Planner`."""
    search_key, act_key = jax.random.split(key)

    def step(
      key: types.Key, at: Any, action: jax.Array
    ) -> search_lib.ModelOutput:
      keys = jax.random.split(key, action.shape[0])
      stepped = jax.vmap(model.step)(at, action, keys)
      seen = jax.vmap(model.observe)(stepped.state)
      evaluation = self._evaluate(params, networks.network_key(key), seen)
      return search_lib.ModelOutput(
        stepped.state, stepped.reward, stepped.discount, evaluation
      )

    evaluation = self._evaluate(params, networks.network_key(key), observation)
    found = search_lib.run(
      self._settings, search_key, evaluation, root, state.explores, step
    )
    return act(self._settings, act_key, found, state)

  def begin(
    self,
    params: types.Params,
    key: types.Key,
    observation: types.NestedArray,
    state: ActorState,
  ) -> tuple[Any, core.Leaf]:
    """Begins a search that is stepped from outside; see `core.Planner`."""
    evaluation = self._evaluate(params, networks.network_key(key), observation)
    noise_key, key = jax.random.split(key)
    tree, leaf = search_lib.begin(
      self._settings, noise_key, key, evaluation, state.explores
    )
    return (tree, key, jnp.int32(0)), leaf

  def advance(
    self,
    params: types.Params,
    key: types.Key,
    search: Any,
    step: core.LeafStep,
  ) -> tuple[Any, core.Leaf]:
    """Adds a step; see `core.Planner`."""
    tree, leaf_key, number = search
    evaluation = self._evaluate(
      params, networks.network_key(key), step.observation
    )
    output = search_lib.ModelOutput((), step.reward, step.discount, evaluation)
    tree, leaf = search_lib.advance(
      self._settings, leaf_key, key, tree, number, output
    )
    return (tree, key, number + 1), leaf

  def finish(
    self, key: types.Key, search: Any, state: ActorState
  ) -> types.ActorOutput:
    """Chooses actions by the whole search; see `core.Planner`."""
    return act(
      self._settings, key, search_lib.finish(self._settings, search[0]), state
    )
