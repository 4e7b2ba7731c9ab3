"""`distacme doctor`: checks the installation and says how to mend it."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
import importlib
import importlib.metadata
import importlib.util
import ipaddress
import os
import pathlib
import platform
import subprocess
import sys
import tempfile
from typing import NamedTuple

from distacme.programs import compilation_cache
from distacme.programs import modes as modes_lib
from distacme.programs import run_config
from distacme.run import cores

_OF_PROGRAMS = ('grpc',)  # names of checks
_OLDEST_PYTHON = (3, 10)
_LAUNCH = (
  "Use Python 3.10 on Linux x86-64 and run: pip install 'distacme[launch]'"
)
_SEARCH = "Run: pip install 'distacme[search]'"
_ENVS = "Run: pip install 'distacme[envs]'"


class Check(NamedTuple):
  """One line of the doctor's answer.

  Attributes:
    name: of the part that is checked.
    find: returns a description of the part; raises if the part is missing or
      broken.
    remedy: how to get the part, or a function from the error of `find` to that.
    without: what does not work without the part; '' if distacme needs the part.
  """

  name: str
  find: Callable[[], str]
  remedy: str | Callable[[Exception], str]
  without: str = ''


def main(arguments: Sequence[str]) -> int:
  """Prints a line for each check; returns 0 if local mode works."""
  parser = argparse.ArgumentParser(
    prog='distacme doctor',
    description='Checks the installation and says how to get what is missing.',
  )
  parser.add_argument(
    '--cluster',
    type=pathlib.Path,
    metavar='TOML',
    help='checks a cluster instead, as described in a cluster.toml; on a cluster '
    'with Slurm it runs a command on one node',
  )
  flags = parser.parse_args(arguments)
  if flags.cluster is not None:
    return _check_cluster(flags.cluster)
  local = programs = True
  for check in CHECKS:
    ok, line = examine(check)
    local = local and (ok or bool(check.without))
    programs = programs and (ok or check.name not in _OF_PROGRAMS)
    print(line, flush=True)
  print(f'\nlocal mode {"works" if local else "does not work"}')
  works = 'work' if local and programs else 'do not work'
  modes = [
    mode
    for mode, way in modes_lib.LAUNCHERS.items()
    if way.has_services and not way.remote  # of which --cluster tells
  ]
  print(f'{" and ".join(modes)} {works}')
  return 0 if local else 1


def _check_cluster(path: pathlib.Path) -> int:
  """Prints a line for each part of a cluster; returns 0 if all of one engine work."""
  from distacme.deploy import diagnosis

  broken: set[str] = set()
  for part in diagnosis.diagnoses(path):
    check = Check(part.name, part.find, part.remedy, part.without)
    ok, line = examine(check)
    print(line, flush=True)
    if not ok:
      broken.update(part.modes)
  modes = [mode for mode in modes_lib.remote() if mode not in broken]
  print(f'\n{" and ".join(modes) or "no cluster"} works')
  return 0 if modes else 1


def examine(check: Check) -> tuple[bool, str]:
  """Returns whether all is well, and a line with the finding or the remedy."""
  try:
    return True, f'ok       {check.name}: {check.find()}'
  # A broken library may raise anything when it is loaded.
  except Exception as error:
    what = f'{type(error).__name__}: {error}'.partition('\n')[0].rstrip('.')
    without = f' Without it: no {check.without}.' if check.without else ''
    remedy = (
      check.remedy if isinstance(check.remedy, str) else check.remedy(error)
    )
    return False, f'missing  {check.name}: {what}. {remedy}.{without}'


def _python() -> str:
  version = platform.python_version()
  if sys.version_info < _OLDEST_PYTHON:
    raise RuntimeError(f'this is Python {version}')
  return f'{version} on {platform.system()} {platform.machine()}'


def _jax() -> str:
  import jax

  devices = jax.devices()
  # A wheel for another CPU, or a driver that does not fit, fails only here.
  total = int(jax.jit(lambda x: x.sum())(jax.numpy.ones(3)))
  if total != 3:
    raise RuntimeError(f'1 + 1 + 1 is {total} on {devices[0]}')
  return f'{jax.__version__}, {len(devices)} x {devices[0].device_kind}'


def _cores() -> str:
  actors = run_config.RunConfig.num_actors
  return (
    f'{cores.count()}; XLA gets {cores.of_learner(actors)} in the learner of a '
    f'program with {actors} actors, which replay and actors leave of them, and 1 '
    'in each actor, whose computations are too small for more'
  )


def _compiled() -> str:
  folder = compilation_cache.use()
  if folder is not None:
    return f'kept between runs in {folder}'
  chosen = [name for name in compilation_cache.CHOICES if name in os.environ]
  if not chosen:
    raise RuntimeError('there is no folder that only this user may write to')
  return f'as {" and ".join(chosen)} says'


def _bytecode() -> str:
  # JAX has been imported: Python has kept the compiled files by now, or cannot.
  for name in ('jax', 'haiku'):
    source = importlib.import_module(name).__file__ or ''
    if not os.path.exists(importlib.util.cache_from_source(source)):
      raise RuntimeError(f'there is none of {source}')
  return 'each library is compiled once'


def _training() -> str:
  from distacme import lazy_imports
  from distacme.programs import agents_by_name

  modules = [
    *(f'distacme.agents.{name}' for name in agents_by_name.known_agents()),
    'distacme.programs.training',
    'distacme.programs.launchers.one_process',
    'orbax.checkpoint',
    'rich',
    'tensorboardX',
    'tyro',
  ]
  for name in modules:
    importlib.import_module(name)
  lazy_imports.load_all()
  return 'agents, checkpoints, logs and flags'


def _launchpad() -> str:
  importlib.import_module('distacme.runtime.launchpad')
  return 'starts threads and processes'


def _reverb() -> str:
  from distacme.replay.reverb import extension

  return f'server and client, {extension.load().__name__}'


# In a process of its own, since Reverb logs to the terminal.
_SERVE = """
import importlib.util
from distacme import replay_spec
from distacme.replay import store
from distacme.replay.service import server
from distacme.runtime import listening
window = replay_spec.Sequences(2, 1, True)
served = store.Store(replay_spec.queue(window, batch_size=1, max_size=1))
service = server.ReplayServer(served)
found = listening.addresses(service.endpoint.port)
if importlib.util.find_spec('reverb'):
  from distacme.replay.reverb import queue
  port = listening.free_port()
  reverb = queue.PackQueue(served, port)
  found += listening.addresses(port)
  reverb.stop()
