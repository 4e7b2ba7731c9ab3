"""A task for which an agent needs a memory and demonstrations."""

from __future__ import annotations

import dm_env
import numpy as np

from distacme import specs


class RememberTheDoor(dm_env.Environment):
  """Shows which of two doors is right, then asks for it at the end of a path.

  The right door is shown at the first step only. Each place of the path has one
  action that goes on; the other one ends the episode with nothing. At the path's
  end, actions 0 and 1 open a door, and the right one gives the only reward, 1. Of
  random episodes one in 2 ** (length + 1) gets the reward; who walks on without a
  memory gets it half of the time.

  Observations are vectors [length + 3]: the place, one-hot of length + 1, and the
  two doors, of which the right one is 1 at the first step.
  """

  def __init__(self, seed: int, length: int = 12):
    """Takes the seed of the doors and the number of steps to them."""
    self._random = np.random.default_rng(seed)
    # A path of the task: the same in all of its environments.
    self.path = np.random.default_rng(length).integers(0, 2, length)
    self._length = length
    self._place = -1  # No episode is under way.
    self.door = 0

  def reset(self) -> dm_env.TimeStep:
    """Starts an episode."""
    self._place = 0
    self.door = int(self._random.integers(2))
    return dm_env.restart(self._observation())

  def step(self, action: int) -> dm_env.TimeStep:
    """Walks on, or opens a door."""
    if self._place < 0:
      return self.reset()
    at_the_doors = self._place == self._length
    wanted = self.door if at_the_doors else self.path[self._place]
    is_right = int(action) == wanted
    if is_right and not at_the_doors:
      self._place += 1
      return dm_env.transition(
        np.float32(0.0), self._observation(), np.float32(1.0)
      )
    observation = self._observation()
    self._place = -1
    return dm_env.termination(np.float32(is_right), observation)

  def _observation(self) -> np.ndarray:
    observation = np.zeros(self._length + 3, np.float32)
    observation[self._place] = 1.0
    if self._place == 0:
      observation[self._length + 1 + self.door] = 1.0
    return observation

  def expert_action(self) -> int:
    """Returns the action that leads to the reward."""
    if self._place == self._length:
      return self.door
    return int(self.path[self._place])

  def observation_spec(self) -> specs.BoundedArray:
    """Returns the spec of the vector."""
    return specs.BoundedArray((self._length + 3,), np.float32, 0.0, 1.0)

  def action_spec(self) -> specs.DiscreteArray:
    """Returns the spec of the two actions."""
    return specs.DiscreteArray(2, np.int32)

  def reward_spec(self) -> specs.Array:
    """Returns the spec of the reward."""
    return specs.Array((), np.float32)

  def discount_spec(self) -> specs.BoundedArray:
    """Returns the spec of the discount."""
    return specs.BoundedArray((), np.float32, 0.0, 1.0)
