"""Reads batches out of the bytes of drawn items."""

from __future__ import annotations

from typing import Any

import numpy as np

from distacme import types
from distacme.replay import tables
from distacme.replay.items import rows as rows_lib


def read(
  layout: rows_lib.RowLayout, drawn: tables.DrawnItems
) -> tuple[Any, types.SampleInfo]:
  """Returns a batch and how it was drawn; see `core.Sampler.sample`.

  Args:
    layout: of the rows.
    drawn: the items; leaves of the batch are views on them.

  Raises:
    ValueError: if the items were written with another layout.
  """
  rows = layout.from_bytes(drawn.items)
  block = rows.shape[1]
  rows = rows.reshape(-1)
  info = types.SampleInfo(
    key=drawn.keys,
    probability=drawn.probability,
    params_version=rows[rows_lib.PARAMS_VERSION],
    table=drawn.tables,
  )
  if block > 1:
    info = info._replace(
      key=np.repeat(info.key, block),
      probability=np.repeat(info.probability, block),
      table=np.repeat(info.table, block),
    )
  return layout.read(rows, drawn.frames), info
