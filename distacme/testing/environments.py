"""Tiny environments with steps that a test can compute.

The names are 'distacme.testing.environments:catch', ':counting', ':nested',
':reward_at_the_end', ':remember_the_door', ':cartpole_without_velocities',
':cartpole_reward_at_the_end' and ':slow_pendulum'.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
import time
from typing import Any

import dm_env
import numpy as np

from distacme import specs
from distacme import types
from distacme.testing import door


class Catch(dm_env.Environment):
  """Drops a ball through a grid; +1 if the paddle catches it, else -1.

  The game is from bsuite (https://arxiv.org/abs/1908.03568). The ball starts in a
  random column of the top row and falls one row a step. The paddle starts in the
  middle of the bottom row; actions 0, 1, 2 move the paddle left, not at all, right.
  The reward is 0 until the ball is down, which terminates the episode.
  """

  def __init__(self, seed: int, rows: int = 10, columns: int = 5):
    """Takes the seed of the ball's columns and the size of the grid."""
    self._random = np.random.default_rng(seed)
    self._shape = (rows, columns)
    self._ball_row = rows  # Below the grid: no episode is under way.
    self._ball_column = 0
    self._paddle_column = 0

  def reset(self) -> dm_env.TimeStep:
    """Starts an episode."""
    _, columns = self._shape
    self._ball_row = 0
    self._ball_column = int(self._random.integers(columns))
    self._paddle_column = columns // 2
    return dm_env.restart(self._observation())

  def step(self, action: int) -> dm_env.TimeStep:
    """Moves the paddle and the ball."""
    rows, columns = self._shape
    if self._ball_row >= rows - 1:
      return self.reset()
    self._paddle_column += int(action) - 1
    self._paddle_column = min(max(self._paddle_column, 0), columns - 1)
    self._ball_row += 1
    if self._ball_row < rows - 1:
      return dm_env.transition(
        np.float32(0.0), self._observation(), np.float32(1.0)
      )
    caught = self._ball_column == self._paddle_column
    return dm_env.TimeStep(
      dm_env.StepType.LAST,
      np.float32(1.0 if caught else -1.0),
      np.float32(0.0),
      self._observation(),
    )

  def observation_spec(self) -> specs.BoundedArray:
    """Returns the spec of the grid: 1 at the ball and the paddle, else 0."""
    return specs.BoundedArray(self._shape, np.float32, 0.0, 1.0, 'board')

  def action_spec(self) -> specs.DiscreteArray:
    """Returns the spec of left, stay, right."""
    return specs.DiscreteArray(3, name='action')

  def reward_spec(self) -> specs.BoundedArray:
    """Returns the spec of a float32 in [-1, 1]."""
    return specs.BoundedArray((), np.float32, -1.0, 1.0, 'reward')

  def discount_spec(self) -> specs.BoundedArray:
    """Returns the spec of a float32 in [0, 1]."""
    return specs.BoundedArray((), np.float32, 0.0, 1.0, 'discount')

  def _observation(self) -> np.ndarray:
    board = np.zeros(self._shape, np.float32)
    board[self._ball_row, self._ball_column] = 1.0
    board[-1, self._paddle_column] = 1.0
    return board


class Counting(dm_env.Environment):
  """Observes [episode, step] for any action, so that tests can compute all steps.

  Episode e has `lengths[e % len(lengths)]` steps and one observation more, [e, 0] to
  [e, length]. The step that arrives at [e, t] has the reward `reward(e, t)`.
  """

  def __init__(
    self,
    lengths: Sequence[int] = (3,),
    truncated: Sequence[bool] = (False,),
    reward: Callable[[int, int], float] = lambda episode, step: 1.0,
    first_episode: int = 0,
  ):
    """Sets lengths, ends and rewards of episodes.

    Args:
      lengths: steps of each episode in turn, over and over; each at least 1.
      truncated: whether each episode ends truncated (discount 1) rather than
        terminated (discount 0), in turn.
      reward: of the step that arrives at [episode, step].
      first_episode: number of the first episode; a different number for each row
        tells the rows of a vector apart.
    """
    self._lengths = tuple(lengths)
    self._truncated = tuple(truncated)
    self._reward = reward
    self._episode = first_episode - 1
    self._step = self._length = 0  # No episode is under way.

  def reset(self) -> dm_env.TimeStep:
    """Starts the next episode."""
    self._episode += 1
    self._step = 0
    self._length = self._lengths[self._episode % len(self._lengths)]
    return dm_env.restart(self._observation())

  def step(self, action: int) -> dm_env.TimeStep:
    """Counts a step; the action has no effect."""
    if self._step == self._length:
      return self.reset()
    self._step += 1
    last = self._step == self._length
    truncated = self._truncated[self._episode % len(self._truncated)]
    return dm_env.TimeStep(
      dm_env.StepType.LAST if last else dm_env.StepType.MID,
      np.float32(self._reward(self._episode, self._step)),
      np.float32(0.0 if last and not truncated else 1.0),
      self._observation(),
    )

  def observation_spec(self) -> specs.Array:
    """Returns the spec of [episode, step]."""
    return specs.Array((2,), np.float32, 'episode_and_step')

  def action_spec(self) -> specs.DiscreteArray:
    """Returns the spec of two actions without effect."""
    return specs.DiscreteArray(2, name='action')

  def reward_spec(self) -> specs.Array:
    """Returns the spec of a float32."""
    return specs.Array((), np.float32, 'reward')

  def discount_spec(self) -> specs.BoundedArray:
    """Returns the spec of a float32 in [0, 1]."""
    return specs.BoundedArray((), np.float32, 0.0, 1.0, 'discount')

  def _observation(self) -> np.ndarray:
    return np.array([self._episode, self._step], np.float32)


class Nested(dm_env.Environment):
  """Has nests of dicts and tuples as observations and actions, of several dtypes.

  The reward is 1 for a step that picks the shown number and moves to the side of the
  light, else 0. Number and light change with every step; an episode has 3 steps.
  """

  def __init__(self, seed: int):
    """Takes the seed of numbers and lights."""
    self._random = np.random.default_rng(seed)
    self._steps_left = 0  # No episode is under way.
    self._number = 0
    self._light = np.zeros(2, np.float32)

  def reset(self) -> dm_env.TimeStep:
    """Starts an episode."""
    self._steps_left = 3
    return dm_env.restart(self._observation())

  def step(self, action: types.NestedArray) -> dm_env.TimeStep:
    """Takes {'move': float32 [2], 'pick': (int32,)}."""
    if not self._steps_left:
      return self.reset()
    self._steps_left -= 1
    picked = int(action['pick'][0]) == self._number
    moved = float(action['move'][0]) * float(self._light[0]) > 0.0
    return dm_env.TimeStep(
      dm_env.StepType.MID if self._steps_left else dm_env.StepType.LAST,
      np.float32(picked and moved),
      np.float32(self._steps_left > 0),
      self._observation(),
    )

  def observation_spec(self) -> types.NestedSpec:
    """Returns specs of the light, and of the number as image and as integer."""
    return {
      'number': (
        specs.BoundedArray((1, 3), np.uint8, 0, 255),
        specs.DiscreteArray(3),
      ),
      'light': specs.BoundedArray((2,), np.float32, -1.0, 1.0),
    }

  def action_spec(self) -> types.NestedSpec:
    """Returns specs of a direction and of a choice of three."""
    return {
      'pick': (specs.DiscreteArray(3),),
      'move': specs.BoundedArray((2,), np.float32, -1.0, 1.0),
    }

  def reward_spec(self) -> specs.BoundedArray:
    """Returns the spec of a float32 in [0, 1]."""
    return specs.BoundedArray((), np.float32, 0.0, 1.0, 'reward')

  def discount_spec(self) -> specs.BoundedArray:
    """Returns the spec of a float32 in [0, 1]."""
    return specs.BoundedArray((), np.float32, 0.0, 1.0, 'discount')

  def _observation(self) -> types.NestedArray:
    self._number = int(self._random.integers(3))
    self._light = self._random.uniform(-1.0, 1.0, 2).astype(np.float32)
    image = np.zeros((1, 3), np.uint8)
    image[0, self._number] = 255
    return {'number': (image, np.int32(self._number)), 'light': self._light}


class RewardAtTheEnd(dm_env.Environment):
  """Shows the right action, and rewards only at the end of a long episode.

  In every step one of three actions is right, at random. The reward of the last step
  is the share of steps with the right action; all other rewards are 0. The last step
  terminates the episode. The best return is 1; random actions have a mean of 1/3.
  """

  NUM_ACTIONS = 3

  def __init__(self, seed: int, length: int = 1000):
    """Takes the seed of the right actions, and the steps of an episode."""
    self._random = np.random.default_rng(seed)
    self._length = length
    self._step = length  # No episode is under way.
    self._num_right = 0
    self._right = 0

  def reset(self) -> dm_env.TimeStep:
    """Starts an episode."""
    self._step = self._num_right = 0
    return dm_env.restart(self._observation())

  def step(self, action: int) -> dm_env.TimeStep:
    """Compares the action with the right one."""
    if self._step == self._length:
      return self.reset()
    self._step += 1
    self._num_right += int(action) == self._right
    last = self._step == self._length
    return dm_env.TimeStep(
      dm_env.StepType.LAST if last else dm_env.StepType.MID,
      np.float32(self._num_right / self._length if last else 0.0),
      np.float32(not last),
      self._observation(),
    )

  def observation_spec(self) -> specs.BoundedArray:
    """Returns the spec of a float32 [5].

    The elements are the share of the episode that is over, the share of its steps
    that were right so far, and the right action as a one-hot vector.
    """
    return specs.BoundedArray(
      (2 + self.NUM_ACTIONS,), np.float32, 0.0, 1.0, 'progress_and_right_action'
    )

  def action_spec(self) -> specs.DiscreteArray:
    """Returns the spec of a choice of three."""
    return specs.DiscreteArray(self.NUM_ACTIONS, name='action')

  def reward_spec(self) -> specs.BoundedArray:
    """Returns the spec of a float32 in [0, 1]."""
    return specs.BoundedArray((), np.float32, 0.0, 1.0, 'reward')

  def discount_spec(self) -> specs.BoundedArray:
    """Returns the spec of a float32 in [0, 1]."""
    return specs.BoundedArray((), np.float32, 0.0, 1.0, 'discount')

  def _observation(self) -> np.ndarray:
    self._right = int(self._random.integers(self.NUM_ACTIONS))
    observation = np.zeros(2 + self.NUM_ACTIONS, np.float32)
    observation[0] = self._step / self._length
    observation[1] = self._num_right / self._length
    observation[2 + self._right] = 1.0
    return observation


def catch(seed: int) -> dm_env.Environment:
  """Returns a 10 x 5 game of catch."""
  return Catch(seed)


def counting(seed: int) -> dm_env.Environment:
  """Returns `Counting` with terminated episodes of 3 steps, without chance."""
  del seed
  return Counting()


def nested(seed: int) -> dm_env.Environment:
  """Returns `Nested`."""
  return Nested(seed)


def reward_at_the_end(seed: int) -> dm_env.Environment:
  """Returns `RewardAtTheEnd` with episodes of 1,000 steps."""
  return RewardAtTheEnd(seed)


def remember_the_door(seed: int) -> dm_env.Environment:
  """Returns `door.RememberTheDoor`, with a path of 12 steps."""
  return door.RememberTheDoor(seed)


def cartpole_without_velocities(seed: int) -> Any:
  """Returns gymnasium's CartPole-v1, observing positions only.

  The observation [2] is the cart's position and the pole's angle. An agent needs a
  memory to know the two velocities.
  """
  del seed  # `environments.make` seeds the first reset.
  import gymnasium

  cartpole = gymnasium.make('CartPole-v1')
  bounds: Any = cartpole.observation_space
  return gymnasium.wrappers.TransformObservation(
    cartpole,
    lambda observation: observation[::2],
    gymnasium.spaces.Box(bounds.low[::2], bounds.high[::2]),
  )


def cartpole_reward_at_the_end(seed: int) -> Any:
  """Returns gymnasium's CartPole-v1, rewarded only where an episode ends.

  The last reward is the number of the episode's steps, so that returns are those of
  CartPole-v1.
  """
  del seed  # `environments.make` seeds the first reset.
  from distacme.testing import sparse_cartpole

  return sparse_cartpole.make()


def slow_pendulum(seed: int) -> Any:
  """Returns gymnasium's Pendulum-v1 that sleeps 10 ms in every step.

  This imitates an environment that waits for a simulator on another machine, or for a
  robot. The sleep leaves the cores free, so several environments run as fast as one.
  """
  del seed  # `environments.make` seeds the first reset.
  import gymnasium

  class Slow(gymnasium.Wrapper[Any, Any, Any, Any]):
    def step(self, action: Any) -> Any:
      time.sleep(0.01)
      return self.env.step(action)

  return Slow(gymnasium.make('Pendulum-v1'))
