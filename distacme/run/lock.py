"""One run at a time in a directory, until the last of its processes has ended.

A run's launcher holds a shared lock on a file there (flock), and so does each process
of a worker: workers outlive a killed launcher and still write. A new run first takes
an exclusive lock, which succeeds only while no other process holds the lock.
"""

from __future__ import annotations

from collections.abc import Iterator
import contextlib
import functools
import logging
import os
import pathlib
import time
from typing import IO

from distacme.run import run_directory

_WAIT_S = 20.0  # a terminated run saves, and its workers end, in less
_POLL_S = 0.1
_logger = logging.getLogger(__name__)


def share(directory: run_directory.RunDirectory) -> None:
  """Holds the lock of this worker's run until this process ends.

  Call this before `runtime.process_tree.die_with_parent`. That call either finds the
  launcher alive, so that the launcher has held the lock until then, or ends this
  process.
  """
  with contextlib.suppress(OSError):  # the launcher has warned
    file = os.open(directory.lock, os.O_RDWR)
    os.register_at_fork(after_in_child=functools.partial(os.close, file))
    _flock(file, exclusive=False)


def take(directory: run_directory.RunDirectory) -> IO[str]:
  """Returns the lock of a directory, held until the file is closed.

  Waits a while for the processes of an earlier run to end. Warns instead if the
  file system has no locks.

  Raises:
    ValueError: if the directory is in use, or its lock cannot be opened.
  """
  with directory.refused_if_not_writable():
    file = open(directory.lock, 'a+')
  # A process that an environment forks may outlive the run.
  os.register_at_fork(after_in_child=file.close)
  deadline = time.monotonic() + _WAIT_S
  said = False
  try:
    while not _take(file):
      if time.monotonic() >= deadline:
        raise ValueError(
          f'{directory.path} is in use by {_holder(directory)}, still after '
          f'{_WAIT_S:.0f} s. Wait for its end or end it, or choose another '
          'run_dir.'
        )
      if not said:
        said = True
        _logger.warning(
          '%s is in use by %s: waiting up to %.0f s for its end.',
          directory.path,
          _holder(directory),
          _WAIT_S,
        )
      time.sleep(_POLL_S)
  except OSError as error:
    _logger.warning(
      '%s cannot be locked (%s): see to it yourself that no two runs use %s at '
      'once.',
      directory.lock,
      error,
      directory.path,
    )
  except BaseException:
    file.close()
    raise
  return file


def _take(file: IO[str]) -> bool:
  """Takes the shared lock if no other process has one; returns whether it did."""
  try:
    _flock(file.fileno(), exclusive=True)
    # The change is not atomic: another process may take the lock in between.
    _flock(file.fileno(), exclusive=False)
  except BlockingIOError:
    return False
  return True


def _flock(file: int, exclusive: bool) -> None:
  import fcntl  # where there is none, nothing has been launched either

  kind = fcntl.LOCK_EX if exclusive else fcntl.LOCK_SH
  fcntl.flock(file, kind | fcntl.LOCK_NB)


def _holder(directory: run_directory.RunDirectory) -> str:
  """Describes the processes that hold the lock, as far as they are known."""
  running = directory.read_running()
  if running is not None and running.here and not running.gone:
    return f'process {running.pid}'
  if pids := list(_pids(directory.lock)):
    return f'process{"es" * (len(pids) > 1)} {", ".join(pids)}'
  if running is not None:
    return f'process {running.pid} on {running.host}'
  return 'another process'


def _pids(path: pathlib.Path) -> Iterator[str]:
  """Yields the processes that took a lock on the file (Linux only)."""
  with contextlib.suppress(OSError):
    inode = path.stat().st_ino
    for line in pathlib.Path('/proc/locks').read_text().splitlines():
      # 1: FLOCK ADVISORY READ 1234 00:2f:5678 0 EOF
      fields = line.split()
      if fields[1] == 'FLOCK' and fields[5].endswith(f':{inode}'):
        yield fields[4]
