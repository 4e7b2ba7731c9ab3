"""Refuses pods that no node of a cluster of Kubernetes could take."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
import json
import logging
import math
import re
from typing import Any

from distacme.deploy import cluster as cluster_lib
from distacme.deploy import kubectl
from distacme.deploy import kubernetes_manifests as manifests

_QUANTITY = re.compile(r'(\d*\.?\d+(?:[eE][+-]?\d+)?)([a-zA-Z]*)')
_UNITS = {
  '': 1.0,
  'm': 1e-3,
  'k': 1e3,
  **{f'{unit}': 1e3**power for power, unit in enumerate('MGTPE', 2)},
  **{f'{unit}i': 1024.0**power for power, unit in enumerate('KMGTPE', 1)},
}


def check(run: manifests.Run) -> None:
  """Refuses resources that no node offers, where the nodes may be listed.

  Taints and other pods are not looked at: such pods wait, and their state says why.

  Raises:
    ValueError: if a pod could never start; it names the field and the most there is.
  """
  settings = run.cluster.kubernetes
  if settings.autoscaled:
    return
  try:
    nodes = kubectl.objects(settings.namespace, 'nodes')
  except kubectl.KubectlError as error:
    logging.info('whether nodes are large enough is not known: %s', error)
    return
  if not nodes:  # it has those of others, or makes them
    logging.info('whether nodes are large enough is not known: none is listed')
    return
  for kind in run.kinds:
    pod = run.cluster.kubernetes_pod(kind)
    _check_fits(
      kind, run.cluster.resources[kind], pod, _selected(kind, pod, nodes)
    )


def amount(quantity: str) -> float:
  """Returns an amount like '7910m' or '16Gi'; infinity if it cannot be read."""
  match = _QUANTITY.fullmatch(quantity)
  if match is None or match[2] not in _UNITS:
    return math.inf
  return float(match[1]) * _UNITS[match[2]]


def _selected(
  kind: str,
  pod: cluster_lib.KubernetesPod,
  nodes: Sequence[Mapping[str, Any]],
) -> list[Mapping[str, str]]:
  """Returns the resources of each node that has the labels of a kind.

  Raises:
    ValueError: if there is none.
  """
  wanted = pod.node_selector.items()
  found: list[Mapping[str, str]] = [
    node.get('status', {}).get('allocatable', {})
    for node in nodes
    if wanted <= node['metadata'].get('labels', {}).items()
  ]
  if not found:
    raise ValueError(
      f'node_selector of {kind} is {json.dumps(dict(pod.node_selector))}, and none '
      f'of the {len(nodes)} nodes has these labels. {_remedy("Name others")}'
    )
  return found


def _check_fits(
  kind: str,
  resources: cluster_lib.Resources,
  pod: cluster_lib.KubernetesPod,
  nodes: Sequence[Mapping[str, str]],
) -> None:
  asked = {
    'cpus': resources.cpus,
    'memory': cluster_lib.mebibytes(resources.memory),
    'gpus': resources.gpus,
  }
  offered = [
    {
      'cpus': amount(node.get('cpu', '0')),
      'memory': amount(node.get('memory', '0')) / 2**20,
      'gpus': amount(node.get(pod.gpu_resource, '0')),
    }
    for node in nodes
  ]
  if any(all(asked[k] <= each[k] for k in asked) for each in offered):
    return
  of_labels = ' with the labels of node_selector' if pod.node_selector else ''
  for field, unit in (('cpus', ''), ('memory', 'M'), ('gpus', '')):
    most = max(each[field] for each in offered)
    if asked[field] > most:
      what = f' ({pod.gpu_resource})' if field == 'gpus' else ''
      most = math.floor(10 * most) / 10  # never as much as is asked for
      raise ValueError(
        f'{field} of {kind} is {asked[field]}{unit}{what}, and the most that a '
        f'node{of_labels} offers is {most:.12g}{unit}. {_remedy("Ask for less")}'
      )
  raise ValueError(
    f'no node{of_labels} offers all that {kind} asks for together: '
    f'{resources.cpus} cpus, {asked["memory"]}M of memory, {resources.gpus} gpus. '
    f'{_remedy("Ask for less")}'
  )


def _remedy(change: str) -> str:
  return (
    f'{change} in cluster.toml; or, if nodes come when pods ask for them, set '
    'autoscaled = true in [kubernetes].'
  )
