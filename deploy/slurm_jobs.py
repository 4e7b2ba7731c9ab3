"""Describes a program as jobs of Slurm, and writes their scripts."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
import dataclasses
import math
import pathlib
import shlex
import string
import sys

from distacme.deploy import cluster as cluster_lib
from distacme.deploy import records
from distacme.deploy import share as share_lib
from distacme.deploy import supervise
from distacme.run import run_directory
from distacme.runtime import topology

ENGINE = 'slurm'
# The kind of worker that the others wait for.
FIRST = 'learner'
_TEMPLATE = pathlib.Path(__file__).with_name('slurm_job.sh')


@dataclasses.dataclass(frozen=True)
class Job:
  """A job, or an array of jobs: the workers of a kind.

  Attributes:
    name: of the script.
    workers: of each element, by name; a job that is no array is one element.
    is_array: whether the job is an array.
    resources: of the job, or of each element.
    settings: for sbatch.
    arguments: of `deploy.supervise`, after the run directory.
    hosts: nodes of the job.
  """

  name: str
  workers: tuple[tuple[str, ...], ...]
  is_array: bool
  resources: cluster_lib.Resources
  settings: cluster_lib.SlurmJob
  arguments: str
  hosts: int = 1

  def numbers(self, number: str) -> dict[str, str]:
    """Returns the number of each worker's job, given that of the job as a whole."""
    return {
      worker: f'{number}_{element}' if self.is_array else number
      for element, workers in enumerate(self.workers)
      for worker in workers
    }


def of_program(
  program: topology.Program, cluster: cluster_lib.Cluster
) -> Iterator[Job]:
  """Yields the jobs of a program, the scarce learner's first."""
  if cluster.slurm.one_job:
    yield _one_job(program, cluster)
    return
  kinds = list(dict.fromkeys(spec.kind for spec in program.owners()))
  kinds.sort(key=lambda kind: kind != FIRST)
  for kind in kinds:
    count = sum(spec.kind == kind for spec in program.owners())
    is_array = kind == 'actor' or count > 1  # actors may become more
    per_job = cluster.slurm.actors_per_job if kind == 'actor' else 1
    arguments = f'{kind} --job "$SLURM_ARRAY_TASK_ID"' if is_array else kind
    yield Job(
      name=kind,
      workers=tuple(
        tuple(share_lib.names_of(program, kind, element, per_job))
        for element in range(math.ceil(count / per_job))
      ),
      is_array=is_array,
      resources=_sum_of([cluster.resources[kind]] * min(count, per_job)),
      settings=cluster.slurm_job(kind),
      arguments=f'{arguments} --per-job {per_job}'
      if per_job > 1
      else arguments,
    )


def _one_job(program: topology.Program, cluster: cluster_lib.Cluster) -> Job:
  """Returns the job of a whole program: on each node, the most that one needs."""
  hosts = cluster.slurm.nodes
  shares = [share_lib.spread(program, host, hosts) for host in range(hosts)]
  if not all(shares):
    raise ValueError(
      f'nodes = {hosts} in [slurm] leaves nodes without a worker: actors are spread '
      'over all of them, the others are on the first. Use fewer nodes, or more '
      'actors.'
    )
  sums = [
    _sum_of(cluster.resources[name.partition('/')[0]] for name in share)
    for share in shares
  ]
  return Job(
    name='program',
    workers=(tuple(spec.name for spec in program.owners()),),
    is_array=False,
    resources=cluster_lib.Resources(
      max(each.cpus for each in sums),
      f'{max(cluster_lib.mebibytes(each.memory) for each in sums)}M',
      max(each.gpus for each in sums),
    ),
    settings=cluster.slurm,
    arguments=f'{supervise.ALL} --job "${{SLURM_PROCID:-0}}" --per-job {hosts}',
    hosts=hosts,
  )


def _sum_of(
  parts: Iterable[cluster_lib.Resources],
) -> cluster_lib.Resources:
  """Returns resources added up."""
  listed = list(parts)
  return cluster_lib.Resources(
    sum(part.cpus for part in listed),
    f'{sum(cluster_lib.mebibytes(part.memory) for part in listed)}M',
    sum(part.gpus for part in listed),
  )


def script_of(
  job: Job, cluster: cluster_lib.Cluster, directory: run_directory.RunDirectory
) -> str:
  """Returns the text of a job's script."""
  slurm = cluster.slurm
  python = slurm.python or shlex.quote(sys.executable)
  run_dir = shlex.quote(str(directory.path))
  start = (
    f'exec {python} -m distacme.deploy.supervise {ENGINE} {run_dir} '
    f'{job.arguments}'
  )
  if job.hosts > 1:
    # A task on each node; a lost one ends all, and the job starts anew.
    start = (
      f'exec srun --ntasks-per-node=1 --cpus-per-task={job.resources.cpus} '
      f'--kill-on-bad-exit=1 bash -c {shlex.quote(start)}'
    )
  names = [name for element in job.workers for name in element]
  prologue = job.settings.prologue.strip()
  return string.Template(_TEMPLATE.read_text()).substitute(
    workers=', '.join(names[:3]) + (', ...' if len(names) > 3 else ''),
    run_dir=directory.path,
    submit=f'sbatch {shlex.quote(str(path_of(directory, job.name)))}',
    directives='\n'.join(
      f'#SBATCH {option}' for option in _options(job, slurm, directory)
    ),
    prologue=f'{prologue}\n' if prologue else '',
    start=start,
  )


def _options(
  job: Job, slurm: cluster_lib.Slurm, directory: run_directory.RunDirectory
) -> Iterator[str]:
  """Yields the options of sbatch."""
  settings, resources = job.settings, job.resources
  yield f'--job-name="{records.title_of(directory.path)}/{job.name}"'
  logs = str(logs_of(directory)).replace('%', '%%')  # else a pattern of Slurm's
  yield f'--output="{logs}/{job.name}{"-%a" if job.is_array else ""}.out"'
  yield '--open-mode=append'
  yield '--requeue'
  # A signal to the batch script comes as the worker's warning before its end.
  to_script = 'B:' if job.hosts == 1 else ''
  yield f'--signal={to_script}{supervise.WARNING.name[3:]}@{slurm.warning_s}'
  yield f'--time={settings.time}'
  if job.is_array:
    yield f'--array=0-{len(job.workers) - 1}'
  yield f'--nodes={job.hosts}'
  yield f'--ntasks={job.hosts}'
  yield f'--cpus-per-task={resources.cpus}'
  yield f'--mem={cluster_lib.mebibytes(resources.memory)}M'
  if resources.gpus:
    yield f'--gres=gpu:{resources.gpus}'
  for name in ('partition', 'account', 'qos'):
    if value := getattr(settings, name):
      yield f'--{name}={value}'
  yield from settings.options


def path_of(directory: run_directory.RunDirectory, name: str) -> pathlib.Path:
  """Returns the path of a job's script."""
  return directory.cluster / 'jobs' / f'{name}.sh'


def logs_of(directory: run_directory.RunDirectory) -> pathlib.Path:
  """Returns the folder of what the jobs' own processes print."""
  return directory.logs / ENGINE
