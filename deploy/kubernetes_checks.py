"""Refuses runs whose name another run has in Kubernetes, or that go on there."""

from __future__ import annotations

from distacme.deploy import kubectl
from distacme.deploy import kubernetes_files
from distacme.deploy import kubernetes_manifests as manifests
from distacme.deploy import kubernetes_states


def check_free(run: manifests.Run) -> None:
  """Refuses a name that another run has, and a run that goes on.

  Raises:
    ValueError: if it does.
    KubectlError: if the cluster does not answer.
  """
  namespace = run.cluster.kubernetes.namespace
  selector = ('--selector', kubernetes_files.selector(run))
  if other := namesake(run):
    raise ValueError(
      f'the run of another directory, {other}, is called {run.name} in the '
      f'namespace {namespace!r}. Choose another run_dir, whose last part is the '
      'name there; or, if nobody needs that run any more: kubectl delete '
      f'configmap,pvc {run.name} --namespace {namespace}'
    )
  active = [
    job['metadata']['name']
    for job in kubectl.objects(namespace, 'jobs', *selector)
    if not kubernetes_states.has_ended(job)
  ]
  if active:
    raise ValueError(
      f'{run.name} goes on in the namespace {namespace!r}: {", ".join(active)}. End '
      "it by 'distacme stop', or choose another run_dir."
    )


def namesake(run: manifests.Run) -> str:
  """Returns the directory of another run that has a run's name; '' if none has.

  Raises:
    KubectlError: if the cluster does not answer.
  """
  known = kubectl.objects(
    run.cluster.kubernetes.namespace,
    'configmaps',
    '--selector',
    kubernetes_files.selector(run),
  )
  for each in known:
    notes = each['metadata'].get('annotations', {})
    if each['metadata']['name'] == run.name and (
      not run.id or notes.get(manifests.ID) != run.id
    ):
      return str(notes.get(manifests.ORIGIN, 'which is not known'))
  return ''
