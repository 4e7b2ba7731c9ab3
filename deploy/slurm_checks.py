"""Refuses jobs that Slurm would refuse, or leave in its queue for ever."""

from __future__ import annotations

from collections.abc import Mapping
import pathlib

from distacme.deploy import cluster as cluster_lib
from distacme.deploy import records
from distacme.deploy import slurm_engine
from distacme.run import notices
from distacme.run import run_directory

_OWN = ('/tmp', '/var/tmp', '/dev/shm', '/run')
# Slurm may give the warning a minute earlier than asked for.
_EARLY_S = 60


def check_going_on(directory: run_directory.RunDirectory) -> None:
  """Refuses a directory whose run goes on.

  Raises:
    ValueError: if jobs of the run are in the queue.
  """
  if not slurm_engine.is_installed():
    return
  try:
    waiting = slurm_engine.states(records.jobs(directory))
  except slurm_engine.SlurmError as error:
    raise ValueError(
      f'whether jobs of {directory.path} are in the queue is not known: {error}'
    ) from error
  if waiting:
    first = ', '.join(list(waiting)[:4])
    raise ValueError(
      f'{directory.path} goes on: {len(waiting)} of its jobs are in the queue '
      f'({first}{", ..." if len(waiting) > 4 else ""}). End them by '
      f"'distacme stop {directory.path}', or choose another run_dir."
    )


def warn_of_own_disk(directory: run_directory.RunDirectory) -> None:
  """Warns of a run directory that nodes can hardly see."""
  for folder in _OWN:
    if directory.path.is_relative_to(folder):
      notices.warn_once(
        f'{directory.path} lies in {folder}, which each host of a cluster has for '
        'itself as a rule: jobs whose node does not see it end at once and without '
        'a word. Give a run_dir on a disk that all nodes share.'
      )


def check_times(
  name: str, job: cluster_lib.SlurmJob, slurm: cluster_lib.Slurm
) -> None:
  """Refuses a time limit so short that a job would be warned at its start.

  Raises:
    ValueError: if it is.
  """
  limit_s = cluster_lib.seconds(job.time)
  if limit_s < slurm.warning_s + _EARLY_S + 30:
    raise ValueError(
      f'time = {job.time!r} of {name} is too short for warning_s = '
      f'{slurm.warning_s}: Slurm may warn a minute earlier, and a job needs half a '
      f'minute to start. Give at least {slurm.warning_s + _EARLY_S + 30} s.'
    )


def check_offers(
  wanted: Mapping[str, tuple[cluster_lib.Resources, cluster_lib.SlurmJob, int]],
) -> None:
  """Refuses resources that no node of a partition offers.

  Args:
    wanted: by the name of the job: its resources, its settings, and the elements of
      its array.

  Raises:
    ValueError: if a job could never start; it names the field and the most there is.
  """
  try:
    offers, default = slurm_engine.offers()
    largest = slurm_engine.largest_array()
  except slurm_engine.SlurmError as error:
    raise ValueError(f'Slurm does not answer: {error}') from error
  known = list(dict.fromkeys(offer.partition for offer in offers))
  for name, (resources, job, elements) in wanted.items():
    if elements > largest:
      raise ValueError(
        f'{name} would be an array of {elements} jobs, and Slurm allows '
        f'{largest} here. Raise actors_per_job in [slurm], or envs_per_actor.'
      )
    partitions = (job.partition or default).split(',')
    for partition in partitions:
      if partition not in known:
        raise ValueError(
          f'partition = {partition!r} of {name} is none of this cluster, which has '
          f'{", ".join(known)}.'
          if partition
          else f'{name} has no partition, and this cluster no default. Name one of '
          f'{", ".join(known)}.'
        )
    here = [offer for offer in offers if offer.partition in partitions]
    _check_fits(name, resources, job, here)


def _check_fits(
  name: str,
  resources: cluster_lib.Resources,
  job: cluster_lib.SlurmJob,
  offers: list[slurm_engine.Offer],
) -> None:
  asked = {
    'cpus': resources.cpus,
    'memory': cluster_lib.mebibytes(resources.memory),
    'gpus': resources.gpus,
    'time': cluster_lib.seconds(job.time),
  }
  offered = [
    {
      'cpus': offer.cpus,
      'memory': offer.mebibytes,
      'gpus': offer.gpus,
      'time': offer.seconds or asked['time'],
    }
    for offer in offers
  ]
  if any(all(asked[k] <= each[k] for k in asked) for each in offered):
    return
  partition = ', '.join(dict.fromkeys(offer.partition for offer in offers))
  for field, unit in (
    ('cpus', ''),
    ('memory', 'M'),
    ('gpus', ''),
    ('time', ' s'),
  ):
    most = max((each[field] for each in offered), default=0)
    if asked[field] > most:
      raise ValueError(
        f'{field} of {name} is {asked[field]}{unit}, and the most that a node of '
        f'partition {partition} offers is {most}{unit}. Ask for less in '
        'cluster.toml, or name another partition.'
      )
  raise ValueError(
    f'no node of partition {partition} offers all that {name} asks for together: '
    f'{resources.cpus} cpus, {asked["memory"]}M of memory, {resources.gpus} gpus. '
    'Ask for less in cluster.toml, or name another partition.'
  )


def check_script(path: pathlib.Path) -> None:
  """Has Slurm itself check a script.

  Raises:
    ValueError: if Slurm would refuse the script, with what it says.
  """
  try:
    slurm_engine.command('sbatch', '--test-only', str(path))
  except slurm_engine.SlurmError as error:
    raise ValueError(
      f'Slurm would refuse {path}: {error}. Change cluster.toml accordingly.'
    ) from error
