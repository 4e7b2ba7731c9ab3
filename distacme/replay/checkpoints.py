"""Checkpoints of replay's tables: folders that are complete or absent."""

from __future__ import annotations

from collections.abc import Callable
import pathlib
import shutil
from typing import Any, TypeVar

from distacme import replay_spec
from distacme.run import files
from distacme.run import notices

_KEEP = 2  # the older one is restored if the newest is damaged
_CONTENTS = 'contents.json'
_T = TypeVar('_T')


class Checkpoints:
  """Numbered folders in one directory, the newest few; one thread at a time.

  Its user writes files into `unfinished`, and `add` renames the folder. A file
  beside them keeps the names and lengths of the files. Who reads the files checks
  their contents.
  """

  def __init__(
    self,
    directory: pathlib.Path,
    backend: str,
    spec: replay_spec.ReplaySpec,
  ):
    """Removes the unfinished checkpoint of a process that died.

    Args:
      directory: of the checkpoints; made if need be.
      backend: name of the backend that writes the files.
      spec: of the tables; a checkpoint with another spec is not restored.
    """
    self._directory = directory
    self._backend = backend
    self._spec = spec
    self.unfinished = directory / 'unfinished'
    self.clear_unfinished()

  def clear_unfinished(self) -> None:
    """Removes files of an unfinished checkpoint, which would fill the disk."""
    shutil.rmtree(self.unfinished, ignore_errors=True)
    self.unfinished.mkdir(parents=True, exist_ok=True)

  def add(self, folder: pathlib.Path) -> pathlib.Path:
    """Makes a folder of whole files the newest checkpoint; returns its path."""
    sizes = {path.name: path.stat().st_size for path in folder.iterdir()}
    contents = {
      'backend': self._backend,
      'spec': replay_spec.as_dict(self._spec),
      'files': sizes,
    }
    files.write_json(folder / _CONTENTS, contents)
    numbers = self._numbers()
    path = self._directory / str(max(numbers, default=0) + 1)
    folder.rename(path)
    for number in sorted(numbers, reverse=True)[_KEEP - 1 :]:
      shutil.rmtree(self._directory / str(number))
    return path

  def restore(self, load: Callable[[pathlib.Path], _T]) -> _T | None:
    """Loads the newest whole checkpoint and returns the result of `load`.

    A damaged checkpoint is skipped, with a warning that names the one used instead.

    Args:
      load: loads a checkpoint, given its folder; raises any error for a damaged one.

    Returns:
      The result of `load`; None if there is no whole checkpoint.
    """
    skipped: list[str] = []
    for number in sorted(self._numbers(), reverse=True):
      path = self._directory / str(number)
      try:
        self._check(path)
        loaded = load(path)
      except Exception as error:  # of zip files, of the file system
        skipped.append(f'{path} ({error})')
        continue
      if skipped:
        notices.warn_once(
          f'cannot restore replay from {" nor ".join(skipped)}; {path} is used '
          'instead.'
        )
      return loaded
    if skipped:
      notices.warn_once(
        f'cannot restore replay from {" nor ".join(skipped)}, and there is no '
        'other: it starts anew.'
      )
    return None

  def _check(self, path: pathlib.Path) -> None:
    """Checks that all files are there, with their former lengths.

    Raises:
      ValueError: if not, or if the files were written for another replay.
    """
    contents = files.read_json(path / _CONTENTS)
    for name, was, value in (
      ('backend', contents['backend'], self._backend),
      ('spec', _read_spec(contents['spec']), self._spec),
    ):
      if was != value:
        raise ValueError(
          f'it was saved with the {name} {was} and this run has {value}'
        )
    for name, size in contents['files'].items():
      file = path / name
      found = file.stat().st_size if file.exists() else None
      if found != size:
        raise ValueError(f'{name} has {found} bytes and had {size}')

  def _numbers(self) -> list[int]:
    names = [path.name for path in self._directory.iterdir()]
    return [int(name) for name in names if name.isdigit()]


def _read_spec(value: Any) -> Any:
  """Returns a spec, with fields that were not there yet at their defaults.

  Returns:
    The value itself, where it is none that this version can have.
  """
  try:
    return replay_spec.from_dict(value)
  except (AttributeError, KeyError, TypeError, ValueError):
    return value
