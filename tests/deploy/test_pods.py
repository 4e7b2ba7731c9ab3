"""What the pods of a run would run is run, as far as this host can pretend to be one.

See `tests/deploy/pods.py` for what is real in it, and what is not.
"""

import json
import pathlib
import signal
import subprocess
import sys

import pytest

from distacme import status as status_lib
from distacme.deploy import records
from distacme.run import run_directory
from tests.deploy import pods as pods_lib

SCRIPT = pathlib.Path(sys.executable).with_name('distacme')
CATCH = 'distacme.testing.environments:catch'
CLUSTER = """
[kubernetes]
image = "registry.example/distacme:1"
user_id = 12345
"""
QUICK = (
  '--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true'
)
# Prints the status, as seen beside the variable server.
STATUS = """
import json, pathlib, sys
from distacme.run import endpoints
from distacme.variables import client
server = endpoints.find(pathlib.Path(sys.argv[1]) / 'endpoints', 'variables/0')
print(json.dumps(client.status(server, timeout_s=5).to_dict()))
"""


def submit(run_dir, *flags):
  """Writes the manifests of a run; returns their paths."""
  cluster = run_dir.with_name('cluster.toml')
  cluster.write_text(CLUSTER)
  done = subprocess.run(
    [SCRIPT, 'train', '--agent', 'dqn', '--env', CATCH, '--run-dir', run_dir]
    + ['--mode', 'kubernetes', '--cluster', cluster, '--dry-run']
    + ['--min-replay-size', '300', '--hidden-sizes', '64', '--num-actors', '2']
    + [
      '--checkpoint-period-s',
      '1',
      '--replay-checkpoint-period-s',
      '1',
      *flags,
    ],
    capture_output=True,
    text=True,
    timeout=120,
  )
  assert done.returncode == 0, done.stdout + done.stderr
  return [
    run_dir / f'cluster/kubernetes/{name}.yaml' for name in ('secret', 'run')
  ]


class Run:
  """A run in pods, as its volume and the pod of its variable server show it."""

  def __init__(self, pods, folder):
    self.pods = pods
    volume = folder / 'pods/volumes/PersistentVolumeClaim-run'
    self.directory = run_directory.RunDirectory(volume / 'run')

  def pod(self, kind, index=0):
    return self.pods.running[f'run-{kind}', index]

  def beside_server(self, *command):
    """Runs a command beside the variable server, as `kubectl exec` would."""
    pod = self.pods.running.get(('run-variables', 0))
    if pod is None or pod.init is None:
      return ''
    return pod.run(*command).stdout

  def tell(self, *arguments):
    """Does what `scale` and `stop` do there."""
    module = 'distacme.deploy.kubernetes_pod'
    self.beside_server('python', '-m', module, '/runs/run', *arguments)

  def status(self):
    text = self.beside_server('python', '-c', STATUS, '/runs/run')
    return json.loads(text) if text else {'counts': {}, 'workers': {}}

  def acts(self, worker='actor/1', more_than=0):
    """Returns the status once a worker has acted more than so many steps."""
    status = self.status()
    counts = status['workers'].get(worker, {}).get('counts', {})
    return counts.get('env_steps', 0) > more_than and status

  def learner_steps(self):
    return self.status()['counts'].get('learner_steps', 0)


