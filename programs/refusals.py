"""Ends a command in one sentence for errors that distacme itself raises."""

from __future__ import annotations

from collections.abc import Callable
import sys
import traceback
from typing import Any


def in_a_sentence(function: Callable[[], Any]) -> Any:
  """Returns the function's result, or 2 after printing the reason of a refusal."""
  try:
    return function()
  except (ValueError, ImportError) as error:
    if not _raised_here(error):
      raise
    print(f'distacme: {error}', file=sys.stderr)
    return 2


def _raised_here(error: BaseException) -> bool:
  """Returns whether distacme raised the error, rather than the user's code."""
  last = list(traceback.walk_tb(error.__traceback__))[-1][0]
  return str(last.f_globals.get('__name__')).partition('.')[0] == 'distacme'
