"""Reads and draws the boards of games for two, from what their players observe.

A board is observed as planes [H, W, C]: plane 0 holds the stones of the player who
moves next, plane 1 those of the opponent.
"""

from __future__ import annotations

import dataclasses
from typing import Literal

import numpy as np

_CELL = 40  # pixels
_WOOD, _LINE = (222, 184, 135), (90, 60, 30)
_FIRST, _SECOND, _RIM = (20, 20, 20), (245, 245, 245), (40, 40, 40)


@dataclasses.dataclass(frozen=True)
class Layout:
  """The meaning of a game's actions on its board.

  Attributes:
    actions: 'cells' if action i is the cell i, counted row by row; 'columns' if it
      is column i.
    extra: names of the actions after those, such as a pass.
    slanted: whether each row is half a cell further to the right than the row
      above, so that cells have six neighbours.
    rule: a sentence about the sides, if the board does not tell it.
  """

  actions: Literal['cells', 'columns'] = 'cells'
  extra: tuple[str, ...] = ()
  slanted: bool = False
  rule: str = ''


# pgx's games whose observation has such planes.
LAYOUTS = {
  'connect_four': Layout('columns'),
  'go_19x19': Layout(extra=('pass',)),
  'go_9x9': Layout(extra=('pass',)),
  'hex': Layout(
    extra=('swap',),
    slanted=True,
    rule='X joins left and right, O top and bottom.',
  ),
  'othello': Layout(extra=('pass',)),
  'tic_tac_toe': Layout(),
}


def stones(planes: np.ndarray, first_moves: bool) -> np.ndarray:
  """Returns the board [H, W]: 1 for the first player's stones, -1 for others.

  Args:
    planes: [H, W, C], as the player who moves next observes them.
    first_moves: whether that is the player who moved first.
  """
  own, others = (np.asarray(planes[..., i], np.int8) for i in (0, 1))
  return own - others if first_moves else others - own


def draw(board: np.ndarray, layout: Layout) -> np.ndarray:
  """Returns a picture, uint8 [h, w, 3]: the first player's stones are black."""
  height, width = board.shape
  shift = _CELL // 2 if layout.slanted else 0
  picture = np.empty(
    (height * _CELL, width * _CELL + shift * (height - 1), 3), np.uint8
  )
  picture[:] = _WOOD
  for row, column in np.ndindex(board.shape):
    top, left = row * _CELL, column * _CELL + row * shift
    _draw_cell(
      picture[top : top + _CELL, left : left + _CELL], int(board[row, column])
    )
  return picture


def _draw_cell(cell: np.ndarray, stone: int) -> None:
  """Draws the frame of a cell and its stone into a view of the picture."""
  cell[[0, -1]] = cell[:, [0, -1]] = _LINE
  if not stone:
    return
  axis = np.arange(_CELL) - (_CELL - 1) / 2
  distance = np.hypot(axis[:, None], axis)
  cell[distance <= _CELL * 0.4] = _RIM
  cell[distance <= _CELL * 0.36] = _FIRST if stone > 0 else _SECOND
