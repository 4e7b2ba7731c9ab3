"""Settings that agents share."""

from __future__ import annotations

import dataclasses
from typing import Literal

from distacme import config_checks
from distacme import replay_spec
from distacme.kit import schedules


@dataclasses.dataclass(frozen=True)
class LearningRateConfig:
  """Settings of the schedule that all step sizes of an agent follow."""

  learning_rate_schedule: schedules.Kind = 'constant'
  """The fall of step sizes: none, along a line, or along half a cosine."""
  learning_rate_steps: int = 0
  """Learner steps in which step sizes fall; 0 if they are constant."""
  learning_rate_end_share: float = 0.0
  """Share of the first step size that is left at the end, and stays; 0 of constant
  ones."""

  def __post_init__(self) -> None:
    _ = self.learning_rates  # checks itself

  @property
  def learning_rates(self) -> schedules.Schedule:
    """Schedule of the step sizes."""
    return schedules.Schedule(
      'learning_rate',
      self.learning_rate_schedule,
      self.learning_rate_steps,
      self.learning_rate_end_share,
    )


@dataclasses.dataclass(frozen=True)
class EpsilonGreedyConfig(LearningRateConfig):
  """Settings of an agent that acts epsilon-greedily."""

  epsilon_base: float = 0.4
  """Base of the exploration ladder."""
  epsilon_exponent: float = 7.0
  """Length of the exploration ladder, in powers of its base."""
  epsilon_schedule: schedules.Kind = 'constant'
  """The fall of the whole ladder: none, along a line, or along half a cosine."""
  epsilon_steps: int = 0
  """Learner steps in which the ladder falls; 0 if it is constant."""
  epsilon_end_share: float = 0.0
  """Share of each epsilon that is left at the end, and stays; 0 of constant ones."""
  evaluation_epsilon: float = 0.0
  """Chance of a random action while evaluated."""

  def __post_init__(self) -> None:
    super().__post_init__()
    config_checks.check_not_negative(self, 'epsilon_exponent')
    config_checks.check_share(self, 'epsilon_base', 'evaluation_epsilon')
    _ = self.epsilons  # checks itself

  @property
  def epsilons(self) -> schedules.Schedule:
    """Schedule of the chance of a random action."""
    return schedules.Schedule(
      'epsilon',
      self.epsilon_schedule,
      self.epsilon_steps,
      self.epsilon_end_share,
    )


@dataclasses.dataclass(frozen=True)
class UniformConfig(LearningRateConfig):
  """Settings of an agent that learns from n-step transitions, drawn uniformly."""

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
    super().__post_init__()
    config_checks.check_at_least_one(self, 'n_step', 'min_replay_size')
    config_checks.check_at_most(self, 'min_replay_size', 'max_replay_size')
    _ = self.replay  # checks itself

  @property
  def replay(self) -> replay_spec.ReplaySpec:
    """Spec of the replay, by these settings."""
    return replay_spec.single(
      window=replay_spec.NStep(self.n_step, self.discount),
      batch_size=self.batch_size,
      max_size=self.max_replay_size,
      min_size=self.min_replay_size,
      samples_per_insert=self.samples_per_insert,
      error_buffer=self.error_buffer,
    )


@dataclasses.dataclass(frozen=True)
class SearchConfig:
  """Settings of a search (`kit.search`)."""

  discount: float = 0.997
  """Gamma, per environment step; 1 for games that end with their outcome."""
  num_simulations: int = 50
  """Steps of the model in the search before each action."""
  search: Literal['puct', 'gumbel'] = 'puct'
  """Choice of actions within the search: AlphaZero's PUCT with noise at the root, or
  Gumbel MuZero's sequential halving, which improves the policy with few
  simulations, too."""
  exploration: float = 1.25
  """PUCT's c: weight of the prior and of few visits beside values in [0, 1]."""
  max_abs_value: float | None = None
  """Bound of the values' size, as 1 in games: values are then compared as shares of
  it. By default they are scaled between the least and the largest of a state and its
  successors, which makes much of small differences."""
  dirichlet_alpha: float = 0.3
  """Concentration of the noise on the root's prior; PUCT in actors."""
  dirichlet_fraction: float = 0.25
  """Share of the noise in the root's prior; PUCT in actors."""
  temperature: float = 1.0
  """Actors choose by visits to the power of 1 / temperature; PUCT."""
  temperature_steps: int = 30
  """Steps of an episode after which actors choose the most visited action; PUCT."""
  max_considered_actions: int = 16
  """Actions that are tried at the root; Gumbel."""

  def __post_init__(self) -> None:
    config_checks.check_share(self, 'discount', 'dirichlet_fraction')
    config_checks.check_positive(
      self, 'exploration', 'dirichlet_alpha', 'temperature'
    )
    config_checks.check_at_least_one(
      self, 'num_simulations', 'max_considered_actions'
    )
    config_checks.check_not_negative(self, 'temperature_steps')
    if self.max_abs_value is not None:
      config_checks.check_positive(self, 'max_abs_value')
    if self.search not in ('puct', 'gumbel'):
      raise ValueError(
        f"search must be 'puct' or 'gumbel', got {self.search!r}."
      )
