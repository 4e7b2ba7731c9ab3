"""D4PG: DDPG with a categorical critic, n steps and many actors.

Barth-Maron et al. 2018 (arXiv:1804.08617). What differs: replay is uniform, as the
paper finds that priorities help least of its parts; exploration and first actions are
those of our DDPG, whose file has all that is not here.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import haiku as hk
import jax
import numpy as np

from distacme import actor_critic
from distacme import lazy
from distacme import ranges
from distacme import specs
from distacme import types
from distacme.agents import ddpg

optax = lazy.module('optax')
rlax = lazy.module('rlax')


@dataclasses.dataclass(frozen=True)
class Config(ddpg.Config):
  """Settings of D4PG."""

  n_step: int = 5
  """Steps between the two ends of a transition."""
  num_atoms: int = 51
  """Atoms of the critic's distributions."""
  min_value: float = -150.0
  """The lowest atom: no return below it can be told from it."""
  max_value: float = 150.0
  """The highest. Rewards in [0, 1] make returns of up to 1 / (1 - discount)."""
  target_update_period: int = 100
  """Learner steps between two moves of the target networks."""
  target_step_size: float = 1.0
  """Tau: how far they move each time; 1 copies."""

  def __post_init__(self) -> None:
    super().__post_init__()
    check_atoms(self)


def check_atoms(config: Any) -> None:
  """Raises ValueError unless a Config's atoms span an interval."""
  if config.num_atoms < 2:
    raise ValueError(f'num_atoms must be at least 2, got {config.num_atoms}.')
  ranges.check_finite(config, 'min_value', 'max_value')
  if not config.min_value < config.max_value:
    raise ValueError(
      f'min_value={config.min_value} must be less than '
      f'max_value={config.max_value}.'
    )


def categorical_loss(
  atoms: np.ndarray,
  logits_tm1: jax.Array,
  probability_t: jax.Array,
  data: types.Transition,
) -> jax.Array:
  """Returns the mean cross-entropy to projected targets (eq. 3, app. A).

  Args:
    atoms: [A] of all distributions.
    logits_tm1: [B, A] at the windows' starts; the gradient reaches these only.
    probability_t: [B, A] at their ends.
    data: rewards and discounts.
  """

  def target(r_t: jax.Array, discount_t: jax.Array, p_t: jax.Array) -> Any:
    return rlax.categorical_l2_project(r_t + discount_t * atoms, p_t, atoms)

  targets = jax.vmap(target)(data.reward, data.discount, probability_t)
  return optax.softmax_cross_entropy(
    logits_tm1, jax.lax.stop_gradient(targets)
  ).mean()


def critic_metrics(
  atoms: np.ndarray, logits: jax.Array, loss: jax.Array
) -> dict[str, jax.Array]:
  """Returns what a categorical critic logs, of logits [B, A] and their loss."""
  probability = jax.nn.softmax(logits)
  return {
    'critic_loss': loss,
    'mean_q': (probability @ atoms).mean(),
    # Near 1 the atoms do not reach as far as returns do.
    'share_at_ends': (probability[:, 0] + probability[:, -1]).mean(),
  }


class D4PG(ddpg.DDPG):
  """D4PG for one environment spec; see `core.Agent`."""

  name = 'D4PG'

  def __init__(
    self,
    config: Config,
    spec: specs.EnvironmentSpec,
    network: actor_critic.MakeActorCritic | None = None,
  ):
    self.num_values = config.num_atoms
    self._atoms = np.linspace(
      config.min_value, config.max_value, config.num_atoms, dtype=np.float32
    )
    super().__init__(config, spec, network)

  def critic_loss(
    self,
    critic: hk.Params,
    target_params: actor_critic.ActorCritic,
    data: types.Transition,
  ) -> tuple[jax.Array, dict[str, jax.Array]]:
    """Returns the mean cross-entropy to the projected targets."""
    logits_tm1 = self._critic.apply(
      critic, data.observation, self._bounds.vector(data.action)
    )
    a_t = self.act_vector(target_params.policy, data.next_observation)
    logits_t = self._critic.apply(
      target_params.critic, data.next_observation, a_t
    )
    probability_t = jax.nn.softmax(logits_t)
    loss = categorical_loss(self._atoms, logits_tm1, probability_t, data)
    return loss, critic_metrics(self._atoms, logits_tm1, loss)

  def q(
    self,
    critic: hk.Params,
    observation: types.NestedArray,
    vector: jax.Array,
  ) -> jax.Array:
    """Returns the means [B] of the distributions of action vectors [B, size]."""
    logits = self._critic.apply(critic, observation, vector)
    return jax.nn.softmax(logits) @ self._atoms


def make_agent(
  config: Config,
  spec: specs.EnvironmentSpec,
  network: actor_critic.MakeActorCritic | None = None,
) -> D4PG:
  """Returns D4PG for an environment.

  Args:
    config: settings.
    spec: of the environment.
    network: makes policy and critic, given how many outputs the policy must have;
      see `ActorCritic`. The policy's outputs [B, size] are squashed to
      [-1, 1] by tanh, the critic's are logits [B, num_atoms]; by default two
      normalised MLPs.

  Raises:
    ValueError: if the environment's actions are not bounded floats.
  """
  return D4PG(config, spec, network)
