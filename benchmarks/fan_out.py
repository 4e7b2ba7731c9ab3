"""Measures one core that sends params to hundreds of subscribers, and takes reports."""

from __future__ import annotations

from collections.abc import Iterator
import contextlib
import pathlib
import statistics
import tempfile
import time

import numpy as np

from benchmarks import crowd
from benchmarks import harness

_ROUNDS = 5
_SIZES = {'10 kB': 10_000, '1 MB': 1_000_000, '7 MB': 7_000_000}
_MANY = 1000
_RELAYS = 10
_SECONDS = 6.0


def main() -> None:
  """Measures and reports."""
  for encrypted in (False, True):
    by = ', TLS' if encrypted else ''
    for name, size in _SIZES.items():
      spent = [
        1e6 * cost for cost in send_costs(100, size, encrypted=encrypted)
      ]
      harness.number(
        f'variable server, CPU for {name} of params to a subscriber{by}',
        spent,
        unit='µs',
      )
  beside_reports()
  for number in (300, 1000):
    harness.number(
      f'variable server, CPU for a report, {number} workers',
      [1e6 * report_cost(number)],
      unit='µs',
    )


def send_costs(number: int, size: int, *, encrypted: bool) -> list[float]:
  """Returns the CPU-seconds for a version to a subscriber, of several versions."""
  versions = max(
    1, round(3e7 / size / number)
  )  # CPU times are in steps of 10 ms
  with _secrets(encrypted) as secrets:
    with crowd.deliveries(number, size, secrets=secrets) as deliver:
      return [
        statistics.mean(deliver().cpu_s[0] for _ in range(versions)) / number
        for _ in range(_ROUNDS)
      ]


def report_cost(number: int) -> float:
  """Returns the CPU-seconds of a report, of so many workers that report."""
  with crowd.reports(number) as server:
    start, cpu_s = time.monotonic(), server.cpu_s()
    time.sleep(_SECONDS)
    share = (server.cpu_s() - cpu_s) / (time.monotonic() - start)
  return share / reports_per_s(number)


def reports_per_s(number: int) -> float:
  """Returns the reports a second that a server asks so many workers for."""
  return number / max(0.5, 0.002 * number)


def beside_reports() -> None:
  """Measures 1 MB to a thousand subscribers, by the server and by relays."""
  for num_relays, by in ((0, ''), (_RELAYS, f', by {_RELAYS} relays')):
    with crowd.deliveries(_MANY, 1_000_000, num_relays=num_relays) as deliver:
      delivered = [deliver() for _ in range(_ROUNDS)]
    name = f'1 MB of params to {_MANY:,} subscribers{by}'
    harness.number(
      f'{name}: variable server, CPU',
      [1e3 * each.cpu_s[0] for each in delivered],
      unit='ms',
    )
    harness.number(
      f'{name}: reports meanwhile, 95 of 100 within',
      [1e3 * np.percentile(each.report_s, 95) for each in delivered],
      unit='ms',
    )
    if num_relays:
      harness.number(
        f'{name}: a relay, CPU',
        [1e3 * statistics.mean(each.cpu_s[1:]) for each in delivered],
        unit='ms',
      )


@contextlib.contextmanager
def _secrets(encrypted: bool) -> Iterator[pathlib.Path | None]:
  """Yields a folder for secrets, None for plain text."""
  if not encrypted:
    yield None
    return
  with tempfile.TemporaryDirectory() as folder:
    yield pathlib.Path(folder)


if __name__ == '__main__':
  main()
