"""Reads the states of Kubernetes' Jobs and pods."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from distacme.deploy import kubernetes_manifests

# Labels of a pod: its index among those of its Job, and the Job.
INDEX = 'batch.kubernetes.io/job-completion-index'
JOB = 'batch.kubernetes.io/job-name'
_ENDED = ('Complete', 'Completed', 'Failed')  # of a Job, and of a JobSet
_GONE = ('Succeeded', 'Failed')


def has_ended(job: Mapping[str, Any]) -> bool:
  """Returns whether a Job or a JobSet has ended; what is queued has not."""
  return any(
    each['type'] in _ENDED and each['status'] == 'True'
    for each in job.get('status', {}).get('conditions', [])
  )


def of_workers(
  jobs: Sequence[Mapping[str, Any]], pods: Sequence[Mapping[str, Any]]
) -> dict[str, str]:
  """Returns the state of each worker whose Job goes on, in words."""
  newest = {
    (labels.get(JOB), labels.get(INDEX)): pod
    for pod in sorted(
      pods, key=lambda pod: pod['metadata']['creationTimestamp']
    )
    if (labels := pod['metadata'].get('labels', {}))
  }
  found = {}
  for job in jobs:
    if has_ended(job):
      continue
    kind = job['metadata']['labels'][kubernetes_manifests.KIND_LABEL]
    done = {*_indexes(job, 'completedIndexes'), *_indexes(job, 'failedIndexes')}
    for index in range(job['spec']['completions']):
      if index not in done:
        pod = newest.get((job['metadata']['name'], f'{index}'))
        found[f'{kind}/{index}'] = _state(job, pod)
  return found


def message(pods: Sequence[Mapping[str, Any]]) -> str:
  """Returns how the run ended, as the pod of its variable server said; '' if it has not."""
  for pod in sorted(pods, key=_age, reverse=True):
    labels = pod['metadata'].get('labels', {})
    if labels.get(kubernetes_manifests.KIND_LABEL) != 'variables':
      continue
    for container in pod.get('status', {}).get('containerStatuses', []):
      ended = container.get('state', {}).get('terminated', {})
      if text := ended.get('message', ''):
        return str(text)
  return ''


def _age(pod: Mapping[str, Any]) -> str:
  """Returns the time of a pod's start, in a form that can be ordered."""
  return str(pod['metadata']['creationTimestamp'])


def _indexes(job: Mapping[str, Any], name: str) -> Iterator[int]:
  """Yields the indexes of a text like '1,3-5'."""
  text = job.get('status', {}).get(name, '')
  for part in text.split(',') if text else ():
    first, _, last = part.partition('-')
    yield from range(int(first), int(last or first) + 1)


def _state(job: Mapping[str, Any], pod: Mapping[str, Any] | None) -> str:
  """Returns the state of a worker, and why it waits."""
  if job['spec'].get('suspend'):
    return 'suspended: its queue has not admitted it'
  if pod is None:
    return 'without a pod yet'
  status = pod.get('status', {})
  words = [status.get('phase', 'Unknown')]
  if node := pod.get('spec', {}).get('nodeName'):
    words.append(f'on {node}')
  if why := next(_reasons(status), ''):
    words.append(f'({why})')
  if words[0] in _GONE:
    words.append('and is replaced')
  return ' '.join(words)


def _reasons(status: Mapping[str, Any]) -> Iterator[str]:
  """Yields reasons why a pod does not run: of its container, and of its node."""
  for container in status.get('containerStatuses', []):
    for state in container.get('state', {}).values():
      reason = state.get('reason')
      if reason and reason != 'Completed':
        code = state.get('exitCode')
        yield reason if code is None else f'{reason}, exit code {code}'
  if reason := status.get('reason'):
    yield reason
  for condition in status.get('conditions', []):
    if condition['status'] == 'False' and condition['type'] == 'PodScheduled':
      yield condition.get('message') or condition.get('reason', '')
