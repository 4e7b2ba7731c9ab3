"""Losses of critics, and their metrics."""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
import numpy as np

from distacme import lazy_imports

optax = lazy_imports.module('optax')
rlax = lazy_imports.module('rlax')


def td_loss(
  q_tm1: jax.Array, r_t: jax.Array, discount_t: jax.Array, q_t: jax.Array
) -> tuple[jax.Array, dict[str, jax.Array]]:
  """Returns half the mean squared TD error, summed over critics, and metrics.

  Args:
    q_tm1: [N, B] values of the stored actions, by N critics that learn.
    r_t: [B] discounted returns over the windows.
    discount_t: [B] multiply the values at the windows' ends; 0 if terminal.
    q_t: [B] the target critic's values at the windows' ends.
  """
  errors = jax.vmap(jax.vmap(rlax.td_learning), (0, None, None, None))
  error = errors(q_tm1, r_t, discount_t, q_t)
  loss = (error**2).mean(axis=1).sum() / 2
  return loss, {
    'critic_loss': loss,
    'mean_q': q_tm1.mean(),
    'mean_abs_td_error': jnp.abs(error).mean(),
  }


class Atoms:
  """Distributions of returns over evenly spaced atoms (Bellemare et al. 2017)."""

  def __init__(self, min_value: float, max_value: float, num_atoms: int):
    """Spreads `num_atoms` evenly from `min_value` to `max_value`.

    Raises:
      ValueError: if the two values span no interval.
    """
    if num_atoms < 2:
      raise ValueError(f'num_atoms must be at least 2, got {num_atoms}.')
    for name, value in (('min_value', min_value), ('max_value', max_value)):
      if not math.isfinite(value):
        raise ValueError(f'{name} must be finite, got {value}.')
    if not min_value < max_value:
      raise ValueError(
        f'min_value={min_value} must be less than max_value={max_value}.'
      )
    self._atoms = np.linspace(min_value, max_value, num_atoms, dtype=np.float32)

  def mean(self, logits: jax.Array) -> jax.Array:
    """Returns the means [...] of distributions, given logits [..., num_atoms]."""
    return jax.nn.softmax(logits) @ self._atoms

  def loss(
    self,
    logits_tm1: jax.Array,
    r_t: jax.Array,
    discount_t: jax.Array,
    p_t: jax.Array,
  ) -> tuple[jax.Array, dict[str, jax.Array]]:
    """Returns the mean cross-entropy to projected targets, and metrics.

    Eq. 3 and appendix A of Barth-Maron et al. 2018 (arXiv:1804.08617).

    Args:
      logits_tm1: [B, num_atoms] of the stored actions; the gradient reaches these
        only.
      r_t: [B] discounted returns over the windows.
      discount_t: [B] multiply the atoms at the windows' ends; 0 if terminal.
      p_t: [B, num_atoms] the target critic's probabilities at the windows' ends.
    """
    z = self._atoms
    z_t = r_t[:, None] + discount_t[:, None] * z[None]
    targets = jax.vmap(rlax.categorical_l2_project, (0, 0, None))(z_t, p_t, z)
    loss = optax.softmax_cross_entropy(
      logits_tm1, jax.lax.stop_gradient(targets)
    ).mean()
    probability = jax.nn.softmax(logits_tm1)
    return loss, {
      'critic_loss': loss,
      'mean_q': self.mean(logits_tm1).mean(),
      # A share near 1 means that returns lie beyond the atoms.
      'share_at_ends': (probability[:, 0] + probability[:, -1]).mean(),
    }