@pytest.mark.cluster
def test_a_run_in_pods_lives_through_lost_pods_and_is_resumed(tmp_path):
  pods_lib.check_possible()
  run_dir = tmp_path / 'run'
  paths = submit(run_dir, '--max-env-steps', '100000000')
  environ = {'XLA_FLAGS': QUICK, 'JAX_PLATFORMS': 'cpu', 'PYTHONSAFEPATH': '1'}
  with pods_lib.Pods(tmp_path / 'pods', **environ) as pods:
    pods.apply(*paths)
    run = Run(pods, tmp_path)
    pods.wait_for(run.acts)
    pods.wait_for(lambda: run.directory.last_step() is not None)

    # Each runs as the manifest's user, and writes where its volumes are.
    for pod in pods.running.values():
      process = pathlib.Path(f'/proc/{pod.init}')
      assert process.stat().st_uid == 12345
      status = dict(
        line.split(':\t', 1)
        for line in (process / 'status').read_text().splitlines()
      )
      assert int(status['CapEff'], 16) == int(status['CapBnd'], 16) == 0
      assert status['NoNewPrivs'] == '1'
      assert pod.run('touch', '/usr/x', '/x').returncode == 1
      (container,) = pods.jobs[pod.job]['spec']['template']['spec'][
        'containers'
      ]
      probe = container['livenessProbe']['exec']['command']
      pod.run('touch', '-d', '1 hour ago', '/tmp/alive', '/tmp/old')
      pods.wait_for(lambda: pod.run(*probe).returncode == 0)  # noqa: B023
      for other in ('old', 'missing'):
        command = [part.replace('alive', other) for part in probe]
        assert pod.run(*command).returncode

    # Commands are run beside the variable server.
    shown = run.beside_server('distacme', 'status', '/runs/run')
    assert run.pod('actor', 1).name in shown
    assert 'env steps' in shown or 'environment steps' in shown

    # An actor's pod is gone at a stroke, and comes back under its name.
    lost = run.pod('actor', 1)
    lost.send(signal.SIGKILL)
    pods.wait_for(lambda: lost in pods.ended)
    assert run.pod('actor', 1).address != lost.address
    (end,) = pods.wait_for(
      lambda: (
        (place := records.read_place(run.directory, 'actor/1')) and place.ends
      )
    )
    assert end.how.startswith('was lost')
    pods.wait_for(run.acts)

    # Another actor comes, and goes again.
    run.tell('actors', '3')
    pods.scale('run-actor', 3)
    pods.wait_for(lambda: run.acts('actor/2'))
    run.tell('actors', '2')
    third = run.pod('actor', 2)
    pods.scale('run-actor', 2)
    pods.wait_for(lambda: third in pods.ended)

    # The learner's pod is evicted: it saves, and goes on from there.
    learner = run.pod('learner')
    learner.send(signal.SIGTERM)
    pods.wait_for(lambda: learner in pods.ended)
    assert learner.process.returncode == 128 + signal.SIGTERM
    step = run.directory.last_step()
    pods.wait_for(lambda: run.learner_steps() > step)

    # So is that of the variable server: the others find the new one by its name.
    server = run.pod('variables')
    server.send(signal.SIGTERM)
    pods.wait_for(lambda: server in pods.ended)
    step = run.directory.last_step()
    pods.wait_for(lambda: run.learner_steps() > step)
    assert run.directory.read_summary() is None

    assert 'Traceback' not in pods.outputs()
    run.tell('stop')
    pods.wait_for(lambda: not pods.running)
    assert {*pods.codes.values()} == {0}
    first = run.directory.read_summary()
    (server,) = (pod for pod in pods.ended[-5:] if pod.job == 'run-variables')
    told = status_lib.Status.from_dict(json.loads(server.message))
    assert (told.stop.reason, told.counts) == ('interrupted', first.counts)
    assert first.stop.reason == 'interrupted'

    # The same run once more: it goes on with what lies on the volume.
    paths = submit(
      run_dir, '--max-env-steps', f'{first.counts["env_steps"] + 500}'
    )
    pods.delete_jobs()
    pods.apply(*paths)
    pods.wait_for(lambda: not pods.running)
    assert {*pods.codes.values()} == {0}
    second = run.directory.read_summary()
    assert second.stop.reason == 'step_limit'
    resumed = run.directory.read_config()['resumed_from']
    assert resumed['learner_steps'] >= step
    assert second.counts['learner_steps'] > resumed['learner_steps']
    assert run.directory.path.with_name('run').joinpath('logs.1').is_dir()


def test_a_pod_has_a_name_only_by_a_service_that_selects_it(tmp_path):
  pods = pods_lib.Pods(tmp_path)
  pods.hosts.write_text('127.0.0.1 localhost\n')
  template = {
    'metadata': {'labels': {'run': 'catch'}},
    'spec': {'subdomain': 'catch'},
  }
  service = {
    'metadata': {'name': 'catch'},
    'spec': {'clusterIP': 'None', 'selector': {'run': 'catch'}},
  }
  pods.services = [
    {**service, 'metadata': {'name': 'other'}},
    {**service, 'spec': {**service['spec'], 'selector': {'run': 'other'}}},
    {**service, 'spec': {'selector': {'run': 'catch'}}},
  ]
  pods.resolve(template, 'catch-actor-0', '10.0.0.1')
  assert pods.hosts.read_text() == '127.0.0.1 localhost\n'
  pods.services = [service]
  for address in ('10.0.0.1', '10.0.0.2'):
    pods.resolve(template, 'catch-actor-0', address)
  assert pods.hosts.read_text() == (
    '127.0.0.1 localhost\n10.0.0.2 catch-actor-0 catch-actor-0.catch\n'
  )
