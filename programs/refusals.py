"""Errors that end a command in one sentence."""

from __future__ import annotations

from collections.abc import Callable
import signal
import sys
import traceback
from typing import Any


def in_a_sentence(function: Callable[[], Any]) -> Any:
  """Returns the function's result; if it refuses, says why and returns 2.

  Ctrl-C needs no explanation: what a run does about it, it does by itself.
  """
  try:
    return function()
  except KeyboardInterrupt:
    return 128 + signal.SIGINT
  except (ValueError, ImportError) as error:
    if not _raised_here(error):
      raise
    print(f'distacme: {error}', file=sys.stderr)
    return 2


def _raised_here(error: BaseException) -> bool:
  """Whether distacme refused something, rather than the user's code failing."""
  last = list(traceback.walk_tb(error.__traceback__))[-1][0]
  return str(last.f_globals.get('__name__')).partition('.')[0] == 'distacme'
