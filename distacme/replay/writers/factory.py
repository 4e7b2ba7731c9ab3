"""From an agent's replay to its writers."""

from __future__ import annotations

from distacme import core
from distacme import replay_spec
from distacme.replay.items import rows
from distacme.replay.writers import inserter as inserter_lib
from distacme.replay.writers import n_step
from distacme.replay.writers import sequences


def make_writer(
  agent: core.Agent,
  layout: rows.RowLayout,
  num_envs: int,
  inserter: inserter_lib.Inserter,
) -> core.Writer:
  """Returns an actor's writer.

  Args:
    agent: says how steps become windows, and computes their first priority.
    layout: of the rows.
    num_envs: environments of the actor.
    inserter: of the tables of actors.

  Raises:
    TypeError: if actors fill a prioritised table, and the agent cannot say with
      which priority.
  """
  first_priority = None
  if any(table.prioritized for table in agent.replay.tables_of_actors):
    first_priority = getattr(agent, 'first_priority', None)
    if first_priority is None:
      raise TypeError(
        f'{type(agent).__name__} asks for prioritised replay and has no method '
        'first_priority. Write one (see core.PrioritizingAgent), or set '
        'priority_exponent=0.'
      )
  return _make(agent.replay, layout, num_envs, inserter, first_priority)


def make_demonstration_writer(
  spec: replay_spec.ReplaySpec,
  layout: rows.RowLayout,
  inserter: inserter_lib.Inserter,
) -> core.Writer:
  """Returns the writer of one recorded environment.

  All windows get priority 1: no policy acted, whose values would give another.

  Args:
    spec: says how steps become windows.
    layout: of the rows.
    inserter: of the tables of demonstrations.
  """
  return _make(spec, layout, 1, inserter, None)


def _make(
  spec: replay_spec.ReplaySpec,
  layout: rows.RowLayout,
  num_envs: int,
  inserter: inserter_lib.Inserter,
  first_priority: inserter_lib.FirstPriority | None,
) -> core.Writer:
  window = spec.window
  if isinstance(window, replay_spec.NStep):
    return n_step.NStepWriter(
      window, spec.block_size, layout, num_envs, inserter, first_priority
    )
  return sequences.SequenceWriter(
    window, layout, num_envs, inserter, first_priority
  )
