"""Asks Slurm by its commands: about jobs, nodes and partitions."""

from __future__ import annotations

from collections.abc import Collection
import fcntl
import logging
import os
import re
import shutil
import socket
import struct
import subprocess
from typing import NamedTuple

from distacme.deploy import cluster as cluster_lib
from distacme.deploy import engine as engine_lib

_TIMEOUT_S = 60.0
_HASTE_S = 8.0  # where this job is about to be killed
_GONE = 'Invalid job id'
_STATES = {
  'RUNNING': engine_lib.JobState.RUNNING,
  'COMPLETING': engine_lib.JobState.ENDING,
  'STAGE_OUT': engine_lib.JobState.ENDING,
}
_SIOCGIFADDR = 0x8915  # linux/sockios.h: the address of an interface


class SlurmError(Exception):
  """A command of Slurm's failed; the message is what it said."""


def is_installed() -> bool:
  """Returns whether Slurm's commands are there."""
  return shutil.which('sbatch') is not None


def command(*arguments: str, timeout_s: float = _TIMEOUT_S) -> str:
  """Runs a command of Slurm's; returns its output.

  Raises:
    SlurmError: if it fails, or does not end in time.
  """
  try:
    done = subprocess.run(
      arguments,
      capture_output=True,
      text=True,
      timeout=timeout_s,
      env=_environment(),
      stdin=subprocess.DEVNULL,
    )
  except (OSError, subprocess.TimeoutExpired) as error:
    raise SlurmError(str(error)) from error
  if done.returncode:
    said = (done.stderr or done.stdout).strip() or f'code {done.returncode}'
    raise SlurmError(f'{arguments[0]}: {said}')
  return done.stdout


def _environment() -> dict[str, str]:
  """Returns this process's variables without those of a job that it may be in.

  sbatch takes them for options, and jobs for their own.
  """
  return {
    name: value
    for name, value in os.environ.items()
    if not name.startswith(('SLURM_', 'SBATCH_', 'SLURMD_'))
    or name in ('SLURM_CONF', 'SLURM_CLUSTERS')
  }


def states(
  jobs: Collection[str], timeout_s: float = _TIMEOUT_S
) -> dict[str, str]:
  """Returns the states of jobs, of arrays those of their elements, by their numbers.

  Raises:
    SlurmError: if Slurm does not answer.
  """
  if not jobs:
    return {}
  listed = ','.join(sorted(jobs))
  try:
    lines = command(
      *('squeue', '-h', '-r', '-j', listed, '-o', '%i|%T|%N|%r'),
      timeout_s=timeout_s,
    )
  except SlurmError as error:
    if _GONE in str(error):
      return {}
    raise
  found = {}
  for line in lines.splitlines():
    number, state, node, reason = line.split('|', 3)
    where = node or (f'({reason})' if reason not in ('', 'None') else '')
    found[number] = f'{state} {where}'.strip()
  return found


class SlurmEngine:
  """An `engine.Engine`: Slurm, as seen from within a job."""

  grace_s = 20.0  # of KillWait, which is 30 s by default

  def this_job(self) -> str:
    """Returns the number of this process's job: 12, or 12_3 in an array."""
    array = os.environ.get('SLURM_ARRAY_JOB_ID')
    if array:
      return f'{array}_{os.environ.get("SLURM_ARRAY_TASK_ID")}'
    return os.environ.get('SLURM_JOB_ID', '')

  def host(self, cluster: cluster_lib.Cluster) -> str:
    """Returns this node's address, by which Slurm knows it; see `engine.Engine`."""
    return address(cluster.slurm.interface)

  def state(self, job: str) -> engine_lib.JobState:
    """Returns the state of a job, of an array the state of all elements together."""
    try:
      found = [state.split()[0] for state in states([job]).values()]
    except SlurmError as error:
      logging.warning('%s', error)
      return engine_lib.JobState.UNKNOWN
    if not found:
      return engine_lib.JobState.GONE
    for state in found:
      if state in _STATES:
        return _STATES[state]
    return engine_lib.JobState.WAITING

  def is_cancelled(self) -> bool:
    """Returns whether somebody has cancelled this job; True if nobody can tell."""
    try:
      described = command(
        *('scontrol', '-o', 'show', 'job', self.this_job()),
        timeout_s=_HASTE_S,
      )
    except SlurmError as error:
      logging.warning('%s', error)
      return True
    # Of both it says COMPLETING; a job that is to start anew has been counted so.
    match = re.search(r'Restarts=(\d+)', described)
    before = int(os.environ.get('SLURM_RESTART_COUNT', 0))
    return match is None or int(match[1]) <= before

  def start_anew(self) -> bool:
    """Requeues this job, for after its end; returns whether Slurm agreed."""
    try:
      # Not SLURM_JOB_ID, which in the last element of an array names all of them.
      command('scontrol', 'requeue', self.this_job())
    except SlurmError as error:
      logging.error('%s', error)
      return False
    return True

  def cancel(self, jobs: Collection[str]) -> bool:
    """Cancels jobs; returns False if Slurm does not answer."""
    if not jobs:
      return True
    try:
      command('scancel', *jobs)
    except SlurmError as error:
      if _GONE not in str(error):
        logging.error('%s', error)
        return False
    return True


