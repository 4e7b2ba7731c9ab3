"""Files that are whole or absent."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
import contextlib
import errno
import json
import math
import os
import pathlib
from typing import Any, TypeVar

from distacme import status
from distacme.run import notices

_T = TypeVar('_T')

_TAIL_BYTES = 1 << 16


class NotWrittenError(OSError):
  """A disk that is full, say: whoever writes again would fail again."""

  def __init__(self, path: os.PathLike[str] | str, why: object):
    """Makes a sentence of what the system says."""
    remedy = 'Make room there, or choose another run_dir'
    if os.strerror(errno.EMFILE) in str(why):  # the sentence may be a library's
      remedy = 'Let a process open more files (ulimit -n), or use fewer workers'
    super().__init__(
      f'nothing can be written to {path} ({why!s:.500}). {remedy}; the same '
      'command goes on from the last checkpoint.'
    )


@contextlib.contextmanager
def writing_to(
  path: pathlib.Path, also: type[Exception] = OSError
) -> Iterator[None]:
  """Raises a NotWrittenError for an OSError, and for `also`."""
  try:
    yield
  except NotWrittenError:
    raise
  except (OSError, also) as error:
    # TensorStore's sentence ends with places in its source.
    why = str(error).partition(' [source locations')[0]
    raise NotWrittenError(path, why) from error


def write_json(path: pathlib.Path, value: Any) -> None:
  """Writes a file that is complete or absent, even if the machine dies.

  Raises:
    NotWrittenError: if it cannot; the file stays what it was.
  """
  temporary = path.with_suffix('.tmp')
  try:
    with open(temporary, 'w') as file:
      file.write(to_json(value) + '\n')
      file.flush()
      os.fsync(file.fileno())
    temporary.replace(path)
  except OSError as error:
    with contextlib.suppress(OSError):
      temporary.unlink()  # a disk that is full needs the room
    raise NotWrittenError(path, error.strerror) from error


def write_if_possible(path: pathlib.Path, value: Any) -> None:
  """As `write_json`; what cannot be written is only said."""
  try:
    write_json(path, value)
  except NotWrittenError as error:
    notices.warn_once(str(error))


def read_json(path: pathlib.Path) -> Any:
  """Reads what `write_json` wrote."""
  return from_json(path.read_text())


def to_json(value: Any) -> str:
  """Returns JSON; it has no infinity and no NaN, so these become strings."""
  return json.dumps(spelled(value), indent=2, default=str, allow_nan=False)


def from_json(text: str) -> Any:
  """Undoes `to_json`, but for tuples, which are lists, and keys, now strings.

  Raises:
    ValueError: if it is no JSON.
  """
  return unspelled(json.loads(text))


_NON_FINITE = ('NaN', 'Infinity', '-Infinity')


def spelled(value: Any) -> Any:
  """Returns `value` with words for NaN and infinities, which JSON lacks."""
  if isinstance(value, float) and not math.isfinite(value):
    return 'NaN' if math.isnan(value) else ('-' * (value < 0) + 'Infinity')
  if isinstance(value, Mapping):
    return {key: spelled(inner) for key, inner in value.items()}
  if isinstance(value, (list, tuple)):
    return [spelled(inner) for inner in value]
  return value


def unspelled(value: Any) -> Any:
  """Undoes `spelled`, and takes texts that are such words for numbers, too."""
  if isinstance(value, str) and value in _NON_FINITE:
    return float(value)
  if isinstance(value, dict):
    return {key: unspelled(inner) for key, inner in value.items()}
  if isinstance(value, list):
    return [unspelled(inner) for inner in value]
  return value


def tail(path: pathlib.Path) -> str:
  """Returns the last lines of a file, 64 KiB at most; '' if it cannot be read.

  The text is `printable`. A file that a worker writes may be of any size, hold any
  bytes, or be gone.
  """
  try:
    with open(path, 'rb') as file:
      size = file.seek(0, os.SEEK_END)
      file.seek(max(0, size - _TAIL_BYTES))
      data = file.read(_TAIL_BYTES)
    if size > _TAIL_BYTES:  # The first line may be the end of one.
      data = data.partition(b'\n')[2] or data
  except OSError:
    return ''
  return status.printable(data.decode(errors='replace'))


# What a file raises that is not what was written.
NOT_WHOLE = (ValueError, TypeError, KeyError, AttributeError)


def read_if_whole(
  path: pathlib.Path, parse: Callable[[Any], _T], lost: str
) -> _T | None:
  """Returns the parsed content of a file that a run can do without.

  Args:
    path: of the file.
    parse: given what `write_json` was given; raises if it was something else.
    lost: for the one warning, what it means that the file is damaged.

  Returns:
    None if there is no file, or if it is damaged or cannot be read.
  """
  try:
    return parse(read_json(path))
  except FileNotFoundError:
    return None
  except OSError as error:  # it is another user's, or no file
    notices.warn_once(f'{path} cannot be read ({error.strerror}): {lost}.')
    return None
  except NOT_WHOLE as error:
    notices.warn_once(f'{path} is damaged ({error}): {lost}.')
    return None
