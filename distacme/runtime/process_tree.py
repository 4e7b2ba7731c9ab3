"""Processes end with their parent, and leave no orphans."""

from __future__ import annotations

from collections.abc import Iterator
import contextlib
import os
import pathlib
import signal
import sys
import threading
import time

_LAST_S = 15.0  # for a process whose parent is gone to save and end

_PARENT_PERIOD_S = 1.0

PARENT_VARIABLE = 'DISTACME_PARENT'


def parent_variable() -> dict[str, str]:
  """Returns what children that call `die_with_parent` need in their environment."""
  return {PARENT_VARIABLE: str(os.getpid())}


def die_with_parent() -> None:
  """Lets this process get SIGTERM when its parent is gone.

  On Linux the kernel sends it at once, elsewhere a thread within a second. If the
  process has not ended 15 s later, as when it hangs, the thread ends it. The parent
  said who it is (`parent_variable`): it may be gone already, since a process takes
  a while to get here.
  """
  parent = int(os.environ.get(PARENT_VARIABLE, os.getppid()))
  if sys.platform == 'linux':
    _prctl(_PR_SET_PDEATHSIG, int(signal.SIGTERM))
  if os.getppid() != parent:  # it went before the call
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
  """Kills, at the end, what ended children of this process have left (Linux only).

  An environment may start processes, which do not end with a worker that is killed.
  Such orphans become children of this process, and are known by the variable of
  `parent_variable`, which they inherited.
  """
  if sys.platform != 'linux':
    yield
    return
  _prctl(_PR_SET_CHILD_SUBREAPER, 1)
  try:
    yield
  finally:
    while orphans := _orphans():  # each may leave others
      for pid in orphans:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
    _prctl(_PR_SET_CHILD_SUBREAPER, 0)


def _orphans() -> list[int]:
  """Returns the children of this process that a child of it has started."""
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
