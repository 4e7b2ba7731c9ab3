"""Solves small games for two exactly, and plays them without a mistake.

All states that can be reached are listed, breadth first. Then values are found from
the last moves backward. What the player who moves next observes is to tell all that
the rest of the game depends on: states that look alike to it are one.
"""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from distacme import core
from distacme import specs
from distacme import types
from distacme.environments import opponents

MAX_STATES = 100_000
_MAX_BYTES = 1 << 30  # of the states of two successive moves
_BATCH = 1024  # moves tried in one compiled call
_NUM_STARTS = 8  # games begun to see whether all begin alike
_CLOSE = 1e-5  # values of two moves that differ by less are equal


class Solution(NamedTuple):
  """A solved game.

  States are the bytes of what the player who moves next observes (`key_of`).

  Attributes:
    values: of each state to the player who moves next, the rewards to come.
    best: [num_actions] bool for each state, the moves that reach its value; none
      at the end of the game.
  """

  values: dict[bytes, float]
  best: dict[bytes, np.ndarray]


class PerfectOpponent:
  """Chooses evenly among the best moves of a solved game; a `core.Policy`."""

  def __init__(self, solution: Solution, key: types.Key):
    """Takes the game's solution; consumes `key`."""
    self.version = 0
    self._best = solution.best
    self._random = opponents.random_of(key)

  def act(
    self, observation: types.NestedArray, is_first: np.ndarray
  ) -> types.ActorOutput:
    """Returns best moves; see `core.Policy`."""
    del is_first
    best = np.stack([self._best[key] for key in keys_of(observation)])
    return types.ActorOutput(opponents.choose_evenly(self._random, best))

  def start_anew(
    self, environment: core.VectorEnvironment, key: types.Key
  ) -> None:
    """See `core.Policy`."""
    self._random = opponents.random_of(key)


def keys_of(observation: types.NestedArray) -> list[bytes]:
  """Returns the bytes of each row of observations [N, ...]."""
  leaves = [np.asarray(leaf) for leaf in jax.tree.leaves(observation)]
  columns = [leaf.reshape(len(leaf), -1) for leaf in leaves]
  return [
    b''.join(row.tobytes() for row in rows)
    for rows in zip(*columns, strict=True)
  ]


def solve(environment: core.VectorEnvironment) -> Solution:
  """Returns the solution of the game of an environment's rows.

  A game is solved once: the solution is kept with the environment's model.

  Raises:
    ValueError: if the environment has no model, is not for two, has chance in it,
      or too many states, or if its positions can repeat.
  """
  if not isinstance(environment, core.ModelEnvironment):
    raise ValueError(
      'perfect play is computed from a model of the game, and this environment '
      'has none (core.ModelEnvironment). Choose another opponent.'
    )
  spec = specs.make_environment_spec(environment)
  opponents.check_two_players(spec)
  model: Any = environment.model  # a protocol promises no hash
  return _solve(
    model,
    spec.actions.num_values,
    specs.has_legal_actions(spec.observations),
  )


@functools.lru_cache(maxsize=4)
def _solve(model: Any, num_actions: int, is_masked: bool) -> Solution:
  """Returns the solution of a model's game."""
  graph = _Graph(model, num_actions, is_masked)
  graph.explore()
  return graph.solution()


class _Moves(NamedTuple):
  """Moves [M] between states, which have numbers."""

  start: np.ndarray
  action: np.ndarray
  reward: np.ndarray
  discount: np.ndarray
  end: np.ndarray

  def worth(self, values: np.ndarray) -> np.ndarray:
    """Returns the worth of each move to its player, given the states' values."""
    return self.reward + self.discount * values[self.end]


class _Layer(NamedTuple):
  """States that equally many moves lead to; leaves are [N, ...]."""

  states: Any
  numbers: np.ndarray
  first_moves: np.ndarray  # whether the player who moved first is to move
  legal: np.ndarray  # [N, num_actions]; no action at the end of the game


