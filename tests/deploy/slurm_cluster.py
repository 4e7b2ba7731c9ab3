"""A real Slurm cluster on this host, for tests: a controller, and nodes in namespaces.

Each node has its own network, host name, mounts (with /tmp and /dev/shm of its own) and
processes, so that 127.0.0.1 of another node is really out of reach, and so that to
kill a node's first process is to pull its plug. Nothing outside of the cluster's own
folder is changed but a bridge and namespaces, which `stop` takes away.
"""

import os
import pathlib
import pwd
import shutil
import signal
import subprocess
import tempfile
import textwrap
import time

import pytest

PACKAGES = 'slurmctld slurmd slurm-client munge iproute2'
ROOT = pathlib.Path(__file__).parents[2]
_NET = '10.213.79'
_BRIDGE = 'dslurm0'
_PORT = 26700
_PATH = '/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin'


def why_not():
  """Returns why there can be no cluster here; '' if there can."""
  if os.getuid():
    return 'not root, who alone may make namespaces with networks'
  missing = [
    name
    for name in ('slurmctld', 'slurmd', 'sbatch', 'munged', 'ip', 'nsenter')
    if shutil.which(name, path=_PATH) is None
  ]
  if missing:
    return (
      f'{", ".join(missing)} missing; on Debian: apt-get install {PACKAGES}'
    )
  if _run('ip', 'link', 'show', _BRIDGE).returncode == 0:
    return (
      f'another one runs, or has left the bridge {_BRIDGE} (ip link del it)'
    )
  probe = (
    'ip link set lo up && ip link add b0 type bridge && '
    'ip link add v0 type veth peer name v1 && hostname probe'
  )
  tried = _run('unshare', '--net', '--uts', '--mount', 'bash', '-c', probe)
  return '' if tried.returncode == 0 else f'namespaces: {tried.stderr.strip()}'


def started(nodes, **settings):
  """Yields a cluster; skips the test, with the reason, where there can be none."""
  if reason := why_not():
    pytest.skip(f'no Slurm cluster here: {reason}')
  cluster = Cluster(nodes, **settings)
  try:
    cluster.start()
    yield cluster
  finally:
    cluster.stop()


def _run(*command, **settings):
  return subprocess.run(
    list(map(str, command)),
    capture_output=True,
    text=True,
    env={'PATH': _PATH, **settings.pop('env', {})},
    check=False,
    **settings,
  )


def wait_for(condition, timeout_s, what=''):
  """Waits for `condition()`; returns its value."""
  deadline = time.monotonic() + timeout_s
  while not (value := condition()):
    if time.monotonic() >= deadline:
      said = what() if callable(what) else what
      raise AssertionError(f'not within {timeout_s} s: {said}')
    time.sleep(0.2)
  return value


