"""Unrolls for tests of agents that learn from them."""

from typing import NamedTuple

import jax
import numpy as np

import distacme
from distacme import specs
from distacme import types
from distacme.environments import vector


class Piece(NamedTuple):
  """K steps of one episode and the row after them: [K + 1], [K], [K], [K]."""

  value: np.ndarray
  reward: np.ndarray
  discount: np.ndarray  # gamma times the environment's
  rho: np.ndarray


def random_piece(random, num_steps, end='cut', gamma=0.9):
  """Returns a piece of random numbers.

  Args:
    random: a generator.
    num_steps: K.
    end: 'terminated', 'truncated', or 'cut' by the end of the unroll.
    gamma: of all steps but those that end in a terminal state.
  """
  discount = np.full(num_steps, gamma)
  if end == 'terminated' and num_steps:
    discount[-1] = 0.0
  return Piece(
    random.normal(size=num_steps + 1),
    random.normal(size=num_steps),
    discount,
    np.exp(random.normal(size=num_steps)),
  )


def joined(pieces):
  """Returns one unroll of pieces, and which of its rows were steps [T].

  The row after a piece's steps is the last observation of its episode, or, of
  the last piece, the row that bootstraps the unroll.
  """
  *complete, cut = pieces
  columns = []
  for field in ('reward', 'discount', 'rho'):
    # What stands where nothing was done: nothing, or any policy ratio.
    filler = [7.0] if field == 'rho' else [0.0]
    parts = [np.append(getattr(piece, field), filler) for piece in complete]
    columns.append(np.concatenate([*parts, getattr(cut, field)]))
  value = np.concatenate([piece.value for piece in pieces])
  stepped = np.concatenate(
    [np.arange(len(piece.value)) < len(piece.reward) for piece in pieces]
  )[:-1]
  return Piece(value, *columns), stepped


# The ways in which an unroll of 9 rows meets the ends of episodes: steps of each
# piece, and how it ended.
CROSSINGS = {
  'within one episode': [(8, 'cut')],
  'terminated': [(4, 'terminated'), (3, 'cut')],
  'truncated': [(4, 'truncated'), (3, 'cut')],
  'several': [
    (1, 'truncated'),
    (1, 'terminated'),
    (2, 'truncated'),
    (1, 'cut'),
  ],
  'ends where an episode does': [(3, 'truncated'), (4, 'terminated')],
  'ends where an episode is cut': [(4, 'terminated'), (3, 'truncated')],
  'starts with a last observation': [(0, 'truncated'), (7, 'cut')],
  'bootstraps from a first observation': [(7, 'truncated'), (0, 'cut')],
}


def crossing(name, seed=0):
  """Returns the pieces of one of `CROSSINGS`."""
  random = np.random.default_rng(seed)
  return [random_piece(random, *piece) for piece in CROSSINGS[name]]


def numbered(pieces, num_actions, seed=0):
  """Returns an unroll [1, T + 1] whose observations are the numbers of its rows.

  Its discounts have no gamma, and its extras are random samples and chances.
  """
  random = np.random.default_rng(seed)
  unroll, stepped = joined(pieces)
  length = len(unroll.value)
  step_type = np.full(length, types.MID)
  step_type[:-1][~stepped] = types.LAST
  step_type[1:][~stepped] = types.FIRST
  sample = random.integers(num_actions, size=length).astype(np.int32)
  columns = types.Sequence(
    observation=np.arange(length, dtype=np.float32),
    action=sample,
    reward=np.append(unroll.reward, 0.0).astype(np.float32),
    discount=np.append(unroll.discount > 0, 0.0).astype(np.float32),
    step_type=step_type,
    extras={
      'sample': sample,
      'log_prob': np.log(random.uniform(0.1, 0.9, length)).astype(np.float32),
    },
  )
  return jax.tree.map(lambda column: column[None], columns)


def played(agent, environments, state, num_batches):
  """Returns batches that a real actor made, all with the params of `state`."""
  loop = distacme.EnvironmentLoop(
    vector.LoopVector(list(environments)), agent, state=state
  )
  batches = []
  while len(batches) < num_batches:
    loop.actor.step()
    if loop.replay.can_sample():
      batches.append(loop.replay.sample()[0])
  return batches


def continuous(spec, shape=(2,)):
  """Returns an environment spec with continuous actions instead."""
  low = np.linspace(-3.0, -1.0, int(np.prod(shape))).reshape(shape)
  actions = specs.BoundedArray(shape, np.float32, low, 2.0, 'torque')
  return spec._replace(actions=actions)
