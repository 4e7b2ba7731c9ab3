"""Steps environments that are pure functions of JAX, all rows in one compiled call."""

from __future__ import annotations

from collections.abc import Callable, Sequence
import functools
from typing import Any

import dm_env
import numpy as np
import tree

from distacme import core
from distacme import specs
from distacme import types


class JaxVector:
  """A `core.ModelEnvironment` of rows that a `core.Model` steps.

  JAX is imported here and not above: what only lists environments does not need it.
  """

  def __init__(
    self,
    model: core.Model,
    spec: specs.EnvironmentSpec,
    seeds: Sequence[int],
  ):
    """Takes the model, the spec of a row, and each row's seed."""
    import jax

    self.num_envs = len(seeds)
    self.model = model
    self.state: Any = None
    self._spec = spec
    self._keys = np.stack([np.asarray(jax.random.PRNGKey(s)) for s in seeds])
    self._last = np.ones(self.num_envs, np.bool_)
    hashable: Any = model
    self._start, self._step = _compiled(hashable)

  def reset(self) -> dm_env.TimeStep:
    """Starts all rows anew."""
    self._keys, self.state, observation = self._start(self._keys)
    self._last = np.zeros(self.num_envs, np.bool_)
    return dm_env.TimeStep(
      np.full(self.num_envs, types.FIRST),
      np.zeros(self.num_envs, np.float32),
      np.ones(self.num_envs, np.float32),
      _as_numpy(observation),
    )

  def with_seeds(self, seeds: Sequence[int]) -> JaxVector:
    """Returns a vector of the same model, with a row for each seed."""
    return JaxVector(self.model, self._spec, seeds)

  def step(self, action: types.NestedArray) -> dm_env.TimeStep:
    """Steps every row; starts those anew that were LAST."""
    if self.state is None:
      return self.reset()
    self._keys, self.state, reward, discount, observation = self._step(
      self._keys, self.state, action, self._last
    )
    discount = np.asarray(discount)
    step_type = np.where(discount == 0.0, types.LAST, types.MID)
    step_type[self._last] = types.FIRST
    self._last = step_type == types.LAST
    return dm_env.TimeStep(
      step_type, np.asarray(reward), discount, _as_numpy(observation)
    )

  def observation_spec(self) -> types.NestedSpec:
    """Returns the observation spec of a row."""
    return self._spec.observations

  def action_spec(self) -> types.NestedSpec:
    """Returns the action spec of a row."""
    return self._spec.actions

  def reward_spec(self) -> specs.Array:
    """Returns the reward spec of a row."""
    return self._spec.rewards

  def discount_spec(self) -> specs.BoundedArray:
    """Returns the discount spec of a row."""
    return self._spec.discounts

  def close(self) -> None:
    """Does nothing: there is nothing but arrays."""


class DrawnVector(JaxVector):
  """A `JaxVector` that can be filmed: `render` draws its first row."""

  def __init__(
    self,
    model: core.Model,
    spec: specs.EnvironmentSpec,
    seeds: Sequence[int],
    draw: Callable[[types.NestedArray, bool], np.ndarray],
  ):
    """See `JaxVector`.

    Args:
      model: of a row.
      spec: of a row.
      seeds: of the rows.
      draw: returns a picture, uint8 [H, W, 3], of a row's observation, given
        whether the player who moved first is to move.
    """
    super().__init__(model, spec, seeds)
    self._draw = draw
    self._observation: types.NestedArray = None
    self._first_moves = True

  def reset(self) -> dm_env.TimeStep:
    """Starts all rows anew."""
    return self._seen(super().reset())

  def step(self, action: types.NestedArray) -> dm_env.TimeStep:
    """Steps every row; starts those anew that were LAST."""
    return self._seen(super().step(action))

  def render(self) -> np.ndarray:
    """Returns a picture of the first row."""
    return self._draw(self._observation, self._first_moves)

  def _seen(self, timestep: dm_env.TimeStep) -> dm_env.TimeStep:
    self._observation = tree.map_structure(lambda a: a[0], timestep.observation)
    if timestep.step_type[0] == types.FIRST:
      self._first_moves = True
    elif timestep.discount[0] <= 0:  # at the end, too, the other one would move
      self._first_moves = not self._first_moves
    return timestep


@functools.lru_cache(maxsize=16)
def _compiled(model: Any) -> tuple[Any, Any]:
  """Returns the compiled functions that start and step all rows.

  They are kept with the model: a run makes its environments more than once, and
  to trace a game takes a second.
  """
  import jax
  import jax.numpy as jnp

  def start(key: Any) -> tuple[Any, ...]:
    key, init_key = jax.random.split(key)
    state = model.init(init_key)
    return key, state, model.observe(state)

  def step(key: Any, state: Any, action: Any, was_last: Any) -> tuple[Any, ...]:
    key, init_key, step_key = jax.random.split(key, 3)
    stepped = model.step(state, action, step_key)
    state = jax.tree.map(
      lambda new, on: jnp.where(was_last, new, on),
      model.init(init_key),
      stepped.state,
    )
    reward = jnp.where(was_last, 0.0, stepped.reward)
    discount = jnp.where(was_last, 1.0, stepped.discount)
    return key, state, reward, discount, model.observe(state)

  return jax.jit(jax.vmap(start)), jax.jit(jax.vmap(step))


def make_spec(
  model: core.Model, num_actions: int, two_players: bool
) -> specs.EnvironmentSpec:
  """Returns the spec of a model's rows, with discrete actions.

  Args:
    model: its first state is observed.
    num_actions: number of actions.
    two_players: whether two players move in turn.
  """
  import jax

  key = jax.ShapeDtypeStruct((2,), np.uint32)
  observation = jax.eval_shape(lambda k: model.observe(model.init(k)), key)
  return specs.EnvironmentSpec(
    jax.tree.map(lambda leaf: specs.Array(leaf.shape, leaf.dtype), observation),
    specs.DiscreteArray(num_actions, name='action'),
    specs.Array((), np.float32, 'reward'),
    specs.BoundedArray(
      (), np.float32, -1.0 if two_players else 0.0, 1.0, 'discount'
    ),
  )


def _as_numpy(nest: Any) -> Any:
  import jax

  return jax.tree.map(np.asarray, nest)
