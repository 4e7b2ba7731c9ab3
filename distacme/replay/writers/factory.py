"""From what an agent wants of replay to what writes it."""

from __future__ import annotations

from distacme import core
from distacme import replay_spec
from distacme.replay import rows
from distacme.replay.writers import inserter as inserter_lib
from distacme.replay.writers import n_step
from distacme.replay.writers import sequences


def make_writer(
  spec: replay_spec.ReplaySpec,
  layout: rows.RowLayout,
  num_envs: int,
  inserter: inserter_lib.Inserter,
) -> core.Writer:
  """Returns what makes the windows that `spec` asks for."""
  if isinstance(spec.window, replay_spec.NStep):
    return n_step.NStepWriter(spec, layout, num_envs, inserter)
  return sequences.SequenceWriter(spec, layout, num_envs, inserter)
