"""Searches against games that can be counted out."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from distacme import core
from distacme import environments
from distacme import specs
from distacme import types
from distacme.kit import planner
from distacme.kit import search
from distacme.kit import settings as settings_lib

KEY = jax.random.PRNGKey(3)
NOBODY = np.zeros(8, bool)
METHODS = pytest.mark.parametrize('method', ['puct', 'gumbel'])


def settings(**changed):
  return settings_lib.SearchConfig(
    **({'discount': 1.0, 'num_simulations': 32} | changed)
  )


class Walk:
  """A walk of 6 steps: action 2 is worth its number of steps so far, others 0."""

  def init(self, key):
    del key
    return jnp.int32(0)

  def step(self, state, action, key):
    del key
    is_over = state >= 6
    after = jnp.where(is_over, state, state + 1)
    reward = jnp.where((action == 2) & ~is_over, state, 0).astype(jnp.float32)
    return core.ModelStep(after, reward, jnp.where(after >= 6, 0.0, 1.0))

  def observe(self, state):
    return state


def uneven(params, key, observation):
  """Returns logits and values without ties, so that noise against ties is silent."""
  del params, key
  shape = jnp.shape(observation)
  value = jnp.sin(3.0 * observation.astype(jnp.float32))
  logits = jnp.broadcast_to(jnp.float32([0.3, -0.2, 0.1]), (*shape, 3))
  return search.Evaluation(logits * (1 + 0.1 * value[..., None]), value)


def run(chosen, root, state, explores, step):
  """Returns the outcome of a compiled search."""
  return jax.jit(functools.partial(search.run, chosen, step=step))(
    KEY, root, state, explores
  )


def batched(model):
  def step(key, state, action, evaluate=uneven):
    keys = jax.random.split(key, action.shape[0])
    stepped = jax.vmap(model.step)(state, action, keys)
    evaluation = evaluate((), key, jax.vmap(model.observe)(stepped.state))
    return search.ModelOutput(*stepped, evaluation)

  return step


def stepped_from_outside(chosen, roots, explores=NOBODY):
  """Returns the tree of a search of `Walk` that is stepped by numpy, and its leaves."""
  step = batched(Walk())
  begin = jax.jit(functools.partial(search.begin, chosen))
  advance = jax.jit(functools.partial(search.advance, chosen))
  keys = jax.random.split(KEY, chosen.num_simulations + 2)
  tree, leaf = begin(keys[0], keys[1], uneven((), KEY, roots), explores)
  states, leaves = [np.asarray(roots)], []
  for number in range(chosen.num_simulations):
    leaves.append(leaf)
    at = np.stack(states)[leaf.node, np.arange(len(roots))]
    output = step(KEY, at, leaf.action)
    states.append(np.asarray(output.state))
    tree, leaf = advance(
      keys[number + 1],
      keys[number + 2],
      tree,
      jnp.int32(number),
      output._replace(state=()),
    )
  return tree, leaves


ROOTS = jnp.arange(8, dtype=jnp.int32) % 6


@METHODS
def test_visits_sum_to_simulations_and_the_policy_to_one(method):
  found = run(
    settings(search=method, num_simulations=19),
    uneven((), KEY, ROOTS),
    ROOTS,
    ~NOBODY,
    batched(Walk()),
  )
  np.testing.assert_array_equal(found.visits.sum(axis=-1), 19)
  np.testing.assert_allclose(found.policy.sum(axis=-1), 1.0, rtol=1e-6)


@METHODS
def test_a_search_from_outside_is_the_compiled_search(method):
  chosen = settings(search=method)
  compiled = run(chosen, uneven((), KEY, ROOTS), ROOTS, NOBODY, batched(Walk()))
  tree, leaves = stepped_from_outside(chosen, ROOTS)
  outside = search.finish(chosen, tree)
  for expected, found in zip(compiled, outside, strict=True):
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)
  # Every leaf that was stepped is the one that the tree holds.
  parents = np.stack([leaf.node for leaf in leaves], axis=1)
  actions = np.stack([leaf.action for leaf in leaves], axis=1)
  np.testing.assert_array_equal(tree.parents[:, 1:], parents)
  np.testing.assert_array_equal(tree.action_from_parent[:, 1:], actions)


def test_the_root_s_value_is_the_mean_of_what_was_backed_up():
  chosen = settings(discount=0.9)
  tree, _ = stepped_from_outside(chosen, ROOTS)
  for row in range(len(ROOTS)):
    value, visits = _backed_up(jax.tree.map(lambda x, r=row: x[r], tree), 0)
    assert visits == chosen.num_simulations + 1
    np.testing.assert_allclose(
      search.finish(chosen, tree).value[row], value, rtol=1e-5
    )


def _backed_up(tree, node):
  """Returns a node's mean value and visits, by recursion over its children."""
  total, visits = float(tree.raw_values[node]), 1
  for action, child in enumerate(np.asarray(tree.children_index[node])):
    if child >= 0:
      value, count = _backed_up(tree, child)
      reward = float(tree.children_rewards[node, action])
      discount = float(tree.children_discounts[node, action])
      total += count * (reward + discount * value)
      visits += count
  return total / visits, visits


