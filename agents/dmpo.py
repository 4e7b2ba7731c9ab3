"""DMPO: MPO with a categorical critic.

Hoffman et al. 2020 (arXiv:2006.00979). The target is the mixture of the critic's
distributions for the drawn actions. Acme averages their log-softmaxed logits by
logsumexp, which is this mixture up to its normalisation. The file of our MPO has all
parts that are not here.
"""

from __future__ import annotations

import dataclasses

import jax

from distacme import specs
from distacme.agents import mpo
from distacme.kit import actor_critic
from distacme.kit import critics


@dataclasses.dataclass(frozen=True)
class Config(mpo.Config):
  """Settings of DMPO."""

  num_atoms: int = 51
  """Atoms of the critic's distributions."""
  min_value: float = -150.0
  """The lowest atom; lower returns count as this one."""
  max_value: float = 150.0
  """The highest atom. Rewards in [0, 1] make returns of up to 1 / (1 - discount)."""

  def __post_init__(self) -> None:
    super().__post_init__()
    _ = self.atoms  # checks itself

  @property
  def atoms(self) -> critics.Atoms:
    """Atoms of the critic, by these settings."""
    return critics.Atoms(self.min_value, self.max_value, self.num_atoms)


class DMPO(mpo.MPO):
  """DMPO for one environment spec; see `core.Agent`."""

  name = 'DMPO'

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
    output_tm1: jax.Array,
    r_t: jax.Array,
    discount_t: jax.Array,
    outputs_t: jax.Array,
  ) -> tuple[jax.Array, dict[str, jax.Array]]:
    """Returns the mean cross-entropy to the projected mixtures.

    Args:
      output_tm1: [B, num_atoms] logits of the stored actions.
      r_t: [B] discounted returns over the windows.
      discount_t: [B] multiply the atoms at the windows' ends.
      outputs_t: [N, B, num_atoms] target logits of drawn actions at the ends.
    """
    mixture_t = jax.nn.softmax(outputs_t).mean(axis=0)
    return self._atoms.loss(output_tm1, r_t, discount_t, mixture_t)

  def q(self, output: jax.Array) -> jax.Array:
    """Returns the means [...] of distributions [..., num_atoms]."""
    return self._atoms.mean(output)


def make_agent(
  config: Config,
  spec: specs.EnvironmentSpec,
  network: actor_critic.MakeActorCritic | None = None,
) -> DMPO:
  """Returns DMPO for an environment.

  Args:
    config: settings.
    spec: of the environment.
    network: makes policy and critic, given the number of the policy's outputs; see
      `ActorCritic`. The policy's outputs [B, 2 * size] are means, and deviations
      before softplus and a scale, so that 0 means `initial_std`. The critic's
      outputs are logits [B, num_atoms]. By default two normalised MLPs.

  Raises:
    ValueError: if the environment's actions are not bounded floats.
  """
  return DMPO(config, spec, network)
