"""Returns of several steps, and the scale in which large values are learnt.

The functions take arrays of numpy or of JAX, since actors compute priorities in numpy.
"""

from __future__ import annotations

from types import ModuleType
from typing import TypeVar

import jax
import jax.numpy as jnp
import numpy as np

Array = TypeVar('Array', np.ndarray, jax.Array)

_RESCALING = 1e-3  # epsilon in h


def rescale(x: Array, xp: ModuleType = jnp) -> Array:
  """Returns h(x) = sign(x)(sqrt(|x| + 1) - 1) + 1e-3 x (Pohlen et al. 2018).

  Args:
    x: any shape.
    xp: the module of `x`, numpy or jax.numpy; also in the functions below.
  """
  return xp.sign(x) * (xp.sqrt(abs(x) + 1) - 1) + _RESCALING * x


def unscale(x: Array, xp: ModuleType = jnp) -> Array:
  """Returns the inverse of `rescale`."""
  # The paper's (sqrt(1 + 4 e y) - 1) / 2 e, without a difference of near numbers, which
  # in float32 is wrong by up to 2e-4 below 1.
  y = abs(x) + 1 + _RESCALING
  root = 2 * y / (xp.sqrt(1 + 4 * _RESCALING * y) + 1)
  return xp.sign(x) * (root**2 - 1)


def n_step_returns(
  r_t: Array,
  discount_t: Array,
  v_t: Array,
  goes_on_t: Array,
  n_step: int,
  xp: ModuleType = jnp,
) -> Array:
  """Returns the bootstrapped n-step returns [..., T] of steps.

  `rlax.n_step_bootstrapped_returns` is the same for JAX alone; actors load no rlax.

  Args:
    r_t: [..., T].
    discount_t: [..., T].
    v_t: [..., T] values of the observations that the steps led to. Returns that
      would reach beyond the last one are cut there.
    goes_on_t: [..., T] bool; False if the episode ends with the step: then the
      step's value bootstraps the return.
    n_step: steps of a return.
    xp: the module of the arrays.
  """
  length = r_t.shape[-1]
  cut = xp.repeat(v_t[..., -1:], min(n_step - 1, length), axis=-1)
  returns = xp.concatenate([v_t[..., n_step - 1 :], cut], axis=-1)
  # A step beyond the sequence would change no return, as the last value bootstraps.
  for step in reversed(range(min(n_step, length))):
    onward = xp.where(
      goes_on_t[..., step:], returns[..., : length - step], v_t[..., step:]
    )
    made = r_t[..., step:] + discount_t[..., step:] * onward
    returns = xp.concatenate([made, returns[..., length - step :]], axis=-1)
  return returns
