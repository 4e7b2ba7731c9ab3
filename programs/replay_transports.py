"""Lists the ways by which actors send experience to the replay worker."""

from __future__ import annotations

import importlib.util
from typing import Literal

Transport = Literal['reverb', 'grpc']


def default() -> Transport:
  """Returns Reverb where it is installed, else our own service."""
  return 'reverb' if importlib.util.find_spec('reverb') else 'grpc'


def check(transport: str) -> None:
  """Checks that a transport can be used here.

  Raises:
    ValueError: if there is no such transport.
    ImportError: if its library is not installed.
  """
  if transport not in ('reverb', 'grpc'):
    raise ValueError(
      f'replay_transport must be reverb or grpc, got {transport!r}.'
    )
  if transport == 'reverb' and default() != 'reverb':
    raise ImportError(
      'replay_transport=reverb needs Reverb, which is not installed. Use Python '
      "3.10 on Linux x86-64 and install 'distacme[launch]', or "
      "'--replay-transport grpc'."
    )
