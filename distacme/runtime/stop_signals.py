"""Ctrl-C and SIGTERM as requests to stop, not as exceptions anywhere."""

from __future__ import annotations

from collections.abc import Callable, Iterator
import contextlib
import os
import signal
import sys
import threading
import types

from distacme import counting

_REASONS = {
  signal.SIGINT: counting.StopReason.INTERRUPTED,
  signal.SIGTERM: counting.StopReason.TERMINATED,
}

# What a shell reports of a process that a signal ended, and our own.
EXIT_CODES = {
  counting.StopReason.INTERRUPTED: 128 + signal.SIGINT,
  counting.StopReason.TERMINATED: 128 + signal.SIGTERM,
  counting.StopReason.FAILED: 1,
}


def exit_code(reason: str) -> int:
  """Returns the exit code of a run that ended for `reason`; 0 if it is done."""
  return int(EXIT_CODES.get(counting.StopReason(reason), 0))


def signal_of(reason: str) -> signal.Signals:
  """Returns the signal that asks for a stop for `reason`."""
  return next(number for number, r in _REASONS.items() if r == reason)


@contextlib.contextmanager
def requested_from(request_stop: Callable[[str], None]) -> Iterator[None]:
  """Calls `request_stop` at the first signal; the second one acts as usual.

  In the main thread only, as Python has it; elsewhere nothing is changed.
  """
  if threading.current_thread() is not threading.main_thread():
    yield
    return

  def handle(number: int, frame: types.FrameType | None) -> None:
    del frame
    signal.signal(number, previous[signal.Signals(number)])
    # In a thread: whoever was interrupted may hold the lock that is needed.
    reason = _REASONS[signal.Signals(number)].value
    threading.Thread(target=request_stop, args=(reason,), daemon=True).start()

  previous = {number: signal.signal(number, handle) for number in _REASONS}
  try:
    yield
  finally:
    for number, handler in previous.items():
      signal.signal(number, handler)


PARENT_VARIABLE = 'DISTACME_PARENT'


def parent_variable() -> dict[str, str]:
  """Returns what children that call `die_with_parent` need in their environment."""
  return {PARENT_VARIABLE: str(os.getpid())}


def die_with_parent() -> None:
  """Lets this process get SIGTERM when its parent is gone (Linux only).

  Its parent said who it is (`parent_variable`): it may be gone already, since a
  process takes seconds to get here.
  """
  if sys.platform != 'linux':
    return
  import ctypes

  pr_set_pdeathsig = 1
  parent = int(os.environ.get(PARENT_VARIABLE, os.getppid()))
  ctypes.CDLL(None).prctl(pr_set_pdeathsig, int(signal.SIGTERM))
  if os.getppid() != parent:  # it went before the call
    os.kill(os.getpid(), signal.SIGTERM)
