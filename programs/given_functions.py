"""Passes a user's objects to the workers: by import path, or in a pickle.

The pickle lies in the run directory, where only this user may read or write the
pickle. Only workers load the pickle; the launcher wrote the pickle before it
started the workers.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
import functools
import importlib
import os
import pathlib
import pickle
import stat
import sys
from typing import Any

from distacme.run import files
from distacme.run import run_directory


def import_path(given: Any) -> str:
  """Returns module:name if other processes find the object there, else ''."""
  module = getattr(given, '__module__', None)
  name = getattr(given, '__qualname__', None)
  if not module or not name or not _is_found_again(module):
    return ''
  found: Any = sys.modules.get(module)
  for part in name.split('.'):
    found = getattr(found, part, None)
  return f'{module}:{name}' if found is given else ''


def _is_found_again(name: str) -> bool:
  """Returns whether other processes, too, find the same module by its name.

  They do not find one that was made in memory, or loaded from a path.
  """
  if name == '__main__' or not (loaded := sys.modules.get(name)):
    return False
  parent = name.rpartition('.')[0]
  if parent and not _is_found_again(parent):
    return False
  folders = getattr(sys.modules[parent], '__path__', None) if parent else None
  # Not by importlib.util.find_spec, which says of a module what it was loaded by.
  for finder in sys.meta_path:
    if found := finder.find_spec(name, folders):
      spec = getattr(loaded, '__spec__', None)
      return spec is not None and _is_same_file(found.origin, spec.origin)
  return False


def _is_same_file(one: str | None, other: str | None) -> bool:
  """Returns whether two modules come from the same file; None is a mere folder."""
  if one is None or other is None:
    return one is other
  return os.path.realpath(one) == os.path.realpath(other)


def load(path: str) -> Any:
  """Returns the object that module:name names.

  Raises:
    ValueError: if there is no such module or object.
  """
  module_name, colon, name = path.partition(':')
  if not colon:
    raise ValueError(f'expected package.module:function, got {path!r}.')
  try:
    found: Any = importlib.import_module(module_name)
    for part in name.split('.'):
      found = getattr(found, part)
  except (ImportError, AttributeError) as error:
    raise ValueError(
      f'{path!r} cannot be loaded: {error}. Check the spelling, and that its '
      'folder is on PYTHONPATH.'
    ) from error
  return found


def write_pickles(
  pickles: Mapping[str, bytes], directory: run_directory.RunDirectory
) -> None:
  """Writes the objects that workers cannot import, in place of earlier pickles.

  Args:
    pickles: by name, as of `pickled`.
    directory: of the run.

  Raises:
    NotWrittenError: if a pickle cannot be written.
  """
  for path in directory.pickles.glob('*'):  # of a run before this one
    path.unlink()
  for part, data in pickles.items():
    _write(_path(directory, part), data)


def pickled(part: str, given: Any) -> bytes:
  """Returns the pickle of an object.

  Args:
    part: of the experiment that the object is, for the message.
    given: the object.

  Raises:
    ValueError: if the object cannot be pickled.
  """
  import cloudpickle  # 0.1 s, which few runs need

  here_only = {
    name
    for name in _modules(given)
    if name in sys.modules and not _is_found_again(name)
  } - {'__main__', *cloudpickle.list_registry_pickle_by_value()}
  try:
    for name in here_only:  # else a pickle only names what it has
      cloudpickle.register_pickle_by_value(sys.modules[name])
    data: bytes = cloudpickle.dumps(given)
  # Whatever an object's own methods raise.
  except Exception as error:
    raise ValueError(
      f'the {part} of the run cannot be sent to the workers: it cannot be '
      f'imported by its name, and not be pickled ({type(error).__name__}: '
      f"{error}). Move it to a module of its own, or use mode='local'."
    ) from error
  finally:
    for name in here_only & cloudpickle.list_registry_pickle_by_value():
      cloudpickle.unregister_pickle_by_value(sys.modules[name])
  return data


def _modules(given: Any) -> Iterator[str]:
  """Yields the modules of an object, and of what a functools.partial was given."""
  if isinstance(given, functools.partial):
    for part in (given.func, *given.args, *given.keywords.values()):
      yield from _modules(part)
  else:
    yield getattr(given, '__module__', None) or type(given).__module__


def _write(path: pathlib.Path, data: bytes) -> None:
  """Writes a file that only this user can read, from the file's creation on."""
  path.parent.mkdir(mode=0o700, exist_ok=True)
  flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL
  with files.writing_to(path), open(os.open(path, flags, 0o600), 'wb') as file:
    file.write(data)


def read_pickle(directory: run_directory.RunDirectory, part: str) -> Any:
  """Returns an object that `write_pickles` was given.

  Raises:
    ValueError: if another user may have written the file, since a pickle runs
      as code.
  """
  path = _path(directory, part)
  with open(os.open(path, os.O_RDONLY | os.O_NOFOLLOW), 'rb') as file:
    status = os.fstat(file.fileno())
    mode = stat.S_IMODE(status.st_mode)
    if status.st_uid != os.getuid() or mode & 0o077:
      raise ValueError(
        f'{path} belongs to user {status.st_uid} and has mode {mode:o}: it is '
        f'loaded only if it belongs to user {os.getuid()} and nobody else can '
        'open it (mode 600). Start the run anew, which writes it again.'
      )
    return pickle.load(file)


def _path(directory: run_directory.RunDirectory, part: str) -> pathlib.Path:
  return directory.pickles / f'{part}.pickle'
