"""Makes small environments written in JAX: 'jax:catch'."""

from __future__ import annotations

from collections.abc import Sequence
import dataclasses
import functools
from typing import Any, NamedTuple

import dm_env
import numpy as np

from distacme import config_checks
from distacme import core
from distacme import specs
from distacme.environments import hints
from distacme.environments import jax_vector
from distacme.environments import name_options
from distacme.environments import rendering
from distacme.environments import vector


@dataclasses.dataclass(frozen=True)
class Options:
  """Options after the name: 'jax:catch?rows=20'."""

  rows: int = 10
  """Rows of the grid; an episode has one step less."""
  columns: int = 5
  """Columns of the grid."""

  def __post_init__(self) -> None:
    config_checks.check_at_least_one(self, 'columns')
    if self.rows < 2:
      raise ValueError(f'rows must be at least 2, got {self.rows}.')


def make(text: str, seed: int, render: bool = False) -> dm_env.Environment:
  """Returns an environment of one row: 'catch' or 'catch?rows=20'.

  Raises:
    ValueError: if there is no such environment or option.
  """
  del render  # the vector draws itself
  return vector.SingleRow(make_native_vector(text, [seed]))


def make_native_vector(text: str, seeds: Sequence[int]) -> jax_vector.JaxVector:
  """Returns rows of an environment, stepped by one compiled call.

  Raises:
    ValueError: as `make`.
  """
  name, options = name_options.parse('jax', text, Options)
  if name != 'catch':
    raise ValueError(
      f"No environment is called 'jax:{name}'. "
      f'{hints.did_you_mean(name, ["catch"])}Known: catch. Known options: '
      f'{name_options.describe(Options)}.'
    )
  model = _catch(options.rows, options.columns)
  return jax_vector.DrawnVector(
    model,
    model.spec,
    seeds,
    lambda grid, first_moves: rendering.draw_grid(
      model.spec.observations, grid
    ),
  )


@functools.cache
def _catch(rows: int, columns: int) -> Catch:
  """Returns the one model of a game, with which compiled functions are kept."""
  return Catch(rows, columns)


class CatchState(NamedTuple):
  """The ball's and the paddle's places; below the grid, the ball is down."""

  ball_row: Any
  ball_column: Any
  paddle_column: Any


class Catch:
  """The game of `testing.environments.Catch` as a `core.Model`."""

  def __init__(self, rows: int, columns: int):
    self._rows = rows
    self._columns = columns
    self.spec = specs.EnvironmentSpec(
      specs.BoundedArray((rows, columns), np.float32, 0.0, 1.0, 'board'),
      specs.DiscreteArray(3, name='action'),
      specs.BoundedArray((), np.float32, -1.0, 1.0, 'reward'),
      specs.BoundedArray((), np.float32, 0.0, 1.0, 'discount'),
    )

  def init(self, key: Any) -> CatchState:
    """Returns a ball in a random column of the top row."""
    import jax
    import jax.numpy as jnp

    column = jax.random.randint(key, (), 0, self._columns)
    return CatchState(jnp.int32(0), column, jnp.int32(self._columns // 2))

  def step(self, state: CatchState, action: Any, key: Any) -> core.ModelStep:
    """Moves the paddle and the ball; see `core.Model`."""
    import jax
    import jax.numpy as jnp

    del key
    was_down = state.ball_row >= self._rows - 1
    paddle = (state.paddle_column + action - 1).clip(0, self._columns - 1)
    moved = CatchState(state.ball_row + 1, state.ball_column, paddle)
    after = jax.tree.map(
      lambda old, new: jnp.where(was_down, old, new), state, moved
    )
    is_down = after.ball_row >= self._rows - 1
    caught = jnp.where(after.ball_column == after.paddle_column, 1.0, -1.0)
    return core.ModelStep(
      after,
      jnp.where(is_down & ~was_down, caught, 0.0),
      jnp.where(is_down, 0.0, 1.0),
    )

  def observe(self, state: CatchState) -> Any:
    """Returns the grid: 1 at the ball and the paddle, else 0."""
    import jax.numpy as jnp

    board = jnp.zeros((self._rows, self._columns), jnp.float32)
    board = board.at[state.ball_row, state.ball_column].set(1.0)
    return board.at[self._rows - 1, state.paddle_column].set(1.0)
