"""Suggests known names in messages about unknown ones."""

from collections.abc import Iterable
import difflib


def did_you_mean(name: str, known: Iterable[str]) -> str:
  """Returns the known names nearest to `name` as a question, or ''."""
  matches = difflib.get_close_matches(name, known, n=3, cutoff=0.5)
  return f'Did you mean {" or ".join(map(repr, matches))}? ' if matches else ''
