"""Boards of pgx's games: whose stones are where, and how they are drawn."""

import jax
import numpy as np
import pytest

from distacme import environments
from distacme import specs
from distacme.environments import boards
from distacme.environments import opponents

# go_19x19 is go_9x9, larger.
GAMES = ('connect_four', 'go_9x9', 'hex', 'othello', 'tic_tac_toe')


@pytest.fixture(name='broadcasts')
def fixture_broadcasts():
  """Lets pgx's go broadcast, which `conftest` forbids in tests."""
  with jax.numpy_rank_promotion('allow'):
    yield


@pytest.mark.usefixtures('broadcasts')
@pytest.mark.parametrize('game', GAMES)
def test_a_move_puts_the_movers_stone_where_the_layout_says(game):
  pytest.importorskip('pgx')
  layout = boards.LAYOUTS[game]
  environment = environments.make_vector(f'pgx:{game}', 1, seed=0)
  random = np.random.default_rng(0)
  timestep = environment.reset()
  planes = timestep.observation['board'][0]
  board = boards.stones(planes, True)
  own = board.size if layout.actions == 'cells' else board.shape[1]
  assert own + len(layout.extra) == environment.action_spec().num_values
  mover = 1
  while timestep.step_type[0] != 2:
    legal = timestep.observation[specs.LEGAL_ACTIONS].copy()
    if legal[0, :own].any():  # else only a pass is left
      legal[0, own:] = False
    action = opponents.choose_evenly(random, legal)
    timestep = environment.step(action)
    planes = timestep.observation['board'][0]
    assert not (planes[..., 0] & planes[..., 1]).any()
    # At the end, too, the other player is the one who would move.
    mover = -mover
    before, board = board, boards.stones(planes, mover == 1)
    if action[0] >= own:
      np.testing.assert_array_equal(board, before)
    elif layout.actions == 'cells':
      assert before.flat[action[0]] == 0
      assert board.flat[action[0]] == -mover
    else:
      (new,) = np.flatnonzero(board != before)
      assert new % own == action[0]
      assert board.flat[new] == -mover


def test_all_layouts_are_of_pgxs_games():
  pgx = pytest.importorskip('pgx')
  assert set(boards.LAYOUTS) <= set(pgx.available_envs())


@pytest.mark.parametrize('slanted', [False, True])
def test_the_first_players_stones_are_black(slanted):
  board = np.array([[1, 0, 0], [0, -1, 0]])
  picture = boards.draw(board, boards.Layout(slanted=slanted))
  assert picture.dtype == np.uint8
  side, shift = 40, 20 * slanted
  assert picture.shape == (2 * side, 3 * side + shift, 3)
  assert (picture[side // 2, side // 2] < 50).all()
  assert (picture[side + side // 2, side + side // 2 + shift] > 200).all()
  empty = picture[side // 2, side + side // 2]
  assert not (empty < 50).all() and not (empty > 200).all()


def test_a_vectors_first_row_is_drawn_in_the_same_colours_all_game():
  pytest.importorskip('pgx')
  environment = environments.make_vector('pgx:tic_tac_toe', 2, seed=0)
  environment.reset()
  centre = []
  for action in (4, 0, 1, 2):
    environment.step(np.array([action, 8 - action], np.int32))
    centre.append(environment.render()[60, 60].tolist())
  assert len(set(map(tuple, centre))) == 1
  assert max(centre[0]) < 50


def test_a_game_without_such_a_board_is_not_drawn():
  pytest.importorskip('pgx')
  with pytest.raises(
    ValueError,
    match="'pgx:chess' cannot be drawn: .* done for connect_four, go",
  ):
    environments.make('pgx:chess', seed=0, render=True)
