"""Boards in the terminal, and the moves that are typed."""

import numpy as np
import pytest

from distacme.environments import boards
from distacme.programs.view import board

CELLS = boards.Layout()


def test_cells_that_are_legal_have_numbers():
  stones = np.array([[1, 0, 0], [0, -1, 0], [0, 0, 0]])
  legal = (stones == 0).ravel()
  legal[1] = False
  assert board.text(stones, legal, CELLS) == ' X . 2\n 3 O 5\n 6 7 8'


def test_columns_that_are_legal_have_numbers_below():
  stones = np.array([[-1, 0, 0], [1, 0, 0]])
  text = board.text(
    stones, np.array([False, True, True]), boards.Layout('columns')
  )
  assert text == ' O . .\n X . .\n   1 2'


def test_other_actions_are_named():
  stones = np.zeros((2, 2), int)
  layout = boards.Layout(extra=('pass', 'swap'))
  legal = np.array([True] * 4 + [True, False])
  assert board.text(stones, legal, layout) == ' 0 1\n 2 3\n also: 4 pass'
  assert board.move_name(4, stones, layout) == '4 (pass)'
  assert board.move_name(3, stones, layout) == '3'


def test_rows_of_six_neighbours_are_slanted():
  layout = boards.Layout(slanted=True)
  text = board.text(np.zeros((3, 2), int), np.zeros(6, bool), layout)
  assert text == ' . .\n  . .\n   . .'


@pytest.mark.parametrize('game', boards.LAYOUTS)
def test_boards_are_at_most_80_wide(game):
  sizes = {'go_19x19': 19, 'hex': 11}
  side = sizes.get(game, 9)
  layout = boards.LAYOUTS[game]
  legal = np.ones(side * side + len(layout.extra), bool)
  text = board.text(np.zeros((side, side), int), legal, layout)
  assert max(map(len, text.splitlines())) <= 80
  assert len(layout.rule) <= 80


LEGAL = np.array([True, True, True, False, True, False])


@pytest.mark.parametrize(
  ('typed', 'message'),
  [
    ('3', '3 is not legal here. '),
    ('6', '6 is not legal here. '),
    ('x', "'x' is not the number of a move. "),
    ('', "'' is not the number of a move. "),
    ('-1', "'-1' is not the number of a move. "),
    ('²', "'²' is not the number of a move. "),
  ],
)
def test_what_is_no_move_is_answered_with_the_legal_ones(typed, message):
  with pytest.raises(ValueError) as refused:
    board.read_move(typed, LEGAL)
  assert str(refused.value) == message + 'Legal moves: 0-2, 4; q quits.'


def test_a_move_is_a_number():
  assert board.read_move('4', LEGAL) == 4


def test_numbers_in_a_row_are_said_in_short():
  assert board.ranges([0, 1, 3, 4, 5, 6, 9]) == '0, 1, 3-6, 9'
