"""Answers a job's questions about Kubernetes, as seen from within a pod."""

from __future__ import annotations

from collections.abc import Collection
import os
import socket

from distacme.deploy import cluster as cluster_lib
from distacme.deploy import engine as engine_lib

# Variables of a pod, which its manifest sets: its own name, and that of the headless
# service that gives each of the run's pods a name of its own.
POD = 'DISTACME_POD'
SERVICE = 'DISTACME_SERVICE'


class KubernetesEngine:
  """An `engine.Engine`: Kubernetes, as seen from within a pod.

  A pod has no account at the cluster, and so cannot ask for others. It need not: a
  Job starts a lost pod of an index anew by itself, and whatever else a pod has to
  know lies in the run directory.
  """

  grace_s = 45.0  # of a minute

  def this_job(self) -> str:
    """Returns the name of this pod."""
    return os.environ.get(POD, '')

  def host(self, cluster: cluster_lib.Cluster) -> str:
    """Returns the name of this pod in the cluster's DNS.

    It stays when the pod is replaced by one with another address.

    Raises:
      ValueError: if this is no pod of a run.
    """
    del cluster
    service = os.environ.get(SERVICE)
    if not service:
      raise ValueError(
        f'{SERVICE} is not set, so that other pods could not find this one. Start '
        "workers by the manifests that 'distacme train --mode kubernetes' writes."
      )
    return f'{socket.gethostname()}.{service}'

  def state(self, job: str) -> engine_lib.JobState:
    """Returns that the state of a pod is not known here."""
    del job
    return engine_lib.JobState.UNKNOWN

  def is_cancelled(self) -> bool:
    """Returns False: a pod that is deleted comes back, and its run goes on.

    It may be evicted, or its node drained. 'distacme stop' ends the run itself.
    """
    return False

  def start_anew(self) -> bool:
    """Returns True: the exit code is enough for the Job to replace the pod."""
    return True

  def cancel(self, jobs: Collection[str]) -> bool:
    """Does nothing: the run's pods see its end in the run directory."""
    del jobs
    return True


ENGINE = KubernetesEngine()
