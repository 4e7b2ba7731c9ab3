"""Divides replay among several servers, each of which holds a shard of it.

The servers' tables together hold what the spec says. Of a table with priorities or of a
uniform one, the learner's end keeps the rate limits, since those are of the whole
(`replay.balance`). A queue's shards keep theirs, which are of their own items.
"""

from __future__ import annotations

import dataclasses
import math

from distacme.replay_spec import spec as spec_lib
from distacme.replay_spec import tables as tables_lib


def check_shards(spec: spec_lib.ReplaySpec, count: int) -> None:
  """Checks that replay can be divided among so many servers.

  Raises:
    ValueError: if there are several tables, or too few items.
  """
  if count == 1:
    return
  if len(spec.tables) > 1:
    raise ValueError(
      f'num_replay_servers={count} divides one table, and this agent has '
      f'{", ".join(table.name for table in spec.tables)}. Leave it out.'
    )
  table = _only_table(spec)
  if table.max_items < count:
    blocks = f' in blocks of {table.block_size}' * (table.block_size > 1)
    raise ValueError(
      f'num_replay_servers={count} are more than the {table.max_items} items that '
      f'max_size={table.max_size}{blocks} has. Use fewer servers, or a larger '
      'max_size.'
    )


def of_shard(
  spec: spec_lib.ReplaySpec, index: int, count: int
) -> spec_lib.ReplaySpec:
  """Returns the spec of one server's tables.

  Args:
    spec: of the whole, checked by `check_shards`.
    index: of the server.
    count: of servers.
  """
  if count == 1:
    return spec
  table = _only_table(spec)
  items = table.max_items // count + (index < table.max_items % count)
  size = items * table.block_size
  if table.used_once:
    return dataclasses.replace(
      spec,
      tables=(dataclasses.replace(table, max_size=size),),
      batch_size=_part_of_batch(spec, count),
    )
  least = math.ceil(table.min_size / (2 * count * table.block_size))
  shard = dataclasses.replace(
    table,
    max_size=size,
    # Half of a fair share: servers whose actors are slow take part, too.
    min_size=least * table.block_size,
    samples_per_insert=None,
    error_buffer=0.0,
  )
  return dataclasses.replace(spec, tables=(shard,))


def first_room(spec: spec_lib.ReplaySpec, count: int) -> int | None:
  """Returns the windows that a server takes before it has heard of the others.

  Returns:
    None if there is no limit, or it is the server's own.
  """
  table = _only_table(spec)
  if count == 1 or table.used_once or table.samples_per_insert is None:
    return None
  return math.ceil(spec.rate_limits[0].most_unsampled / count)


def _part_of_batch(spec: spec_lib.ReplaySpec, count: int) -> int:
  """Returns the windows that a queue hands out at once, a divisor of a batch.

  A shard has room for them, so that none waits for items of another shard.
  """
  most = min(_only_table(spec).max_size // count, spec.batch_size // count)
  return max(n for n in range(1, max(1, most) + 1) if spec.batch_size % n == 0)


def _only_table(spec: spec_lib.ReplaySpec) -> tables_lib.Table:
  return spec.tables[0]
