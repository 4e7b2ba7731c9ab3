"""Keeps compiled functions between runs, in a folder of this user.

JAX reads and writes the files. A file that another process is writing counts as
damaged, and a damaged file costs a warning in a log: the function is compiled. A
function from the cache computes the same bits as one that is compiled.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.metadata
import os
import pathlib
import platform

# Variables of JAX's by which a user chooses.
CHOICES = ('JAX_COMPILATION_CACHE_DIR', 'JAX_ENABLE_COMPILATION_CACHE')

_MAX_BYTES = 256 << 20
# Smaller ones take as long to read.
_MIN_COMPILE_S = 0.05


def use() -> pathlib.Path | None:
  """Makes this process and its children keep what they compile.

  Call this function before JAX is imported. A choice of the user's stays.

  Returns:
    The folder; None if the user has chosen, or there is no folder that only this
    user may write to.
  """
  if any(name in os.environ for name in CHOICES):
    return None
  folder = _root() / machine()
  try:
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    found = folder.stat()
    # The files are machine code, which will be run.
    if found.st_uid != os.getuid() or found.st_mode & 0o022:
      return None
    if not os.access(folder, os.W_OK):
      return None
    shrink(_root())
  except (OSError, RuntimeError):  # there is no home, or it is read-only
    return None
  os.environ['JAX_COMPILATION_CACHE_DIR'] = str(folder)
  os.environ['JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS'] = f'{_MIN_COMPILE_S}'
  os.environ['JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES'] = '-1'
  return folder


def _root() -> pathlib.Path:
  """Returns the folder of all caches; raises RuntimeError without a home."""
  home = os.environ.get('XDG_CACHE_HOME')
  return (
    pathlib.Path(home) if home else pathlib.Path.home() / '.cache'
  ) / 'distacme/compiled'


def machine() -> str:
  """Returns a name for processors of this kind and this compiler.

  Several hosts may share a home, and code for one processor may end a process on
  another. JAX's own keys of the files hold both, too, in the versions tried.
  """
  parts = [platform.machine(), platform.processor()]
  with contextlib.suppress(OSError):
    for line in pathlib.Path('/proc/cpuinfo').read_text().splitlines():
      name, _, value = line.partition(':')
      if name.strip() in ('model name', 'flags', 'Features'):
        parts.append(value)
      elif not line:  # the other cores are the same
        break
  parts.append(importlib.metadata.version('jaxlib'))
  return hashlib.sha256('\n'.join(parts).encode()).hexdigest()[:16]


def shrink(root: pathlib.Path) -> None:
  """Deletes the oldest files below a folder where all together are too large."""
  files = []
  for path in root.rglob('*'):
    with contextlib.suppress(OSError):  # another process deletes, too
      found = path.stat()
      if path.is_file():
        files.append((found.st_mtime, found.st_size, path))
  size = sum(size for _, size, _ in files)
  for _, each, path in sorted(files):
    if size <= _MAX_BYTES:
      break
    with contextlib.suppress(OSError):
      path.unlink()
    size -= each
