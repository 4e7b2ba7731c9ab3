"""Writes to the terminal; a terminal that is gone fails no run."""

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
  """Prints a line, if stdout can still be written."""
  print(text, file=_Forgiving(sys.stdout), flush=True)


def flush() -> None:
  """Writes the text that stdout and stderr still hold, or drops the text.

  The interpreter would try to write the text again at its end, and exit with
  120.
  """
  for stream in (sys.stdout, sys.stderr):
    _Forgiving(stream).flush()


def open_missing() -> None:
  """Opens /dev/null as those of stdin, stdout and stderr that are closed.

  `distacme train >&-` closes a stream: the next opened file would get the
  number of the closed stream, and so the prints of libraries.
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
  """A text stream that goes to /dev/null once it cannot be written.

  A write fails when the stream's terminal was closed (EIO) or the stream's
  reader has ended (EPIPE).
  """

  def __init__(self, stream: TextIO | None):
    """Takes a stream, or the None of a script started without stdout."""
    self._stream = io.StringIO() if stream is None else stream

  def write(self, text: str) -> int:
    """Writes the text, if the stream can be written."""
    with self._forgiven():
      self._stream.write(text)
    return len(text)

  def flush(self) -> None:
    """Writes the held text, if the stream can be written."""
    with self._forgiven():
      self._stream.flush()

  @contextlib.contextmanager
  def _forgiven(self) -> Iterator[None]:
    try:
      yield
    except BlockingIOError:  # the stream's reader is slow
      pass
    except OSError:
      with contextlib.suppress(OSError):  # the stream may have no descriptor
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, self._stream.fileno())
        os.close(null)
        self._stream.flush()

  def __getattr__(self, name: str) -> Any:
    return getattr(self._stream, name)  # isatty, encoding, and so on
