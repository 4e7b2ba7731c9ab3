"""The token of a run: a secret that every call to its services carries.

Loopback keeps other hosts out, and not the other users of this host. Only the user of
the run can read the token's file, so that nobody else can call a service. Every start
of the run makes a new token.
"""

from __future__ import annotations

import os
import pathlib
import secrets

FILE = 'token'  # in the run directory
# The name of the token among a call's metadata, which gRPC wants in lower case.
METADATA = 'distacme-token'
_BYTES = 32


def make(run_dir: pathlib.Path) -> pathlib.Path:
  """Makes a new token in `run_dir`, which replaces an older token.

  Returns:
    The token's file, which only this user may read.
  """
  path = run_dir / FILE
  temporary = path.with_suffix('.tmp')
  temporary.unlink(missing_ok=True)
  # Other users must not be able to read the file, even while it is written.
  with os.fdopen(
    os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), 'w'
  ) as file:
    file.write(secrets.token_hex(_BYTES))
  temporary.replace(path)
  return path


def read(path: pathlib.Path) -> str:
  """Reads a token.

  Raises:
    OSError: if this user cannot read the file, or if it is a link, by which somebody
      else's run directory could name a token of this user.
    ValueError: if `path` holds no token, or other users can read the file.
  """
  with os.fdopen(os.open(path, os.O_RDONLY | os.O_NOFOLLOW), 'rb') as file:
    mode = os.fstat(file.fileno()).st_mode & 0o777
    data = file.read(2 * _BYTES + 1)
  if mode & 0o077:
    raise ValueError(
      f'{path} can be read by others (mode {mode:o}), who could then take part '
      f'in the run. Run: chmod 600 {path}'
    )
  text = data.decode(errors='replace')
  try:
    whole = len(bytes.fromhex(text)) == _BYTES and len(data) == 2 * _BYTES
  except ValueError:
    whole = False
  if not whole:
    raise ValueError(
      f'{path} is no token of a run, which has {2 * _BYTES} hexadecimal digits. '
      'Start the run again, which makes a new one.'
    )
  return text
