"""Demonstrations of small tasks, by experts and by nobody.

`distacme train --demonstrations distacme.testing.demonstrations:catch_expert`, or
':catch_random', ':deep_sea_10', ':deep_sea_20' and ':door_expert'.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
import functools
from typing import Any

import dm_env
import numpy as np
import tree

from distacme import demonstrations
from distacme import environments
from distacme.testing import door
from distacme.testing import environments as testing_environments


def played(
  environment: dm_env.Environment,
  act: Callable[[Any], Any],
  num_episodes: int = 1,
) -> demonstrations.Demonstrations:
  """Returns episodes in which `act` chooses the actions.

  Args:
    environment: is stepped whenever the episodes are read.
    act: maps an observation to an action.
    num_episodes: to play.
  """
  return demonstrations.Demonstrations(
    'played episodes', functools.partial(_play, environment, act, num_episodes)
  )


def _play(
  environment: dm_env.Environment, act: Callable[[Any], Any], num_episodes: int
) -> Iterator[demonstrations.Episode]:
  action_dtype = environment.action_spec().dtype
  for _ in range(num_episodes):
    timesteps, actions = [environment.reset()], []
    while not timesteps[-1].last():
      actions.append(np.asarray(act(timesteps[-1].observation), action_dtype))
      timesteps.append(environment.step(actions[-1]))
    yield demonstrations.Episode(
      tree.map_structure(
        lambda *leaves: np.stack(leaves), *[t.observation for t in timesteps]
      ),
      np.stack(actions),
      np.array([t.reward for t in timesteps[1:]], np.float32),
      np.array([t.discount for t in timesteps[1:]], np.float32),
    )


def catch_expert() -> demonstrations.Demonstrations:
  """Returns 100 episodes of catch in which the ball is always caught."""

  def act(board: np.ndarray) -> int:
    ball, paddle = board[:-1].any(axis=0).argmax(), board[-1].argmax()
    return 1 + int(np.sign(int(ball) - int(paddle)))

  return played(testing_environments.Catch(seed=0), act, 100)


def catch_random() -> demonstrations.Demonstrations:
  """Returns 100 episodes of catch with random actions."""
  random = np.random.default_rng(0)
  return played(
    testing_environments.Catch(seed=0), lambda board: random.integers(3), 100
  )


def deep_sea_10() -> demonstrations.Demonstrations:
  """Returns one optimal episode of 'bsuite:deep_sea/0', of size 10."""
  return _deep_sea('deep_sea/0')


def deep_sea_20() -> demonstrations.Demonstrations:
  """Returns one optimal episode of 'bsuite:deep_sea/5', of size 20."""
  return _deep_sea('deep_sea/5')


def _deep_sea(bsuite_id: str) -> demonstrations.Demonstrations:
  from bsuite import bsuite

  # The way down to the right, on the diagonal; each cell has its own action for it.
  right = np.diagonal(bsuite.load_from_id(bsuite_id)._action_mapping)

  def act(board: np.ndarray) -> int:
    return int(right[board.any(axis=1).argmax()])

  return played(environments.make(f'bsuite:{bsuite_id}', seed=0), act)


def door_expert() -> demonstrations.Demonstrations:
  """Returns five episodes of `door.RememberTheDoor` to both doors."""
  environment = door.RememberTheDoor(seed=0)
  return played(environment, lambda _: environment.expert_action(), 5)
