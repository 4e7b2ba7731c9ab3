"""What agents share of learning: a step of Adam, and targets that follow."""

from __future__ import annotations

from typing import Any

import jax

from distacme import lazy_imports

optax = lazy_imports.module('optax')


def annealed(learning_rate: float, steps: int) -> Any:
  """Returns the step size that falls to 0 in `steps` steps of Adam; 0 for never."""
  if not steps:
    return learning_rate
  return optax.linear_schedule(learning_rate, 0.0, steps)


def adam(learning_rate: Any, max_gradient_norm: float, **options: Any) -> Any:
  """Returns Adam, on gradients that are scaled down to a global norm.

  Args:
    learning_rate: its step size, a number, or a schedule from `annealed`.
    max_gradient_norm: what the norm may be.
    **options: others of `optax.adam`.
  """
  return optax.chain(
    optax.clip_by_global_norm(max_gradient_norm),
    optax.adam(learning_rate, **options),
  )


def moved_target(
  params: Any,
  target_params: Any,
  steps: jax.Array,
  *,
  period: int,
  step_size: float = 1.0,
) -> Any:
  """Returns the target networks' params after learner step `steps`.

  Args:
    params: that they follow.
    target_params: as they were.
    steps: int32 [], counted from 1.
    period: steps between two moves.
    step_size: how far they move each time; 1 copies.
  """
  if step_size != 1.0:
    params = optax.incremental_update(params, target_params, step_size)
  return optax.periodic_update(params, target_params, steps, period)