class _Graph:
  """The states of a game and the moves between them."""

  def __init__(self, model: core.Model, num_actions: int, is_masked: bool):
    self._model = model
    self._num_actions = num_actions
    self._is_masked = is_masked
    # By what is observed, whether the first player moves, and whether it is over.
    self._numbers: dict[tuple[bytes, bool, bool], int] = {}
    self._moves: list[_Moves] = []
    self._key = jax.random.PRNGKey(0)
    self._step = jax.jit(jax.vmap(self._step_row))

  def explore(self) -> None:
    """Lists all states and moves, breadth first.

    Raises:
      ValueError: if there are too many, or chance decides.
    """
    layers = [self._start()]
    while layers:
      layer = jax.tree.map(lambda *parts: np.concatenate(parts), *layers)
      layers = []
      rows, actions = np.nonzero(layer.legal)
      for start in range(0, len(rows), _BATCH):
        batch = slice(start, start + _BATCH)
        layers.append(self._after(layer, rows[batch], actions[batch]))
        self._check_size(layer, *layers)

  def solution(self) -> Solution:
    """Returns values and best moves.

    Raises:
      ValueError: if positions repeat, or look alike and are not.
    """
    moves = _Moves(*map(np.concatenate, zip(*self._moves, strict=True)))
    values = self._values(moves)
    best = np.zeros((len(values), self._num_actions), np.bool_)
    is_best = moves.worth(values) >= values[moves.start] - _CLOSE
    best[moves.start[is_best], moves.action[is_best]] = True
    solution = Solution({}, {})
    for (seen, *_), number in self._numbers.items():
      alike = solution.best.setdefault(seen, best[number])
      if (alike != best[number]).any():
        raise ValueError(
          'perfect play is looked up by what a player observes, and in this game '
          'positions look alike whose best moves differ. Choose another opponent.'
        )
      solution.values[seen] = float(values[number])
    return solution

  def _values(self, moves: _Moves) -> np.ndarray:
    """Returns the values of all states, from the last ones backward."""
    size = len(self._numbers)
    values, is_known = np.zeros(size), np.zeros(size, np.bool_)
    while not is_known.all():
      unknown = np.bincount(moves.start[~is_known[moves.end]], minlength=size)
      ready = ~is_known & (unknown == 0)
      if not ready.any():
        raise ValueError(
          'perfect play is computed for games that come to an end, and positions '
          'of this one can repeat. Choose another opponent.'
        )
      taken = ready[moves.start]
      found = np.full(size, -np.inf)
      np.maximum.at(found, moves.start[taken], moves.worth(values)[taken])
      # A state without moves, the end of the game, keeps 0.
      values = np.where(np.isfinite(found), found, values)
      is_known |= ready
    return values

  def _start(self) -> _Layer:
    """Returns the state in which all games start."""
    keys = jax.random.split(self._key, _NUM_STARTS)
    states = jax.tree.map(np.asarray, jax.vmap(self._model.init)(keys))
    observation = jax.tree.map(
      np.asarray, jax.vmap(self._model.observe)(states)
    )
    if len(set(keys_of(observation))) > 1:
      raise _chance()
    one = np.ones(_NUM_STARTS, np.bool_)
    return self._new(states, observation, one, ~one)[0]

  def _after(
    self, layer: _Layer, rows: np.ndarray, actions: np.ndarray
  ) -> _Layer:
    """Tries moves from rows of a layer; returns the states that are new."""
    size = len(rows)
    padded = np.resize(rows, _BATCH)
    states = jax.tree.map(lambda leaf: leaf[padded], layer.states)
    self._key, key = jax.random.split(self._key)
    keys = jax.random.split(key, _BATCH)
    stepped, observation, is_same = jax.tree.map(
      lambda leaf: np.asarray(leaf)[:size],
      self._step(states, np.resize(actions, _BATCH), keys),
    )
    if not is_same.all():
      raise _chance()
    first_moves = layer.first_moves[rows] ^ (stepped.discount < 0)
    new, ends = self._new(
      stepped.state, observation, first_moves, stepped.discount == 0
    )
    self._moves.append(
      _Moves(
        layer.numbers[rows], actions, stepped.reward, stepped.discount, ends
      )
    )
    return new

  def _step_row(self, state: Any, action: Any, key: Any) -> tuple[Any, ...]:
    """Returns a step, its observation, and whether chance had no part in it."""
    one, two = (
      self._model.step(state, action, k) for k in jax.random.split(key)
    )
    seen, *others = (
      (self._model.observe(s.state), s.reward, s.discount) for s in (one, two)
    )
    is_same = jax.tree.map(lambda a, b: (a == b).all(), seen, *others)
    return one, seen[0], jnp.stack(jax.tree.leaves(is_same)).all()

  def _new(
    self,
    states: Any,
    observation: Any,
    first_moves: np.ndarray,
    is_over: np.ndarray,
  ) -> tuple[_Layer, np.ndarray]:
    """Gives states their numbers; returns those that are new, and all numbers."""
    numbers, new = np.empty(len(is_over), np.int64), []
    seen = zip(
      keys_of(observation), first_moves.tolist(), is_over.tolist(), strict=True
    )
    for row, state in enumerate(seen):
      count = len(self._numbers)
      numbers[row] = self._numbers.setdefault(state, count)
      if numbers[row] == count:
        new.append(row)
    legal = np.ones((len(is_over), self._num_actions), np.bool_)
    if self._is_masked:
      legal = observation[specs.LEGAL_ACTIONS]
    legal = legal & ~is_over[:, np.newaxis]
    layer = _Layer(states, numbers, first_moves, legal)
    return jax.tree.map(lambda leaf: leaf[new], layer), numbers

  def _check_size(self, *layers: _Layer) -> None:
    bytes_ = sum(leaf.nbytes for leaf in jax.tree.leaves(layers))
    if len(self._numbers) > MAX_STATES or bytes_ > _MAX_BYTES:
      raise ValueError(
        'perfect play is computed for games of at most '
        f'{MAX_STATES:,} states, and of less than 1 GB of memory; this one has '
        f'more than {min(len(self._numbers), MAX_STATES):,}. Choose another '
        'opponent.'
      )


def _chance() -> ValueError:
  return ValueError(
    'perfect play is computed for games without chance, and in this one the same '
    'move can have several results. Choose another opponent.'
  )
