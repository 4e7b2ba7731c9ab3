"""Several tables, and their mixture in batches."""

from __future__ import annotations

from collections.abc import Mapping
import dataclasses
from typing import Any, Literal

from distacme import config_checks
from distacme.replay_spec import tables as tables_lib
from distacme.replay_spec import windows


@dataclasses.dataclass(frozen=True)
class ReplaySpec:
  """Tables that store the same rows, and their mixture in batches.

  Attributes:
    tables: at least one.
    batch_size: windows in a sampled batch.
    mixture: chance of each table to give an element of a batch; sums to 1. With
      'priorities', all tables are drawn from as if they were one: the chance of
      an element is its share of the priorities in all tables.
    pretraining_batches: the first batches of a run, which are drawn from tables
      of demonstrations alone. Tables of actors take nothing before.
  """

  tables: tuple[tables_lib.Table, ...]
  batch_size: int
  mixture: tuple[float, ...] | Literal['priorities'] = (1.0,)
  pretraining_batches: int = 0

  def __post_init__(self) -> None:
    config_checks.check_at_least_one(self, 'batch_size')
    config_checks.check_not_negative(self, 'pretraining_batches')
    self._check_names()
    if self.mixture == 'priorities':
      self._check_priorities()
    else:
      self._check_mixture(self.mixture)
    if self.pretraining_batches and not self.tables_of_demonstrations:
      raise ValueError(
        f'pretraining_batches={self.pretraining_batches} are drawn from tables '
        'of demonstrations, and there is none. Set 0.'
      )
    for table in self.tables:
      table.check_batch(self.batch_size)
    if len(self.tables) > 1:
      self._check_same_rows()
      self._check_ratios()

  def _check_names(self) -> None:
    names = [table.name for table in self.tables]
    if not names or len(set(names)) < len(names):
      raise ValueError(
        f'tables must be at least one, of different names, got {names}.'
      )

  def _check_priorities(self) -> None:
    exponents = {table.priority_exponent for table in self.tables}
    if len(exponents) > 1 or not all(t.prioritized for t in self.tables):
      raise ValueError(
        "mixture='priorities' compares the priorities of all tables, which have "
        f'priority_exponent={[t.priority_exponent for t in self.tables]}. Give '
        'all of them the same, above 0.'
      )

  def _check_mixture(self, mixture: tuple[float, ...]) -> None:
    if len(mixture) != len(self.tables):
      raise ValueError(
        f'mixture={mixture} must have a number for each of the tables '
        f'{[table.name for table in self.tables]}.'
      )
    # Not `any(share <= 0)`: that lets NaN pass.
    positive = all(share > 0 for share in mixture)
    if not positive or abs(sum(mixture) - 1) > 1e-6:
      raise ValueError(
        f'mixture={mixture} must be positive numbers that sum to 1. Leave '
        'out a table that is never drawn from.'
      )

  def _check_same_rows(self) -> None:
    first, *others = self.tables
    for table in others:
      if table.window != first.window:
        raise ValueError(
          f'one batch mixes the rows of all tables, and {first.name!r} has '
          f'{first.window} where {table.name!r} has {table.window}. Give all of '
          'them one window.'
        )
    for table in self.tables:
      if table.block_size > 1:
        raise ValueError(
          f'block_size={table.block_size} of table {table.name!r} is drawn '
          'whole, and a batch of several tables is drawn window by window. Set '
          'block_size=1.'
        )

  def _check_ratios(self) -> None:
    held = [t for t in self.tables if t.samples_per_insert is not None]
    if len(held) > 1:
      raise ValueError(
        'samples_per_insert of the tables '
        f'{[table.name for table in held]} cannot all be held: each counts '
        'the windows of all tables, so that one would make actors wait and another '
        'the learner. Set None in all but one.'
      )
    for limiting in held:
      most = limiting.rate_limits(self.batch_size).most_unsampled
      for table in self.tables_of_actors:
        if table.min_size > most:
          raise ValueError(
            f'min_size={table.min_size} of table {table.name!r} is never '
            f'reached: table {limiting.name!r} makes actors wait after '
            f'{most:g} windows, as no batch is drawn before. Lower it, or raise '
            f'min_size or error_buffer of {limiting.name!r}.'
          )

  @property
  def window(self) -> windows.Window:
    """The windows of every table."""
    return self.tables[0].window

  @property
  def block_size(self) -> int:
    """Transitions in an item; 1 if there are several tables."""
    return self.tables[0].block_size

  @property
  def tables_of_actors(self) -> tuple[tables_lib.Table, ...]:
    """The tables that actors write to."""
    return tuple(t for t in self.tables if t.filled_by == 'actors')

  @property
  def tables_of_demonstrations(self) -> tuple[tables_lib.Table, ...]:
    """The tables that are filled from recorded episodes."""
    return tuple(t for t in self.tables if t.filled_by == 'demonstrations')

  @property
  def needs_actors(self) -> bool:
    """True if there is a table for actors to fill.

    False for an agent that learns from demonstrations alone, such as behavioural
    cloning. A run of such an agent has neither actors nor a replay server.
    """
    return bool(self.tables_of_actors)

  @property
  def prioritized(self) -> bool:
    """True if any table asks `update` for priorities."""
    return any(table.prioritized for table in self.tables)

  @property
  def used_once(self) -> bool:
    """True if any table is a queue. Batches of a queue age while they wait."""
    return any(table.used_once for table in self.tables)

  @property
  def padded(self) -> bool:
    """True if windows may end in rows that are padding."""
    window = self.window
    return isinstance(window, windows.Sequences) and not window.across_episodes

  @property
  def rate_limits(self) -> tuple[tables_lib.RateLimits, ...]:
    """The limits of each table."""
    return tuple(table.rate_limits(self.batch_size) for table in self.tables)


