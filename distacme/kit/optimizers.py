"""Gradient steps, and target params that follow params."""

from __future__ import annotations

from collections.abc import Callable
import dataclasses
from typing import TYPE_CHECKING, Any, Generic, TypeAlias, TypeVar

import jax
import jax.numpy as jnp

from distacme import lazy_imports
from distacme import types

if TYPE_CHECKING:
  import optax

  OptState: TypeAlias = optax.OptState
  Optimizer: TypeAlias = optax.GradientTransformation
else:
  optax = lazy_imports.module('optax')

P = TypeVar('P', bound=types.NestedArray)
A = TypeVar('A')

_SMALL = 1 << 14  # numbers, of which a dot product takes 20 us


@dataclasses.dataclass(frozen=True)
class GradientStep(Generic[P, A]):
  """The outcome of one step down a gradient.

  Attributes:
    params: after the step.
    optimizer_state: after the step.
    aux: the loss's second output, beside its value.
    gradient_norm: [] of the whole gradient, before it is clipped.
  """

  params: P
  optimizer_state: OptState
  aux: A
  gradient_norm: jax.Array


def gradient_step(
  loss: Callable[..., tuple[jax.Array, A]],
  optimizer: Optimizer,
  params: P,
  optimizer_state: OptState,
  *inputs: Any,
) -> GradientStep[P, A]:
  """Takes one step of an optimiser down the gradient of a loss.

  Args:
    loss: (params, *inputs) to a value [] and a second output.
    optimizer: turns a gradient into a step.
    params: to change.
    optimizer_state: state of the optimiser.
    *inputs: further arguments of the loss.
  """
  gradient, aux = jax.grad(loss, has_aux=True)(params, *inputs)
  updates, optimizer_state = optimizer.update(gradient, optimizer_state)
  return GradientStep(
    optax.apply_updates(params, updates),
    optimizer_state,
    aux,
    global_norm(gradient),
  )


def global_norm(nest: types.NestedArray) -> jax.Array:
  """Returns the norm [] of all numbers of a nest of arrays."""
  squares = [_sum_of_squares(leaf) for leaf in jax.tree.leaves(nest)]
  return jnp.sqrt(sum(squares, jnp.float32(0)))


def _sum_of_squares(x: jax.Array) -> jax.Array:
  """Returns the sum [] of all squares, in the form that suits XLA's CPU compiler.

  Of a plain sum the compiler makes thousands of lines. Lines of a dot product are few,
  but run one by one. The sums of columns run several at a time.
  """
  if x.ndim < 2 or x.size <= _SMALL:
    flat = x.reshape(-1)
    # Accelerators round the factors of products unless told otherwise.
    return jnp.dot(flat, flat, precision=jax.lax.Precision.HIGHEST)
  return (x * x).sum(axis=tuple(range(x.ndim - 1))).sum()


def clipped(max_norm: float) -> Optimizer:
  """Returns a part of an optimiser that scales gradients down to a global norm."""

  def scaled(gradient: types.NestedArray, params: object) -> types.NestedArray:
    del params
    # The compiler finds the same norm in `gradient_step`, and makes one of both.
    scale = jnp.minimum(1.0, max_norm / global_norm(gradient))
    return jax.tree.map(lambda leaf: leaf * scale, gradient)

  return optax.stateless(scaled)


def adam(
  learning_rate: optax.ScalarOrSchedule,
  max_gradient_norm: float | None = None,
  **options: float,
) -> Optimizer:
  """Returns Adam, on gradients that are scaled down to a global norm.

  Args:
    learning_rate: Adam's step size, see `schedules.Schedule.step_size`.
    max_gradient_norm: limit of the norm; None for no limit.
    **options: other arguments of `optax.adam`.
  """
  optimizer = optax.adam(learning_rate, **options)
  if max_gradient_norm is None:
    return optimizer
  return optax.chain(clipped(max_gradient_norm), optimizer)


def by_part(
  parts: Callable[..., types.NestedArray],
  **of_part: Optimizer,
) -> Optimizer:
  """Returns an optimiser made of one optimiser for each part of the params.

  Args:
    parts: the class of the params, a NamedTuple.
    **of_part: the optimiser of each field of that class.
  """
  return optax.multi_transform(
    of_part, parts(**{name: name for name in of_part})
  )


def first_target(params: P) -> P:
  """Returns target params that equal `params`, in buffers of their own.

  The learner donates its state, and no buffer may be donated twice.
  """
  return jax.tree.map(jnp.copy, params)


def moved_target(
  params: P,
  target_params: P,
  steps: jax.Array,
  *,
  period: int,
  step_size: float = 1.0,
) -> P:
  """Returns the target networks' params after learner step `steps`.

  Args:
    params: the online networks' params.
    target_params: before the step.
    steps: int32 [], counted from 1.
    period: steps between two moves.
    step_size: share of the distance that targets move each time; 1 copies.
  """
  if step_size != 1.0:
    params = optax.incremental_update(params, target_params, step_size)
  if period == 1:  # a choice between branches copies both
    return params
  return optax.periodic_update(params, target_params, steps, period)
