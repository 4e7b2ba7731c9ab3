"""Ctrl-C, SIGTERM and a closed terminal as requests to stop, not as exceptions."""

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

# What a shell reports of a process that a signal ended, and our own.
EXIT_CODES = {
  status.StopReason.INTERRUPTED: 128 + signal.SIGINT,
  status.StopReason.TERMINATED: 128 + signal.SIGTERM,
  status.StopReason.FAILED: 1,
}

# Makes a process that called `explain_when_asked` write where each thread is.
EXPLAIN = signal.SIGUSR1


def explain_when_asked() -> None:
  """Lets this process write the stacks of its threads to stderr at `EXPLAIN`."""
  faulthandler.register(EXPLAIN, all_threads=True)


def exit_code(reason: status.StopReason) -> int:
  """Returns the exit code of a run that ended for `reason`; 0 if it is done."""
  return int(EXIT_CODES.get(reason, 0))


def signal_of(reason: status.StopReason) -> signal.Signals:
  """Returns the signal that asks for a stop for `reason`."""
  return next(number for number, r in _REASONS.items() if r == reason)


@contextlib.contextmanager
def requested_from(
  request_stop: Callable[[status.StopReason], None],
) -> Iterator[None]:
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
