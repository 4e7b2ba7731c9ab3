"""Shares this host's cores out among the workers of a program.

By itself XLA takes a thread for each core, in every process. Where the workers need
more cores than there are, an update then waits until both halves of a product have
been given a core, and a thread that waits for the other half takes a core meanwhile.
"""

from __future__ import annotations

from collections.abc import Mapping
import math
import os
import pathlib

# The limit of a container: microseconds of all cores, and of the clock.
_QUOTA = pathlib.Path('/sys/fs/cgroup/cpu.max')

_ONE_THREAD = (
  '--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1'
)


def count() -> int:
  """Returns the number of cores that this process may use."""
  if hasattr(os, 'sched_getaffinity'):  # on Linux
    cores = len(os.sched_getaffinity(0))
  else:
    cores = os.cpu_count() or 1
  try:
    used_us, period_us = map(int, _QUOTA.read_text().split())
  except (OSError, ValueError):  # there is no limit
    return cores
  return max(1, min(cores, math.ceil(used_us / period_us)))


def of_xla() -> int:
  """Returns the number of threads that XLA takes in this process."""
  return int(os.environ.get('NPROC') or count())


def of_learner(num_actors: int) -> int:
  """Returns the number of cores for the XLA of a program's learner.

  Args:
    num_actors: of the program. Each takes a core, and replay takes one; the others
      are the learner's.
  """
  return max(1, count() - num_actors - 1)


def acting() -> Mapping[str, str]:
  """Returns the environment variables that keep an actor's XLA to one thread.

  In one thread a small computation is three times as fast as one that is handed to
  others. Other flags of the user's stay.
  """
  flags = os.environ.get('XLA_FLAGS', '')
  return {
    'NPROC': '1',
    'OMP_NUM_THREADS': '1',
    'XLA_FLAGS': f'{flags} {_ONE_THREAD}'.strip(),
  }


def learning(num_actors: int) -> Mapping[str, str]:
  """Returns the environment variables that keep a learner's XLA to its cores.

  There are none if the user has set the number of threads.
  """
  if 'NPROC' in os.environ:
    return {}
  threads = f'{of_learner(num_actors)}'
  return {'NPROC': threads, 'OMP_NUM_THREADS': threads}
