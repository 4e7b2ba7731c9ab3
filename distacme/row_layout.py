"""The rows that an agent writes to replay and samples from it."""

from __future__ import annotations

import jax
import numpy as np

from distacme import core
from distacme import specs
from distacme import types
from distacme.replay.items import rows


def row_layout(
  agent: core.Agent,
  spec: specs.EnvironmentSpec,
  params: types.Params,
) -> rows.RowLayout:
  """Returns the layout of the rows that an agent writes and samples.

  Args:
    agent: its `act` is traced for what it stores; nothing is computed.
    spec: of the environment.
    params: that the agent acts with, or their shapes.
  """
  observation = jax.tree.map(
    lambda leaf: jax.ShapeDtypeStruct((1, *leaf.shape), leaf.dtype),
    spec.observations,
  )
  one = types.Streams(np.zeros(1, np.int64), 1)
  output = jax.eval_shape(
    agent.act,
    params,
    jax.ShapeDtypeStruct((2,), np.uint32),
    observation,
    agent.initial_actor_state(1, one),
  )
  return rows.make_layout(
    agent.replay.window,
    spec,
    rows.spec_like(output.extras),
    rows.spec_like(output.start_state),
    # A block is an item by itself.
    share_frames=agent.replay.block_size == 1,
  )
