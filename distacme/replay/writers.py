"""From what an agent wants of replay to what writes it."""

from __future__ import annotations

from distacme import core
from distacme.replay import assembly
from distacme.replay import records
from distacme.replay import sequences
from distacme.replay import spec as replay_spec
from distacme.replay import transitions


def make_writer(
  spec: replay_spec.ReplaySpec,
  layout: records.RowLayout,
  num_envs: int,
  inserter: assembly.Inserter,
) -> core.Writer:
  """Returns what makes the windows that `spec` asks for."""
  if isinstance(spec.window, replay_spec.NStep):
    return transitions.NStepWriter(spec, layout, num_envs, inserter)
  return sequences.SequenceWriter(spec, layout, num_envs, inserter)
