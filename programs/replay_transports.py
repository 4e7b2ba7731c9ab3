"""Lists the ways by which actors send experience to the replay worker."""

from __future__ import annotations

import importlib.util
from typing import Literal, get_args

Transport = Literal['reverb', 'grpc']
TRANSPORTS = get_args(Transport)


def default() -> Transport:
  """Returns Reverb where it is installed, else our own service."""
  return 'reverb' if importlib.util.find_spec('reverb') else 'grpc'


def check_installed(transport: Transport) -> None:
  """Checks that the library of a transport is installed.

  Raises:
    ImportError: if it is not.
  """
  if transport == 'reverb' and default() != 'reverb':
    raise ImportError(
      "replay_transport='reverb' needs Reverb, which is not installed. Use Python "
      "3.10 on Linux x86-64 and install 'distacme[launch]', or add "
      "'--replay-transport grpc'."
    )