class Cluster:
  """A controller and nodes node1, node2, ...; the folder `shared` is on all of them."""

  def __init__(self, nodes, cpus=8, memory=8000):
    self._cpus, self._memory = cpus, memory
    self._state = pathlib.Path(
      tempfile.mkdtemp(prefix='slurm-', dir='/var/tmp')
    )
    self._state.chmod(0o755)
    for name in ('etc', 'munge', 'log', 'run', 'ctld', 'spool', 'shared'):
      (self._state / name).mkdir()
    self.shared = self._state / 'shared'
    self.shared.chmod(0o1777)
    self._daemons = {}
    self.nodes = {
      f'node{i}': Node(self, f'node{i}', i) for i in range(1, nodes + 1)
    }

  @property
  def environment(self):
    """Returns the variables of commands that talk to this cluster."""
    return {'SLURM_CONF': str(self._state / 'etc/slurm.conf')}

  def path(self, *parts):
    return self._state.joinpath(*parts)

  def command(self, *command):
    """Runs a command of Slurm's; returns its output."""
    done = _run(*command, env=self.environment)
    assert done.returncode == 0, f'{command}: {done.stderr}'
    return done.stdout

  def cancel(self, jobs):
    """Cancels jobs; those that are gone stay so."""
    if jobs:
      _run('scancel', *jobs, env=self.environment)

  def start(self):
    self._write()
    _run('ip', 'link', 'add', _BRIDGE, 'type', 'bridge')
    _run('ip', 'addr', 'add', f'{_NET}.254/24', 'dev', _BRIDGE)
    _run('ip', 'link', 'set', _BRIDGE, 'up')
    key = self.path('munge/munge.key')
    key.touch(0o600)
    key.write_bytes(os.urandom(128))
    self.daemon(
      'munged',
      *('munged', '--foreground', f'--key-file={key}', '--num-threads=4'),
      f'--socket={self.path("munge/munge.sock")}',
      f'--pid-file={self.path("run/munged.pid")}',
      f'--log-file={self.path("log/munged.log")}',
      f'--seed-file={self.path("munge/munge.seed")}',
    )
    wait_for(self.path('munge/munge.sock').exists, 20, 'munged')
    self.daemon('slurmctld', 'slurmctld', '-D')
    for node in self.nodes.values():
      node.make()
      node.on()
    self.wait_until_idle()

  def wait_until_idle(self, timeout_s=60):
    def idle():
      found = _run(
        'sinfo', '-h', '-N', '-t', 'idle', '-o', '%N', env=self.environment
      )
      return len(set(found.stdout.split())) == len(self.nodes)

    wait_for(idle, timeout_s, 'idle nodes')

  def daemon(self, name, *command):
    """Starts a daemon of the cluster, by which it is ended later."""
    with open(self.path('log', f'{name}.out'), 'ab') as output:
      self._daemons[name] = subprocess.Popen(
        list(map(str, command)),
        stdin=subprocess.DEVNULL,
        stdout=output,
        stderr=output,
        start_new_session=True,
        env={
          'PATH': _PATH,
          'HOME': '/root',
          'LANG': 'C.UTF-8',
          **self.environment,
        },
      )

  def end_daemon(self, name):
    process = self._daemons.pop(name, None)
    if process is not None:
      process.kill()
      process.wait()

  def is_up(self, name):
    return name in self._daemons

  def stop(self):
    for name in ['slurmctld', *self.nodes, 'munged']:
      self.end_daemon(name)
    for node in self.nodes.values():
      _run('ip', 'netns', 'del', node.namespace)
    _run('ip', 'link', 'del', _BRIDGE)
    shutil.rmtree(self._state, ignore_errors=True)

  def _write(self):
    """Writes hosts and configuration."""
    hosts = ['127.0.0.1 localhost', f'{_NET}.254 login']
    hosts += [f'{node.address} {node.name}' for node in self.nodes.values()]
    self.path('etc/hosts').write_text('\n'.join(hosts) + '\n')
    user = pwd.getpwuid(os.getuid()).pw_name
    conf = textwrap.dedent(f"""
      ClusterName=tests
      SlurmctldHost={os.uname().nodename.split('.')[0]}({_NET}.254)
      SlurmctldPort={_PORT}
      AuthType=auth/munge
      # Also how long a requeued job waits before it starts again (else 120 s).
      AuthInfo=socket={self.path('munge/munge.sock')},cred_expire=10
      CredType=cred/munge
      SlurmUser={user}
      SlurmdUser={user}
      StateSaveLocation={self.path('ctld')}
      SlurmdSpoolDir={self.path('spool')}/%n
      SlurmctldPidFile={self.path('run')}/slurmctld.pid
      SlurmdPidFile={self.path('run')}/slurmd.%n.pid
      SlurmctldLogFile={self.path('log')}/slurmctld.log
      SlurmdLogFile={self.path('log')}/slurmd.%n.log
      # Nothing is enforced: no cgroups in a sandbox.
      ProctrackType=proctrack/linuxproc
      TaskPlugin=task/none
      JobAcctGatherType=jobacct_gather/none
      MpiDefault=none
      SelectType=select/cons_tres
      SelectTypeParameters=CR_Core_Memory
      DefMemPerCPU=100
      SchedulerType=sched/backfill
      SchedulerParameters=bf_interval=1,sched_interval=2,batch_sched_delay=0
      # A node that is silent so long is down (else 300 s).
      SlurmdTimeout=10
      ReturnToService=2
      KillWait=20
      UnkillableStepTimeout=30
      JobRequeue=1
      MinJobAge=3600
      AccountingStorageType=accounting_storage/none
      JobCompType=jobcomp/none
      GresTypes=gpu
      # Jobs of the partition `urgent` take the place of others.
      PreemptType=preempt/partition_prio
      PreemptMode=REQUEUE
      SlurmdParameters=config_overrides
    """)
    gres = ''
    for node in self.nodes.values():
      conf += (
        f'NodeName={node.name} NodeAddr={node.address} Port={_PORT + 1} '
        f'CPUs={self._cpus} RealMemory={self._memory} Gres=gpu:1 State=UNKNOWN\n'
      )
      # A pretended one: Slurm sets CUDA_VISIBLE_DEVICES.
      gres += f'NodeName={node.name} Name=gpu File=/dev/null\n'
    conf += (
      'PartitionName=main Nodes=ALL Default=YES MaxTime=INFINITE State=UP\n'
    )
    conf += 'PartitionName=short Nodes=node1 MaxTime=10:00 State=UP\n'
    conf += 'PartitionName=urgent Nodes=ALL PriorityTier=10 State=UP\n'
    self.path('etc/slurm.conf').write_text(conf)
    self.path('etc/gres.conf').write_text(gres)


