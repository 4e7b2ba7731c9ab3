"""Settings that agents share."""

from __future__ import annotations

import dataclasses

from distacme import config_checks
from distacme import replay_spec


@dataclasses.dataclass(frozen=True)
class UniformConfig:
  """Settings of an agent that learns from n-step transitions, all drawn alike."""

  discount: float = 0.99
  """Gamma, per environment step."""
  n_step: int = 1
  """Steps between the two ends of a transition."""
  batch_size: int = 256
  """Transitions per learner step."""
  samples_per_insert: float = 256.0
  """Transitions sampled per environment step; batch_size for an update each."""
  min_replay_size: int = 1_000
  """Transitions before learning begins."""
  max_replay_size: int = 1_000_000
  """Transitions kept."""
  error_buffer: float = 0.0
  """Samples by which actors or learner may run ahead; 0 chooses."""

  def __post_init__(self) -> None:
    config_checks.check_at_least_one(self, 'n_step', 'min_replay_size')
    config_checks.check_at_most(self, 'min_replay_size', 'max_replay_size')
    _ = self.replay  # checks itself

  @property
  def replay(self) -> replay_spec.ReplaySpec:
    """What these settings ask of replay."""
    return replay_spec.single(
      window=replay_spec.NStep(self.n_step, self.discount),
      batch_size=self.batch_size,
      max_size=self.max_replay_size,
      min_size=self.min_replay_size,
      samples_per_insert=self.samples_per_insert,
      error_buffer=self.error_buffer,
    )
