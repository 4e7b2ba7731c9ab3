"""Losses of critics, and what they log."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from distacme import config_checks
from distacme import lazy_imports
from distacme import types

optax = lazy_imports.module('optax')
rlax = lazy_imports.module('rlax')


def td_loss(
  q_tm1: jax.Array, q_t: jax.Array, data: types.Transition
) -> tuple[jax.Array, dict[str, jax.Array]]:
  """Returns half the mean squared TD errors of critics, added, and metrics.

  Args:
    q_tm1: [N, B] values of what was done, by N critics that learn.
    q_t: [B] the target's values at the windows' ends.
    data: rewards and discounts.
  """
  errors = jax.vmap(jax.vmap(rlax.td_learning), (0, None, None, None))
  error = errors(q_tm1, data.reward, data.discount, q_t)
  loss = (error**2).mean(axis=1).sum() / 2
  return loss, {
    'critic_loss': loss,
    'mean_q': q_tm1.mean(),
    'mean_abs_td_error': jnp.abs(error).mean(),
  }


def check_atoms(config: Any) -> None:
  """Raises ValueError unless a Config's atoms span an interval."""
  if config.num_atoms < 2:
    raise ValueError(f'num_atoms must be at least 2, got {config.num_atoms}.')
  config_checks.check_finite(config, 'min_value', 'max_value')
  if not config.min_value < config.max_value:
    raise ValueError(
      f'min_value={config.min_value} must be less than '
      f'max_value={config.max_value}.'
    )


class Atoms:
  """Distributions of returns over evenly spaced atoms (Bellemare et al. 2017)."""

  def __init__(self, min_value: float, max_value: float, num_atoms: int):
    self._atoms = np.linspace(min_value, max_value, num_atoms, dtype=np.float32)

  def mean(self, logits: jax.Array) -> jax.Array:
    """Returns the means [...] of distributions, given logits [..., num_atoms]."""
    return jax.nn.softmax(logits) @ self._atoms

  def loss(
    self,
    logits_tm1: jax.Array,
    probability_t: jax.Array,
    data: types.Transition,
  ) -> tuple[jax.Array, dict[str, jax.Array]]:
    """Returns the mean cross-entropy to projected targets, and metrics.

    Eq. 3 and appendix A of Barth-Maron et al. 2018 (arXiv:1804.08617).

    Args:
      logits_tm1: [B, num_atoms] of what was done; the gradient reaches these only.
      probability_t: [B, num_atoms] the target's at the windows' ends.
      data: rewards and discounts.
    """
    atoms = self._atoms

    def target(r_t: jax.Array, discount_t: jax.Array, p_t: jax.Array) -> Any:
      return rlax.categorical_l2_project(r_t + discount_t * atoms, p_t, atoms)

    targets = jax.vmap(target)(data.reward, data.discount, probability_t)
    loss = optax.softmax_cross_entropy(
      logits_tm1, jax.lax.stop_gradient(targets)
    ).mean()
    probability = jax.nn.softmax(logits_tm1)
    return loss, {
      'critic_loss': loss,
      'mean_q': self.mean(logits_tm1).mean(),
      # Near 1 the atoms do not reach as far as returns do.
      'share_at_ends': (probability[:, 0] + probability[:, -1]).mean(),
    }
