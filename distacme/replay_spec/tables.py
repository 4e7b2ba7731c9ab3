"""Sizes, rates and sampling of one table."""

from __future__ import annotations

from collections.abc import Iterator
import contextlib
import dataclasses
import math
from typing import Literal

import numpy as np

from distacme import config_checks
from distacme import status
from distacme.replay_spec import windows

_NO_LIMIT = 2**62
_GOLDEN_RATIO = (math.sqrt(5) - 1) / 2


def check_priorities(priority: np.ndarray) -> None:
  """Checks priorities that an agent computed.

  Raises:
    status.NotFiniteError: if a priority is infinite or not a number.
    ValueError: if a priority is negative. Any of these would spoil the chances of
      all other items.
  """
  right = np.isfinite(priority) & (priority >= 0)
  if np.count_nonzero(right) < right.size:
    wrong = np.asarray(priority)[~right]
    kind = ValueError if np.isfinite(priority).all() else status.NotFiniteError
    raise kind(
      f'priorities must be finite and not negative, got {wrong[0]} among '
      f'{right.size}. If they come from the loss, it may have diverged: look '
      'at rewards and observations, or lower the learning rate.'
    )


@dataclasses.dataclass(frozen=True)
class RateLimits:
  """Limits at which a table blocks a side, in the unit of `samples_per_insert`.

  With `balance = samples_per_insert * inserts - samples`, an insert may start if
  it leaves `balance <= max_balance`. A sample may start once `min_size` items were
  inserted, if the sample leaves `balance >= min_balance`.
  """

  samples_per_insert: float
  min_size: int
  min_balance: float
  max_balance: float

  def can_sample(self, inserts: int, samples: int, count: int) -> bool:
    """Returns whether `count` more samples may be drawn."""
    balance = self.samples_per_insert * inserts - samples
    return inserts >= self.min_size and balance - count >= self.min_balance

  def room(self, inserts: int, samples: int) -> int:
    """Returns the number of items that may be inserted, with no limit a huge one."""
    most = (self.max_balance + samples) / self.samples_per_insert
    return max(0, int(min(max(self.min_size, most), _NO_LIMIT)) - inserts)

  @property
  def most_unsampled(self) -> float:
    """Number of inserts that fit before the first sample."""
    return max(self.min_size, self.max_balance // self.samples_per_insert)


@dataclasses.dataclass(frozen=True)
class Table:
  """Windows, sizes, rates and sampling of one table.

  All counts are of windows: transitions, one for every environment step, or
  sequences.

  Attributes:
    name: names the table in metrics, messages and checkpoints.
    window: the form of a window.
    max_size: windows kept.
    min_size: windows inserted before the first sample.
    samples_per_insert: the replay ratio: windows sampled for each one inserted,
      counted from the first `min_size` on. The table blocks either side to hold
      the ratio. Of several tables one may have a ratio, which counts the windows
      of all. None blocks neither side once `min_size` windows were inserted.
    error_buffer: samples by which either side may run ahead of the ratio. 0
      chooses a tenth of `min_size`, or the need of a batch if that is more.
    priority_exponent: the chance of an item is proportional to the item's
      priority to this power; 0 draws uniformly.
    block_size: transitions stored, drawn and replaced as one item. Blocks make
      writing and sampling cheaper by orders of magnitude, and batches less
      mixed; only for uniform sampling.
    used_once: True for a queue, which `queue` makes: windows are drawn in the
      order of insertion, each once, and actors wait while the table is full.
    evicts: True if the oldest window leaves a full table for a new one. False
      keeps all windows: a full table refuses more.
    filled_by: the side that writes. Actors write each window to all tables of
      actors; `replay.filling` fills the other tables.
    part: of the recorded episodes that fill a table of demonstrations, a range
      [low, high) of [0, 1). Tables whose ranges are apart share no episode, so
      that one can validate what was learnt from another.
  """

  name: str
  window: windows.Window
  max_size: int
  min_size: int
  samples_per_insert: float | None
  error_buffer: float = 0.0
  priority_exponent: float = 0.0
  block_size: int = 1
  used_once: bool = False
  evicts: bool = True
  filled_by: Literal['actors', 'demonstrations'] = 'actors'
  part: tuple[float, float] = (0.0, 1.0)

  def __post_init__(self) -> None:
    # Metrics and files hold names as prefixes.
    if not self.name.isidentifier():
      raise ValueError(
        'name of a table must be letters, digits and underscores, got '
        f'{self.name!r}.'
      )
    with _naming(self):
      config_checks.check_at_least_one(
        self, 'max_size', 'min_size', 'block_size'
      )
      if not 0 <= self.priority_exponent < math.inf:
        raise ValueError(
          'priority_exponent must not be negative, and finite, got '
          f'{self.priority_exponent}.'
        )
      self._check_ratio()
      self._check_filling()
      self._check_blocks()
      self._check_queue()
      self._check_sizes()

  def _check_ratio(self) -> None:
    if self.samples_per_insert is None:
      if self.error_buffer:
        raise ValueError(
          f'error_buffer={self.error_buffer} has no ratio to keep to, as '
          'samples_per_insert is None. Set 0.'
        )
    elif not 0 < self.samples_per_insert < math.inf:
      raise ValueError(
        'samples_per_insert must be positive and finite, got '
        f'{self.samples_per_insert}. None blocks neither side, and a large '
        'error_buffer hardly does.'
      )

  def _check_filling(self) -> None:
    if self.filled_by not in ('actors', 'demonstrations'):
      raise ValueError(
        "filled_by must be 'actors' or 'demonstrations', got "
        f'{self.filled_by!r}.'
      )
    low, high = self.part
    if not 0 <= low < high <= 1:
      raise ValueError(f'part must be a range within 0 and 1, got {self.part}.')
    if self.filled_by == 'actors':
      if self.part != (0, 1):
        raise ValueError(
          f'part={self.part} is of recorded episodes, and actors write to all '
          'tables of actors. Set (0, 1).'
        )
      if not self.evicts:
        raise ValueError(
          'evicts=False refuses what does not fit, and actors insert without '
          "end. Set evicts=True or filled_by='demonstrations'."
        )
    elif self.samples_per_insert is not None:
      raise ValueError(
        f'samples_per_insert={self.samples_per_insert} would end sampling soon '
        'after the last demonstration. Set None.'
      )

  def _check_blocks(self) -> None:
    if self.block_size == 1:
      return
    if self.priority_exponent:
      raise ValueError(
        f'block_size={self.block_size} needs uniform sampling, because a '
        'block has one priority for all its transitions. Set '
        'priority_exponent=0 or block_size=1.'
      )
    if isinstance(self.window, windows.Sequences):
      raise ValueError(
        f'block_size={self.block_size} is for transitions, and a sequence is an '
        'item by itself. Set block_size=1.'
      )

  def _check_queue(self) -> None:
    if not self.used_once:
      return
    if (self.priority_exponent, self.samples_per_insert) != (0, 1):
      raise ValueError(
        'a queue draws each window once, in the order in which it comes, got '
        f'priority_exponent={self.priority_exponent} and '
        f'samples_per_insert={self.samples_per_insert}. Set 0 and 1.'
      )
    if (self.min_size, self.block_size, self.error_buffer) != (1, 1, 0):
      raise ValueError(
        'a queue waits for nothing but a batch, and its windows are single, got '
        f'min_size={self.min_size}, block_size={self.block_size} and '
        f'error_buffer={self.error_buffer}. Set 1, 1 and 0.'
      )

  def _check_sizes(self) -> None:
    if self._whole_min_size > self.max_items * self.block_size:
      raise ValueError(
        f'min_size={self.min_size} is more than max_size={self.max_size} '
        f'holds in whole blocks of block_size={self.block_size}: the table '
        'never holds enough to be sampled and the learner would wait for '
        'ever. Lower min_size or raise max_size.'
      )

  def of_demonstrations(self, max_size: int) -> Table:
    """Returns a table of demonstrations, to be drawn from beside this one.

    Args:
      max_size: windows that there is room for.
    """
    return dataclasses.replace(
      self,
      name='demonstrations',
      max_size=max_size,
      min_size=1,
      samples_per_insert=None,
      error_buffer=0.0,
      evicts=False,
      filled_by='demonstrations',
    )

  def check_batch(self, batch_size: int) -> None:
    """Checks that batches of `batch_size` windows can be drawn.

    Raises:
      ValueError: if actors and learner would wait for each other.
    """
    with _naming(self):
      if batch_size % self.block_size:
        raise ValueError(
          f'batch_size={batch_size} is not a multiple of '
          f'block_size={self.block_size}, and blocks are drawn whole. Make it '
          'one.'
        )
      if self.used_once and self.max_size < batch_size:
        raise ValueError(
          f'max_size={self.max_size} of a queue is less than a batch of '
          f'batch_size={batch_size}: it would never be complete. Raise it.'
        )
      least = self._least_error_buffer(batch_size)
      if self.error_buffer and not self.error_buffer >= least:
        raise ValueError(
          f'error_buffer={self.error_buffer} is too small: with '
          f'batch_size={batch_size}, '
          f'samples_per_insert={self.samples_per_insert} and '
          f'block_size={self.block_size} actors and learner could block each '
          f'other for ever. Use at least {least}, or 0 to have it chosen.'
        )

  def check_room(self, held: int, more: int) -> None:
    """Checks that new items fit into a table that evicts none.

    Args:
      held: items in the table.
      more: items to be inserted.

    Raises:
      ValueError: if the table evicts nothing and has no room for them.
    """
    if not self.evicts and held + more > self.max_items:
      raise ValueError(
        f'table {self.name!r} keeps what it holds, {held} items, and has no '
        f'room for {more} more: max_size={self.max_size}. Raise it, or give '
        'fewer demonstrations.'
      )

  def takes(self, number: int) -> bool:
    """Returns whether a recorded episode is of the table's `part`.

    The episodes' positions in [0, 1) are spread evenly however many there are.
    The first one of any two is in the upper nine tenths, and the second one in the
    lowest tenth.

    Args:
      number: of the episode, from 0.
    """
    position = (0.4 + number * _GOLDEN_RATIO) % 1.0
    low, high = self.part
    return low <= position < high

  def _least_error_buffer(self, batch_size: int) -> float:
    # One batch out and one item in must both fit between the two limits.
    ratio = self.samples_per_insert or 0.0
    return (batch_size + ratio * self.block_size) / 2 + 1

  @property
  def prioritized(self) -> bool:
    """True if sampling follows priorities."""
    return self.priority_exponent > 0

  @property
  def max_items(self) -> int:
    """Items kept: sequences, or whole blocks of transitions."""
    return self.max_size // self.block_size

  @property
  def _whole_min_size(self) -> int:
    return math.ceil(self.min_size / self.block_size) * self.block_size

  def rate_limits(self, batch_size: int) -> RateLimits:
    """Returns the limits in windows; `min_size` is rounded up to whole blocks.

    Args:
      batch_size: windows in a batch; all of them may be of this table.
    """
    min_size = self._whole_min_size
    if self.used_once:
      return RateLimits(1.0, 1, 0.0, self.max_size)
    if self.samples_per_insert is None:
      return RateLimits(1.0, min_size, -math.inf, math.inf)
    chosen = max(
      0.1 * min_size * self.samples_per_insert,
      2 * self._least_error_buffer(batch_size),
    )
    buffer = self.error_buffer or chosen
    centre = self.samples_per_insert * min_size
    return RateLimits(
      samples_per_insert=self.samples_per_insert,
      min_size=min_size,
      min_balance=centre - buffer,
      max_balance=centre + buffer,
    )


@contextlib.contextmanager
def _naming(table: Table) -> Iterator[None]:
  """Names the table in errors."""
  try:
    yield
  except ValueError as error:
    raise ValueError(f'table {table.name!r}: {error}') from None
