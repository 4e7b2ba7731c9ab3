"""Files that are whole or absent."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
import contextlib
import json
import math
import os
import pathlib
from typing import Any

from distacme.run import notices
from distacme.run import run_directory


class NotWrittenError(OSError):
  """A run's file cannot be written, e.g. the disk is full; retrying fails too."""

  def __init__(self, path: os.PathLike[str] | str, why: object):
    """Makes a sentence of the system's error."""
    super().__init__(
      f'nothing can be written to {path} ({why!s:.500}). Make room there, or '
      'choose another run_dir; the same command goes on from the last '
      'checkpoint.'
    )


@contextlib.contextmanager
def writing_to(
  path: pathlib.Path, also: type[Exception] = OSError
) -> Iterator[None]:
  """Turns an OSError, and an exception of `also`, into a NotWrittenError."""
  try:
    yield
  except NotWrittenError:
    raise
  except (OSError, also) as error:
    # TensorStore's message ends with places in its source.
    why = str(error).partition(' [source locations')[0]
    raise NotWrittenError(path, why) from error


def write_json(path: pathlib.Path, value: Any) -> None:
  """Writes a file that is complete or absent, even if the machine dies.

  Raises:
    NotWrittenError: if the file cannot be written; an earlier file stays.
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
      temporary.unlink()  # a full disk needs the room
    raise NotWrittenError(path, error.strerror) from error


def write_if_possible(path: pathlib.Path, value: Any) -> None:
  """Writes like `write_json`, but only warns if the file cannot be written."""
  try:
    write_json(path, value)
  except NotWrittenError as error:
    notices.warn_once(str(error))


def read_json(path: pathlib.Path) -> Any:
  """Reads a file of `write_json`."""
  return from_json(path.read_text())


def to_json(value: Any) -> str:
  """Returns JSON; NaN and infinities become strings, since JSON has neither."""
  return json.dumps(spelled(value), indent=2, default=str, allow_nan=False)


def from_json(text: str) -> Any:
  """Undoes `to_json`, but tuples become lists, and keys become strings.

  Raises:
    ValueError: if `text` is no JSON.
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
  """Undoes `spelled`; a text that equals such a word becomes a number, too."""
  if isinstance(value, str) and value in _NON_FINITE:
    return float(value)
  if isinstance(value, dict):
    return {key: unspelled(inner) for key, inner in value.items()}
  if isinstance(value, list):
    return [unspelled(inner) for inner in value]
  return value


# The errors of reading a damaged file.
NOT_WHOLE = (ValueError, TypeError, KeyError, AttributeError)


def read_if_whole(
  path: pathlib.Path, parse: Callable[[Any], run_directory._T], lost: str
) -> run_directory._T | None:
  """Returns the parsed contents of a file that a run can do without.

  Args:
    path: of the file.
    parse: maps the value given to `write_json` to the result; raises for others.
    lost: the loss if the file is damaged, for the one warning.

  Returns:
    None if there is no file, or if the file is damaged.
  """
  try:
    return parse(read_json(path))
  except FileNotFoundError:
    return None
  except NOT_WHOLE as error:
    notices.warn_once(f'{path} is damaged ({error}): {lost}.')
    return None
