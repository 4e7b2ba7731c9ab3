"""What an agent wants of replay, as data that every backend interprets."""

from __future__ import annotations

from collections.abc import Callable, Mapping
import dataclasses
import math
from typing import Any

import numpy as np

from distacme import config_checks

# Computes priorities [B] on the actor, in numpy. Of n-step windows it is given
# (reward [B], discount [B], `values` at the window's first observation, at its
# last); of sequences (`types.Sequence` [B, L], `values` [B, L]).
FirstPriority = Callable[..., np.ndarray]


def learnt_reward(reward: Any, scale: Any, max_abs: Any) -> Any:
  """Returns rewards as they are learnt from: scaled, and then clipped.

  Args:
    reward: of any shape, of NumPy or of JAX.
    scale: that they are multiplied by.
    max_abs: size that they are clipped to.
  """
  return (reward * scale).clip(-max_abs, max_abs)


@dataclasses.dataclass(frozen=True)
class NStep:
  """Windows of `n` steps of which the two ends are kept (`types.Transition`).

  Every step starts one window, so inserted transitions equal environment
  steps. Windows that meet an episode's end are shortened, never dropped.

  Attributes:
    n: steps between the two ends, at least 1.
    discount: gamma per step, in [0, 1].
    reward_scale: each step's reward is multiplied by this, and then
    max_abs_reward: clipped to this size, before rewards are added up.
  """

  n: int
  discount: float
  reward_scale: float = 1.0
  max_abs_reward: float = math.inf

  def __post_init__(self) -> None:
    config_checks.check_positive(self, 'reward_scale', 'max_abs_reward')
    if self.n < 1:
      raise ValueError(
        f'n of an n-step window must be at least 1, got {self.n}.'
      )
    if not 0.0 <= self.discount <= 1.0:
      raise ValueError(f'discount must be in [0, 1], got {self.discount}.')


@dataclasses.dataclass(frozen=True)
class Sequences:
  """Windows of consecutive rows of one environment (`types.Sequence`).

  Attributes:
    length: rows, of which the last only bootstraps; at least 2.
    period: steps between the starts of two windows, from 1 to `length` - 1; less
      than that and they overlap in more than one row.
    across_episodes: whether windows follow each other regardless of episodes,
      all environments of an actor at once, each full. If not, the first starts
      where the episode does, and the last ends there, padded if it is short; it
      is left out if all its steps are in the one before.
  """

  length: int
  period: int
  across_episodes: bool = False

  def __post_init__(self) -> None:
    if self.length < 2:
      raise ValueError(
        'length of a sequence must be at least 2 rows, one step and what '
        f'bootstraps it, got {self.length}.'
      )
    if not 1 <= self.period < self.length:
      raise ValueError(
        f'period of sequences must be from 1 to {self.length - 1}, or steps '
        f'would be left out between two of length={self.length}, got '
        f'{self.period}.'
      )


def check_priorities(priority: np.ndarray) -> None:
  """Checks priorities that an agent computed.

  Raises:
    ValueError: if one is negative, infinite or not a number; it would spoil
      the chances of all other items.
  """
  right = np.isfinite(priority) & (priority >= 0)
  if np.count_nonzero(right) < right.size:
    wrong = np.asarray(priority)[~right]
    raise ValueError(
      f'priorities must be finite and not negative, got {wrong[0]} among '
      f'{right.size}. If they come from the loss, it may have diverged: look '
      'at rewards and observations, or lower the learning rate.'
    )


@dataclasses.dataclass(frozen=True)
class RateLimits:
  """When replay lets a side go on; all in the unit of `samples_per_insert`.

  With `balance = samples_per_insert * inserts - samples`, an insert may start
  while it leaves `balance <= max_balance`, a sample once `min_size` items were
  inserted and while it leaves `balance >= min_balance`.
  """

  samples_per_insert: float
  min_size: int
  min_balance: float
  max_balance: float

  def can_sample(self, inserts: int, samples: int, count: int) -> bool:
    """Whether `count` more samples may be drawn."""
    balance = self.samples_per_insert * inserts - samples
    return inserts >= self.min_size and balance - count >= self.min_balance

  def can_insert(self, inserts: int, samples: int, count: int) -> bool:
    """Whether `count` more items may be inserted."""
    balance = self.samples_per_insert * (inserts + count) - samples
    return inserts + count <= self.min_size or balance <= self.max_balance


