"""Warnings about a run, each said once a run."""

from __future__ import annotations

import functools
import logging
import pathlib

_logger = logging.getLogger(__name__)


def warnings_to(path: pathlib.Path) -> None:
  """Writes the warnings of this process to a file as well, one a line."""
  handler = logging.FileHandler(path, delay=True)
  handler.setFormatter(logging.Formatter('%(message)s'))
  _logger.addHandler(handler)


@functools.cache
def warn_once(message: str) -> None:
  """Warns once that something of a run is damaged, or lost.

  The launcher repeats the warnings of workers (`warnings_to`).
  """
  _logger.warning('%s', message)


def forget() -> None:
  """Lets every warning be said again, for the next run of this process."""
  warn_once.cache_clear()
