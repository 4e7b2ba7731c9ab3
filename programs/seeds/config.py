"""Parses --seeds."""

from __future__ import annotations

import dataclasses
import re

from distacme import config_checks


@dataclasses.dataclass(frozen=True)
class SeedsConfig:
  """Several runs instead of one."""

  seeds: str = ''
  """Several seeds, like 0-4 or 0,3,7: a run for each, below one directory."""
  seeds_at_once: int = 1
  """Runs of --seeds that go on side by side."""

  def __post_init__(self) -> None:
    config_checks.check_at_least_one(self, 'seeds_at_once')
    if self.seeds_at_once > 1 and not self.seeds:
      raise ValueError(
        f'seeds_at_once={self.seeds_at_once} is for several seeds. Add for '
        "instance '--seeds 0-4'."
      )
    if self.seeds:
      parse_seeds(self.seeds)


def parse_seeds(text: str) -> list[int]:
  """Returns the seeds that `text` names, each once, in the order of `text`.

  Raises:
    ValueError: if `text` is not like 0-4 or 0,3,7.
  """
  seeds: list[int] = []
  for part in text.split(','):
    match = re.fullmatch(r'\s*(\d+)(?:-(\d+))?\s*', part)
    first, last = (match[1], match[2] or match[1]) if match else (1, 0)
    if int(first) > int(last):
      raise ValueError(
        f'seeds must be like 0-4 or 0,3,7, the smaller first, got {text!r}.'
      )
    seeds += range(int(first), int(last) + 1)
  return list(dict.fromkeys(seeds))
