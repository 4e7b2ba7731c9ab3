"""Accelerators, each claimed by one worker at most."""

from __future__ import annotations

from collections.abc import Sequence


def check_claims(learner: Sequence[int], actors: Sequence[int]) -> None:
  """Checks that no accelerator is given to two workers.

  Args:
    learner: the learner's accelerators; all of this host if none are named.
    actors: the accelerator of each actor.

  Raises:
    ValueError: if two workers claim one accelerator; the message names both
      workers and the accelerator.
  """
  claims = [('learner/0', number) for number in learner]
  claims += [(f'actor/{index}', number) for index, number in enumerate(actors)]
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
      f'accelerator {actors[0]} is given to actor/0 and to learner/0, which '
      'takes all that there are unless learner_devices names some. Name them.'
    )
