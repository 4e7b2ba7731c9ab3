"""Replay's metrics of its tables, the same for all backends."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from distacme import replay_spec


class Counts(NamedTuple):
  """Windows that a table holds now, and that were inserted and sampled so far."""

  size: int
  inserted: int
  sampled: int


def of_tables(
  spec: replay_spec.ReplaySpec,
  counts: Sequence[Counts],
  limited: Sequence[int],
) -> dict[str, float]:
  """Returns replay's metrics of its tables.

  `samples_per_insert` is the ratio reached, counted from the first `min_size`
  inserts on. If there are several tables, each table's metrics have its name as
  prefix. The metrics without prefix are sums, and the ratio of the table that has a
  replay ratio.

  Args:
    spec: of the tables.
    counts: of each table.
    limited: samples that each table's rate limits count.
  """
  by_table = []
  for limits, count, samples in zip(
    spec.rate_limits, counts, limited, strict=True
  ):
    beyond = count.inserted - limits.min_size
    ratio = samples / beyond if beyond > 0 else 0.0
    by_table.append({**count._asdict(), 'samples_per_insert': ratio})
  if len(by_table) == 1:
    return by_table[0]
  logged: dict[str, float] = {
    name: sum(numbers[name] for numbers in by_table) for name in Counts._fields
  }
  for table, numbers in zip(spec.tables, by_table, strict=True):
    if table.samples_per_insert is not None:
      logged['samples_per_insert'] = numbers['samples_per_insert']
    logged |= {f'{table.name}/{key}': value for key, value in numbers.items()}
  return logged
