"""Writing for people: a terminal that is gone fails no run."""

from __future__ import annotations

from collections.abc import Iterator
import contextlib
import io
import os
import sys
from typing import TYPE_CHECKING, Any, TextIO

if TYPE_CHECKING:
  from rich import console as rich_console


def console() -> rich_console.Console:
  """Returns a console on stdout that can always be written to."""
  from rich import console as rich_console

  forgiving: Any = _Forgiving(sys.stdout)
  return rich_console.Console(file=forgiving, force_jupyter=False)


def say(text: str) -> None:
  """Prints a line, if there is still somewhere to print it."""
  print(text, file=_Forgiving(sys.stdout), flush=True)


def flush() -> None:
  """Writes what stdout and stderr still hold, or drops it.

  The interpreter would try once more at its end, and make the exit code 120.
  """
  for stream in (sys.stdout, sys.stderr):
    _Forgiving(stream).flush()


def open_missing() -> None:
  """Opens /dev/null as those of stdin, stdout and stderr that are closed.

  As of `distacme train >&-`: the next file to be opened would get their number,
  and whatever libraries print.
  """
  for number in range(3):
    try:
      os.fstat(number)
    except OSError:
      os.open(os.devnull, os.O_RDWR)  # gets the lowest number that is free
  for name in ('stdout', 'stderr'):
    if getattr(sys, name) is None:
      setattr(sys, name, open(os.devnull, 'w'))


class _Forgiving:
  """A text stream, of which all goes to /dev/null once it cannot be written.

  As when its terminal was closed (EIO), or its reader has ended (EPIPE).
  """

  def __init__(self, stream: TextIO | None):
    """Takes a stream; None, as of a script that was started without stdout."""
    self._stream = io.StringIO() if stream is None else stream

  def write(self, text: str) -> int:
    """Writes, if that is possible."""
    with self._forgiven():
      self._stream.write(text)
    return len(text)

  def flush(self) -> None:
    """Writes what is held, if that is possible."""
    with self._forgiven():
      self._stream.flush()

  @contextlib.contextmanager
  def _forgiven(self) -> Iterator[None]:
    try:
      yield
    except BlockingIOError:  # its reader is slow
      pass
    except OSError:
      with contextlib.suppress(OSError):  # where it has no descriptor
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, self._stream.fileno())
        os.close(null)
        self._stream.flush()

  def __getattr__(self, name: str) -> Any:
    return getattr(self._stream, name)  # isatty, encoding, and so on
