"""Runs what pods would run: the manifests' commands, in namespaces of this host.

No kubelet and no cluster is here. Each pod has its own network with an address on a
common bridge, host name, processes, and a root of its own: this host's programs, not
writable, with the pod's volumes in their places. Its processes are those of the
manifest's user. Names of the headless Service stand in /etc/hosts, for the pods that
the Service selects. A Job's failure policy is followed as far as the manifests use it.
"""

import dataclasses
import os
import pathlib
import random
import shlex
import shutil
import signal
import subprocess
import sys
import time

import pytest
import yaml

ROOT = pathlib.Path(__file__).parents[2]
_NET = '10.213.78'  # on a bridge that this host has no address on
_PROGRAMS = ('/usr', '/bin', '/sbin', '/lib', '/lib64')
_ETC = ('passwd', 'group', 'nsswitch.conf', 'ld.so.cache', 'ssl', 'localtime')
_NEEDED = ('ip', 'nsenter', 'unshare', 'setpriv', 'chroot', 'mount')


def check_possible():
  """Skips the test where namespaces are refused, and says why."""
  why = ''
  if os.getuid():
    why = 'not root, who alone may make namespaces with networks'
  elif missing := [name for name in _NEEDED if shutil.which(name) is None]:
    why = f'{", ".join(missing)} missing; on Debian: apt-get install iproute2'
  else:
    probe = (
      'ip link add b0 type bridge && hostname probe && mount -t tmpfs x /mnt'
    )
    command = ['unshare', '--net', '--uts', '--mount', '--pid', '--fork']
    tried = _run(*command, 'sh', '-c', probe, check=False)
    why = tried.stderr.strip() if tried.returncode else ''
  if why:
    pytest.skip(f'no pods here: {why}')


def _run(*command, check=True):
  done = subprocess.run(
    [str(part) for part in command], capture_output=True, text=True, timeout=60
  )
  if check and done.returncode:
    raise RuntimeError(f'{shlex.join(map(str, command))}: {done.stderr}')
  return done


@dataclasses.dataclass
class Pod:
  """A pod that has been started."""

  name: str
  job: str
  index: int
  address: str
  process: subprocess.Popen
  output: pathlib.Path
  user: int
  variables: dict[str, str]

  @property
  def message(self):
    """Returns the pod's message, which a cluster keeps after its end."""
    return self.output.with_name(f'{self.name}.message').read_text()

  @property
  def init(self):
    """Returns this host's number of the pod's first process; None after its end."""
    children = pathlib.Path(f'/proc/{self.process.pid}/task/{self.process.pid}')
    try:
      return int((children / 'children').read_text().split()[0])
    except (OSError, IndexError):
      return None

  def send(self, number):
    """Sends a signal to the pod's first process; SIGKILL ends all of the pod."""
    if (pid := self.init) is not None:
      os.kill(pid, number)

  def run(self, *command):
    """Runs a command in the pod, as its user, as `kubectl exec` does."""
    enter = ['nsenter', f'--target={self.init}', '--mount', '--net', '--uts']
    enter += ['--pid', '--root', '--wd', 'setpriv', f'--reuid={self.user}']
    enter += ['--clear-groups', 'env', '-i']
    enter += [f'{key}={value}' for key, value in self.variables.items()]
    return _run(*enter, *command, check=False)


