"""Games against an opponent: turns, seats and signs."""

import numpy as np
import pytest

from distacme import core
from distacme import environments
from distacme import specs
from distacme import types
from distacme.environments import opponents
from distacme.environments import vector
from distacme.testing import environments as testing
from tests.environments import nim

KEY = np.array([0, 1], np.uint32)
ONE, TWO, THREE = 0, 1, 2  # actions: the stones that are taken, less one


class Scripted:
  """Takes equally many stones always; keeps what it was shown."""

  def __init__(self, action):
    self.version = 0
    self.asked = []
    self._action = action

  def act(self, observation, is_first):
    self.asked.append((observation['stones'].tolist(), is_first.tolist()))
    return types.ActorOutput(np.full(len(is_first), self._action, np.int32))

  def start_anew(self, environment, key):
    raise NotImplementedError


def play(environment, action, steps):
  """Returns the timesteps of an agent that always takes equally many stones."""
  timesteps = [environment.reset()]
  actions = np.full(environment.num_envs, action, np.int32)
  for _ in range(steps):
    timesteps.append(environment.step(actions))
  return timesteps


def column(timesteps, name):
  return [np.asarray(getattr(t, name)).tolist() for t in timesteps]


def stones(timesteps):
  return [t.observation['stones'].tolist() for t in timesteps]


def test_even_rows_begin_with_the_agent_and_odd_rows_with_the_opponent():
  opponent = Scripted(ONE)
  environment = opponents.AgainstOpponent(nim.make(4), opponent)
  assert stones(play(environment, THREE, 2)) == [
    [7, 7, 7, 7],
    [4, 6, 4, 6],
    [3, 3, 3, 3],
  ]


def test_a_row_swaps_seats_with_every_episode():
  environment = opponents.AgainstOpponent(nim.make(2), Scripted(ONE))
  timesteps = play(environment, THREE, 10)
  # Agent first: 7 4 3 0, the next: 7 6 3 2 0.
  assert stones(timesteps)[:10] == [
    [7, 7],
    [4, 6],
    [3, 3],
    [0, 2],
    [7, 0],
    [6, 7],
    [3, 4],
    [2, 3],
    [0, 0],
    [7, 7],
  ]


def test_seats_are_swapped_by_a_reset_too():
  environment = opponents.AgainstOpponent(nim.make(2), Scripted(ONE))
  environment.reset()
  assert stones(play(environment, THREE, 1))[1] == [6, 4]


@pytest.mark.parametrize(
  ('own', 'others', 'rewards'),
  [
    # 7 4 3 0: the agent takes the last; 7 6 3 2 0: the agent, too.
    (THREE, ONE, [[0, 0], [0, 0], [1, 0]]),
    # 7 6 3 2 0: the opponent; 7 4 3 0: the opponent.
    (ONE, THREE, [[0, 0], [0, 0], [0, -1]]),
  ],
)
def test_rewards_are_the_agents(own, others, rewards):
  environment = opponents.AgainstOpponent(nim.make(2), Scripted(others))
  timesteps = play(environment, own, 3)
  assert column(timesteps[1:], 'reward') == rewards
  assert not np.signbit(timesteps[1].reward).any()  # no -0.0
  assert timesteps[1].reward.dtype == np.float32


def test_both_players_moves_are_steps_and_discounts_stay():
  inner = nim.make(1)
  environment = opponents.AgainstOpponent(inner, Scripted(ONE))
  timesteps = play(environment, THREE, 4)
  assert column(timesteps, 'discount') == [[1], [-1], [-1], [0], [1]]
  assert column(timesteps, 'step_type') == [[0], [1], [1], [2], [0]]
  assert environment.discount_spec() == inner.discount_spec()


def test_the_opponent_is_asked_at_its_turns_only_and_sees_each_start():
  opponent = Scripted(ONE)
  environment = opponents.AgainstOpponent(nim.make(1), opponent)
  play(environment, THREE, 8)  # 7 4 3 0, 7 6 3 2 0
  assert opponent.asked == [
    ([4], [True]),
    ([7], [True]),
    ([3], [False]),
  ]


