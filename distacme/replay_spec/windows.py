"""Windows: the parts of an actor's steps that replay stores."""

from __future__ import annotations

import dataclasses
import math
from typing import Any, TypeAlias

from distacme import config_checks


def learnt_reward(reward: Any, scale: Any, max_abs: Any) -> Any:
  """Returns rewards for learning: scaled, and then clipped.

  Args:
    reward: of any shape, of NumPy or of JAX.
    scale: factor of the rewards.
    max_abs: size that scaled rewards are clipped to.
  """
  return (reward * scale).clip(-max_abs, max_abs)


@dataclasses.dataclass(frozen=True)
class NStep:
  """Windows of `n` steps; replay stores the ends (`types.Transition`).

  Every step starts one window, so there are as many inserted windows as environment
  steps. An episode's end shortens the windows that meet it; none is dropped.

  Attributes:
    n: steps from a window's start to its end, at least 1. A tuple of ascending
      numbers keeps several ends of one window. An episode's end then shortens
      each of them by itself, and rewards, discounts and next observations have
      an axis of ends.
    discount: gamma per step, in [0, 1].
    reward_scale: factor of each step's reward.
    max_abs_reward: size that scaled rewards are clipped to, before summation.
  """

  n: int | tuple[int, ...]
  discount: float
  reward_scale: float = 1.0
  max_abs_reward: float = math.inf

  def __post_init__(self) -> None:
    config_checks.check_positive(self, 'reward_scale', 'max_abs_reward')
    if not self.lengths or min(self.lengths) < 1:
      raise ValueError(
        f'n of an n-step window must be at least 1, got {self.n}.'
      )
    if list(self.lengths) != sorted(set(self.lengths)):
      raise ValueError(
        f'n of an n-step window must ascend, each number once, got {self.n}. '
        f'Give {tuple(sorted(set(self.lengths)))}.'
      )
    if not 0.0 <= self.discount <= 1.0:
      raise ValueError(f'discount must be in [0, 1], got {self.discount}.')

  @property
  def lengths(self) -> tuple[int, ...]:
    """Steps to each end, ascending."""
    return (self.n,) if isinstance(self.n, int) else self.n

  @property
  def ends(self) -> tuple[int, ...]:
    """Shape of the axis of ends: () if `n` is a number."""
    return () if isinstance(self.n, int) else (len(self.n),)


@dataclasses.dataclass(frozen=True)
class Sequences:
  """Windows of consecutive rows of one environment (`types.Sequence`).

  Attributes:
    length: rows, of which the last only bootstraps; at least 2.
    period: steps between the starts of two windows, from 1 to `length` - 1.
      Below `length` - 1 windows overlap in more than one row.
    across_episodes: True for windows that continue over the ends of episodes. The
      windows of all environments of an actor are then complete at once, and each
      is full. False for windows within an episode. The first window then starts
      and the last one ends with the episode, padded if it is short. A last window
      that has no step of its own is left out.
  """

  length: int
  period: int
  across_episodes: bool = False

  def __post_init__(self) -> None:
    if self.length < 2:
      raise ValueError(
        'length of a sequence must be at least 2 rows, one step and what '
        f'bootstraps it, got {self.length}.'
      )
    if not 1 <= self.period < self.length:
      raise ValueError(
        f'period of sequences must be from 1 to {self.length - 1}, or steps '
        f'would be left out between two of length={self.length}, got '
        f'{self.period}.'
      )


Window: TypeAlias = NStep | Sequences
