"""Describes a run's objects in Kubernetes, as data; asks no cluster."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
import dataclasses
import hashlib
import pathlib
import re
from typing import Any

from distacme.deploy import cluster as cluster_lib
from distacme.deploy import kubernetes_engine
from distacme.deploy import records
from distacme.deploy import share
from distacme.runtime import topology

Manifest = dict[str, Any]

# The folder in which all pods see the volume. Not the volume itself is the run
# directory: a file system may have a folder lost+found, which is no run's.
VOLUME = pathlib.PurePosixPath('/runs')
# What the submission brings, and only the pod of the variable server sees the secrets:
# it puts them into the run directory.
SUBMITTED = pathlib.PurePosixPath('/etc/distacme/submitted')
SECRETS = pathlib.PurePosixPath('/etc/distacme/secrets')
# The pod of the variable server says here how the run ended: the cluster keeps it as
# the pod's message, also when the pod has ended.
MESSAGE = pathlib.PurePosixPath('/dev/termination-log')
# The exit code of a pod whose run has failed (EX_SOFTWARE of sysexits.h). Not 1, by
# which Python itself ends, as where the volume is away: that pod is replaced.
RUN_FAILED = 70
CONTAINER = 'worker'
# Annotations: the number of the run, and its directory where it was submitted.
ID = 'distacme/run-id'
ORIGIN = 'distacme/run-directory'
RUN_LABEL = 'app.kubernetes.io/instance'
KIND_LABEL = 'app.kubernetes.io/component'

_QUEUE_LABEL = 'kueue.x-k8s.io/queue-name'
# The names of pods are this and '-variables-0-12345': 63 characters at most.
_LONGEST_NAME = 40
# More than supervision needs, which ends a run that fails again and again: it can say
# why. With fewer a Job would give up an index in silence.
_FAILURES_OF_INDEX = 1000
# Workers have 20 s to save, which begin when the signal comes.
_GRACE_S = 60
# The supervisor's loop writes the file every second, but for a minute and a half in
# which it may wait for the variable server. One that stands still for longer than
# that hangs, and nobody within the pod would restart it.
_ALIVE = '/tmp/alive'
_ALIVE_S = 600


@dataclasses.dataclass(frozen=True)
class Run:
  """A run, as its manifests need it.

  Attributes:
    name: of its objects; see `name_of`.
    id: its number, which no other run of that name has.
    origin: its run directory on the machine that submits it.
    program: its workers.
    cluster: the cluster, as the user describes it.
  """

  name: str
  id: str
  origin: str
  program: topology.Program
  cluster: cluster_lib.Cluster

  @property
  def directory(self) -> pathlib.PurePosixPath:
    """The run directory in every pod."""
    return VOLUME / self.name

  @property
  def kinds(self) -> list[str]:
    """The kinds of workers with a process of their own, a Job each."""
    return list(dict.fromkeys(spec.kind for spec in self.program.owners()))

  def count(self, kind: str) -> int:
    """Returns the number of workers of a kind."""
    return sum(spec.kind == kind for spec in self.program.owners())

  def job(self, kind: str) -> str:
    """Returns the name of the Job of a kind."""
    name = f'{self.name}-{kind}'
    return f'{name}-0' if self.cluster.kubernetes.jobset else name

  def labels(self, kind: str = '') -> dict[str, str]:
    """Returns the labels of the run's objects, or of those of a kind."""
    labels = {
      'app.kubernetes.io/name': 'distacme',
      RUN_LABEL: self.name,
    }
    return {**labels, KIND_LABEL: kind} if kind else labels


def name_of(path: pathlib.PurePath) -> str:
  """Returns the name of a run's objects, made from that of its run directory.

  It is a label of the cluster's DNS: lower case letters, digits and dashes, the first
  a letter. One that is cut is told apart by a hash.
  """
  title = records.title_of(path)
  name = re.sub(r'[^a-z0-9]+', '-', title.lower()).strip('-')
  if not name or not name[0].isalpha():
    name = f'run-{name}'.rstrip('-')
  if len(name) > _LONGEST_NAME:
    digest = hashlib.sha256(title.encode()).hexdigest()[:6]
    name = f'{name[: _LONGEST_NAME - 7].rstrip("-")}-{digest}'
  return name


def secret(run: Run, secrets: Mapping[str, str]) -> Manifest:
  """Returns the Secret with a run's key and token."""
  return {
    **_head('v1', 'Secret', run, run.name),
    'type': 'Opaque',
    'stringData': dict(secrets),
  }


def objects(run: Run, files: Mapping[str, str]) -> Iterator[Manifest]:
  """Yields all objects of a run but its Secret.

  Args:
    run: to be described.
    files: texts that pods read in `SUBMITTED`, by name.
  """
  config_map = _head('v1', 'ConfigMap', run, run.name)
  config_map['metadata']['annotations'] = {ID: run.id, ORIGIN: run.origin}
  yield {**config_map, 'data': dict(files)}
  yield _claim(run)
  if not run.cluster.kubernetes.jobset:  # which makes its own
    yield _service(run)
  yield _network_policy(run)
  if run.cluster.kubernetes.jobset:
    yield _job_set(run)
    return
  for kind in run.kinds:
    yield _job(run, kind)


