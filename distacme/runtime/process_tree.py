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
import uuid

_LAST_S = 15.0  # for a process without its parent to save and end

_PARENT_PERIOD_S = 1.0

# The process that a child is to end with; the child takes the variable out.
_PARENT = 'DISTACME_PARENT'
# The family that a process belongs to; its descendants inherit the variable.
_FAMILY = 'DISTACME_FAMILY'


def parent_variable() -> dict[str, str]:
  """Returns the variables that children need who call `die_with_parent`."""
  return {_PARENT: str(os.getpid())}


def die_with_parent() -> None:
  """Makes this process get SIGTERM when its parent is gone.

  On Linux the kernel sends it at once, elsewhere a thread within a second. If the
  process has not ended 15 s later, as when it hangs, the thread ends it.
  """
  parent = _parent()
  if sys.platform == 'linux':
    _prctl(_PR_SET_PDEATHSIG, int(signal.SIGTERM))
  if os.getppid() != parent:  # the parent ended before the call
    os.kill(os.getpid(), signal.SIGTERM)
  threading.Thread(
    target=_end_after, args=(parent,), name='parent watch', daemon=True
  ).start()


def _parent() -> int:
  """Returns the process that has started this one, and may be gone since.

  A parent says its number (`parent_variable`), since a process takes a while to
  get here. A number of another process that lives is not the parent's: this
  process has inherited the variable from somewhere.
  """
  actual = os.getppid()
  said = os.environ.pop(_PARENT, '')
  return actual if not said.isdigit() or _lives(int(said)) else int(said)


def _lives(pid: int) -> bool:
  """Returns whether a process is there, and more than an exit code."""
  try:
    os.kill(pid, 0)
    if sys.platform != 'linux':
      return True
    status = pathlib.Path('/proc', str(pid), 'stat').read_text()
  except PermissionError:  # it is another user's
    return True
  except OSError:
    return False
  return status.rpartition(') ')[2][:1] not in 'ZX'


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


class Family:
  """The processes of one run, and all that they have started."""

  def __init__(self) -> None:
    """Makes a family without members."""
    # A process may launch several runs, also at once.
    self._name = f'{os.getpid()}-{uuid.uuid4().hex}'

  def variables(self) -> dict[str, str]:
    """Returns the environment variables by which members end with this process."""
    return {**parent_variable(), _FAMILY: self._name}

  @contextlib.contextmanager
  def no_orphans(self) -> Iterator[None]:
    """Kills, at the end, what ended members have left (Linux only).

    An environment may start processes, which do not end with a worker that is
    killed. Such orphans become children of this process, and are known by the
    variable of their family, which they inherited.
    """
    if sys.platform != 'linux':
      yield
      return
    with _adopting():
      try:
        yield
      finally:
        while orphans := self._orphans():  # each may leave others
          for pid in orphans:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)

  def _orphans(self) -> list[int]:
    """Returns the children of this process that belong to the family."""
    mine = f'{_FAMILY}={self._name}'.encode()
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


_adopting_lock = threading.Lock()
_adopters = 0


@contextlib.contextmanager
def _adopting() -> Iterator[None]:
  """Makes orphaned descendants children of this process, while any run wants it."""
  _count_adopters(1)
  try:
    yield
  finally:
    _count_adopters(-1)


def _count_adopters(more: int) -> None:
  global _adopters
  with _adopting_lock:
    _adopters += more
    _prctl(_PR_SET_CHILD_SUBREAPER, int(_adopters > 0))
