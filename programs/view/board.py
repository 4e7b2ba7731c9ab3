"""Shows a board in a terminal, and reads moves that are typed.

Moves are numbers: those of the actions. The board has a cell's number where a move is
a cell, and a column's below it where a move is a column.
"""

from __future__ import annotations

from collections.abc import Sequence
import itertools

import numpy as np

from distacme.environments import boards

FIRST, SECOND = 'X', 'O'
_EMPTY = '.'


def text(board: np.ndarray, legal: np.ndarray, layout: boards.Layout) -> str:
  """Returns a board with its legal moves, at most 80 characters wide.

  Args:
    board: [H, W], see `boards.stones`.
    legal: [num_actions] bool; all False where no moves are to be shown.
    layout: of the game.
  """
  height, width = board.shape
  of_cells = layout.actions == 'cells'
  cells = board.size if of_cells else width
  side = len(str(cells - 1)) + 1
  lines = []
  for row, column_stones in enumerate(board):
    line = [
      _cell(
        int(stone),
        of_cells and legal[row * width + column],
        row * width + column,
      )
      for column, stone in enumerate(column_stones)
    ]
    indent = ' ' * (row * side // 2) if layout.slanted else ''
    lines.append(indent + ''.join(cell.rjust(side) for cell in line))
  if not of_cells:
    numbers = [str(i) if legal[i] else '' for i in range(width)]
    lines.append(''.join(number.rjust(side) for number in numbers).rstrip())
  extra = [
    f'{cells + i} {name}'
    for i, name in enumerate(layout.extra)
    if legal[cells + i]
  ]
  if extra:
    lines.append(f' also: {", ".join(extra)}')
  return '\n'.join(lines)


def move_name(action: int, board: np.ndarray, layout: boards.Layout) -> str:
  """Returns a move's number, and its name if it has one."""
  own = board.size if layout.actions == 'cells' else board.shape[1]
  return (
    f'{action} ({layout.extra[action - own]})' if action >= own else f'{action}'
  )


def read_move(typed: str, legal: np.ndarray) -> int:
  """Returns the action that was typed.

  Raises:
    ValueError: if it is no number, or no legal move; says which are.
  """
  known = f'Legal moves: {ranges(np.flatnonzero(legal).tolist())}; q quits.'
  # Not isdigit, which holds for digits that int does not read.
  if not (typed.isascii() and typed.isdigit()):
    raise ValueError(f'{typed!r} is not the number of a move. {known}')
  action = int(typed)
  if action >= len(legal) or not legal[action]:
    raise ValueError(f'{action} is not legal here. {known}')
  return action


def ranges(numbers: Sequence[int]) -> str:
  """Returns sorted numbers in words: '0-4, 6, 8'."""
  parts: list[str] = []
  for _, group in itertools.groupby(
    enumerate(numbers), lambda pair: pair[1] - pair[0]
  ):
    run = [number for _, number in group]
    parts += [f'{run[0]}-{run[-1]}'] if len(run) > 2 else map(str, run)
  return ', '.join(parts)


def _cell(stone: int, is_legal: bool, number: int) -> str:
  if stone:
    return FIRST if stone > 0 else SECOND
  return str(number) if is_legal else _EMPTY