def test_beyond_a_terminal_state_nothing_is_won():
  """From row 5 each step is the last: 0, 0 or 5, and the root's own value 0.9."""
  roots = jnp.full(8, 5, jnp.int32)

  def evaluate(params, key, observation):
    return uneven(params, key, observation)._replace(
      value=jnp.full(observation.shape, 0.9)  # at the terminal state, too
    )

  found = run(
    settings(),
    evaluate((), KEY, roots),
    roots,
    NOBODY,
    functools.partial(batched(Walk()), evaluate=evaluate),
  )
  np.testing.assert_array_equal(found.best, 2)
  expected = (0.9 + 5.0 * np.asarray(found.visits)[:, 2]) / 33
  np.testing.assert_allclose(found.value, expected, rtol=1e-5)


# Two players.


@pytest.fixture(scope='module')
def tic_tac_toe():
  return environments.make_vector('pgx:tic_tac_toe', 8, seed=0)


def even(params, key, observation):
  """Returns what a player knows who knows nothing but the rules."""
  del params, key
  logits = jnp.zeros(observation['legal_actions'].shape)
  return search.Evaluation(
    search.mask(logits, observation), jnp.zeros(logits.shape[:1])
  )


def play(vector, moves):
  vector.reset()
  for move in moves:
    timestep = vector.step(np.full(vector.num_envs, move, np.int32))
  return timestep


def found_after(vector, moves, sign=1.0, **changed):
  """Returns the search of a position of 8 equal rows."""
  observation = play(vector, moves).observation
  step = functools.partial(batched(vector.model), evaluate=even)

  def signed(key, state, action):
    output = step(key, state, action)
    return output._replace(discount=sign * output.discount)

  return run(
    settings(**({'num_simulations': 200} | changed)),
    even((), KEY, observation),
    vector.state,
    NOBODY,
    signed,
  )


# X X .    X is to move and wins at 2; else O wins at 5.
# O O .
# . . .
WIN = (0, 3, 1, 4)
# X . .    O is to move and must block at 6, which X threatens.
# X O .
# . . .
BLOCK = (0, 4, 3)


@METHODS
def test_a_win_is_taken_and_a_threat_is_met(tic_tac_toe, method):
  found = found_after(tic_tac_toe, WIN, search=method)
  np.testing.assert_array_equal(found.best, 2)
  if method == 'puct':  # Gumbel's visits go to half of the moves evenly
    assert (found.value > 0.8).all()
  found = found_after(tic_tac_toe, BLOCK, search=method)
  np.testing.assert_array_equal(found.best, 6)


def test_without_the_sign_of_the_opponent_a_threat_is_not_met(tic_tac_toe):
  found = found_after(tic_tac_toe, BLOCK, sign=-1.0)
  assert (found.best != 6).all()


def test_a_whole_tree_tells_the_outcome(tic_tac_toe):
  """With two squares left, and two moves ahead; counted out by hand."""
  # X O X    O is to move, with 7 and 8 left. 7 wins by the column 1, 4, 7; after 8, X
  # O O X    moves to 7, which is a draw. The search visits 7 n times and 8 m times, of
  # X . .    which the first sees nothing and all others the draw: n wins in n + m + 1.
  moves = (0, 1, 2, 4, 5, 3, 6)
  won = found_after(tic_tac_toe, moves, num_simulations=100)
  np.testing.assert_array_equal(won.best, 7)
  visits = np.asarray(won.visits)
  np.testing.assert_array_equal(visits[:, 7] + visits[:, 8], 100)
  np.testing.assert_allclose(won.value, visits[:, 7] / 101, rtol=1e-5)
  # One move before, X had 6, 7 and 8 left, and 8 had won by the column 2, 5, 8.
  missed = found_after(tic_tac_toe, moves[:-1], num_simulations=400)
  np.testing.assert_array_equal(missed.best, 8)
  # X at 0 and 4 with 6 threatens 2 (by 2, 4, 6), 3 (0, 3, 6): O has lost.
  beaten = found_after(tic_tac_toe, (0, 1, 4, 8, 6), num_simulations=400)
  assert (beaten.value < -0.85).all()


