"""Writes a run's manifests of Kubernetes into its directory, and finds them there."""

from __future__ import annotations

import getpass
import importlib
import os
import pathlib
import platform
import uuid

from distacme.deploy import cluster as cluster_lib
from distacme.deploy import kubernetes_manifests as manifests
from distacme.deploy import records
from distacme.deploy import submitted
from distacme.programs import program as program_lib
from distacme.run import run_directory
from distacme.runtime import topology

_RUN_HEAD = """\
The run in {path}, written by distacme. It may be edited, and applied by hand:
  kubectl apply -f {secret} -f {run}
To go on with it after its end: 'distacme train' with the same settings and --run-dir;
or by hand, write another id into the ConfigMap, delete the Jobs and apply it again:
  kubectl delete {kinds} --namespace {namespace} --selector {selector}
"""
_SECRET_HEAD = """\
The key and the token of the run in {path}: whoever has them takes part in the run.
"""
_READER_HEAD = """\
A pod that shows the volume of the run in {path}, to copy its files from:
  kubectl apply -f {reader}
  kubectl cp --namespace {namespace} {name}-reader:{directory} COPY
  kubectl delete -f {reader}
"""


def check_installed() -> str:
  """Refuses to write manifests without the library that writes YAML.

  Returns:
    The library's version.

  Raises:
    ImportError: if it is not installed.
  """
  try:
    return str(importlib.import_module('yaml').__version__)
  except ImportError as error:
    raise ImportError(
      f'writing manifests needs PyYAML ({error}). Run: pip install '
      "'distacme[kubernetes]'"
    ) from error


def described(
  directory: run_directory.RunDirectory,
  program: topology.Program,
  cluster: cluster_lib.Cluster,
) -> manifests.Run:
  """Returns a run of a directory, as its manifests need it."""
  number = _id(directory)
  return manifests.Run(
    manifests.name_of(directory.path),
    number.read_text().strip() if number.exists() else '',
    f'{getpass.getuser()}@{platform.node()}:{directory.path}',
    program,
    cluster,
  )


def write(directory: run_directory.RunDirectory) -> manifests.Run:
  """Writes the manifests of a run for one submission, which only this user may read.

  Returns:
    The run.
  """
  # Here and not above: what only asks the cluster, and what runs there, go without.
  from distacme.deploy import yaml_text

  number = _id(directory)
  if not number.exists():
    number.parent.mkdir(exist_ok=True)
    number.write_text(f'{uuid.uuid4().hex}\n')
  described_run = recorded(directory)
  secret, run, reader = (
    path_of(directory, name) for name in ('secret', 'run', 'reader')
  )
  names = {
    'path': directory.path,
    'secret': secret,
    'run': run,
    'reader': reader,
    'name': described_run.name,
    'directory': described_run.directory,
    'namespace': described_run.cluster.kubernetes.namespace,
    'selector': selector(described_run),
    'kinds': 'jobsets' if described_run.cluster.kubernetes.jobset else 'jobs',
  }
  files = {
    submitted.ID: uuid.uuid4().hex,
    submitted.CONFIG: directory.config.read_text(),
    submitted.CLUSTER: records.cluster_file(directory).read_text(),
  }
  secrets = {
    name: (directory.path / name).read_text() for name in submitted.SECRETS
  }
  for path, head, objects in (
    (secret, _SECRET_HEAD, [manifests.secret(described_run, secrets)]),
    (run, _RUN_HEAD, list(manifests.objects(described_run, files))),
    (reader, _READER_HEAD, [manifests.reader(described_run)]),
  ):
    path.unlink(missing_ok=True)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, 'w') as file:
      file.write(yaml_text.dump(head.format(**names), objects))
  return described_run


def apply(directory: run_directory.RunDirectory) -> list[str]:
  """Returns the arguments of kubectl that submit a run."""
  files = [str(path_of(directory, name)) for name in ('secret', 'run')]
  return ['apply', *(part for file in files for part in ('-f', file))]


def selector(described: manifests.Run) -> str:
  """Returns the labels by which kubectl finds a run's objects."""
  return f'{manifests.RUN_LABEL}={described.name}'


def path_of(directory: run_directory.RunDirectory, name: str) -> pathlib.Path:
  """Returns the file of manifests of a name: run, secret or reader."""
  return directory.cluster / 'kubernetes' / f'{name}.yaml'


def _id(directory: run_directory.RunDirectory) -> pathlib.Path:
  """Returns the file with the number that tells runs of one name apart."""
  return directory.cluster / 'kubernetes' / 'id'


def recorded(directory: run_directory.RunDirectory) -> manifests.Run:
  """Returns the run that was submitted from a directory."""
  cluster = cluster_lib.read(records.cluster_file(directory))
  return described(directory, program_lib.read(directory), cluster)
