"""Several updates in one compiled call, if this suits the device."""

from __future__ import annotations

from collections.abc import Iterator
import logging
from typing import Any

import jax
import numpy as np

from distacme import core
from distacme import types
from distacme.learning import placement as placement_lib
from distacme.replay.items import rows
from distacme.run import cores

# These versions run an update on one core in up to 1.8 times the seconds that the
# CPU's older runtime needs, which they still have; later ones do not.
_HAS_OLDER_RUNTIME = jax.__version_info__ < (0, 7)


def check_count(count: int, agent: core.Agent) -> None:
  """Checks that the rate limits of all tables leave room for `count` batches.

  Raises:
    ValueError: if drawing so many batches at once would break the limits.
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
  """Returns the number of updates in one call: `wanted`, or 1.

  On the CPU an update with a convolution is made alone: the CPU's compiler is 9 to
  36 times slower on convolutions inside of a loop.

  Args:
    wanted: updates in one call.
    agent: has the update.
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


def compiled(
  agent: core.Agent, count: int, placement: placement_lib.Placement
) -> Any:
  """Returns the function of `make`, to be compiled at its first call.

  The function takes over the buffers of the state that it is given.

  Args:
    agent: has the update.
    count: updates in one call.
    placement: of the state and the batches.
  """
  # The older runtime ends the process where several devices exchange anything.
  on_one_core = (
    placement.single and placement.platform == 'cpu' and cores.of_xla() == 1
  )
  return jax.jit(
    make(agent, count),
    donate_argnums=0,
    # Else the compiler might spread the state over the devices, too.
    out_shardings=placement.replicated,
    compiler_options=(
      {'xla_cpu_use_thunk_runtime': False}
      if on_one_core and _HAS_OLDER_RUNTIME
      else None
    ),
  )


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

  The function takes a state and a batch, [count, B, ...] if `count` is above 1,
  and returns the new state and an output. The output has the metrics of the last
  update and the priorities of all updates, flat: [count * B]. It is converged if
  any of the updates is.
  """
  if count == 1:
    return agent.update

  def update(
    state: types.LearnerState, batch: types.Batch
  ) -> tuple[types.LearnerState, types.UpdateOutput]:
    state, outputs = jax.lax.scan(agent.update, state, batch, count)
    priorities, converged = outputs.priorities, outputs.converged
    return state, types.UpdateOutput(
      {name: values[-1] for name, values in outputs.metrics.items()},
      None if priorities is None else priorities.reshape(-1),
      None if converged is None else converged.any(),
    )

  return update
