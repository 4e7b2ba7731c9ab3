"""Finds out what of a cluster works, for `distacme doctor --cluster`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
import pathlib
import shlex
import sys
from typing import NamedTuple

from distacme.deploy import cluster as cluster_lib
from distacme.deploy import kubectl
from distacme.deploy import kubernetes_files
from distacme.deploy import slurm_checks
from distacme.deploy import slurm_engine

_NODE_S = 60  # for a node to become free
# What `--mode kubernetes` and the commands after it do in the namespace of the run.
_RIGHTS = (
  ('list', 'jobs.batch'),
  ('create', 'jobs.batch'),
  ('patch', 'jobs.batch'),
  ('delete', 'jobs.batch'),
  ('list', 'pods'),
  ('create', 'pods', '--subresource=exec'),
  ('get', 'pods', '--subresource=log'),
  ('create', 'secrets'),
  ('list', 'configmaps'),
  ('create', 'configmaps'),
  ('create', 'persistentvolumeclaims'),
  ('create', 'services'),
  ('create', 'networkpolicies.networking.k8s.io'),
)
_JOB_SETS = (
  ('list', 'jobsets.jobset.x-k8s.io'),
  ('create', 'jobsets.jobset.x-k8s.io'),
  ('delete', 'jobsets.jobset.x-k8s.io'),
)

# Run on a node, from the folder in which runs would be submitted.
_ON_A_NODE = """
import os, socket, sys
from distacme.deploy import slurm_engine, supervise
found = os.path.exists(sys.argv[1])
print(socket.gethostname(), slurm_engine.address(sys.argv[2]), found)
"""


class Diagnosis(NamedTuple):
  """A part of a cluster that works or does not.

  Attributes:
    name: of the part.
    find: returns a description of the part; raises if the part does not work.
    remedy: how to mend it.
    without: what does not work without the part.
    modes: those of a run that need the part.
  """

  name: str
  find: Callable[[], str]
  remedy: str
  without: str
  modes: tuple[str, ...]


def diagnoses(path: pathlib.Path) -> Iterator[Diagnosis]:
  """Yields the parts of the cluster that a file describes.

  Raises:
    ValueError: if the file is missing or has a fault; the message is for the user.
  """
  cluster = cluster_lib.read(path)
  slurm = ('clusters with Slurm (--mode slurm)', ('slurm',))
  yield Diagnosis(
    'keys of runs',
    _keys,
    "Run: pip install 'distacme[cluster]'",
    'clusters: workers on several hosts talk over TLS',
    ('slurm', 'kubernetes'),
  )
  yield Diagnosis(
    'Slurm', _slurm, 'Run this on a login node of the cluster', *slurm
  )
  yield Diagnosis(
    'nodes for each kind of worker',
    lambda: _offers(cluster),
    f'Change {path}',
    *slurm,
  )
  yield Diagnosis(
    'distacme on a node',
    lambda: _node(cluster),
    'Install it on a disk that all nodes share, or say in prologue and python, '
    'in [slurm], how a node finds it',
    *slurm,
  )
  yield Diagnosis(
    'PyYAML',
    kubernetes_files.check_installed,
    "Run: pip install 'distacme[kubernetes]'",
    'clusters with Kubernetes (--mode kubernetes)',
    ('kubernetes',),
  )
  yield Diagnosis(
    'kubectl',
    lambda: _kubectl(cluster.kubernetes),
    'Install kubectl, let it reach the cluster, and ask for what is refused in the '
    f'namespace {cluster.kubernetes.namespace!r}',
    'clusters with Kubernetes (--mode kubernetes), but for --dry-run',
    ('kubernetes',),
  )


def _keys() -> str:
  from distacme.rpc import keys

  keys.check_installed()
  return 'can be made'


def _slurm() -> str:
  if not slurm_engine.is_installed():
    raise RuntimeError('sbatch is not here')
  offers, default = slurm_engine.offers()
  names = dict.fromkeys(offer.partition for offer in offers)
  version = slurm_engine.command('sinfo', '--version').split()[-1]
  return f'{version}, partitions {", ".join(names)} (default: {default})'


def _offers(cluster: cluster_lib.Cluster) -> str:
  slurm_checks.check_offers(
    {
      kind: (resources, cluster.slurm_job(kind), 1)
      for kind, resources in cluster.resources.items()
    }
  )
  return f'there are some for {", ".join(cluster.resources)}'


def _node(cluster: cluster_lib.Cluster) -> str:
  """Runs a command on a node as workers would be run."""
  slurm = cluster.slurm
  python = slurm.python or shlex.quote(sys.executable)
  here = pathlib.Path.cwd()
  command = ' '.join(
    [python, '-c', *map(shlex.quote, (_ON_A_NODE, str(here), slurm.interface))]
  )
  options = [
    f'--{name}={value}'
    for name in ('partition', 'account', 'qos')
    if (value := getattr(slurm, name))
  ]
  script = f'{slurm.prologue}\n{command}'
  said = slurm_engine.command(
    *('srun', f'--immediate={_NODE_S}', '--time=3', '--ntasks=1', *options),
    *('bash', '-c', script),
    timeout_s=2.0 * _NODE_S,
  )
  host, address, found = said.split()[-3:]
  if found != 'True':
    raise RuntimeError(f'{host} does not see {here}, where runs would lie')
  return f'{host} ({address}) imports it, and sees {here}'


def _kubectl(settings: cluster_lib.Kubernetes) -> str:
  if not kubectl.is_installed():
    raise RuntimeError('kubectl is not here')
  namespace = settings.namespace
  refused = [
    ' '.join(right)
    for right in (*_RIGHTS, *(_JOB_SETS if settings.jobset else ()))
    if not kubectl.may(namespace, *right)
  ]
  if refused:
    raise RuntimeError(
      f'you may not do this in the namespace {namespace!r}: {", ".join(refused)}'
    )
  return f'may do all that a run needs in the namespace {namespace!r}'
