"""Faults of Kubernetes' manifests that the schemas do not show.

The schemas say nothing of names, quantities, ports, and of what refers to what: an API
server refuses such manifests, or pods wait for ever.
"""

from collections.abc import Iterator
import re
from typing import Any

LABEL = re.compile(r'[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?')  # RFC 1123
_VALUE = re.compile(r'([A-Za-z0-9]([A-Za-z0-9_.-]{0,61}[A-Za-z0-9])?)?')
_QUANTITY = re.compile(r'[0-9]+(\.[0-9]+)?(m|k|M|G|T|Ki|Mi|Gi|Ti)?')
_VARIABLE = re.compile(r'[A-Za-z_][A-Za-z0-9_]*')
_QUANTITIES = ('requests', 'limits')
_PORTS = ('port', 'containerPort', 'targetPort')
# A number that the pod's name ends with, and a dash.
_RANDOM = 6


def faults(documents: list[dict[str, Any]]) -> Iterator[str]:
  """Yields a sentence for each fault of the objects of a run."""
  names = {(d['kind'], d['metadata']['name']) for d in documents}
  if len(names) < len(documents):
    yield 'two objects have one name'
  if len({d['metadata']['namespace'] for d in documents}) > 1:
    yield 'the objects are in several namespaces'
  for document in documents:
    where = f'{document["kind"]} {document["metadata"]["name"]}'
    for fault in _of_object(document):
      yield f'{where}: {fault}'
  for job in jobs(documents):
    where = f'Job {job["metadata"]["name"]}'
    for fault in (*_of_job(job), *_of_pod(job, documents)):
      yield f'{where}: {fault}'