_ONLY_TABLE = 'experience'


def single(
  window: windows.Window,
  *,
  batch_size: int,
  max_size: int,
  min_size: int,
  samples_per_insert: float | None,
  error_buffer: float = 0.0,
  priority_exponent: float = 0.0,
  block_size: int = 1,
) -> ReplaySpec:
  """Returns the spec of one table that actors fill; see `Table`."""
  table = tables_lib.Table(
    name=_ONLY_TABLE,
    window=window,
    max_size=max_size,
    min_size=min_size,
    samples_per_insert=samples_per_insert,
    error_buffer=error_buffer,
    priority_exponent=priority_exponent,
    block_size=block_size,
  )
  return ReplaySpec((table,), batch_size)


def queue(window: windows.Window, batch_size: int, max_size: int) -> ReplaySpec:
  """Returns the spec of a queue, which gives every window once.

  Args:
    window: of the queue.
    batch_size: windows in a batch.
    max_size: windows that may wait. Actors block while the queue is full, which
      bounds the age of the policy that acted.
  """
  table = tables_lib.Table(
    name=_ONLY_TABLE,
    window=window,
    max_size=max_size,
    min_size=1,
    samples_per_insert=1.0,
    used_once=True,
  )
  return ReplaySpec((table,), batch_size)


def as_dict(spec: Any) -> dict[str, Any]:
  """Returns a dataclass of this package as plain data, for JSON."""
  fields = {
    field.name: _plain(getattr(spec, field.name))
    for field in dataclasses.fields(spec)
  }
  return {'type': type(spec).__name__, **fields}


def from_dict(data: Mapping[str, Any]) -> Any:
  """Undoes `as_dict`."""
  fields = {k: _unplain(v) for k, v in data.items() if k != 'type'}
  return _TYPES[data['type']](**fields)


_TYPES: dict[str, Any] = {
  each.__name__: each
  for each in (
    ReplaySpec,
    tables_lib.Table,
    windows.NStep,
    windows.Sequences,
  )
}


def _plain(value: Any) -> Any:
  if dataclasses.is_dataclass(value):
    return as_dict(value)
  return list(map(_plain, value)) if isinstance(value, tuple) else value


def _unplain(value: Any) -> Any:
  if isinstance(value, dict):
    return from_dict(value)
  return tuple(map(_unplain, value)) if isinstance(value, list) else value
