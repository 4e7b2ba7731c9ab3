"""Turns Ctrl-C, SIGTERM and a closed terminal into requests to stop."""

from __future__ import annotations

from collections.abc import Callable, Iterator
import contextlib
import faulthandler
import os
import signal
import threading
import types
from typing import Any, NamedTuple, NoReturn

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


def explain_crashes() -> None:
  """Makes this process write its threads' stacks to stderr if it crashes.

  Native code of an environment may crash, which Python cannot catch.
  """
  if not faulthandler.is_enabled():  # else somebody has chosen a file
    faulthandler.enable()


def explain_when_asked() -> None:
  """Makes this process write its threads' stacks to stderr at `EXPLAIN`."""
  faulthandler.register(EXPLAIN, all_threads=True)


def exit_code(reason: status.StopReason) -> int:
  """Returns the exit code of a run that ended for `reason`; 0 if it was done."""
  return int(EXIT_CODES.get(reason, 0))


def signal_of(reason: status.StopReason) -> signal.Signals:
  """Returns the signal that asks for a stop for `reason`."""
  return next(number for number, r in _REASONS.items() if r == reason)


class Stopped(BaseException):
  """A signal has asked for a stop, and nothing was there to do it in order."""

  def __init__(self, reason: status.StopReason):
    super().__init__(reason.value)
    self.reason = reason


class _Taker(NamedTuple):
  """The functions that stop a run, and that hurry its end."""

  stop: Callable[[status.StopReason], None]
  hurry: Callable[[], None]


class StopRequests:
  """Takes signals within a context, as requests to stop, and passes them on.

  The first signal is a request, the second Ctrl-C hurries the end, and the third acts
  as it would without this context. Another SIGTERM changes nothing. SIGHUP is no
  request if the process ignored it before, as under nohup. From the first signal on
  SIGHUP is ignored for good: a shell and the kernel send one each, and a user may close
  the terminal after Ctrl-C.

  A signal that comes while nobody takes requests (`passed_to`) raises `Stopped`. If a
  library catches that, the next taker gets the request. Python handles signals in the
  main thread only; in another thread this context changes nothing.
  """

  def __init__(self) -> None:
    """Takes no signal yet."""
    self._reason: status.StopReason | None = None  # of the first signal
    self._hurried = False
    self._held = 0
    self._taker: _Taker | None = None
    self._owner = os.getpid()
    self._previous: dict[signal.Signals, Any] = {}

  def __enter__(self) -> StopRequests:
    """Takes the signals."""
    if threading.current_thread() is threading.main_thread():
      for number in _REASONS:
        self._previous[number] = signal.getsignal(number)
        if number != signal.SIGHUP or self._previous[number] != signal.SIG_IGN:
          signal.signal(number, self._handle)
    return self

  def __exit__(self, *error: object) -> None:
    """Lets the signals act as before."""
    for number, handler in self._previous.items():
      signal.signal(number, handler)

  @contextlib.contextmanager
  def passed_to(
    self,
    stop: Callable[[status.StopReason], None],
    hurry: Callable[[], None] | None = None,
  ) -> Iterator[None]:
    """Passes requests on within a context, those from before it, too.

    Args:
      stop: called with the reason for each kind of signal, in a thread: the
        interrupted code may hold a lock that it needs. Repeated calls must do no harm.
      hurry: called in the main thread at the second Ctrl-C; by default raises
        `Stopped` there.
    """
    try:
      self._taker = _Taker(stop, hurry or self._raise)
      if self._reason is not None:
        stop(self._reason)
      if self._hurried:
        self._taker.hurry()
      yield
    finally:
      self._taker = None

  @contextlib.contextmanager
  def held(self) -> Iterator[None]:
    """Holds `hurry` back until the end of a context, e.g. one that writes a file."""
    self._held += 1
    hurried = self._hurried
    try:
      yield
    finally:
      self._held -= 1
      if self._hurried and not hurried:
        self._hurry()

  def _handle(self, number: int, frame: types.FrameType | None) -> None:
    del frame
    if os.getpid() != self._owner:  # a fork, by a user's environment
      signal.signal(number, signal.SIG_DFL)
      signal.raise_signal(number)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    self._previous[signal.SIGHUP] = signal.SIG_IGN
    reason = _REASONS[signal.Signals(number)]
    if self._reason is None:
      self._reason = reason
      if self._taker is None:
        self._raise()
      self._ask(reason)
    elif number == signal.SIGINT and self._hurried:
      signal.signal(number, self._previous[signal.SIGINT])
      signal.raise_signal(number)
    elif number == signal.SIGINT:
      self._hurried = True
      self._hurry()
    elif reason != self._reason:
      self._ask(reason)

  def _ask(self, reason: status.StopReason) -> None:
    if self._taker is not None:
      threading.Thread(
        target=self._taker.stop, args=(reason,), daemon=True
      ).start()

  def _hurry(self) -> None:
    if self._held:
      return
    if self._taker is None:
      self._raise()
    else:
      self._taker.hurry()

  def _raise(self) -> NoReturn:
    assert self._reason is not None
    raise Stopped(self._reason)


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
