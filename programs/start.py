"""Starts a command: takes signals before anything is imported that takes time."""

from __future__ import annotations

import atexit
from collections.abc import Sequence

from distacme.runtime import ending


def main(arguments: Sequence[str] | None = None) -> None:
  """Runs the command of `arguments`, by default this process's; ends the process."""
  ending.at_signals()
  atexit.register(ending.at_last)  # before all others, and so run last
  from distacme.programs import cli

  try:
    cli.main(arguments)
  except SystemExit as ended:
    ending.at_signals(ended.code or 0)
    ending.note(ended.code)
    ending.despite_workers(ended.code)
    ending.despite_others(ended.code)
    raise
  except BaseException:  # the interpreter prints it at once, and then may wait
    ending.despite_others(1)
    raise