def table_metrics(
  limits: RateLimits, size: int, inserted: int, sampled: int
) -> dict[str, float]:
  """Returns what a table logs of itself; all counts in windows.

  `samples_per_insert` is the ratio reached, counted from the first `min_size`
  inserts on.
  """
  beyond = inserted - limits.min_size
  return {
    'size': size,
    'inserted': inserted,
    'sampled': sampled,
    'samples_per_insert': sampled / beyond if beyond > 0 else 0.0,
  }


@dataclasses.dataclass(frozen=True)
class ReplaySpec:
  """Windows, sizes, rates and sampling of one replay table.

  All counts are of windows: transitions, of which every environment step makes
  one, or sequences.

  Attributes:
    window: how steps become what is stored.
    batch_size: windows in a sampled batch.
    max_size: windows kept; the oldest leave first.
    min_size: windows inserted before the first sample.
    samples_per_insert: windows sampled for each one inserted, counted from the
      first `min_size` on; the replay ratio. Held by blocking either side.
    error_buffer: samples by which either side may run ahead of that ratio; 0
      chooses a tenth of `min_size`, or what a batch needs if that is more.
    priority_exponent: items are drawn with chance proportional to their
      priority to this power; 0 draws uniformly.
    first_priority: computes an item's first priority from the `values` that
      `act` returned; None inserts every item with priority 1.
    block_size: transitions stored, drawn and replaced as one item. Blocks make
      writing and sampling cheaper by orders of magnitude, and batches less
      mixed; only for uniform sampling.
    used_once: whether this is a queue: windows are drawn in the order in which
      they came, each once, and actors wait while `max_size` are there. `queue`
      makes one.
  """

  window: NStep | Sequences
  batch_size: int
  max_size: int
  min_size: int
  samples_per_insert: float
  error_buffer: float = 0.0
  priority_exponent: float = 0.0
  first_priority: FirstPriority | None = None
  block_size: int = 1
  used_once: bool = False

  def __post_init__(self) -> None:
    config_checks.check_at_least_one(
      self, 'batch_size', 'max_size', 'min_size', 'block_size'
    )
    if not 0 < self.samples_per_insert < math.inf:
      raise ValueError(
        'samples_per_insert must be positive and finite, got '
        f'{self.samples_per_insert}. A large error_buffer lets both sides run '
        'free.'
      )
    if not 0 <= self.priority_exponent < math.inf:
      raise ValueError(
        'priority_exponent must not be negative, and finite, got '
        f'{self.priority_exponent}.'
      )
    self._check_blocks()
    self._check_queue()
    held = self.max_items * self.block_size
    if self.rate_limits.min_size > held:
      raise ValueError(
        f'min_size={self.min_size} is more than max_size={self.max_size} '
        f'holds in whole blocks of block_size={self.block_size}: the table '
        'never holds enough to be sampled and the learner would wait for '
        'ever. Lower min_size or raise max_size.'
      )
    self._check_error_buffer()

  def _check_blocks(self) -> None:
    if self.block_size == 1:
      return
    if self.priority_exponent:
      raise ValueError(
        f'block_size={self.block_size} needs uniform sampling, because a '
        'block has one priority for all its transitions. Set '
        'priority_exponent=0 or block_size=1.'
      )
    if isinstance(self.window, Sequences):
      raise ValueError(
        f'block_size={self.block_size} is for transitions, and a sequence is an '
        'item by itself. Set block_size=1.'
      )
    if self.batch_size % self.block_size:
      raise ValueError(
        f'batch_size={self.batch_size} is not a multiple of '
        f'block_size={self.block_size}, and blocks are drawn whole. Make it '
        'one.'
      )

  def _check_queue(self) -> None:
    if not self.used_once:
      return
    if self.prioritized or self.samples_per_insert != 1:
      raise ValueError(
        'what is used once is drawn in its order and as often as it comes, got '
        f'priority_exponent={self.priority_exponent} and '
        f'samples_per_insert={self.samples_per_insert}. Set 0 and 1.'
      )
    if (self.min_size, self.block_size, self.error_buffer) != (1, 1, 0):
      raise ValueError(
        'a queue waits for nothing but a batch, and its windows are single, got '
        f'min_size={self.min_size}, block_size={self.block_size} and '
        f'error_buffer={self.error_buffer}. Set 1, 1 and 0.'
      )
    if self.max_size < self.batch_size:
      raise ValueError(
        f'max_size={self.max_size} of a queue is less than a batch of '
        f'batch_size={self.batch_size}: it would never be complete. Raise it.'
      )

  def _check_error_buffer(self) -> None:
    if self.error_buffer and not self.error_buffer >= self._least_error_buffer:
      raise ValueError(
        f'error_buffer={self.error_buffer} is too small: with '
        f'batch_size={self.batch_size}, '
        f'samples_per_insert={self.samples_per_insert} and '
        f'block_size={self.block_size} actors and learner could block each '
        f'other for ever. Use at least {self._least_error_buffer}, or 0 to '
        'have it chosen.'
      )

  @property
  def _least_error_buffer(self) -> float:
    # One batch out and one item in must both fit between the two limits.
    return (self.batch_size + self.samples_per_insert * self.block_size) / 2 + 1

  @property
  def prioritized(self) -> bool:
    """Whether sampling follows priorities."""
    return self.priority_exponent > 0

  @property
  def padded(self) -> bool:
    """Whether windows may end in rows that are padding."""
    window = self.window
    return isinstance(window, Sequences) and not window.across_episodes

  @property
  def max_items(self) -> int:
    """Items kept: sequences, or whole blocks of transitions."""
    return self.max_size // self.block_size

  @property
  def rate_limits(self) -> RateLimits:
    """The limits in windows; `min_size` is rounded up to whole blocks."""
    if self.used_once:
      return RateLimits(1.0, 1, 0.0, self.max_size)
    min_size = math.ceil(self.min_size / self.block_size) * self.block_size
    chosen = max(
      0.1 * min_size * self.samples_per_insert,
      2 * self._least_error_buffer,
    )
    buffer = self.error_buffer or chosen
    centre = self.samples_per_insert * min_size
    return RateLimits(
      samples_per_insert=self.samples_per_insert,
      min_size=min_size,
      min_balance=centre - buffer,
      max_balance=centre + buffer,
    )


