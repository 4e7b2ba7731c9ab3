"""Early stopping: the params of the smallest loss on data that is not fitted to."""

from __future__ import annotations

from typing import NamedTuple

import haiku as hk
import jax
import jax.numpy as jnp

from distacme.kit import optimizers


class Validation(NamedTuple):
  """The loss on validation data, averaged over periods of learner steps.

  Attributes:
    best_params: those with the smallest loss so far.
    best_loss: [] float32, of a whole period.
    loss: [] float32, the sum in this period.
    items: [] float32, number of items that the sum is of.
    stale_periods: [] int32, since the best one.
  """

  best_params: hk.Params
  best_loss: jax.Array
  loss: jax.Array
  items: jax.Array
  stale_periods: jax.Array


def begin(params: hk.Params) -> Validation:
  """Returns a state in which nothing was validated, and `params` are the best."""
  return Validation(
    optimizers.first_target(params),
    best_loss=jnp.float32(jnp.inf),
    loss=jnp.float32(0),
    items=jnp.float32(0),
    stale_periods=jnp.int32(0),
  )


def mean(before: Validation, loss: jax.Array, items: jax.Array) -> jax.Array:
  """Returns the mean loss [] of this period, with a batch more; 0 of no item."""
  return (before.loss + loss) / (before.items + items).clip(1.0)


def add(
  before: Validation,
  params: hk.Params,
  loss: jax.Array,
  items: jax.Array,
  is_last: jax.Array,
) -> Validation:
  """Returns the state with a batch more; the last batch ends a period.

  Params change during a period. Those at its end stand for all of it.

  Args:
    before: the state.
    params: after the learner step of the batch.
    loss: [] sum over the batch.
    items: [] number of items that the sum is of.
    is_last: [] bool, whether the batch is the last of its period.
  """
  state = before._replace(loss=before.loss + loss, items=before.items + items)
  return jax.lax.cond(
    is_last, _next_period, lambda params, state: state, params, state
  )


def _next_period(params: hk.Params, before: Validation) -> Validation:
  nothing = jnp.zeros_like(before.loss)
  loss = jnp.where(before.items > 0, before.loss / before.items, jnp.inf)
  better = loss < before.best_loss
  return Validation(
    jax.tree.map(
      lambda new, old: jnp.where(better, new, old), params, before.best_params
    ),
    best_loss=jnp.minimum(loss, before.best_loss),
    loss=nothing,
    items=nothing,
    stale_periods=jnp.where(better, 0, before.stale_periods + 1),
  )
