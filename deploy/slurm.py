"""Runs a program as jobs of Slurm: mode slurm.

Each kind of worker is a job, and workers of one kind are the elements of an array, so
that Slurm starts each anew by itself, and each kind has its own resources. The scripts
lie in the run directory, which all nodes have to share.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
import dataclasses
import shlex
import time

from distacme import status as status_lib
from distacme.deploy import cluster as cluster_lib
from distacme.deploy import records
from distacme.deploy import slurm_checks
from distacme.deploy import slurm_engine
from distacme.deploy import slurm_jobs
from distacme.programs import experiment as experiment_lib
from distacme.programs import program as program_lib
from distacme.programs import recorded_run
from distacme.programs import run_config
from distacme.programs.view import terminal
from distacme.run import run_directory
from distacme.runtime import signals
from distacme.runtime import topology

# These would only use up time before the learner is there.
_AFTER_IT = ('actor', 'evaluator')


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
  slurm_checks.warn_of_own_disk(directory)
  for job in slurm_jobs.of_program(program, cluster):
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
      job.name: (job.resources, job.settings, len(job.workers))
      for job in slurm_jobs.of_program(program, cluster)
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
  listed = list(slurm_jobs.of_program(program, cluster))
  if slurm_engine.is_installed():
    for job in listed:
      slurm_checks.check_script(slurm_jobs.path_of(directory, job.name))
  if experiment.run.dry_run:
    for job in listed:
      path = slurm_jobs.path_of(directory, job.name)
      terminal.say(f'\n# {path}\n{path.read_text()}')
    terminal.say('dry run: nothing was submitted. To submit it:')
    for job in listed:
      terminal.say(
        f'  sbatch {shlex.quote(str(slurm_jobs.path_of(directory, job.name)))}'
      )
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
  slurm_jobs.logs_of(directory).mkdir(parents=True, exist_ok=True)
  slurm_jobs.path_of(directory, '').parent.mkdir(exist_ok=True)
  for job in slurm_jobs.of_program(program, cluster):
    path = slurm_jobs.path_of(directory, job.name)
    path.write_text(slurm_jobs.script_of(job, cluster, directory))
    path.chmod(0o755)
  return cluster


def _submit(
  listed: Sequence[slurm_jobs.Job], directory: run_directory.RunDirectory
) -> None:
  """Submits jobs; cancels all if Slurm refuses one.

  Raises:
    ValueError: if Slurm refuses a job.
  """
  directory.start_running(slurm_jobs.ENGINE)
  numbers: dict[str, str] = {}
  submission = records.Submission({}, time.time())
  try:
    for job in listed:
      options = []
      if job.name in _AFTER_IT and slurm_jobs.FIRST in numbers:
        options.append(f'--dependency=after:{numbers[slurm_jobs.FIRST]}')
      path = slurm_jobs.path_of(directory, job.name)
      numbers[job.name] = slurm_engine.submit(str(path), *options)
      submission = dataclasses.replace(
        submission, jobs={**submission.jobs, **job.numbers(numbers[job.name])}
      )
      records.write_submission(directory, submission)
  except BaseException as error:
    _cancel(list(numbers.values()))
    directory.end_running()
    if isinstance(error, slurm_engine.SlurmError):
      raise ValueError(
        f'Slurm refused the job {job.name} ({error}). What was submitted before it '
        f'is cancelled. Its script is {slurm_jobs.path_of(directory, job.name)}.'
      ) from error
    raise
  for name, number in numbers.items():
    terminal.say(f'submitted: job {number} ({name})')


def job_states(directory: run_directory.RunDirectory) -> dict[str, str]:
  """Returns the states of a run's jobs, by worker; see `modes.Launcher.job_states`.

  Raises:
    ValueError: if Slurm does not answer.
  """
  numbers = {
    spec.name: records.job_of(directory, spec.name)
    for spec in program_lib.read(directory).owners()
  }
  jobs = {records.whole(number) for number in numbers.values() if number}
  try:
    states = slurm_engine.states(jobs)
  except slurm_engine.SlurmError as error:
    raise ValueError(f'Slurm does not answer: {error}') from error
  return {
    worker: f'{number} {states[number]}'
    for worker, number in numbers.items()
    if number in states
  }


def cancel(directory: run_directory.RunDirectory) -> None:
  """Cancels all jobs of a run.

  Raises:
    ValueError: if Slurm does not answer.
  """
  _cancel(sorted(records.jobs(directory)))


def _cancel(jobs: Sequence[str]) -> None:
  if not slurm_engine.ENGINE.cancel(jobs):
    raise ValueError(
      f'Slurm does not answer: whether jobs {", ".join(jobs)} are cancelled is not '
      f'known. Try again, or run: scancel {" ".join(jobs)}'
    )


def scale(directory: run_directory.RunDirectory, num_actors: int) -> None:
  """Submits further actors, or cancels those of the highest numbers.

  Raises:
    ValueError: if the run is one job, its actors come in other numbers, or Slurm
      refuses.
  """
  cluster = cluster_lib.read(records.cluster_file(directory))
  per_job = cluster.slurm.actors_per_job
  program = program_lib.read(directory)
  before = sum(program_lib.is_actor(spec.name) for spec in program.owners())
  if cluster.slurm.one_job:
    raise ValueError(
      f'{directory.path} is one job, whose actors are as many as it began with.'
    )
  if num_actors % per_job or before % per_job:
    raise ValueError(
      f'actors come in jobs of {per_job} (actors_per_job), and {before} are to '
      f'become {num_actors}. Ask for a multiple of {per_job}.'
    )
  submission = records.read_submission(directory)
  if submission is None:
    raise ValueError(
      f'the jobs of {directory.path} were submitted by hand: submit '
      f'{slurm_jobs.path_of(directory, "actor")} with --array for further actors.'
    )
  if num_actors > before:
    numbers = _submit_actors(directory, program, before, num_actors, per_job)
    jobs_ = {**submission.jobs, **numbers}
  else:
    gone = [program_lib.actor_name(i) for i in range(num_actors, before)]
    _cancel(
      sorted({number for name in gone if (number := submission.jobs.get(name))})
    )
    program_lib.write(program.without(*gone), directory)
    jobs_ = {k: v for k, v in submission.jobs.items() if k not in gone}
  records.write_submission(
    directory, dataclasses.replace(submission, jobs=jobs_)
  )


def _submit_actors(
  directory: run_directory.RunDirectory,
  program: topology.Program,
  before: int,
  after: int,
  per_job: int,
) -> dict[str, str]:
  """Submits actors of the numbers from `before` on; returns their jobs' numbers."""
  run = recorded_run.run_config(directory.read_config(), directory)
  new = [program_lib.actor(run, index) for index in range(before, after)]
  program_lib.write(program.plus(*new), directory)
  path = slurm_jobs.path_of(directory, 'actor')
  elements = range(before // per_job, after // per_job)
  try:
    number = slurm_engine.submit(
      str(path), f'--array={elements[0]}-{elements[-1]}'
    )
  except slurm_engine.SlurmError as error:
    program_lib.write(program, directory)
    raise ValueError(f'Slurm refused more of {path}: {error}') from error
  return {spec.name: f'{number}_{spec.index // per_job}' for spec in new}
