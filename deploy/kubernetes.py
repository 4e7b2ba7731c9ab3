"""Runs a program in Kubernetes: mode kubernetes.

Each kind of worker is an Indexed Job, which gives every worker a pod with a name of its
own and replaces pods that are lost. The manifests lie in the run directory of the
machine that submits them; what pods write lies on a volume of the cluster.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
import json
import logging
import shlex
import subprocess
import sys
import time

from distacme import status as status_lib
from distacme.deploy import cluster as cluster_lib
from distacme.deploy import kubectl
from distacme.deploy import kubernetes_checks
from distacme.deploy import kubernetes_engine
from distacme.deploy import kubernetes_files
from distacme.deploy import kubernetes_manifests as manifests
from distacme.deploy import kubernetes_nodes
from distacme.deploy import kubernetes_pod
from distacme.deploy import kubernetes_states
from distacme.deploy import records
from distacme.programs import experiment as experiment_lib
from distacme.programs import program as program_lib
from distacme.programs import run_config
from distacme.programs.view import terminal
from distacme.run import files
from distacme.run import run_directory
from distacme.runtime import signals
from distacme.runtime import topology

ENGINE = kubernetes_engine.ENGINE
_NAME = 'kubernetes'
# Objects that a submission replaces: not the volume.
_REPLACED = 'jobs,jobsets.jobset.x-k8s.io'
# Otherwise a Job is gone before its pods are.
_WAIT_FOR_PODS = ('--ignore-not-found', '--cascade=foreground', '--wait')
_DELETE_S = 180.0  # workers have a minute to save


def check(
  run: run_config.RunConfig,
  program: topology.Program,
  directory: run_directory.RunDirectory,
) -> None:
  """Refuses a run that the cluster cannot take, before anything is written.

  Raises:
    ImportError: if the library that writes manifests is not installed.
    ValueError: if there is no image, a part of the run is on this machine only, a run
      of that name goes on, or no node could take its pods.
  """
  kubernetes_files.check_installed()
  cluster = cluster_lib.read(run.cluster)
  if not cluster.kubernetes.image:
    raise ValueError(
      'image in [kubernetes] of cluster.toml is empty: pods need one with distacme, '
      'the agent and the environment in it. Build deploy/Dockerfile, push it to a '
      'registry that the cluster reads, and name it.'
    )
  if run.demonstrations:
    raise ValueError(
      f'demonstrations={run.demonstrations!r} would be written into the run directory '
      f'of this machine, and pods have a volume of their own. Train with mode slurm '
      'or processes, or without demonstrations.'
    )
  if not kubectl.is_installed() and run.dry_run:
    return
  kubectl.check_installed()
  described = kubernetes_files.described(directory, program, cluster)
  if run.dry_run and not described.id:
    return  # nothing of this directory was ever submitted
  try:
    kubernetes_checks.check_free(described)
  except kubectl.KubectlError as error:
    if run.dry_run and directory.read_running() is None:
      logging.info('whether the run goes on is not known: %s', error)
      return
    raise ValueError(
      f'the cluster does not answer: {error}. Does kubectl work, and may you use '
      f'the namespace {cluster.kubernetes.namespace!r} in [kubernetes]?'
    ) from error
  if not run.dry_run:
    kubernetes_nodes.check(described)


def run(
  experiment: experiment_lib.Experiment,
  directory: run_directory.RunDirectory,
  show: Callable[[status_lib.Status], None],
  stops: signals.StopRequests,
) -> status_lib.Status:
  """Submits an experiment; see `modes.Launcher.run`.

  Returns:
    A status of a run that goes on.
  """
  del show, stops  # the run goes on without this process
  records.begin(directory, experiment.run.cluster)
  described = kubernetes_files.write(directory)
  if experiment.run.dry_run:
    terminal.say(f'\n{kubernetes_files.path_of(directory, "run").read_text()}')
    terminal.say(
      'dry run: nothing was submitted. To submit it:\n  '
      + shlex.join(['kubectl', *kubernetes_files.apply(directory)])
    )
  else:
    _submit(described, directory)
  return status_lib.Status(seconds=0.0, counts={})


def _submit(
  described: manifests.Run, directory: run_directory.RunDirectory
) -> None:
  """Submits the manifests, once the cluster has checked all of them.

  Raises:
    ValueError: if the cluster refuses one.
  """
  namespace = described.cluster.kubernetes.namespace
  try:
    # An API server refuses changes of a Job that is there, also of one that has ended.
    _delete(described, _REPLACED)
    kubectl.command(*kubernetes_files.apply(directory), '--dry-run=server')
    kubectl.command(*kubernetes_files.apply(directory))
  except kubectl.KubectlError as error:
    raise ValueError(
      f'the cluster refused the run ({error}). Its manifests are '
      f'{kubernetes_files.path_of(directory, "run")}.'
    ) from error
  directory.start_running(_NAME)
  records.write_submission(
    directory,
    records.Submission(
      {
        spec.name: f'{described.job(spec.kind)}-{spec.index}'
        for spec in described.program.owners()
      },
      time.time(),
    ),
  )
  for kind in described.kinds:
    terminal.say(
      f'submitted: job {described.job(kind)} in the namespace {namespace} '
      f'({described.count(kind)} of kind {kind})'
    )


def _delete(described: manifests.Run, kinds: str) -> None:
  """Deletes objects of a run and waits until they are gone.

  Raises:
    KubectlError: if they cannot be deleted.
  """
  listed = kinds.split(',')
  if not described.cluster.kubernetes.jobset:  # which not every cluster has
    listed = [kind for kind in listed if 'jobset' not in kind]
  kubectl.command(
    'delete',
    ','.join(listed),
    '--namespace',
    described.cluster.kubernetes.namespace,
    '--selector',
    kubernetes_files.selector(described),
    *_WAIT_FOR_PODS,
    timeout_s=_DELETE_S,
  )


def job_states(directory: run_directory.RunDirectory) -> dict[str, str]:
  """Returns the states of a run's pods, by worker; see `modes.Launcher.job_states`.

  The directory here says from then on that the run goes on, also where its manifests
  were applied by hand, or how it has ended.

  Raises:
    ValueError: if the cluster does not answer.
  """
  if ENGINE.this_job():  # pods may not ask the cluster
    places = records.every_place(directory)
    return {place.worker: f'{place.job} runs' for place in places if place.runs}
  kubectl.check_installed()
  described = kubernetes_files.recorded(directory)
  where = (described.cluster.kubernetes.namespace, '--selector')
  try:
    # Its submission would have been refused, but these manifests may not be applied.
    if directory.read_running() is None and kubernetes_checks.namesake(
      described
    ):
      return {}
    jobs = kubectl.objects(
      where[0], 'jobs', where[1], kubernetes_files.selector(described)
    )
    pods = kubectl.objects(
      where[0], 'pods', where[1], kubernetes_files.selector(described)
    )
  except kubectl.KubectlError as error:
    raise ValueError(f'the cluster does not answer: {error}') from error
  goes_on = not all(map(kubernetes_states.has_ended, jobs))
  if not _note_end(directory, kubernetes_states.message(pods)):
    if goes_on and directory.read_running() is None:
      directory.start_running(_NAME)
  return kubernetes_states.of_workers(jobs, pods)


def _note_end(directory: run_directory.RunDirectory, message: str) -> bool:
  """Writes how the run has ended, if the pod of its variable server has said so.

  Returns:
    Whether it has.
  """
  if not message:
    return False
  try:
    status = status_lib.Status.from_dict(files.from_json(message))
  except files.NOT_WHOLE:  # the last lines of a log
    return False
  directory.write_summary(status)
  directory.end_running()
  return True


def scale(directory: run_directory.RunDirectory, num_actors: int) -> None:
  """Starts or ends pods of actors, those of the highest numbers.

  The program on the volume knows of the actors before their pods come.

  Raises:
    ValueError: if the cluster refuses.
  """
  kubectl.check_installed()
  described = kubernetes_files.recorded(directory)
  if described.cluster.kubernetes.jobset:
    raise ValueError(
      'the number of actors in a JobSet is fixed. Stop the run, and train with '
      f'--num-actors {num_actors} and the same --run-dir.'
    )
  patch = {'spec': {'completions': num_actors, 'parallelism': num_actors}}
  job = f'job/{described.job("actor")}'
  namespace = described.cluster.kubernetes.namespace
  try:
    kubectl.command(*_to_pod(described, 'actors', str(num_actors)))
  except kubectl.KubectlError as error:
    raise ValueError(f'there are as many actors as before: {error}') from error
  try:
    kubectl.command(
      'patch', job, '--namespace', namespace, '--patch', json.dumps(patch)
    )
  except kubectl.KubectlError as error:
    _take_back(described, num_actors, directory)
    raise ValueError(f'there are as many actors as before: {error}') from error
  kubernetes_pod.set_actors(directory, num_actors)


def _take_back(
  described: manifests.Run,
  num_actors: int,
  directory: run_directory.RunDirectory,
) -> None:
  """Makes the program on the volume one with as many actors as before `scale`.

  Raises:
    ValueError: if the program has the new number still.
  """
  before = described.count('actor')
  try:
    kubectl.command(*_to_pod(described, 'actors', str(before)))
  except kubectl.KubectlError as error:
    raise ValueError(
      f'the cluster did not change the number of pods, but the program on the '
      f'volume, which had {before} actors, has {num_actors} now ({error}). Once the '
      f'cluster answers: distacme scale {directory.path} --num-actors {before}'
    ) from error


def cancel(directory: run_directory.RunDirectory) -> None:
  """Deletes a run's Jobs that have not ended; workers save first.

  The volume and what has ended stay, and with them the checkpoints and the logs.

  Raises:
    ValueError: if the cluster refuses.
  """
  kubectl.check_installed()
  described = kubernetes_files.recorded(directory)
  namespace = described.cluster.kubernetes.namespace
  kind = 'jobset' if described.cluster.kubernetes.jobset else 'job'
  try:
    found = kubectl.objects(
      namespace, f'{kind}s', '--selector', kubernetes_files.selector(described)
    )
    names = [
      each['metadata']['name']
      for each in found
      if not kubernetes_states.has_ended(each)
    ]
    if names:
      options = ['--namespace', namespace, *_WAIT_FOR_PODS]
      kubectl.command('delete', kind, *names, *options, timeout_s=_DELETE_S)
  except kubectl.KubectlError as error:
    raise ValueError(
      f'not all of {described.name} could be deleted: {error}'
    ) from error


def request_stop(directory: run_directory.RunDirectory) -> bool:
  """Asks a run to end, in the pod of its variable server; returns whether it could."""
  job_states(directory)  # which sees whether it goes on
  if directory.read_running() is None:
    return False
  return _ask_pod(directory, 'stop')


def forward(
  directory: run_directory.RunDirectory, arguments: Sequence[str]
) -> int | None:
  """Runs a command of distacme's beside the variable server, where the run is.

  Args:
    directory: from which the run was submitted.
    arguments: of `distacme`, to which the run directory there is added.

  Returns:
    The command's exit code; None if the run is here, or no such pod runs.
  """
  if ENGINE.this_job() or not kubectl.is_installed():
    return None
  states = job_states(directory)
  if not states.get(program_lib.VARIABLES, '').startswith('Running'):
    return None
  described = kubernetes_files.recorded(directory)
  terminal_ = ['--stdin', '--tty'] if sys.stdout.isatty() else []
  command = ['kubectl', *_in_pod(described, *terminal_)]
  command += ['distacme', *arguments, str(described.directory)]
  sys.stdout.flush()
  return subprocess.run(command, check=False).returncode


def log_command(
  directory: run_directory.RunDirectory, worker: str, follow: bool
) -> list[str]:
  """Returns a command that prints what a worker's pods have said, the ended ones too."""
  kubectl.check_installed()
  described = kubernetes_files.recorded(directory)
  kind, _, number = worker.partition('/')
  job = f'{kubernetes_states.JOB}={described.job(kind)}'
  return [
    'kubectl',
    'logs',
    '--namespace',
    described.cluster.kubernetes.namespace,
    '--selector',
    f'{job},{kubernetes_states.INDEX}={number}',
    '--tail=-1',
    *(['--follow'] if follow else []),
  ]


def _ask_pod(directory: run_directory.RunDirectory, *arguments: str) -> bool:
  """Runs `kubernetes_pod` beside the variable server; returns whether that went."""
  kubectl.check_installed()
  described = kubernetes_files.recorded(directory)
  try:
    kubectl.command(*_to_pod(described, *arguments))
  except kubectl.KubectlError as error:
    logging.info('%s', error)
    return False
  return True


def _to_pod(described: manifests.Run, *arguments: str) -> list[str]:
  """Returns arguments of kubectl that run `kubernetes_pod` there for its run."""
  module = ['python', '-m', 'distacme.deploy.kubernetes_pod']
  return [
    *_in_pod(described),
    *module,
    str(described.directory),
    *arguments,
  ]


def _in_pod(described: manifests.Run, *options: str) -> list[str]:
  """Returns arguments of kubectl that run a command beside the variable server."""
  return [
    'exec',
    *options,
    '--namespace',
    described.cluster.kubernetes.namespace,
    f'job/{described.job("variables")}',
    '--container',
    manifests.CONTAINER,
    '--',
  ]
