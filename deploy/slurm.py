"""Runs a program as jobs of Slurm: mode slurm.

Each kind of worker is a job, and workers of one kind are the elements of an array, so
that Slurm starts each anew by itself, and each kind has its own resources. The scripts
lie in the run directory, which all nodes have to share.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
import dataclasses
import math
import pathlib
import shlex
import string
import sys
import time

from distacme import status as status_lib
from distacme.deploy import cluster as cluster_lib
from distacme.deploy import records
from distacme.deploy import share as share_lib
from distacme.deploy import slurm_checks
from distacme.deploy import slurm_engine
from distacme.deploy import supervise
from distacme.programs import experiment as experiment_lib
from distacme.programs import program as program_lib
from distacme.programs import run_config
from distacme.programs.view import terminal
from distacme.run import run_directory
from distacme.runtime import signals
from distacme.runtime import topology

ENGINE = slurm_engine.SlurmEngine()
_NAME = 'slurm'
_TEMPLATE = pathlib.Path(__file__).with_name('slurm_job.sh')
# Who learns is waited for by who would only use up time meanwhile.
_FIRST = 'learner'
_AFTER_IT = ('actor', 'evaluator')


@dataclasses.dataclass(frozen=True)
class Job:
  """A job, or an array of jobs: the workers of a kind.

  Attributes:
    name: of the script, and of the job's entry in the run's submission.
    workers: in words.
    elements: of the array; 0 for a job that is no array.
    resources: of the job, or of each element.
    settings: for sbatch.
    arguments: of `deploy.supervise`, after the run directory.
    hosts: nodes of the job.
  """

  name: str
  workers: str
  elements: int
  resources: cluster_lib.Resources
  settings: cluster_lib.SlurmJob
  arguments: str
  hosts: int = 1


def jobs(
  program: topology.Program, cluster: cluster_lib.Cluster
) -> Iterator[Job]:
  """Yields the jobs of a program, the scarce learner's first."""
  if cluster.slurm.one_job:
    yield _one_job(program, cluster)
    return
  kinds = list(dict.fromkeys(spec.kind for spec in program.owners()))
  kinds.sort(key=lambda kind: kind != _FIRST)
  for kind in kinds:
    count = sum(spec.kind == kind for spec in program.owners())
    per_job = cluster.slurm.actors_per_job if kind == 'actor' else 1
    elements = math.ceil(count / per_job)
    single = kind != 'actor' and count == 1
    arguments = kind
    if not single:
      arguments += ' --job "$SLURM_ARRAY_TASK_ID"'
    if per_job > 1:
      arguments += f' --per-job {per_job}'
    yield Job(
      name=kind,
      workers=f'{kind}/0' if single else f'{count} workers of kind {kind}',
      elements=0 if single else elements,
      resources=_sum_of([cluster.resources[kind]] * min(count, per_job)),
      settings=cluster.slurm_job(kind),
      arguments=arguments,
    )


def _one_job(program: topology.Program, cluster: cluster_lib.Cluster) -> Job:
  """Returns the job of a whole program, with all of its resources on each node."""
  hosts = cluster.slurm.nodes
  shares = [
    _sum_of(
      cluster.resources[name.partition('/')[0]]
      for name in share_lib.spread(program, host, hosts)
    )
    for host in range(hosts)
  ]
  return Job(
    name='program',
    workers=f'All {len(list(program.owners()))} workers',
    elements=0,
    resources=cluster_lib.Resources(
      max(share.cpus for share in shares),
      f'{max(cluster_lib.mebibytes(share.memory) for share in shares)}M',
      max(share.gpus for share in shares),
    ),
    settings=cluster.slurm,
    arguments=f'{supervise.ALL} --job "$SLURM_PROCID" --per-job {hosts}',
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
    f'{python} -m distacme.deploy.supervise {_NAME} {run_dir} {job.arguments}'
  )
  if job.hosts > 1:
    # A task each; a lost one ends all, and the job starts anew from the checkpoint.
    start = (
      f'exec srun --ntasks-per-node=1 --cpus-per-task={job.resources.cpus} '
      f'--kill-on-bad-exit=1 bash -c {shlex.quote("exec " + start)}'
    )
  elif '$SLURM_PROCID' in start:
    start = f'SLURM_PROCID=0\nexec {start}'
  else:
    start = f'exec {start}'
  text = string.Template(_TEMPLATE.read_text()).substitute(
    workers=job.workers,
    run_dir=directory.path,
    submit=f'sbatch {shlex.quote(str(_path(directory, job.name)))}',
    directives='\n'.join(
      f'#SBATCH {option}' for option in _options(job, slurm, directory)
    ),
    prologue=f'\n{job.settings.prologue.strip()}\n'.lstrip('\n'),
    start=start,
  )
  return text.replace('\n\n\n', '\n\n')