ENGINE = SlurmEngine()


def address(interface: str) -> str:
  """Returns this node's address for other nodes.

  Args:
    interface: of the network to use; '' for the address by which Slurm knows the node.

  Raises:
    ValueError: if the interface has none.
  """
  if interface:
    return _address_of(interface)
  node = os.environ.get('SLURMD_NODENAME') or socket.gethostname()
  try:
    described = command('scontrol', '-o', 'show', 'node', node)
    match = re.search(r'NodeAddr=(\S+)', described)
    name = match[1] if match else node
  except SlurmError as error:
    logging.warning('%s; the node is called %s', error, node)
    name = node
  try:
    found = socket.gethostbyname(name)
  except OSError:
    return name
  # A host may call itself 127.0.1.1, and others call it by its name.
  return name if found in ('127.0.0.1', '127.0.1.1') else found


def _address_of(interface: str) -> str:
  """Returns the IPv4 address of a network interface of this host.

  Raises:
    ValueError: if there is none.
  """
  request = struct.pack('256s', interface.encode()[:15])
  try:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
      answer = fcntl.ioctl(probe.fileno(), _SIOCGIFADDR, request)
  except OSError as error:
    names = ', '.join(name for _, name in socket.if_nameindex())
    raise ValueError(
      f'interface = {interface!r} in [slurm] has no IPv4 address on '
      f'{socket.gethostname()} ({error.strerror}), which has {names}. Name one '
      'that all nodes have.'
    ) from error
  return socket.inet_ntoa(answer[20:24])


class Offer(NamedTuple):
  """The size of a node, as one of its partitions offers it."""

  partition: str
  cpus: int
  mebibytes: int
  gpus: int
  seconds: int | None  # the limit of a job's time; None if there is none


def offers() -> tuple[list[Offer], str]:
  """Returns the kinds of nodes of each partition, and the default partition.

  Raises:
    SlurmError: if Slurm does not answer.
  """
  lines = command('sinfo', '-h', '-e', '-o', '%P|%c|%m|%G|%l').splitlines()
  found, default = [], ''
  for line in lines:
    partition, cpus, memory, gres, limit = line.split('|')
    if partition.endswith('*'):
      partition = partition.removesuffix('*')
      default = partition
    found.append(
      Offer(
        partition,
        int(cpus.rstrip('+')),
        int(memory.rstrip('+')),
        sum(
          int(number) for number in re.findall(r'gpu(?::[^:(,]+)?:(\d+)', gres)
        ),
        _seconds(limit),
      )
    )
  return found, default


def _seconds(limit: str) -> int | None:
  """Returns a limit of sinfo's in seconds: infinite, [D-]HH:MM:SS, MM:SS or MM."""
  match = re.fullmatch(
    r'(?:(\d+)-)?(?:(\d+):)?(\d+):(\d+)',
    limit if ':' in limit else f'{limit}:0',
  )
  if match is None:
    return None
  days, hours, minutes, rest = (int(part or 0) for part in match.groups())
  return ((days * 24 + hours) * 60 + minutes) * 60 + rest


def largest_array() -> int:
  """Returns the number of elements that an array of jobs may have.

  Raises:
    SlurmError: if Slurm does not answer.
  """
  match = re.search(
    r'MaxArraySize\s*=\s*(\d+)', command('scontrol', 'show', 'config')
  )
  return int(match[1]) if match else 1001


def submit(script: str, *options: str) -> str:
  """Submits a script; returns the number of the job.

  Raises:
    SlurmError: if Slurm refuses the job.
  """
  answer = command('sbatch', '--parsable', *options, script)
  return answer.strip().partition(';')[0]
