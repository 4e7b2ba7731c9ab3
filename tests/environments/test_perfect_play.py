"""Small games solved exactly."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from distacme import environments
from distacme import specs
from distacme.environments import opponents
from distacme.environments import perfect_play
from distacme.environments import vector
from tests.environments import nim

KEY = np.array([0, 1], np.uint32)


def key_of(model, **state):
  """Returns the key of one state of the game."""
  state = nim.State(*(jnp.int32(state.get(k, 0)) for k in nim.State._fields))
  seen = jax.tree.map(lambda leaf: np.asarray(leaf)[None], model.observe(state))
  return perfect_play.keys_of(seen)[0]


def test_a_small_game_is_solved_as_by_hand():
  model = nim.Nim()
  solution = perfect_play.solve(nim.make(1, model))
  assert len(solution.values) == nim.STONES + 1
  for stones in range(1, nim.STONES + 1):
    key = key_of(model, stones=stones)
    take = stones % 4  # leave a multiple of 4
    assert solution.values[key] == (1.0 if take else -1.0)
    expected = np.arange(1, 4) == take if take else np.arange(3) < stones
    np.testing.assert_array_equal(solution.best[key], expected)


class TakesAgain(nim.Nim):
  """Nim in which whoever moves first moves twice before the other."""

  def discount(self, state):
    return jnp.where(state.moves == 0, 1.0, -1.0)

  def observe(self, state):
    return {**super().observe(state), 'moves': state.moves}


def test_a_player_who_moves_again_maximises_again():
  model = TakesAgain()
  solution = perfect_play.solve(nim.make(1, model))
  first = key_of(model, stones=7)
  # From 7 any move leaves 6, 5, 4 to the same player, who then leaves 4 or 3 ...
  np.testing.assert_array_equal(solution.best[first], [True, True, False])
  assert solution.values[first] == 1.0


class Chance(nim.Nim):
  """A stone more or less is taken now and then."""

  def left(self, state, action, key):
    more = jax.random.bernoulli(key)
    return state.stones - action - 1 - more


class RandomStart(nim.Nim):
  """Games begin with different numbers of stones."""

  def init(self, key):
    stones = jax.random.randint(key, (), 4, 12)
    return nim.State(stones, jnp.int32(0))


class Repeats(nim.Nim):
  """Taking three stones from three or four gives all of them back."""

  def left(self, state, action, key):
    again = (action == 2) & (state.stones < 5)
    return jnp.where(again, nim.STONES, state.stones - action - 1)


class Hidden(nim.Nim):
  """The game ends after two moves, which nobody sees coming."""

  def step(self, state, action, key):
    step = super().step(state, action, key)
    is_over = step.state.moves > 1
    return step._replace(discount=jnp.where(is_over, 0.0, step.discount))


class Endless(nim.Nim):
  """A mover may pass, and the number of moves is seen."""

  def left(self, state, action, key):
    return jnp.int32(nim.STONES)

  def observe(self, state):
    return {**super().observe(state), 'moves': state.moves}


@pytest.mark.parametrize(
  ('model', 'reason'),
  [
    (Chance(), 'the same move can have several results'),
    (RandomStart(), 'the same move can have several results'),
    (Repeats(), 'positions of this one can repeat'),
    (Hidden(), 'positions look alike whose best moves differ'),
    (
      Endless(),
      'at most 500 states, and of less than 1 GB of memory; this one',
    ),
  ],
)
def test_games_that_cannot_be_solved_are_refused(monkeypatch, model, reason):
  monkeypatch.setattr(perfect_play, 'MAX_STATES', 500)
  with pytest.raises(ValueError, match=reason) as refused:
    perfect_play.solve(nim.make(1, model))
  assert str(refused.value).endswith('Choose another opponent.')


def test_states_that_need_too_much_memory_are_refused(monkeypatch):
  monkeypatch.setattr(perfect_play, '_MAX_BYTES', 50)
  with pytest.raises(ValueError, match='of less than 1 GB of memory'):
    perfect_play.solve(nim.make(1))


def test_games_without_a_model_are_refused():
  environment = vector.LoopVector([nim.NimByHand()])
  with pytest.raises(ValueError, match='computed from a model of the game'):
    perfect_play.solve(environment)


def test_games_for_one_are_refused():
  environment = environments.make_vector('jax:catch', 1, seed=0)
  with pytest.raises(ValueError, match='is for games of two players'):
    perfect_play.solve(environment)


@pytest.fixture(scope='module', name='rows')
def fixture_rows():
  """Returns rows of tic-tac-toe."""
  pytest.importorskip('pgx')
  return environments.make_vector('pgx:tic_tac_toe', 40, seed=0)


@pytest.fixture(scope='module', name='solution')
def fixture_solution(rows):
  return perfect_play.solve(rows)


def test_tic_tac_toe_has_5478_states_and_is_a_draw(rows, solution):
  assert len(solution.values) == 5478
  start = perfect_play.keys_of(rows.reset().observation)[0]
  assert solution.values[start] == 0.0
  assert solution.best[start].all()  # any first move draws


def test_a_game_is_solved_once(rows, solution):
  again = environments.make_vector('pgx:tic_tac_toe', 1, seed=3)
  assert perfect_play.solve(again) is solution


def games(rows, solution, agent):
  """Returns the agent's rewards in two games of each row."""
  opponent = perfect_play.PerfectOpponent(solution, KEY)
  environment = opponents.AgainstOpponent(rows, opponent)
  timestep = environment.reset()
  returns, ended = np.zeros(rows.num_envs), np.zeros(rows.num_envs, int)
  while ended.min() < 2:
    output = agent.act(timestep.observation, timestep.step_type == 0)
    timestep = environment.step(output.action)
    returns += timestep.reward * (ended < 2)
    ended += timestep.step_type == 2
  return returns


def test_perfect_play_is_never_beaten_and_punishes_mistakes(rows, solution):
  agent = opponents.RandomOpponent(specs.DiscreteArray(9), KEY)
  returns = games(rows, solution, agent)
  assert returns.max() <= 0
  assert returns.mean() < -1.5  # of two games


def test_perfect_play_of_both_is_a_draw(rows, solution):
  agent = perfect_play.PerfectOpponent(solution, KEY + np.uint32(1))
  assert not games(rows, solution, agent).any()


def test_all_best_moves_are_chosen(rows, solution):
  opponent = perfect_play.PerfectOpponent(solution, KEY)
  first = rows.reset().observation
  drawn = {
    int(a)
    for _ in range(5)
    for a in opponent.act(first, np.ones(40, bool)).action
  }
  assert drawn == set(range(9))