def _options(
  job: Job, slurm: cluster_lib.Slurm, directory: run_directory.RunDirectory
) -> Iterator[str]:
  """Yields the options of sbatch."""
  settings, resources = job.settings, job.resources
  yield f'--job-name={directory.path.name}/{job.name}'
  output = f'{job.name}{"-%a" if job.elements else ""}.out'
  yield f'--output="{_logs(directory) / output}"'
  yield '--open-mode=append'
  yield '--requeue'
  # A signal to the batch script comes as the worker's warning before its end.
  to_script = 'B:' if job.hosts == 1 else ''
  yield f'--signal={to_script}{supervise.WARNING.name[3:]}@{slurm.warning_s}'
  yield f'--time={settings.time}'
  if job.elements:
    yield f'--array=0-{job.elements - 1}'
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


def _path(directory: run_directory.RunDirectory, name: str) -> pathlib.Path:
  return directory.cluster / 'jobs' / f'{name}.sh'


def _logs(directory: run_directory.RunDirectory) -> pathlib.Path:
  return directory.logs / _NAME


def check(
  run: run_config.RunConfig,
  program: topology.Program,
  directory: run_directory.RunDirectory,
) -> None:
  """Refuses a run that the cluster cannot take, before anything is written.

  Raises:
    ValueError: if the cluster has no such nodes, or a run in the directory goes on.
  """
  cluster = cluster_lib.read(run.cluster)
  slurm_checks.check_going_on(directory)
  for job in jobs(program, cluster):
    slurm_checks.check_times(job.name, job.settings, cluster.slurm)
  if not slurm_engine.is_installed():
    if run.dry_run:
      return
    raise ValueError(
      'sbatch is not here: submit from a login node of the cluster, or add '
      '--dry-run to see the jobs.'
    )
  slurm_checks.check_offers(
    {
      job.name: (job.resources, job.settings, job.elements)
      for job in jobs(program, cluster)
    }
  )


def run(
  experiment: experiment_lib.Experiment,
  directory: run_directory.RunDirectory,
  show: Callable[[status_lib.Status], None],
  stops: signals.StopRequests,
) -> status_lib.Status:
  """Submits the jobs of an experiment; see `modes.Launcher.run`.

  Returns:
    A status of a run that goes on.
  """
  del show, stops  # the run goes on without this process
  cluster = _write(experiment, directory)
  program = program_lib.read(directory)
  listed = list(jobs(program, cluster))
  if slurm_engine.is_installed():
    for job in listed:
      slurm_checks.check_script(_path(directory, job.name))
  if experiment.run.dry_run:
    for job in listed:
      path = _path(directory, job.name)
      terminal.say(f'\n# {path}\n{path.read_text()}')
    terminal.say('dry run: nothing was submitted. To submit it:')
    for job in listed:
      terminal.say(f'  sbatch {shlex.quote(str(_path(directory, job.name)))}')
  else:
    _submit(listed, directory)
  return status_lib.Status(seconds=0.0, counts={})


def _write(
  experiment: experiment_lib.Experiment,
  directory: run_directory.RunDirectory,
) -> cluster_lib.Cluster:
  """Writes what jobs read, and their scripts; returns the cluster."""
  cluster = cluster_lib.read(experiment.run.cluster)
  program = program_lib.read(directory)
  if cluster.slurm.python:
    program = dataclasses.replace(
      program, import_path=cluster.slurm.import_path
    )
    program_lib.write(program, directory)
  records.begin(directory, experiment.run.cluster)
  _logs(directory).mkdir(parents=True, exist_ok=True)
  _path(directory, '').parent.mkdir(exist_ok=True)
  for job in jobs(program, cluster):
    path = _path(directory, job.name)
    path.write_text(script_of(job, cluster, directory))
    path.chmod(0o755)
  return cluster


def _submit(
  listed: Sequence[Job], directory: run_directory.RunDirectory
) -> None:
  """Submits jobs; cancels all if Slurm refuses one.

  Raises:
    ValueError: if Slurm refuses a job.
  """
  directory.start_running(_NAME)
  numbers: dict[str, str] = {}
  try:
    for job in listed:
      options = []
      if job.name in _AFTER_IT and _FIRST in numbers:
        options.append(f'--dependency=after:{numbers[_FIRST]}')
      path = _path(directory, job.name)
      numbers[job.name] = slurm_engine.submit(str(path), *options)
      _note(directory, numbers)
  except BaseException as error:
    ENGINE.cancel(numbers.values())
    directory.end_running()
    if isinstance(error, slurm_engine.SlurmError):
      raise ValueError(
        f'Slurm refused the job {job.name} ({error}). Nothing of the run is left '
        f'in the queue. Its script is {_path(directory, job.name)}.'
      ) from error
    raise
  for name, number in numbers.items():
    terminal.say(f'submitted: job {number} ({name})')


def _note(
  directory: run_directory.RunDirectory, numbers: Mapping[str, str]
) -> None:
  records.write_submission(
    directory, records.Submission(_NAME, dict(numbers), time.time())
  )
