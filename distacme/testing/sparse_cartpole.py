"""CartPole that tells an episode's score at its end only."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np

_MAX_STEPS = 500  # of CartPole-v1


class RewardAtTheEnd(gymnasium.Wrapper[Any, Any, Any, Any]):
  """Pays an episode's steps when it ends, and else nothing.

  The share of the steps so far is observed, too: without it no value could be told
  from an observation. The step limit terminates an episode.
  """

  def __init__(self, environment: gymnasium.Env[Any, Any]):
    super().__init__(environment)
    space = environment.observation_space
    assert isinstance(space, gymnasium.spaces.Box)
    self.observation_space = gymnasium.spaces.Box(
      np.append(space.low, 0.0).astype(np.float32),
      np.append(space.high, 1.0).astype(np.float32),
    )
    self._steps = 0

  def reset(self, **options: Any) -> Any:
    """Starts an episode."""
    observation, info = self.env.reset(**options)
    self._steps = 0
    return self._observed(observation), info

  def step(self, action: Any) -> Any:
    """Takes a step."""
    observation, _, terminated, truncated, info = self.env.step(action)
    self._steps += 1
    over = terminated or truncated
    paid = float(self._steps) if over else 0.0
    return self._observed(observation), paid, over, False, info

  def _observed(self, observation: np.ndarray) -> np.ndarray:
    share = self._steps / _MAX_STEPS
    return np.append(observation, share).astype(np.float32)


def make() -> gymnasium.Env[Any, Any]:
  """Returns Gymnasium's CartPole-v1 whose last step is rewarded with all steps."""
  return RewardAtTheEnd(gymnasium.make('CartPole-v1'))