def reader(run: Run) -> Manifest:
  """Returns a pod that shows the volume to `kubectl cp`, also after the run."""
  pod = _pod(run, 'variables')
  container = pod['containers'][0]
  container['command'], container['args'] = ['sleep'], ['86400']
  container['resources'] = _resources(cluster_lib.Resources(), '')
  container['volumeMounts'] = [
    mount
    for mount in container['volumeMounts']
    if mount['name'] in ('run', 'tmp')
  ]
  del container['livenessProbe'], container['env']
  names = [mount['name'] for mount in container['volumeMounts']]
  pod['volumes'] = [each for each in pod['volumes'] if each['name'] in names]
  del pod['subdomain']
  head = _head('v1', 'Pod', run, f'{run.name}-reader')
  # No label of the run: the run's network is not for this pod.
  head['metadata']['labels'] = {'app.kubernetes.io/name': 'distacme-reader'}
  return {**head, 'spec': pod}


def _head(
  version: str, what: str, run: Run, name: str, kind: str = ''
) -> Manifest:
  return {
    'apiVersion': version,
    'kind': what,
    'metadata': {
      'name': name,
      'namespace': run.cluster.kubernetes.namespace,
      'labels': run.labels(kind),
    },
  }


def _claim(run: Run) -> Manifest:
  settings = run.cluster.kubernetes
  storage = f'{cluster_lib.mebibytes(settings.storage)}Mi'
  spec: Manifest = {
    # Pods on several nodes write: logs and endpoints, checkpoints, metrics.
    'accessModes': ['ReadWriteMany'],
    'resources': {'requests': {'storage': storage}},
  }
  if settings.storage_class:
    spec['storageClassName'] = settings.storage_class
  return {
    **_head('v1', 'PersistentVolumeClaim', run, run.name),
    'spec': spec,
  }


def _service(run: Run) -> Manifest:
  """Returns the headless service, which gives each pod its name."""
  return {
    **_head('v1', 'Service', run, run.name),
    'spec': {
      'clusterIP': 'None',
      # Pods find each other before any is ready, and there is nobody to wait for.
      'publishNotReadyAddresses': True,
      'selector': {RUN_LABEL: run.name},
    },
  }


def _network_policy(run: Run) -> Manifest:
  """Returns the policy that lets in only the run's own pods, at every port."""
  own = {'matchLabels': {RUN_LABEL: run.name}}
  return {
    **_head('networking.k8s.io/v1', 'NetworkPolicy', run, run.name),
    'spec': {
      'podSelector': own,
      'policyTypes': ['Ingress'],
      'ingress': [{'from': [{'podSelector': own}]}],
    },
  }


def _job_set(run: Run) -> Manifest:
  """Returns all kinds of workers as one object, which ends when the run does."""
  head = _head('jobset.x-k8s.io/v1alpha2', 'JobSet', run, run.name)
  _queue(head, run)
  return {
    **head,
    'spec': {
      **_suspended(run),
      'network': {
        'enableDNSHostnames': True,
        'subdomain': run.name,
        'publishNotReadyAddresses': True,
      },
      'successPolicy': {
        'operator': 'All',
        'targetReplicatedJobs': ['variables'],
      },
      # Each Job replaces its own pods; if one gives up, the run has failed.
      'failurePolicy': {'maxRestarts': 0},
      'replicatedJobs': [
        {
          'name': kind,
          'replicas': 1,
          'template': {
            'metadata': {'labels': run.labels(kind)},
            'spec': _job_spec(run, kind),
          },
        }
        for kind in run.kinds
      ],
    },
  }


def _job(run: Run, kind: str) -> Manifest:
  head = _head('batch/v1', 'Job', run, run.job(kind), kind)
  _queue(head, run)
  return {**head, 'spec': {**_suspended(run), **_job_spec(run, kind)}}


def _queue(head: Manifest, run: Run) -> None:
  if run.cluster.kubernetes.queue:
    head['metadata']['labels'][_QUEUE_LABEL] = run.cluster.kubernetes.queue


def _suspended(run: Run) -> Manifest:
  return {'suspend': True} if run.cluster.kubernetes.queue else {}


def _job_spec(run: Run, kind: str) -> Manifest:
  """Returns the spec of an Indexed Job: a pod for each worker of a kind.

  Workers are restarted within their pod first. A pod that ends nevertheless is
  replaced, unless its run has failed, or is done. One that was evicted counts as no
  failure. No two pods of an index are there at once: each writes its worker's files.
  """
  return {
    'completionMode': 'Indexed',
    'completions': run.count(kind),
    'parallelism': run.count(kind),
    'backoffLimitPerIndex': _FAILURES_OF_INDEX,
    'podReplacementPolicy': 'Failed',
    'podFailurePolicy': {
      'rules': [
        {
          'action': 'Ignore',
          'onPodConditions': [{'type': 'DisruptionTarget', 'status': 'True'}],
        },
        {
          'action': 'FailJob',
          'onExitCodes': {
            'containerName': CONTAINER,
            'operator': 'In',
            'values': [RUN_FAILED],
          },
        },
      ]
    },
    'template': {
      'metadata': {'labels': run.labels(kind)},
      'spec': _pod(run, kind),
    },
  }


