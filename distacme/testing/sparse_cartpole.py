"""CartPole that tells an episode's score at its end only."""

from __future__ import annotations

from typing import Any

import gymnasium


class RewardAtTheEnd(gymnasium.Wrapper[Any, Any, Any, Any]):
  """Holds rewards back until the episode ends, and then pays their sum."""

  def __init__(self, environment: gymnasium.Env[Any, Any]):
    super().__init__(environment)
    self._return = 0.0

  def reset(self, **options: Any) -> Any:
    """Starts an episode."""
    self._return = 0.0
    return self.env.reset(**options)

  def step(self, action: Any) -> Any:
    """Takes a step."""
    observation, reward, terminated, truncated, info = self.env.step(action)
    self._return += float(reward)
    over = terminated or truncated
    paid = self._return if over else 0.0
    return observation, paid, terminated, truncated, info


def make() -> gymnasium.Env[Any, Any]:
  """Returns Gymnasium's CartPole-v1 whose last step is rewarded with all steps."""
  return RewardAtTheEnd(gymnasium.make('CartPole-v1'))