service.stop()
print(*sorted({*map(str, found)}))
"""


def _closed_doors() -> str:
  if sys.platform != 'linux':
    return '127.0.0.1, as far as is known: only Linux says who listens where'
  done = subprocess.run(
    [sys.executable, '-c', _SERVE], capture_output=True, text=True, timeout=60
  )
  if done.returncode:
    raise RuntimeError(done.stderr.strip().rpartition('\n')[2])
  addresses = done.stdout.split()
  if not addresses or not all(
    ipaddress.ip_address(address).is_loopback for address in addresses
  ):
    raise RuntimeError(
      f'it listens on {" and ".join(addresses) or "no address that is known"}'
    )
  return f'it listens on {" and ".join(addresses)} only'


def _matplotlib_remedy(error: Exception) -> str:
  from distacme.programs.view import plotting

  return plotting.matplotlib_remedy(error)


def _ffmpeg() -> str:
  import imageio_ffmpeg

  version: str = imageio_ffmpeg.get_ffmpeg_version()
  return version


def _minari() -> str:
  for name in ('PIL', 'h5py'):
    importlib.import_module(name)
  return _library('minari')()


def _library(name: str) -> Callable[[], str]:
  def find() -> str:
    importlib.import_module(name)
    return importlib.metadata.version({'grpc': 'grpcio'}.get(name, name))

  return find


def _environment(name: str, library: str) -> Callable[[], str]:
  # An environment is made, rather than its library imported: without a display
  # some libraries complain at their import, others import much to draw with.
  def find() -> str:
    from distacme import environments

    environments.make(name, seed=0).close()
    return importlib.metadata.version(library)

  return find


def _mujoco_pictures() -> str:
  from distacme import environments

  name = 'gymnasium:InvertedPendulum-v5'
  environments.make(name, seed=0, render=True).close()
  return f'drawn by {os.environ["MUJOCO_GL"]}'


def _directory() -> str:
  with tempfile.TemporaryFile(dir='.') as file:
    file.write(b'0')
  return os.getcwd()


CHECKS = (
  Check(
    'Python',
    _python,
    f'Use Python {".".join(map(str, _OLDEST_PYTHON))} or newer',
  ),
  Check(
    'JAX',
    _jax,
    "Run: pip install 'jax>=0.6' 'jaxlib>=0.6', or set JAX_PLATFORMS=cpu if its "
    'accelerator is what fails',
  ),
  Check('cores', _cores, 'Run on a host that tells how many cores it has'),
  Check(
    'compiled functions',
    _compiled,
    'Set XDG_CACHE_HOME to a directory of yours',
    'quick start of later runs: each compiles anew',
  ),
  Check(
    'bytecode',
    _bytecode,
    f'Run: {sys.executable} -m compileall -q {sys.prefix}, or unset '
    'PYTHONDONTWRITEBYTECODE',
    'quick start of programs: each process compiles what it imports',
  ),
  Check(
    'libraries of training',
    _training,
    'Run: pip install --upgrade --force-reinstall distacme',
  ),
  Check(
    'writable directory',
    _directory,
    'Change to a directory that you may write to, or give --run-dir',
  ),
  Check(
    'grpc', _library('grpc'), "Run: pip install 'grpcio>=1.60'", 'programs'
  ),
  Check(
    'Launchpad',
    _launchpad,
    _LAUNCH,
    'start through Launchpad: distacme starts threads and processes itself',
  ),
  Check(
    'Reverb',
    _reverb,
    _LAUNCH,
    "replay through Reverb: a service of distacme's own takes experience there",
  ),
  Check(
    'replay behind loopback',
    _closed_doors,
    'Close the port of a run with a firewall, or add --replay-transport grpc',
    'replay server that other hosts cannot reach',
  ),
  Check('gymnasium', _library('gymnasium'), _ENVS, 'gymnasium:...'),
  Check('bsuite', _library('bsuite'), _ENVS, 'bsuite:...'),
  Check('ale-py', _environment('atari:Pong', 'ale-py'), _ENVS, 'atari:...'),
  Check(
    'dm_control',
    _environment('dm_control:cartpole/balance', 'dm-control'),
    f'{_ENVS}, with Python 3.12 or older',
    'dm_control:...',
  ),
  Check(
    'MinAtar',
    _environment('minatar:breakout', 'minatar'),
    _ENVS,
    'minatar:...',
  ),
  Check('MuJoCo', _library('mujoco'), _ENVS, 'gymnasium:HalfCheetah-v5, ...'),
  Check(
    'pictures of MuJoCo',
    _mujoco_pictures,
    'Run: apt-get install libegl1 libgl1',
    'videos of MuJoCo and dm_control',
  ),
  Check(
    'matplotlib',
    _library('matplotlib'),
    _matplotlib_remedy,
    'curves as PNG',
  ),
  Check(
    'ffmpeg',
    _ffmpeg,
    "Run: pip install 'distacme[video]'",
    'videos (evaluate --video)',
  ),
  Check(
    'Minari',
    _minari,
    "Run: pip install 'distacme[demonstrations]'",
    'recorded episodes (distacme record, --demonstrations)',
  ),
  Check('mctx', _library('mctx'), _SEARCH, 'agents that search: mcts, muzero'),
  Check('pgx', _library('pgx'), _SEARCH, 'pgx:...'),
)
