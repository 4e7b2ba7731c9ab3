"""Several updates in one compiled call, where that is right for the device."""

from __future__ import annotations

from collections.abc import Iterator
import logging
from typing import Any

import jax
import numpy as np

from distacme import core
from distacme import types
from distacme.replay.items import rows


def check_count(count: int, agent: core.Agent) -> None:
  """Checks that the rate limits of all tables leave room for `count` batches.

  Raises:
    ValueError: if drawing them at once would break the limits.
  """
  spec = agent.replay
  for table, limits in zip(spec.tables, spec.rate_limits, strict=True):
    room = limits.max_balance - limits.min_balance
    insert = limits.samples_per_insert * table.block_size
    needed = count * spec.batch_size + insert
    if count > 1 and needed > room:
      more = (
        f'Let the queue hold {needed:g} (queue_size)'
        if table.used_once
        else f'Set error_buffer={needed / 2:g} or more'
      )
      raise ValueError(
        f'updates_per_call={count} draws {count} x {spec.batch_size} samples at '
        f'once, and with one insert that is {needed:g}, more than the {room:g} '
        'by which replay lets actors and learner run apart. '
        f'{more}, or lower updates_per_call.'
      )


def choose_count(
  wanted: int,
  agent: core.Agent,
  state: types.LearnerState,
  layout: rows.RowLayout,
  platform: str,
) -> int:
  """Returns how many updates one call makes: `wanted`, or 1.

  An update with a convolution is made alone on the CPU, whose compiler is 9 to
  36 times slower on convolutions inside of a loop.

  Args:
    wanted: updates in one call.
    agent: whose update it is.
    state: the learner's, or its shapes.
    layout: of the rows that replay gives.
    platform: of the learner's devices.

  Raises:
    ValueError: if replay's rate limits leave no room for so many batches.
  """
  check_count(wanted, agent)
  if wanted == 1 or platform != 'cpu':
    return wanted
  size = agent.replay.batch_size
  batch = types.Batch(
    layout.example(size), np.ones(size, np.float32), np.zeros(size, np.int32)
  )
  update = jax.make_jaxpr(agent.update)(state, batch)
  if 'conv_general_dilated' not in _primitives(update.jaxpr):
    return wanted
  logging.info(
    'updates_per_call=%d is taken for 1: the update holds a convolution, and '
    'in a loop on the CPU those are many times slower.',
    wanted,
  )
  return 1


def _primitives(jaxpr: Any) -> Iterator[str]:
  """Yields the names of all operations, those of inner functions too."""
  for equation in jaxpr.eqns:
    yield equation.primitive.name
    for value in jax.tree.leaves(list(equation.params.values())):
      inner = getattr(value, 'jaxpr', value)  # of a closed one
      if hasattr(inner, 'eqns'):
        yield from _primitives(inner)


def make(agent: core.Agent, count: int) -> Any:
  """Returns the function that makes `count` updates, to be compiled.

  It takes a state and a batch, [count, B, ...] if `count` is above 1, and
  returns the new state and an output: metrics of the last update, priorities of
  all, flat: [count * B].
  """
  if count == 1:
    return agent.update

  def update(
    state: types.LearnerState, batch: types.Batch
  ) -> tuple[types.LearnerState, types.UpdateOutput]:
    state, outputs = jax.lax.scan(agent.update, state, batch, count)
    priorities = outputs.priorities
    return state, types.UpdateOutput(
      {name: values[-1] for name, values in outputs.metrics.items()},
      None if priorities is None else priorities.reshape(-1),
    )

  return update