class Pods:
  """The pods of some Jobs; a context that leaves nothing behind."""

  def __init__(self, folder, **environ):
    """Makes the bridge; `environ` is what the image sets besides PATH."""
    self._folder = pathlib.Path(folder)
    self.hosts = self._folder / 'hosts'  # names, as the cluster's DNS has them
    self._bridge = f'dp{os.getpid()}'
    self._environ = environ
    self._numbers = iter(range(2, 250))
    self.jobs = {}
    self.running = {}  # by job and index
    self.ended = []  # pods, in the order of their ends
    self.codes = {}  # of indexes that are done, by job and index

  def __enter__(self):
    self._folder.mkdir()
    for name in ('volumes', 'roots', 'out'):
      (self._folder / name).mkdir()
    self.hosts.write_text('127.0.0.1 localhost\n')
    _run('ip', 'link', 'add', self._bridge, 'type', 'bridge')
    _run('ip', 'link', 'set', self._bridge, 'up')
    return self

  def __exit__(self, *exception):
    for pod in [*self.running.values()]:
      pod.send(signal.SIGKILL)
      pod.process.wait()
      self._clear(pod)
    _run('ip', 'link', 'del', self._bridge, check=False)

  def apply(self, *paths):
    """Takes over the manifests in files, and starts the pods of their Jobs."""
    documents = [
      document
      for path in paths
      for document in yaml.safe_load_all(path.read_text())
    ]
    self.services = [d for d in documents if d['kind'] == 'Service']
    for document in documents:
      self._make_volume(document)
    for document in documents:
      if document['kind'] == 'Job':
        name = document['metadata']['name']
        self.jobs[name] = document
        for index in range(document['spec']['parallelism']):
          self.start(name, index)

  def scale(self, job, number):
    """Does what a Job's controller does where its number of pods is changed."""
    before = self.jobs[job]['spec']['completions']
    self.jobs[job]['spec'].update(completions=number, parallelism=number)
    for index in range(before, number):
      self.start(job, index)
    for index in range(number, before):
      self.running[job, index].send(signal.SIGTERM)

  def delete_jobs(self, timeout_s=60.0):
    """Deletes all Jobs: their pods get SIGTERM, and are not replaced."""
    self.jobs.clear()
    for pod in self.running.values():
      pod.send(signal.SIGTERM)
    deadline = time.monotonic() + timeout_s
    while self.running:
      self.control()
      assert time.monotonic() < deadline, [*self.running]
      time.sleep(0.1)
    self.codes.clear()

  def control(self):
    """Does what a Job's controller does for pods that have ended."""
    for (job, index), pod in [*self.running.items()]:
      if (code := pod.process.poll()) is None:
        continue
      del self.running[job, index]
      self.ended.append(pod)
      self._clear(pod)
      if job not in self.jobs:
        continue
      spec = self.jobs[job]['spec']
      if index >= spec['completions']:
        continue
      fatal = [
        value
        for rule in spec['podFailurePolicy']['rules']
        if rule['action'] == 'FailJob'
        for value in rule['onExitCodes']['values']
      ]
      if code == 0 or code in fatal:
        self.codes[job, index] = code
      else:
        self.start(job, index)

  def wait_for(self, condition, timeout_s=120.0):
    """Waits, and replaces pods meanwhile; returns what the condition returned."""
    deadline = time.monotonic() + timeout_s
    while not (found := condition()):
      self.control()
      assert time.monotonic() < deadline, self.outputs()
      time.sleep(0.1)
    return found

  def outputs(self):
    """Returns the last lines that each pod has printed."""
    pods = [*self.ended, *self.running.values()]
    return '\n'.join(
      f'--- {pod.name}: {pod.process.poll()}\n{pod.output.read_text()[-3000:]}'
      for pod in pods
    )

  def start(self, job, index):
    """Starts the pod of an index."""
    template = self.jobs[job]['spec']['template']
    host = f'{job}-{index}'
    name = f'{host}-{random.randbytes(3).hex()[:5]}'
    number = next(self._numbers)
    address = f'{_NET}.{number}'
    network = f'{self._bridge}-{number}'
    link = f'v{os.getpid()}-{number}'
    _run('ip', 'netns', 'add', network)
    _run(
      *f'ip link add {link} type veth peer name eth0 netns {network}'.split()
    )
    _run('ip', 'link', 'set', link, 'master', self._bridge, 'up')
    for action in (
      'link set lo up',
      f'addr add {address}/24 dev eth0',
      'link set eth0 up',
    ):
      _run('ip', '-n', network, *action.split())
    self.resolve(template, host, address)
    (container,) = template['spec']['containers']
    variables = {
      **{'PATH': f'{pathlib.Path(sys.executable).parent}:/usr/bin:/bin'},
      **self._environ,
      **{'HOSTNAME': host, 'JOB_COMPLETION_INDEX': f'{index}'},
      **dict(_variables(container, name)),
    }
    user = template['spec']['securityContext']['runAsUser']
    script = self._script(template['spec'], name, host, variables)
    output = self._folder / 'out' / name
    with open(output, 'w') as file:
      process = subprocess.Popen(
        [
          'nsenter',
          f'--net=/run/netns/{network}',
          'unshare',
          '--uts',
          '--mount',
        ]
        + ['--pid', '--fork', '--kill-child=KILL', 'sh', '-ec', script],
        stdin=subprocess.DEVNULL,
        stdout=file,
        stderr=subprocess.STDOUT,
        env={'PATH': os.environ['PATH']},
      )
    self.running[job, index] = Pod(
      name, job, index, address, process, output, user, variables
    )

  def resolve(self, template, host, address):
    """Gives a pod its name, if a headless Service selects it."""
    labels, subdomain = (
      template['metadata']['labels'],
      template['spec']['subdomain'],
    )
    lines = self.hosts.read_text().splitlines()
    for service in self.services:
      spec = service['spec']
      if (
        service['metadata']['name'] == subdomain
        and spec.get('clusterIP') == 'None'
      ):
        if spec['selector'].items() <= labels.items():
          name = f'{host}.{subdomain}'
          lines = [line for line in lines if line.split()[-1] != name]
          lines.append(f'{address} {host} {name}')
    # The file stays the one that pods have mounted.
    self.hosts.write_text('\n'.join(lines) + '\n')

  def _make_volume(self, document):
    """Makes the folder that a volume of an object shows."""
    kind, name = document['kind'], document['metadata']['name']
    folder = self._folder / 'volumes' / f'{kind}-{name}'
    if kind == 'PersistentVolumeClaim':
      folder.mkdir(exist_ok=True)
    elif kind in ('ConfigMap', 'Secret'):
      # As kubelet does: the names are links into a folder, itself behind a link.
      shutil.rmtree(folder, ignore_errors=True)
      data = folder / '..now'
      data.mkdir(parents=True)
      (folder / '..data').symlink_to('..now')
      for key, text in document[
        'data' if kind == 'ConfigMap' else 'stringData'
      ].items():
        (data / key).write_text(text)
        (data / key).chmod(0o644 if kind == 'ConfigMap' else 0o440)
        (folder / key).symlink_to(f'..data/{key}')

  def _source(self, volume, name, group):
    """Returns the folder of a pod's volume, as fsGroup makes it."""
    volumes = self._folder / 'volumes'
    if 'persistentVolumeClaim' in volume:
      claim = volume['persistentVolumeClaim']['claimName']
      folder = volumes / f'PersistentVolumeClaim-{claim}'
    elif 'configMap' in volume:
      folder = volumes / f'ConfigMap-{volume["configMap"]["name"]}'
    elif 'secret' in volume:
      folder = volumes / f'Secret-{volume["secret"]["secretName"]}'
    else:
      assert 'emptyDir' in volume, volume
      folder = volumes / f'{name}-{volume["name"]}'
      folder.mkdir()
    assert folder.is_dir(), f'{volume} names an object that was not applied'
    os.chown(folder, 0, group)
    folder.chmod(0o2775)
    for path in folder.glob('..now/*'):
      os.chown(path, 0, group)
    return folder

  def _script(self, spec, name, host, variables):
    """Returns what the pod's first process does until it is the container's."""
    (container,) = spec['containers']
    security = spec['securityContext'] | container['securityContext']
    root = self._folder / 'roots' / name
    lines = [f'hostname {host}', f'mount -t tmpfs -o mode=755 pod {root}']
    for path in [*_PROGRAMS, '/sys', *_python(), *(f'/etc/{e}' for e in _ETC)]:
      lines += _bind(path, root, read_only=True)
    for name_ in ('null', 'zero', 'full', 'random', 'urandom'):
      lines += _bind(f'/dev/{name_}', root)
    message = self._folder / 'out' / f'{name}.message'
    message.touch()
    message.chmod(0o666)
    lines += _bind(message, root, container['terminationMessagePath'])
    lines += _bind(self.hosts, root, '/etc/hosts')
    lines += [f'mkdir {root}/proc', f'mount -t proc proc {root}/proc']
    mounts = {each['name']: each for each in container['volumeMounts']}
    # A container has none but what its volumes make writable.
    for path in ('/tmp', '/runs', '/dev/shm'):
      lines.append(f'mkdir -p {root}{path}')
    for volume in spec['volumes']:
      mount = mounts.pop(volume['name'])
      source = self._source(volume, name, security['fsGroup'])
      lines += _bind(
        source, root, mount['mountPath'], read_only=mount.get('readOnly')
      )
    assert not mounts, f'{mounts} mount no volume of the pod'
    root.mkdir()
    if security['readOnlyRootFilesystem']:
      lines.append(f'mount -o remount,ro {root}')
    user, group = security['runAsUser'], security['runAsGroup']
    drop = security['capabilities']['drop'] == ['ALL']
    command = [
      *('chroot', root, 'setpriv', f'--reuid={user}', f'--regid={group}'),
      f'--groups={security["fsGroup"]}',
      *(['--bounding-set=-all', '--inh-caps=-all'] if drop else []),
      *(['--no-new-privs'] if not security['allowPrivilegeEscalation'] else []),
      *('env', '-i', *(f'{key}={value}' for key, value in variables.items())),
      *container['command'],
      *container['args'],
    ]
    return '\n'.join([*lines, f'exec {shlex.join(map(str, command))}'])

  def _clear(self, pod):
    number = pod.address.rpartition('.')[2]
    _run('ip', 'netns', 'del', f'{self._bridge}-{number}', check=False)


