"""Ends a process that has nothing to end in order, or nothing more.

This module imports next to nothing: a command calls `at_signals` before the command
imports anything that takes time.
"""

from __future__ import annotations

import os
import signal
import sys
import types

_SAID = {
  signal.SIGINT: ('interrupted', 128 + signal.SIGINT),
  signal.SIGTERM: ('terminated', 128 + signal.SIGTERM),
  # The terminal was closed.
  signal.SIGHUP: ('terminated', 128 + signal.SIGTERM),
}

# Begins the names of workers' threads, which no code can end.
WORKER = 'worker '

_LAST_S = 5.0  # for threads and children of a command that is done


def at_signals(code: int | str | None = None) -> None:
  """Ends this process at Ctrl-C, SIGTERM or SIGHUP: one line, and an exit code.

  No exception is raised: a library may catch one, and Python ignores one in the
  callback of a weak reference. SIGHUP stays ignored, as under nohup.

  Args:
    code: of a process that is at its end, for all signals, and without a line.
  """
  owner = os.getpid()

  def end(number: int, frame: types.FrameType | None) -> None:
    del frame
    # Another signal ends the process even while the text is being written.
    signal.signal(number, signal.SIG_DFL)
    if os.getpid() != owner:  # a fork, by a user's environment
      signal.raise_signal(number)
    _flush()
    if code is not None:
      os._exit(_number(code))
    said, by_signal = _SAID[signal.Signals(number)]
    try:
      os.write(2, f'distacme: {said}\n'.encode())
    except OSError:
      pass
    os._exit(by_signal)

  for number in _SAID:
    if number != signal.SIGHUP or signal.getsignal(number) != signal.SIG_IGN:
      signal.signal(number, end)


_code: int | str | None = 1  # of a process whose last error Python prints


def note(code: int | str | None) -> None:
  """Notes the code with which `at_last` ends the process."""
  global _code
  _code = code


def at_last() -> None:
  """Ends this process where only the interpreter's own end is left to do.

  To be registered with atexit before all else, and so run last. The interpreter would
  set its own handlers back, under which signals kill the process, and stop the daemon
  threads of libraries in the middle of their C++, by which some abort it (gRPC's, seen
  on Python 3.13 with a machine under load).
  """
  for number in _SAID:
    signal.signal(number, signal.SIG_IGN)
  _flush()
  os._exit(_number(_code))


def despite_workers(code: int | str | None) -> None:
  """Ends this process now if workers' threads are left that have not ended.

  The end of the interpreter would wait for such threads, or crash under them.
  """
  import threading  # another millisecond

  if any(thread.name.startswith(WORKER) for thread in threading.enumerate()):
    _flush()
    os._exit(_number(code))


def despite_others(code: int | str | None) -> None:
  """Ends this process in some seconds if it has not ended by itself.

  An environment may have started threads or processes, for which Python waits.
  """
  import threading

  threading.Thread(target=_end_late, args=(code,), daemon=True).start()


def _end_late(code: int | str | None) -> None:
  import multiprocessing
  import threading
  import time

  time.sleep(_LAST_S)
  children = multiprocessing.active_children()
  for child in children:
    child.kill()
  main = threading.main_thread()
  left = [child.name for child in children] + [
    thread.name
    for thread in threading.enumerate()
    if not thread.daemon and thread is not main
  ]
  said = (
    f'distacme: the command is done, and still had '
    f'{", ".join(left[:4]) or "something to do at exit"}'
    f'{" and others" * (len(left) > 4)}: they were ended. An environment that '
    'starts threads or processes has to end them in close().\n'
  )
  try:
    os.write(2, said.encode())
  except OSError:
    pass
  _flush()
  os._exit(_number(code))


def _number(code: int | str | None) -> int:
  """Returns the number for a `SystemExit.code`, as Python does."""
  return code if isinstance(code, int) else int(code is not None)


def _flush() -> None:
  for stream in (sys.stdout, sys.stderr):
    try:
      stream.flush()
    except Exception:  # the stream is closed, or a signal met it in a write
      pass
