"""Ends processes with their parent, and kills orphans."""

from __future__ import annotations

from collections.abc import Iterator
import contextlib
import os
import pathlib
import signal
import sys
import threading
import time

_LAST_S = 15.0  # for a process without its parent to save and end

_PARENT_PERIOD_S = 1.0

PARENT_VARIABLE = 'DISTACME_PARENT'


def parent_variable() -> dict[str, str]:
  """Returns the environment variable for children that call `die_with_parent`."""
  return {PARENT_VARIABLE: str(os.getpid())}


def die_with_parent() -> None:
  """Makes this process get SIGTERM when its parent is gone.

  On Linux the kernel sends the signal at once, elsewhere a thread sends it within a
  second. If the process hangs and has not ended 15 s later, the thread ends it. The
  parent gives its process id by `parent_variable`: the parent may be gone before this
  call, which the process reaches only after a while.
  """
  parent = int(os.environ.get(PARENT_VARIABLE, os.getppid()))
  if sys.platform == 'linux':
    _prctl(_PR_SET_PDEATHSIG, int(signal.SIGTERM))
  if os.getppid() != parent:  # the parent ended before the call
    os.kill(os.getpid(), signal.SIGTERM)
  threading.Thread(
    target=_end_after, args=(parent,), name='parent watch', daemon=True
  ).start()


def _end_after(parent: int) -> None:
  while os.getppid() == parent:
    time.sleep(_PARENT_PERIOD_S)
  if sys.platform != 'linux':
    os.kill(os.getpid(), signal.SIGTERM)
  time.sleep(_LAST_S)
  os._exit(1)


_PR_SET_PDEATHSIG, _PR_SET_CHILD_SUBREAPER = 1, 36  # linux/prctl.h


def _prctl(option: int, value: int) -> None:
  import ctypes

  ctypes.CDLL(None).prctl(option, value)


@contextlib.contextmanager
def no_orphans() -> Iterator[None]:
  """Kills orphans of this process's ended children, at the end (Linux only).

  An environment may start processes, which do not end when their worker is killed.
  Such orphans become children of this process. They are known by the variable of
  `parent_variable`, which they inherited.
  """
  if sys.platform != 'linux':
    yield
    return
  _prctl(_PR_SET_CHILD_SUBREAPER, 1)
  try:
    yield
  finally:
    while orphans := _orphans():  # each orphan may leave others
      for pid in orphans:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
    _prctl(_PR_SET_CHILD_SUBREAPER, 0)


def _orphans() -> list[int]:
  """Returns children of this process that one of its children had started."""
  mine = f'{PARENT_VARIABLE}={os.getpid()}'.encode()
  found = []
  for task in pathlib.Path('/proc/self/task').iterdir():
    try:
      children = (task / 'children').read_text().split()
    except OSError:  # a thread that has just ended
      continue
    for pid in children:
      try:
        environment = pathlib.Path('/proc', pid, 'environ').read_bytes()
      except OSError:  # of another user
        continue
      if mine in environment.split(b'\0'):
        found.append(int(pid))
  return found
