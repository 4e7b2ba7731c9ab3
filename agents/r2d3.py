"""R2D3: R2D2 with a share of demonstrations in its batches (needs --demonstrations).

Paine et al. 2019 (arXiv:1909.01387). The learner is that of our R2D2. Each sequence of a
batch is, by chance, one of the demonstrations or one of the agent's own, out of two
prioritised tables; priorities of both are updated. As the share of demonstrations is
chosen, importance weights correct for the priorities within each table and not for the
share.

The memory at the start of a demonstrated sequence is not stored, since no network acted:
it would be that of the first params for ever. A sequence that starts with its episode
starts with an empty memory, as it should. Before any other sequence the network runs, with
the params of the update, over the `burn_in_length` steps that precede the steps learnt
from, so that the memory is as new as the params, and knows of what these steps show.
Where the memory must reach further back, `trace_length` or `burn_in_length` is to be that
long.
"""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp

from distacme import config_checks
from distacme import replay_spec
from distacme import specs
from distacme import types
from distacme.agents import dqn
from distacme.agents import r2d2


@dataclasses.dataclass(frozen=True)
class Config(r2d2.Config):
  """Settings of R2D3; the paper's, where they differ, stand beside them."""

  demonstration_ratio: float = 1 / 16
  """Rho: chance of each sequence of a batch to be a demonstration; 1/256 in the paper.
  With 1 nothing is learnt from the agent's own steps, and nobody acts."""
  samples_per_insert: float = 16.0
  """Sequences learnt from for each own one added, demonstrations included."""
  max_demonstrations: int = 10_000
  """Sequences of demonstrations that there is room for."""

  def __post_init__(self) -> None:
    super().__post_init__()
    # Demonstrations have no other memory at the start of a sequence.
    config_checks.check_at_least_one(self, 'burn_in_length')

  @property
  def replay(self) -> replay_spec.ReplaySpec:
    """Spec of the replay, by these settings."""
    ratio = self.demonstration_ratio
    if not 0 < ratio <= 1:
      raise ValueError(
        f'demonstration_ratio must be above 0 and at most 1, got {ratio}. Use '
        'r2d2 to learn without demonstrations.'
      )
    (own,) = super().replay.tables
    demonstrations = own.of_demonstrations(self.max_demonstrations)
    if ratio == 1:
      return replay_spec.ReplaySpec((demonstrations,), self.batch_size)
    return replay_spec.ReplaySpec(
      (own, demonstrations), self.batch_size, (1 - ratio, ratio)
    )


class R2D3(r2d2.R2D2):
  """R2D3 for one environment spec; see `core.Agent`."""

  def importance_weights(self, batch: types.Batch) -> jax.Array:
    """Returns weights [B] in (0, 1], scaled to their maximum in each table."""
    weights = jnp.ones(batch.probability.shape)
    for index in range(len(self.replay.tables)):
      of_table = batch.table == index
      probability = jnp.where(of_table, batch.probability, jnp.inf)
      within = dqn.importance_weights(
        probability, self._config.importance_exponent
      )
      weights = jnp.where(of_table, within, weights)
    return weights


def make_agent(
  config: Config,
  spec: specs.EnvironmentSpec,
  network: r2d2.Network | None = None,
) -> R2D3:
  """Returns R2D3 for an environment; see `r2d2.make_agent`."""
  return R2D3(config, spec, network)
