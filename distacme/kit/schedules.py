"""Schedules of settings that change with learner steps, such as step sizes."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Literal, get_args

import jax
import jax.numpy as jnp

from distacme import lazy_imports

if TYPE_CHECKING:
  import optax
else:
  optax = lazy_imports.module('optax')

Kind = Literal['constant', 'linear', 'cosine']


@dataclasses.dataclass(frozen=True)
class Schedule:
  """The share of a setting that is in force after a number of learner steps.

  The share is 1 at first. The share falls to `end_share` in `steps` learner steps,
  along a line or half a period of a cosine, and stays there.

  Attributes:
    name: of the setting, whose flags are called after it.
    kind: how the share falls; a constant one does not.
    steps: learner steps until its end; 0 of a constant one.
    end_share: the share at its end, in [0, 1]; 0 of a constant one.
  """

  name: str
  kind: Kind = 'constant'
  steps: int = 0
  end_share: float = 0.0

  def __post_init__(self) -> None:
    if self.kind not in get_args(Kind):
      raise ValueError(
        f'{self.name}_schedule must be one of {", ".join(get_args(Kind))}, got '
        f'{self.kind!r}.'
      )
    if not 0.0 <= self.end_share <= 1.0:
      raise ValueError(
        f'{self.name}_end_share must be in [0, 1], got {self.end_share}.'
      )
    if self.steps < 0:
      raise ValueError(
        f'{self.name}_steps must not be negative, got {self.steps}.'
      )
    if self.kind != 'constant' and not self.steps:
      raise ValueError(
        f'{self.name}_schedule={self.kind!r} needs its length: set '
        f'{self.name}_steps, in learner steps.'
      )
    if self.kind == 'constant' and self.steps:
      raise ValueError(
        f'{self.name}_steps={self.steps} is the length of no schedule: set '
        f"{self.name}_schedule to 'linear' or 'cosine'."
      )
    if self.kind == 'constant' and self.end_share:
      raise ValueError(
        f'{self.name}_end_share={self.end_share} is the end of no schedule: set '
        f"{self.name}_schedule to 'linear' or 'cosine'."
      )

  def share(self, step: jax.Array) -> jax.Array:
    """Returns the share [] after `step` learner steps, an int32 []."""
    if self.kind == 'constant':
      return jnp.float32(1.0)
    if self.kind == 'linear':
      return optax.linear_schedule(1.0, self.end_share, self.steps)(step)
    return optax.cosine_decay_schedule(1.0, self.steps, self.end_share)(step)

  def step_size(
    self, first: float, per_learner_step: float = 1
  ) -> optax.ScalarOrSchedule:
    """Returns a step size for an optimiser of optax, which counts its own steps.

    Args:
      first: initial step size.
      per_learner_step: the optimiser's steps in each learner step.
    """
    if self.kind == 'constant':
      return first
    steps = max(1, round(self.steps * per_learner_step))
    stretched = dataclasses.replace(self, steps=steps)
    return lambda count: first * stretched.share(count)
