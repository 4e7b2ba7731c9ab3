"""Ctrl-C, SIGTERM and a closed terminal as requests to stop, not as exceptions."""

from __future__ import annotations

from collections.abc import Callable, Iterator
import contextlib
import faulthandler
import os
import pathlib
import signal
import sys
import threading
import time
import types

from distacme import counting

_REASONS = {
  signal.SIGINT: counting.StopReason.INTERRUPTED,
  signal.SIGTERM: counting.StopReason.TERMINATED,
  # The terminal was closed, or the connection to it lost.
  signal.SIGHUP: counting.StopReason.TERMINATED,
}

# What a shell reports of a process that a signal ended, and our own.
EXIT_CODES = {
  counting.StopReason.INTERRUPTED: 128 + signal.SIGINT,
  counting.StopReason.TERMINATED: 128 + signal.SIGTERM,
  counting.StopReason.FAILED: 1,
}


# Makes a process that called `explain_when_asked` write where each thread is.
EXPLAIN = signal.SIGUSR1

_LAST_S = 15.0  # for a process whose parent is gone to save and end
_PARENT_PERIOD_S = 1.0


def explain_when_asked() -> None:
  """Lets this process write the stacks of its threads to stderr at `EXPLAIN`."""
  faulthandler.register(EXPLAIN, all_threads=True)


def exit_code(reason: str) -> int:
  """Returns the exit code of a run that ended for `reason`; 0 if it is done."""
  return int(EXIT_CODES.get(counting.StopReason(reason), 0))


def signal_of(reason: str) -> signal.Signals:
  """Returns the signal that asks for a stop for `reason`."""
  return next(number for number, r in _REASONS.items() if r == reason)


@contextlib.contextmanager
def requested_from(request_stop: Callable[[str], None]) -> Iterator[None]:
  """Calls `request_stop` at the first signal; the second one acts as usual.

  SIGHUP is no request where it was ignored, as by nohup. From the first signal on it
  is ignored for good: a shell and the kernel send one each, and who pressed Ctrl-C may
  close the terminal next. In the main thread only, as Python has it; elsewhere nothing
  is changed.
  """
  if threading.current_thread() is not threading.main_thread():
    yield
    return

  def handle(number: int, frame: types.FrameType | None) -> None:
    del frame
    previous[signal.SIGHUP] = signal.SIG_IGN
    for again in (signal.SIGHUP, signal.Signals(number)):
      signal.signal(again, previous[again])
    # In a thread: whoever was interrupted may hold the lock that is needed.
    reason = _REASONS[signal.Signals(number)].value
    threading.Thread(target=request_stop, args=(reason,), daemon=True).start()

  previous = {number: signal.signal(number, handle) for number in _REASONS}
  if previous[signal.SIGHUP] == signal.SIG_IGN:
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
  try:
    yield
  finally:
    for number, handler in previous.items():
      signal.signal(number, handler)


# What a terminal sends to all who belong to it; the launcher decides what it means.
_FROM_TERMINALS = (signal.SIGINT, signal.SIGHUP)


@contextlib.contextmanager
def children_deaf() -> Iterator[None]:
  """Processes that are started in this context hear nothing from their terminal.

  Until they call `ignore_terminal`: a signal that comes before, while they import,
  would end them at once.
  """
  before = signal.pthread_sigmask(signal.SIG_BLOCK, _FROM_TERMINALS)
  try:
    yield
  finally:
    signal.pthread_sigmask(signal.SIG_SETMASK, before)


def ignore_terminal() -> None:
  """Ignores what a terminal sends, for good, in a worker's process."""
  for number in _FROM_TERMINALS:
    signal.signal(number, signal.SIG_IGN)
  signal.pthread_sigmask(signal.SIG_UNBLOCK, _FROM_TERMINALS)


PARENT_VARIABLE = 'DISTACME_PARENT'


def parent_variable() -> dict[str, str]:
  """Returns what children that call `die_with_parent` need in their environment."""
  return {PARENT_VARIABLE: str(os.getpid())}


def die_with_parent() -> None:
  """Lets this process get SIGTERM when its parent is gone (Linux only).

  If it has not ended 15 s later, as when it hangs, a thread ends it. Its parent said
  who it is (`parent_variable`): it may be gone already, since a process takes seconds
  to get here.
  """
  if sys.platform != 'linux':
    return
  parent = int(os.environ.get(PARENT_VARIABLE, os.getppid()))
  _prctl(_PR_SET_PDEATHSIG, int(signal.SIGTERM))
  if os.getppid() != parent:  # it went before the call
    os.kill(os.getpid(), signal.SIGTERM)
  threading.Thread(
    target=_end_after, args=(parent,), name='parent watch', daemon=True
  ).start()


def _end_after(parent: int) -> None:
  while os.getppid() == parent:
    time.sleep(_PARENT_PERIOD_S)
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
