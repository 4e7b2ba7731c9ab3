"""Plays games for two against an opponent, to measure an agent."""

from __future__ import annotations

from typing import Any

import dm_env
import numpy as np
import tree

from distacme import core
from distacme import specs
from distacme import types
from distacme.environments import vector


class AgainstOpponent(vector.VectorWrapper):
  """Plays games for two in which the agent has one seat, an opponent the other.

  A `core.VectorEnvironment` around one in which an agent plays itself; around a
  `core.ModelEnvironment` it is one, too. Even rows begin with the agent's move,
  odd rows with the opponent's, and a row's seats are swapped with every episode.

  Every move is a step, those of the opponent, too: an episode is as long as both
  players' moves. At the opponent's turn the agent is asked like at its own, and
  the opponent's action replaces the agent's. Observations and discounts are those
  of the inner vector. The reward is always the agent's: what the opponent gains is
  lost to the agent.
  """

  def __init__(
    self,
    environment: core.VectorEnvironment,
    opponent: core.Policy,
    opening: core.Policy | None = None,
  ):
    """Takes a vector of games for two, and a policy for its rows.

    Args:
      environment: in which an agent plays itself.
      opponent: a policy for its rows.
      opening: chooses the opponent's first move of each episode instead, so that
        players without chance do not play the same game again and again.

    Raises:
      ValueError: if the environment is not for two players.
    """
    super().__init__(environment)
    check_two_players(specs.make_environment_spec(environment))
    self._opponent = opponent
    self._opening = opening
    self._has_opened = np.zeros(self.num_envs, np.bool_)
    self._reward_spec = _of_both(self._reward_spec)
    rows = np.arange(self.num_envs)
    self._begins = rows % 2 == 1  # [N] the agent; swapped before each episode
    self._is_agents_turn = self._begins
    # Rows whose episode the opponent has not acted in yet.
    self._is_new = np.ones(self.num_envs, np.bool_)
    self._last: Any = None  # the timestep

  def step(self, action: types.NestedArray) -> dm_env.TimeStep:
    """Steps every row, by the action of the row's player."""
    opponents = ~self._is_agents_turn & (self._last.step_type != types.LAST)
    if opponents.any():
      output = self._opponent.act(self._last.observation, self._is_new)
      action = _chosen(opponents, output.action, action)
      if self._opening is not None and not self._has_opened[opponents].all():
        output = self._opening.act(self._last.observation, self._is_new)
        action = _chosen(opponents & ~self._has_opened, output.action, action)
      self._has_opened = self._has_opened | opponents
      self._is_new = np.zeros_like(self._is_new)
    timestep = super().step(action)
    # Not -reward, which would make -0.0 of 0.
    reward = np.where(opponents, 0 - timestep.reward, timestep.reward)
    return timestep._replace(reward=reward)

  def _timestep(self, timestep: dm_env.TimeStep) -> dm_env.TimeStep:
    first = timestep.step_type == types.FIRST
    self._begins = self._begins ^ first
    turned = self._is_agents_turn ^ (timestep.discount < 0)
    self._is_agents_turn = np.where(first, self._begins, turned)
    self._is_new = self._is_new | first
    self._has_opened = self._has_opened & ~first
    self._last = timestep
    return timestep


class RandomOpponent:
  """Chooses evenly among the legal actions; a `core.Policy`.

  All actions are legal where observations hold no `specs.LEGAL_ACTIONS`.
  """

  def __init__(self, action_spec: types.NestedSpec, key: types.Key):
    """Takes the spec of a row's action; consumes `key`.

    Raises:
      ValueError: if actions are not discrete.
    """
    if not isinstance(action_spec, specs.DiscreteArray):
      raise ValueError(
        'a random opponent chooses among discrete actions, got the action spec '
        f'{action_spec!r}. Choose another opponent.'
      )
    self.version = 0
    self._num_actions = action_spec.num_values
    self._random = random_of(key)

  def act(
    self, observation: types.NestedArray, is_first: np.ndarray
  ) -> types.ActorOutput:
    """Returns random legal actions; see `core.Policy`."""
    legal = np.ones((len(is_first), self._num_actions), np.bool_)
    if specs.has_legal_actions(observation):
      legal = np.asarray(observation[specs.LEGAL_ACTIONS])
    return types.ActorOutput(choose_evenly(self._random, legal))

  def start_anew(
    self, environment: core.VectorEnvironment, key: types.Key
  ) -> None:
    """See `core.Policy`."""
    self._random = random_of(key)


def check_two_players(spec: specs.EnvironmentSpec) -> None:
  """Refuses an environment that is not for two players.

  Raises:
    ValueError: if the discounts are never negative.
  """
  if not specs.has_two_players(spec):
    raise ValueError(
      'an opponent is for games of two players, and the discounts of this '
      f'environment are never negative: {spec.discounts!r}. Leave the opponent '
      'out.'
    )


def random_of(key: types.Key) -> np.random.Generator:
  """Returns numpy's random numbers for a raw key; consumes `key`."""
  return np.random.default_rng(np.asarray(key))


def choose_evenly(random: np.random.Generator, of: np.ndarray) -> np.ndarray:
  """Returns an action for each row, [N] int32, that is True in `of` [N, A].

  Every action that is True is as likely as the others. In a row without one the
  action is 0.
  """
  drawn = np.where(of, random.random(of.shape), -1.0)
  return drawn.argmax(axis=-1).astype(np.int32)


def _of_both(spec: specs.Array) -> specs.Array:
  """Returns the spec of rewards that are the agent's or, turned, the opponent's."""
  if not isinstance(spec, specs.BoundedArray):
    return spec
  return spec.replace(
    minimum=np.minimum(spec.minimum, -spec.maximum),
    maximum=np.maximum(spec.maximum, -spec.minimum),
  )


def _chosen(
  rows: np.ndarray, first: types.NestedArray, second: types.NestedArray
) -> types.NestedArray:
  """Returns the first nest's leaves [N, ...] in `rows` [N], elsewhere the second's."""
  return tree.map_structure(
    lambda a, b: np.where(_expanded(rows, b), a, b), first, second
  )


def _expanded(rows: np.ndarray, leaf: Any) -> np.ndarray:
  return rows.reshape(rows.shape + (1,) * (np.ndim(leaf) - 1))
