"""Lists the ways by which actors send experience to the replay worker."""

from __future__ import annotations

import importlib.util
from typing import Literal, get_args

Transport = Literal['reverb', 'grpc']
TRANSPORTS = get_args(Transport)

# Said at the start of a run whose experience travels by Reverb.
OPEN_TO_ALL = (
  'Reverb asks nobody for the token of the run: other users of this host could add '
  'to replay; --replay-transport grpc keeps them out'
)


def default(tls: bool) -> Transport:
  """Returns Reverb where it is installed, and TLS is not asked for; else grpc."""
  return 'reverb' if _has_reverb() and not tls else 'grpc'


def _has_reverb() -> bool:
  return importlib.util.find_spec('reverb') is not None


def check_installed(transport: Transport) -> None:
  """Checks that the library of a transport is installed.

  Raises:
    ImportError: if it is not.
  """
  if transport == 'reverb' and not _has_reverb():
    raise ImportError(
      "replay_transport='reverb' needs Reverb, which is not installed. Use Python "
      "3.10 on Linux x86-64 and install 'distacme[launch]', or add "
      "'--replay-transport grpc'."
    )