def _python():
  """Returns the folders of this interpreter and of the package, outermost only."""
  wanted = {sys.prefix, sys.base_prefix, f'{ROOT}'}
  wanted |= {os.path.realpath(path) for path in wanted}
  outer = [
    path
    for path in sorted(wanted)
    if not any(path.startswith(f'{other}/') for other in wanted - {path})
  ]
  return [path for path in outer if not path.startswith(tuple(_PROGRAMS))]


def _bind(source, root, target=None, read_only=False):
  """Yields commands that show a file or folder in a pod's root."""
  place = f'{root}{target or source}'
  source = pathlib.Path(source)
  if not source.exists():
    return
  if source.is_symlink() and target is None:  # /bin is usr/bin
    yield f'ln -s {os.readlink(source)} {place}'
    return
  if source.is_dir():
    yield f'mkdir -p {place}'
  else:
    yield f'mkdir -p {os.path.dirname(place)} && touch {place}'
  yield f'mount --rbind {source} {place}'
  if read_only:
    yield f'mount -o remount,bind,ro {place}'


def _variables(container, name):
  """Yields the variables that a container's manifest sets."""
  for each in container['env']:
    if 'value' in each:
      yield each['name'], each['value']
    else:
      assert each['valueFrom']['fieldRef']['fieldPath'] == 'metadata.name'
      yield each['name'], name