def test_a_player_who_moves_again_keeps_the_turn():
  inner = vector.LoopVector([nim.NimByHand()])
  opponent = Scripted(ONE)
  environment = opponents.AgainstOpponent(inner, opponent)
  timesteps = play(environment, THREE, 3)  # 7 4 1, and more than there are
  assert column(timesteps, 'reward') == [[0], [0], [0], [1]]
  assert not opponent.asked


def test_rewards_of_one_sign_get_both():
  inner = vector.LoopVector([nim.NimByHand()])
  spec = opponents.AgainstOpponent(inner, Scripted(ONE)).reward_spec()
  assert (spec.minimum, spec.maximum) == (-1.0, 1.0)


def test_model_and_states_pass_through():
  inner = nim.make(2)
  environment = opponents.AgainstOpponent(inner, Scripted(ONE))
  play(environment, THREE, 1)
  assert isinstance(environment, core.ModelEnvironment)
  assert environment.model is inner.model
  assert environment.state.stones.tolist() == [4, 6]
  by_hand = vector.LoopVector([nim.NimByHand()])
  without = opponents.AgainstOpponent(by_hand, Scripted(ONE))
  assert not isinstance(without, core.ModelEnvironment)


def test_games_keep_their_specs_until_an_episode_is_over():
  inner = nim.make(3)
  spec = specs.make_environment_spec(inner).actions
  environment = environments.check_first_episode(
    opponents.AgainstOpponent(inner, opponents.RandomOpponent(spec, KEY))
  )
  random = np.random.default_rng(0)
  timestep = environment.reset()
  for _ in range(30):
    legal = timestep.observation[specs.LEGAL_ACTIONS]
    timestep = environment.step(opponents.choose_evenly(random, legal))


def test_one_player_has_no_opponent():
  environment = vector.LoopVector([testing.Catch(0)])
  with pytest.raises(
    ValueError, match='an opponent is for games of two players'
  ):
    opponents.AgainstOpponent(environment, Scripted(ONE))


def test_random_moves_are_legal_and_even():
  legal = np.tile([[True, False, True, True]], (3000, 1))
  opponent = opponents.RandomOpponent(specs.DiscreteArray(4), KEY)
  action = opponent.act(
    {specs.LEGAL_ACTIONS: legal}, np.zeros(3000, bool)
  ).action
  counts = np.bincount(action, minlength=4)
  assert counts[1] == 0
  np.testing.assert_allclose(counts[[0, 2, 3]], 1000, atol=120)
  assert action.dtype == np.int32


def test_without_a_mask_all_moves_are_legal():
  opponent = opponents.RandomOpponent(specs.DiscreteArray(3), KEY)
  action = opponent.act(np.zeros((100, 2)), np.zeros(100, bool)).action
  assert set(action.tolist()) == {0, 1, 2}


def test_random_moves_are_those_of_the_key():
  def draw(key):
    opponent = opponents.RandomOpponent(specs.DiscreteArray(9), key)
    return [
      opponent.act(np.zeros(5), np.zeros(5, bool)).action.tolist()
      for _ in range(3)
    ]

  assert draw(KEY) == draw(KEY) != draw(KEY + np.uint32(1))


def test_random_numbers_are_no_discrete_actions():
  with pytest.raises(ValueError, match='a random opponent chooses among'):
    opponents.RandomOpponent(specs.Array((2,), np.float32), KEY)


def test_an_opening_is_the_opponent_s_first_move_of_each_game():
  """The opponent takes two stones, but first the one that its opening takes."""
  environment = opponents.AgainstOpponent(
    nim.make(2), Scripted(TWO), Scripted(ONE)
  )
  # Row 0: agent 3, opening 1, agent 3 (wins). Row 1: opening 1, agent 3, then 2, 1.
  assert stones(play(environment, THREE, 3)) == [[7, 7], [4, 6], [3, 3], [0, 1]]
