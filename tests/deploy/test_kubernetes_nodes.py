"""Resources that no node of a cluster of Kubernetes offers, from what kubectl lists."""

import math

import pytest

from distacme.deploy import cluster as cluster_lib
from distacme.deploy import kubectl
from distacme.deploy import kubernetes_manifests as manifests
from distacme.deploy import kubernetes_nodes
from distacme.programs import program as program_lib
from distacme.programs import run_config

POOL = {'pool': 'gpu'}
# As a kubelet says them; the second node has the GPUs, and fewer cores.
NODES = [
  {
    'metadata': {'name': 'node0', 'labels': {}},
    'status': {'allocatable': {'cpu': '15890m', 'memory': '32883900Ki'}},
  },
  {
    'metadata': {'name': 'node1', 'labels': {**POOL, 'zone': 'a'}},
    'status': {
      'allocatable': {'cpu': '8', 'memory': '64Gi', 'nvidia.com/gpu': '4'}
    },
  },
]


def check(monkeypatch, toml, nodes=NODES):
  """Checks a run against nodes; returns what was asked of the cluster."""
  asked = []

  def objects(namespace, what, *selection):
    asked.append((namespace, what, *selection))
    if isinstance(nodes, Exception):
      raise nodes
    return nodes

  monkeypatch.setattr(kubectl, 'objects', objects)
  program = program_lib.make_program(
    run_config.RunConfig(agent='dqn', env='jax:catch', mode='kubernetes')
  )
  kubernetes_nodes.check(
    manifests.Run('run', '1', 'here', program, cluster_lib.parse(toml))
  )
  return asked


def test_what_some_node_offers_is_taken(monkeypatch):
  assert check(monkeypatch, '') == [('default', 'nodes')]
  check(monkeypatch, '[learner]\ncpus = 8\nmemory = "64G"\ngpus = 4')
  check(monkeypatch, '[actor]\ncpus = 15\n[learner]\ngpus = 1')
  check(monkeypatch, '[kubernetes]\nnode_selector = {pool = "gpu"}')


@pytest.mark.parametrize(
  'toml, sentence',
  [
    (
      '[actor]\ncpus = 16',
      'cpus of actor is 16, and the most that a node offers ',
    ),
    ('[actor]\ncpus = 16', r'offers is 15\.8\. Ask for less'),
    (
      '[actor]\nmemory = "65G"',
      'memory of actor is 66560M, .* offers is 65536M',
    ),
    (
      '[learner]\ngpus = 8',
      r'gpus of learner is 8 \(nvidia.*\), .* offers is 4',
    ),
    (
      '[learner]\ngpus = 1\n[kubernetes]\ngpu_resource = "amd.com/gpu"',
      r'gpus of learner is 1 \(amd\.com/gpu\), .* offers is 0\.',
    ),
    (
      '[actor]\ncpus = 9\n[kubernetes.actor]\nnode_selector = {pool = "gpu"}',
      'cpus of actor is 9, .* a node with the labels of node_selector offers is 8',
    ),
    (
      '[kubernetes.learner]\nnode_selector = {pool = "tpu"}',
      'node_selector of learner is {"pool": "tpu"}, and none of the 2 nodes has',
    ),
    (
      '[learner]\ncpus = 9\ngpus = 1',
      'no node offers all that learner asks for together: 9 cpus, 8192M .* 1 gpus',
    ),
  ],
)
def test_what_no_node_offers_is_refused(monkeypatch, toml, sentence):
  with pytest.raises(ValueError, match=sentence) as refusal:
    check(monkeypatch, toml)
  assert 'set autoscaled = true' in str(refusal.value)


def test_nodes_that_come_when_asked_for_are_not_looked_at(monkeypatch):
  toml = '[actor]\ncpus = 999\n[kubernetes]\nautoscaled = true'
  assert not check(monkeypatch, toml)


@pytest.mark.parametrize('nodes', [kubectl.KubectlError('forbidden'), []])
def test_nodes_that_are_not_listed_are_logged(monkeypatch, caplog, nodes):
  caplog.set_level('INFO')
  check(monkeypatch, '[actor]\ncpus = 999', nodes)
  assert 'whether nodes are large enough is not known' in caplog.text


@pytest.mark.parametrize(
  'quantity, number',
  [
    ('8', 8),
    ('7910m', 7.91),
    ('.5', 0.5),
    ('1e3', 1000),
    ('1E', 1e18),
    ('2k', 2000),
    ('129M', 129e6),
    ('3Ki', 3072),
    ('16Gi', 2**34),
    ('1Ei', 2**60),
    ('some', math.inf),
    ('3Q', math.inf),
  ],
)
def test_quantities_of_kubernetes_are_numbers(quantity, number):
  assert kubernetes_nodes.amount(quantity) == pytest.approx(number)
