"""Measures several works in turns, and reports results."""

from __future__ import annotations

from collections.abc import Callable, Mapping
import dataclasses
import json
import statistics
import time
from typing import Any

# Works for about so many seconds; returns the amount done.
Work = Callable[[float], float]


@dataclasses.dataclass(frozen=True)
class Result:
  """Holds one line of the table.

  Attributes:
    name: of the measurement.
    ours: median of distacme's rounds, in `unit`.
    unit: of `ours` and `limit`.
    limit: median of the limit's rounds; None if the goal is a number.
    figure: the number that has the goal: the median of ours / limit over the
      rounds, or `ours` if there is no limit.
    low: smallest figure of a round.
    high: largest figure of a round.
    at_least: the goal of a figure that should be large.
    at_most: the goal of a figure that should be small.
    limit_name: of the limit.
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
    """Returns whether the goal is reached; None if there is no goal."""
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
  """Returns the amount that each work does in a second, round by round.

  All works take turns in every round, so that other load of the machine falls on
  all of them. The first round warms up and does not count.

  Args:
    works: by name.
    seconds: of a work in a round.
    rounds: number of rounds that count.
    clock: `time.process_time` counts this process's CPU-seconds instead.
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
  """Reports distacme's rates beside the limit's, measured in the same rounds."""
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
  """Reports a number without a limit."""
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
  """Returns the work of calling `step`, which returns the amount done."""

  def work(seconds: float) -> float:
    until = time.perf_counter() + seconds
    done = 0.0
    while time.perf_counter() < until:
      for _ in range(block):
        done += step()
    return done

  return work