@METHODS
def test_illegal_actions_are_never_chosen(tic_tac_toe, method):
  """Not by the root, and not within the tree, whatever the prior says."""
  observation = play(tic_tac_toe, (4, 0)).observation
  chosen = settings(search=method, num_simulations=30, temperature=20.0)

  def biased(params, key, observation):
    evaluation = even(params, key, observation)
    wanted = jnp.where(observation['legal_actions'], -30.0, 30.0)
    return evaluation._replace(logits=search.mask(wanted, observation))

  step = jax.jit(functools.partial(batched(tic_tac_toe.model), evaluate=biased))
  begin = jax.jit(functools.partial(search.begin, chosen))
  tree, leaf = begin(KEY, KEY, biased((), KEY, observation), ~NOBODY)
  advance = jax.jit(functools.partial(search.advance, chosen))
  states = [tic_tac_toe.state]
  legal = [observation['legal_actions']]
  rows = np.arange(8)
  for number in range(30):
    at = jax.tree.map(
      lambda *nodes, leaf=leaf: np.stack(nodes)[leaf.node, rows], *states
    )
    is_over = np.asarray(at.terminated)
    allowed = np.stack(legal)[leaf.node, rows, leaf.action]
    assert (allowed | is_over).all()
    output = step(KEY, at, leaf.action)
    states.append(output.state)
    legal.append(np.asarray(output.state.legal_action_mask))
    tree, leaf = advance(
      KEY, KEY, tree, jnp.int32(number), output._replace(state=())
    )
  found = search.finish(chosen, tree)
  assert not np.asarray(found.visits)[~observation['legal_actions']].any()
  state = planner.initial_actor_state(8, types.Streams(np.arange(8), 8))
  for key in jax.random.split(KEY, 20):
    action = planner.act(chosen, key, found, state).action
    assert observation['legal_actions'][rows, action].all()


# Noise and choice.


def test_noise_is_for_exploring_rows():
  explores = np.arange(8) < 4
  roots = jnp.zeros(8, jnp.int32)
  found = run(
    settings(dirichlet_fraction=1.0, num_simulations=8),
    uneven((), KEY, roots),
    roots,
    explores,
    batched(Walk()),
  )
  visits = np.asarray(found.visits)
  assert (visits[4:] == visits[4]).all()
  assert len(np.unique(visits[:4], axis=0)) > 1


def test_actors_draw_by_visits_until_the_temperature_ends():
  chosen = settings(temperature=1.0, temperature_steps=3)
  policy = jnp.float32([[0.5, 0.3, 0.2]] * 2000)
  found = planner.without_search(
    search.Evaluation(jnp.log(policy), jnp.zeros(2000))
  )
  state = planner.initial_actor_state(
    2000, types.Streams(np.arange(2000), 2000)
  )
  for step in range(5):
    output = planner.act(chosen, jax.random.fold_in(KEY, step), found, state)
    state = output.state
    shares = np.bincount(output.action, minlength=3) / 2000
    expected = [0.5, 0.3, 0.2] if step < 3 else [1.0, 0.0, 0.0]
    # Six deviations of a share of 2,000 draws.
    np.testing.assert_allclose(shares, expected, atol=0.07)
  evaluated = planner.initial_actor_state(2000, None)
  assert not planner.act(chosen, KEY, found, evaluated).action.any()


def test_a_mask_is_told_by_the_observation():
  logits = jnp.zeros((1, 2))
  assert search.mask(logits, jnp.ones((1, 4))) is logits
  seen = {
    'board': jnp.ones((1, 3)),
    specs.LEGAL_ACTIONS: jnp.array([[True, False]]),
  }
  masked = jax.nn.softmax(search.mask(logits, seen))
  np.testing.assert_array_equal(masked, [[1.0, 0.0]])
  assert set(search.without_mask(seen)) == {'board'}


@pytest.mark.parametrize(
  ('changed', 'message'),
  [
    ({'search': 'uct'}, "search must be 'puct' or 'gumbel', got 'uct'"),
    ({'num_simulations': 0}, 'num_simulations must be at least 1'),
    ({'dirichlet_fraction': 1.5}, r'dirichlet_fraction must be in \[0, 1\]'),
  ],
)
def test_settings_that_cannot_work_are_refused(changed, message):
  with pytest.raises(ValueError, match=message):
    settings(**changed)
