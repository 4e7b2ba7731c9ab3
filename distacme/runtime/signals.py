"""Turns Ctrl-C, SIGTERM and a closed terminal into requests to stop."""

from __future__ import annotations

from collections.abc import Callable, Iterator
import contextlib
import faulthandler
import signal
import threading
import types

from distacme import status

_REASONS = {
  signal.SIGINT: status.StopReason.INTERRUPTED,
  signal.SIGTERM: status.StopReason.TERMINATED,
  # The terminal was closed, or the connection to it lost.
  signal.SIGHUP: status.StopReason.TERMINATED,
}

# The codes that a shell reports of a process ended by a signal, and our own.
EXIT_CODES = {
  status.StopReason.INTERRUPTED: 128 + signal.SIGINT,
  status.StopReason.TERMINATED: 128 + signal.SIGTERM,
  status.StopReason.FAILED: 1,
}

# Makes a process that called `explain_when_asked` write the stacks of its threads.
EXPLAIN = signal.SIGUSR1


def explain_when_asked() -> None:
  """Makes this process write its threads' stacks to stderr at `EXPLAIN`."""
  faulthandler.register(EXPLAIN, all_threads=True)


def exit_code(reason: status.StopReason) -> int:
  """Returns the exit code of a run that ended for `reason`; 0 if it was done."""
  return int(EXIT_CODES.get(reason, 0))


def signal_of(reason: status.StopReason) -> signal.Signals:
  """Returns the signal that asks for a stop for `reason`."""
  return next(number for number, r in _REASONS.items() if r == reason)


@contextlib.contextmanager
def requested_from(
  request_stop: Callable[[status.StopReason], None],
) -> Iterator[None]:
  """Calls `request_stop` at the first signal; the second one acts as usual.

  SIGHUP is no request if the process ignored it before, as under nohup. From the first
  signal on SIGHUP is ignored for good: a shell and the kernel send one each, and a user
  may close the terminal after Ctrl-C. Python handles signals in the main thread only;
  in another thread this changes nothing.
  """
  if threading.current_thread() is not threading.main_thread():
    yield
    return

  def handle(number: int, frame: types.FrameType | None) -> None:
    del frame
    previous[signal.SIGHUP] = signal.SIG_IGN
    for again in (signal.SIGHUP, signal.Signals(number)):
      signal.signal(again, previous[again])
    # In a thread: the interrupted code may hold the lock that `request_stop` needs.
    reason = _REASONS[signal.Signals(number)]
    threading.Thread(target=request_stop, args=(reason,), daemon=True).start()

  previous = {number: signal.signal(number, handle) for number in _REASONS}
  if previous[signal.SIGHUP] == signal.SIG_IGN:
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
  try:
    yield
  finally:
    for number, handler in previous.items():
      signal.signal(number, handler)


# The signals of a terminal to all its processes. The launcher decides for the run.
_FROM_TERMINALS = (signal.SIGINT, signal.SIGHUP)


@contextlib.contextmanager
def children_deaf() -> Iterator[None]:
  """Blocks the terminal's signals for processes that are started in this context.

  The signals are blocked until such a process calls `ignore_terminal`. Otherwise a
  signal during the process's imports would end the process at once.
  """
  before = signal.pthread_sigmask(signal.SIG_BLOCK, _FROM_TERMINALS)
  try:
    yield
  finally:
    signal.pthread_sigmask(signal.SIG_SETMASK, before)


def ignore_terminal() -> None:
  """Ignores a terminal's signals, for good, in a worker's process."""
  for number in _FROM_TERMINALS:
    signal.signal(number, signal.SIG_IGN)
  signal.pthread_sigmask(signal.SIG_UNBLOCK, _FROM_TERMINALS)
