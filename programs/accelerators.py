"""FIXME distacme.programs.accelerators."""

from __future__ import annotations

from collections.abc import Sequence

from distacme.programs import program


def check_claims(learner: Sequence[int], actors: Sequence[int]) -> None:
  """Checks that no accelerator is given to two workers.

  Args:
    learner: the learner's accelerators; none named are all that there are.
    actors: that of each actor.

  Raises:
    ValueError: naming both workers and the accelerator.
  """
  claims = [(program.LEARNER, number) for number in learner]
  claims += [
    (program.actor_name(index), number) for index, number in enumerate(actors)
  ]
  owners: dict[int, str] = {}
  for worker, number in claims:
    if number < 0:
      raise ValueError(
        f'accelerators are counted from 0, got {number} for {worker}.'
      )
    if number in owners:
      raise ValueError(
        f'accelerator {number} is given to {owners[number]} and to {worker}; '
        'JAX takes nearly all memory of what it sees. Give each its own with '
        'learner_devices and actor_devices.'
      )
    owners[number] = worker
  if actors and not learner:
    raise ValueError(
      f'accelerator {actors[0]} is given to {program.actor_name(0)} and to '
      f'{program.LEARNER}, which takes all that there are unless '
      'learner_devices names some. Name them.'
    )
