"""Measures in turns, and says what came out."""

from __future__ import annotations

from collections.abc import Callable, Mapping
import dataclasses
import json
import statistics
import time
from typing import Any

# Does its work for about so many seconds and returns how much it has done.
Work = Callable[[float], float]


@dataclasses.dataclass(frozen=True)
class Result:
  """One line of the table.

  Attributes:
    name: what was measured.
    ours: median of what distacme does, in `unit`.
    unit: of `ours` and `limit`.
    limit: median of what it is compared with; None if the goal is a number.
    figure: what the goal is about: the median of ours / limit over the rounds,
      or `ours` if there is no limit.
    low: smallest figure of a round.
    high: largest figure of a round.
    at_least: the goal, if the figure should be large.
    at_most: the goal, if it should be small.
    limit_name: what it is compared with.
  """

  name: str
  ours: float
  unit: str
  figure: float
  low: float
  high: float
  limit: float | None = None
  at_least: float | None = None
  at_most: float | None = None
  limit_name: str = ''

  @property
  def met(self) -> bool | None:
    """Whether the goal is reached; None if there is none."""
    if self.at_least is not None:
      return self.figure >= self.at_least
    if self.at_most is not None:
      return self.figure <= self.at_most
    return None


def report(result: Result) -> None:
  """Prints a result for `__main__` to read."""
  print(json.dumps({'result': dataclasses.asdict(result)}), flush=True)


def rates(
  works: Mapping[str, Work],
  seconds: float = 0.5,
  rounds: int = 9,
  clock: Callable[[], float] = time.perf_counter,
) -> dict[str, list[float]]:
  """Returns what each work does in a second, round by round.

  All take their turn in every round, so that what else the machine does falls
  on all of them. The first round warms up and does not count.

  Args:
    works: by name.
    seconds: for each, in a round.
    rounds: that count.
    clock: `time.process_time` counts this process's seconds of CPU instead.
  """
  found: dict[str, list[float]] = {name: [] for name in works}
  for number in range(rounds + 1):
    for name, work in works.items():
      start = clock()
      done = work(seconds)
      rate = done / (clock() - start)
      if number:
        found[name].append(rate)
  return found


def compare(
  name: str,
  ours: list[float],
  limit: list[float],
  *,
  unit: str,
  limit_name: str,
  **goal: Any,
) -> None:
  """Reports ours beside the limit that was measured in the same rounds."""
  ratios = [a / b for a, b in zip(ours, limit, strict=True)]
  report(
    Result(
      name=name,
      ours=statistics.median(ours),
      unit=unit,
      figure=statistics.median(ratios),
      low=min(ratios),
      high=max(ratios),
      limit=statistics.median(limit),
      limit_name=limit_name,
      **goal,
    )
  )


def number(name: str, values: list[float], *, unit: str, **goal: Any) -> None:
  """Reports a number that has no limit beside it."""
  middle = statistics.median(values)
  report(
    Result(
      name=name,
      ours=middle,
      unit=unit,
      figure=middle,
      low=min(values),
      high=max(values),
      **goal,
    )
  )


def repeated(step: Callable[[], float], block: int = 16) -> Work:
  """Returns work that calls `step`, which returns how much it did."""

  def work(seconds: float) -> float:
    until = time.perf_counter() + seconds
    done = 0.0
    while time.perf_counter() < until:
      for _ in range(block):
        done += step()
    return done

  return work