class Node:
  """A node of the cluster."""

  def __init__(self, cluster, name, index):
    self._cluster, self.name, self._index = cluster, name, index
    self.namespace = f'dslurm-{name}'
    self.address = f'{_NET}.{index}'
    self._link = f'dslurmv{index}'

  def make(self):
    """Makes the node's network."""
    _run('ip', 'netns', 'add', self.namespace)
    _run(
      *('ip', 'link', 'add', self._link, 'type', 'veth'),
      *('peer', 'name', 'eth0', 'netns', self.namespace),
    )
    _run('ip', 'link', 'set', self._link, 'master', _BRIDGE, 'up')
    inside = ('ip', '-n', self.namespace)
    _run(*inside, 'link', 'set', 'lo', 'up')
    _run(*inside, 'addr', 'add', f'{self.address}/24', 'dev', 'eth0')
    _run(*inside, 'link', 'set', 'eth0', 'up')
    self._cluster.path('spool', self.name).mkdir(exist_ok=True)

  def on(self):
    """Gives the node power: its slurmd starts."""
    _run('ip', 'link', 'set', self._link, 'up')
    init = textwrap.dedent(f"""
      hostname {self.name}
      mount --bind {self._cluster.path('etc/hosts')} /etc/hosts
      mount -t tmpfs -o mode=1777 tmpfs /dev/shm
      {self._own_tmp()}
      slurmd -D &
      while :; do sleep infinity & wait $!; done
    """)
    self._cluster.daemon(
      self.name,
      *('nsenter', f'--net=/run/netns/{self.namespace}'),
      *('unshare', '--uts', '--mount', '--pid', '--fork', '--mount-proc'),
      *('--kill-child=KILL', 'bash', '-c', init),
    )

  def _own_tmp(self):
    """Returns commands that give the node a /tmp of its own.

    A checkout that lies in /tmp stands for one on the shared disk.
    """
    own = 'mount -t tmpfs -o mode=1777 tmpfs /tmp'
    if not ROOT.is_relative_to('/tmp'):
      return own
    held = self._cluster.path('run', f'{self.name}.checkout')
    return (
      f'mkdir -p {held} && mount --bind {ROOT} {held} && {own} && '
      f'mkdir -p {ROOT} && mount --bind {held} {ROOT}'
    )

  def off(self):
    """Pulls the node's plug: all that runs there is killed at once."""
    _run('ip', 'link', 'set', self._link, 'down')
    self._cluster.end_daemon(self.name)

  def unplug(self):
    """Takes the node off the network; its processes go on."""
    _run('ip', 'link', 'set', self._link, 'down')

  def plug(self):
    """Brings the node back into the network."""
    _run('ip', 'link', 'set', self._link, 'up')

  def processes(self, words=''):
    """Returns the processes on the node whose command has `words`, by number here."""
    outer = self._cluster._daemons.get(self.name)
    if outer is None:
      return {}
    inner = _run('pgrep', '-P', outer.pid).stdout.split()
    if not inner:
      return {}
    namespace = os.readlink(f'/proc/{inner[0]}/ns/pid')
    found = {}
    for entry in pathlib.Path('/proc').glob('[0-9]*'):
      try:
        if os.readlink(entry / 'ns/pid') != namespace:
          continue
        command = (entry / 'cmdline').read_bytes().replace(b'\0', b' ').decode()
      except (OSError, UnicodeDecodeError):
        continue
      if words in command and command:
        found[int(entry.name)] = command
    return found

  def kill(self, words, number=signal.SIGKILL):
    """Sends a signal to the processes on the node whose command has `words`."""
    found = self.processes(words)
    for pid in found:
      os.kill(pid, number)
    return found
