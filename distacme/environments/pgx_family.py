"""Makes pgx's games by name: 'pgx:connect_four' (https://arxiv.org/abs/2303.17503).

A game is a `core.Model`, so that a search can step it. In a game for two, an agent
moves for both players in turn (`core.VectorEnvironment`).
"""

from __future__ import annotations

from collections.abc import Sequence
import functools
from typing import Any

import dm_env

from distacme import core
from distacme import specs
from distacme.environments import boards
from distacme.environments import hints
from distacme.environments import jax_vector
from distacme.environments import vector

# A search steps the true state, in which the opponent's cards are open.
_HIDDEN_INFORMATION = (
  'bridge_bidding',
  'kuhn_poker',
  'leduc_holdem',
  'sparrow_mahjong',
)


def make(name: str, seed: int, render: bool = False) -> dm_env.Environment:
  """Returns a game of one row.

  Raises:
    ValueError: if there is no such game, its players hide something from each
      other, it is to be drawn and cannot be, or pgx is not installed.
  """
  if render and name not in boards.LAYOUTS:
    raise ValueError(
      f"Environment 'pgx:{name}' cannot be drawn: of pgx's games that is done for "
      f'{", ".join(boards.LAYOUTS)}.'
    )
  return vector.SingleRow(make_native_vector(name, [seed]))


def make_native_vector(name: str, seeds: Sequence[int]) -> jax_vector.JaxVector:
  """Returns rows of a game, stepped by one compiled call.

  Raises:
    ValueError: as `make`.
  """
  model = _model(name)
  game = model.game
  spec = jax_vector.make_spec(model, game.num_actions, game.num_players == 2)
  layout = boards.LAYOUTS.get(name)
  if layout is None:
    return jax_vector.JaxVector(model, spec, seeds)
  return jax_vector.DrawnVector(
    model,
    spec,
    seeds,
    lambda observation, first_moves: boards.draw(
      boards.stones(observation['board'], first_moves), layout
    ),
  )


class PgxModel:
  """A game as a `core.Model`; a state is pgx's."""

  def __init__(self, game: Any):
    self.game = game

  def init(self, key: Any) -> Any:
    """Returns the state at the start; see `core.Model`."""
    return self.game.init(key)

  def step(self, state: Any, action: Any, key: Any) -> core.ModelStep:
    """Returns the state after a move, and the mover's reward."""
    import jax.numpy as jnp

    mover = state.current_player
    after = self.game.step(state, action, key)
    moves_again = after.current_player == mover
    return core.ModelStep(
      after,
      after.rewards[mover],
      jnp.where(after.terminated, 0.0, jnp.where(moves_again, 1.0, -1.0)),
    )

  def observe(self, state: Any) -> dict[str, Any]:
    """Returns the board as the next player sees it, and the legal moves."""
    return {
      'board': state.observation,
      specs.LEGAL_ACTIONS: state.legal_action_mask,
    }


@functools.cache
def _model(name: str) -> PgxModel:
  """Returns the one model of a game, with which compiled functions are kept."""
  return PgxModel(_game(name))


def _game(name: str) -> Any:
  """Returns pgx's game called `name`."""
  try:
    import pgx
  except ImportError as error:
    raise ValueError(
      f"Environment 'pgx:{name}' needs pgx, which cannot be imported ({error}). "
      "Run: pip install 'distacme[search]'"
    ) from error
  known = [g for g in pgx.available_envs() if g not in _HIDDEN_INFORMATION]
  if name in _HIDDEN_INFORMATION:
    raise ValueError(
      f"Environment 'pgx:{name}': its players hide their hands, and a search "
      f'would look into them. Choose one of: {", ".join(known)}.'
    )
  if name not in known:
    raise ValueError(
      f"No environment is called 'pgx:{name}'. "
      f'{hints.did_you_mean(name, known)}Known: {", ".join(known)}.'
    )
  return pgx.make(name)
