"""D4PG: DDPG with a categorical critic, n steps and many actors.

Barth-Maron et al. 2018 (arXiv:1804.08617). Differences: replay is uniform, as the paper
finds that priorities help least of its parts; exploration and first actions are those
of our DDPG. The file of DDPG has all parts that are not here. Acme (Hoffman et al.
2020, arXiv:2006.00979) has step sizes of 1e-4, not 1e-3, noise of 0.3, not 0.2, 32
samples per insert, not 256, and networks 300-200 and 400-300, not 256-256. Acme clips
the gradient of the value by the action, and takes the policy's loss at the windows'
ends, not their starts. Acme's actors follow the target policy; ours follow the online
policy.
"""

from __future__ import annotations

import dataclasses

import haiku as hk
import jax

from distacme import specs
from distacme import types
from distacme.agents import ddpg
from distacme.kit import actor_critic
from distacme.kit import critics


@dataclasses.dataclass(frozen=True)
class Config(ddpg.Config):
  """Settings of D4PG."""

  n_step: int = 5
  """Steps between the two ends of a transition."""
  num_atoms: int = 51
  """Atoms of the critic's distributions."""
  min_value: float = -150.0
  """The lowest atom; lower returns count as this one."""
  max_value: float = 150.0
  """The highest atom. Rewards in [0, 1] make returns of up to 1 / (1 - discount)."""
  target_update_period: int = 100
  """Learner steps between two moves of the target networks."""
  target_step_size: float = 1.0
  """Tau: share of the distance that targets move each time; 1 copies."""

  def __post_init__(self) -> None:
    super().__post_init__()
    _ = self.atoms  # checks itself

  @property
  def atoms(self) -> critics.Atoms:
    """Atoms of the critic, by these settings."""
    return critics.Atoms(self.min_value, self.max_value, self.num_atoms)


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
    self._atoms = config.atoms
    super().__init__(config, spec, network)

  def critic_loss(
    self,
    critic: hk.Params,
    target_critic: hk.Params,
    data: types.Transition,
    a_t: jax.Array,
    key: types.Key,
  ) -> tuple[jax.Array, dict[str, jax.Array]]:
    """Returns the mean cross-entropy to the projected targets (eq. 3, app. A)."""
    o_tm1, a_tm1, r_t, discount_t, o_t, _ = data
    tm1_key, t_key = jax.random.split(key)
    logits_tm1 = self._critic.apply(
      critic, tm1_key, o_tm1, self._bounds.vector(a_tm1)
    )
    logits_t = self._critic.apply(target_critic, t_key, o_t, a_t)
    return self._atoms.loss(
      logits_tm1, r_t, discount_t, jax.nn.softmax(logits_t)
    )

  def q(
    self,
    critic: hk.Params,
    key: types.Key,
    observation: types.NestedArray,
    vector: jax.Array,
  ) -> jax.Array:
    """Returns the means [B] of the distributions of action vectors [B, size]."""
    logits = self._critic.apply(critic, key, observation, vector)
    return self._atoms.mean(logits)


def make_agent(
  config: Config,
  spec: specs.EnvironmentSpec,
  network: actor_critic.MakeActorCritic | None = None,
) -> D4PG:
  """Returns D4PG for an environment.

  Args:
    config: settings.
    spec: of the environment.
    network: makes policy and critic, given the number of the policy's outputs; see
      `ActorCritic`. The policy's outputs [B, size] are squashed to [-1, 1] by tanh,
      the critic's are logits [B, num_atoms]; by default two normalised MLPs.

  Raises:
    ValueError: if the environment's actions are not bounded floats.
  """
  return D4PG(config, spec, network)