def jobs(documents: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
  """Yields all Jobs, those in a JobSet as its controller makes them."""
  for document in documents:
    if document['kind'] == 'Job':
      yield document
    elif document['kind'] == 'JobSet':
      head = document['metadata']
      for part in document['spec']['replicatedJobs']:
        yield {
          'apiVersion': 'batch/v1',
          'kind': 'Job',
          'metadata': {
            **part['template']['metadata'],
            'name': f'{head["name"]}-{part["name"]}-0',
            'namespace': head['namespace'],
          },
          'spec': part['template']['spec'],
        }


def _of_object(document: dict[str, Any]) -> Iterator[str]:
  metadata = document['metadata']
  if not LABEL.fullmatch(metadata['name']):
    yield f'{metadata["name"]!r} is no label of RFC 1123'
  if document['kind'] == 'Service' and not metadata['name'][0].isalpha():
    yield 'the name of a Service begins with a letter (RFC 1035)'
  for labels in _found(document, 'labels', 'matchLabels', 'selector'):
    for key, value in labels.items() if isinstance(labels, dict) else ():
      name = key.rpartition('/')[2]
      if not name or len(name) > 63 or not isinstance(value, str):
        yield f'{key}: {value!r} is no label'
      elif not _VALUE.fullmatch(value):
        yield f'{value!r} is no value of a label'
  for amounts in _found(document, *_QUANTITIES):
    for amount in amounts.values():
      if not _QUANTITY.fullmatch(amount):
        yield f'{amount!r} is no quantity'
  for port in _found(document, *_PORTS):
    if not isinstance(port, int) or not 0 < port < 1 << 16:
      yield f'{port!r} is no port'
  for value in document.get('data', {}).values():
    if not isinstance(value, str):
      yield f'{value!r} is no text'


def _found(value: Any, *names: str) -> Iterator[Any]:
  """Yields what stands under one of these names, at any depth."""
  if isinstance(value, dict):
    for key, inner in value.items():
      if key in names:
        yield inner
      yield from _found(inner, *names)
  elif isinstance(value, list):
    for inner in value:
      yield from _found(inner, *names)


def _of_job(job: dict[str, Any]) -> Iterator[str]:
  spec = job['spec']
  pod = spec['template']['spec']
  last = f'{job["metadata"]["name"]}-{spec["completions"] - 1}'
  if len(last) + _RANDOM > 63:
    yield f'the names of pods like {last} are too long'
  if spec.get('completionMode') != 'Indexed':
    yield 'pods have no numbers without completionMode: Indexed'
  if spec['parallelism'] != spec['completions']:
    yield 'not all of its pods run at once'
  if pod.get('restartPolicy') != 'Never':
    yield f'restartPolicy is {pod.get("restartPolicy")}: podFailurePolicy wants Never'
  containers = {each['name'] for each in pod['containers']}
  for rule in spec['podFailurePolicy']['rules']:
    named = rule.get('onExitCodes', {}).get('containerName')
    if named and named not in containers:
      yield f'a rule is for the container {named}, which there is not'
    if 0 in rule.get('onExitCodes', {}).get('values', []):
      yield 'a rule takes the exit code 0 for a failure'


def _of_pod(
  job: dict[str, Any], documents: list[dict[str, Any]]
) -> Iterator[str]:
  template = job['spec']['template']
  pod, labels = template['spec'], template['metadata']['labels']
  yield from _of_network(pod, labels, documents)
  yield from _of_volumes(pod, documents)
  security = pod.get('securityContext', {})
  if not security.get('runAsNonRoot') or not security.get('runAsUser'):
    yield 'its processes are root'
  if pod.get('automountServiceAccountToken') is not False:
    yield 'it has an account at the cluster'
  for container in pod['containers']:
    yield from _of_container(container)


def _of_network(
  pod: dict[str, Any],
  labels: dict[str, str],
  documents: list[dict[str, Any]],
) -> Iterator[str]:
  own = [d for d in documents if d['kind'] == 'JobSet']
  if own:  # its controller makes the Service
    if not own[0]['spec']['network']['enableDNSHostnames']:
      yield 'the JobSet gives its pods no names'
    if own[0]['spec']['network']['subdomain'] != pod.get('subdomain'):
      yield 'the JobSet gives its pods another subdomain'
  else:
    services = [
      d['spec']
      for d in documents
      if d['kind'] == 'Service'
      and d['metadata']['name'] == pod.get('subdomain')
    ]
    if not services:
      yield f'no Service is called {pod.get("subdomain")}, its subdomain'
    for spec in services:
      if spec.get('clusterIP') != 'None':
        yield 'its Service is not headless'
      if not spec.get('publishNotReadyAddresses'):
        yield 'its Service does not name pods that are not ready'
      if not spec['selector'].items() <= labels.items():
        yield 'its Service does not select it'
  policies = [d['spec'] for d in documents if d['kind'] == 'NetworkPolicy']
  if not policies:
    yield 'no NetworkPolicy guards it'
  for spec in policies:
    sources = [
      each for rule in spec['ingress'] for each in rule.get('from', [{}])
    ]
    for selector in (spec, *sources):
      chosen = selector.get('podSelector', {}).get('matchLabels', {})
      if not chosen or not chosen.items() <= labels.items():
        yield f'its NetworkPolicy is for {chosen}'


def _of_volumes(
  pod: dict[str, Any], documents: list[dict[str, Any]]
) -> Iterator[str]:
  volumes = {each['name'] for each in pod['volumes']}
  mounts = [m for c in pod['containers'] for m in c['volumeMounts']]
  mounted = {each['name'] for each in mounts}
  if missing := mounted - volumes:
    yield f'it mounts no volume of its own: {missing}'
  if unused := volumes - mounted:
    yield f'it mounts nowhere: {unused}'
  paths = [each['mountPath'] for each in mounts]
  if len(set(paths)) < len(paths):
    yield 'it mounts two volumes at one path'
  there = {(d['kind'], d['metadata']['name']) for d in documents}
  for volume in pod['volumes']:
    for part, kind, name in (
      ('configMap', 'ConfigMap', 'name'),
      ('secret', 'Secret', 'secretName'),
      ('persistentVolumeClaim', 'PersistentVolumeClaim', 'claimName'),
    ):
      if part in volume and (kind, volume[part][name]) not in there:
        yield f'no {kind} is called {volume[part][name]}'


def _of_container(container: dict[str, Any]) -> Iterator[str]:
  security = container.get('securityContext', {})
  if not security.get('readOnlyRootFilesystem'):
    yield 'its root is writable'
  if security.get('capabilities', {}).get('drop') != ['ALL']:
    yield 'it has capabilities'
  if security.get('allowPrivilegeEscalation') is not False:
    yield 'it may become root'
  if container['resources']['limits'] != container['resources']['requests']:
    yield 'its limits are not its requests'
  names = [each['name'] for each in container['env']]
  if len(set(names)) < len(names):
    yield 'a variable stands twice'
  for name in names:
    if not _VARIABLE.fullmatch(name):
      yield f'{name!r} is no variable'
  writable = [
    mount['mountPath']
    for mount in container['volumeMounts']
    if not mount.get('readOnly')
  ]
  values = {each['name']: each.get('value', '') for each in container['env']}
  needed = [values['HOME'], values['DISTACME_ALIVE'], container['args'][0]]
  for path in needed:
    if not any(f'{path}/'.startswith(f'{place}/') for place in writable):
      yield f'{path} is not writable'