def _pod(run: Run, kind: str) -> Manifest:
  settings = run.cluster.kubernetes_pod(kind)
  user = run.cluster.kubernetes.user_id
  spec: Manifest = {
    'restartPolicy': 'Never',  # the Job replaces the pod: podFailurePolicy
    'subdomain': run.name,
    'terminationGracePeriodSeconds': _GRACE_S,
    'automountServiceAccountToken': False,  # workers ask the cluster nothing
    'enableServiceLinks': False,
    'securityContext': {
      'runAsNonRoot': True,
      'runAsUser': user,
      'runAsGroup': user,
      'fsGroup': user,
      # Else each pod would let the group write to every file, and the run's secrets
      # are refused where others can read them.
      'fsGroupChangePolicy': 'OnRootMismatch',
      'seccompProfile': {'type': 'RuntimeDefault'},
    },
    'containers': [_container(run, kind, settings)],
    'volumes': list(_volumes(run, kind)),
  }
  if settings.node_selector:
    spec['nodeSelector'] = dict(settings.node_selector)
  if settings.tolerations:
    spec['tolerations'] = [dict(each) for each in settings.tolerations]
  return spec


def _container(
  run: Run, kind: str, settings: cluster_lib.KubernetesPod
) -> Manifest:
  resources = run.cluster.resources[kind]
  secrets = ['--secrets', str(SECRETS)] if kind == 'variables' else []
  return {
    'name': CONTAINER,
    'image': run.cluster.kubernetes.image,
    'command': ['python', '-m', 'distacme.deploy.kubernetes_pod'],
    'args': [
      str(run.directory),
      kind,
      '--submitted',
      str(SUBMITTED),
      *secrets,
    ],
    'env': [
      {
        'name': kubernetes_engine.POD,
        'valueFrom': {'fieldRef': {'fieldPath': 'metadata.name'}},
      },
      {'name': kubernetes_engine.SERVICE, 'value': run.name},
      {'name': share.ALIVE, 'value': _ALIVE},
      {'name': 'HOME', 'value': '/tmp'},
      # By themselves XLA and OpenMP take a thread for each core of the node.
      {'name': 'NPROC', 'value': f'{resources.cpus}'},
      {'name': 'OMP_NUM_THREADS', 'value': f'{resources.cpus}'},
    ],
    'resources': _resources(resources, settings.gpu_resource),
    'livenessProbe': {
      'exec': {
        'command': [
          'sh',
          '-c',
          f'test $(($(date +%s) - $(stat -c %Y {_ALIVE}))) -lt {_ALIVE_S}',
        ]
      },
      'initialDelaySeconds': 120,  # Python imports from a cold disk
      'periodSeconds': 60,
      'timeoutSeconds': 10,
      'failureThreshold': 3,
    },
    'securityContext': {
      'allowPrivilegeEscalation': False,
      'readOnlyRootFilesystem': True,
      'capabilities': {'drop': ['ALL']},
    },
    'terminationMessagePath': str(MESSAGE),
    'terminationMessagePolicy': 'FallbackToLogsOnError',
    'volumeMounts': list(_mounts(kind)),
  }


def _resources(resources: cluster_lib.Resources, gpu_resource: str) -> Manifest:
  """Returns resources, with limits as large as the requests: none is overbooked."""
  amounts = {
    'cpu': f'{resources.cpus}',
    'memory': f'{cluster_lib.mebibytes(resources.memory)}Mi',
  }
  if resources.gpus:
    amounts[gpu_resource] = f'{resources.gpus}'
  return {'requests': amounts, 'limits': dict(amounts)}


def _mounts(kind: str) -> Iterator[Manifest]:
  yield {'name': 'run', 'mountPath': str(VOLUME)}
  yield {'name': 'submitted', 'mountPath': str(SUBMITTED), 'readOnly': True}
  if kind == 'variables':
    yield {'name': 'secrets', 'mountPath': str(SECRETS), 'readOnly': True}
  yield {'name': 'tmp', 'mountPath': '/tmp'}
  yield {'name': 'shared-memory', 'mountPath': '/dev/shm'}


def _volumes(run: Run, kind: str) -> Iterator[Manifest]:
  yield {'name': 'run', 'persistentVolumeClaim': {'claimName': run.name}}
  yield {'name': 'submitted', 'configMap': {'name': run.name}}
  if kind == 'variables':
    yield {
      'name': 'secrets',
      'secret': {'secretName': run.name, 'defaultMode': 0o400},
    }
  yield {'name': 'tmp', 'emptyDir': {}}
  # For libraries of environments: a container's own has 64 MB.
  yield {'name': 'shared-memory', 'emptyDir': {'medium': 'Memory'}}