def queue(
  window: NStep | Sequences, batch_size: int, max_size: int
) -> ReplaySpec:
  """Returns the spec of a queue, out of which every window is taken once.

  Args:
    window: how steps become windows.
    batch_size: windows in a batch.
    max_size: windows that may wait; actors that would add more are blocked,
      which bounds how old the policy is that acted them.
  """
  return ReplaySpec(
    window=window,
    batch_size=batch_size,
    max_size=max_size,
    min_size=1,
    samples_per_insert=1.0,
    used_once=True,
  )


def as_dict(spec: Any) -> dict[str, Any]:
  """Returns a dataclass of this module as plain data; leaves functions out."""
  fields = {
    field.name: getattr(spec, field.name) for field in dataclasses.fields(spec)
  }
  return {
    'type': type(spec).__name__,
    **{k: _plain(v) for k, v in fields.items() if not callable(v)},
  }


def from_dict(data: Mapping[str, Any]) -> Any:
  """Returns what `as_dict` was given."""
  fields = {k: _unplain(v) for k, v in data.items() if k != 'type'}
  return globals()[data['type']](**fields)


def _plain(value: Any) -> Any:
  if dataclasses.is_dataclass(value):
    return as_dict(value)
  return list(map(_plain, value)) if isinstance(value, tuple) else value


def _unplain(value: Any) -> Any:
  if isinstance(value, dict):
    return from_dict(value)
  return tuple(map(_unplain, value)) if isinstance(value, list) else value
