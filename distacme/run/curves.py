"""Curves of evaluated returns, read from the metrics of runs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
import pathlib
from typing import Any, NamedTuple

import numpy as np

from distacme import status
from distacme.run import metrics
from distacme.run import run_directory


class Curve(NamedTuple):
  """Mean returns of a run's evaluations, over the run's clock.

  Attributes:
    steps: [N] of the clock, increasing.
    returns: [N] of the evaluations made there.
    clock: that counts the steps.
  """

  steps: np.ndarray
  returns: np.ndarray
  clock: status.Clock


def clock_of(run: Mapping[str, Any]) -> status.Clock:
  """Returns the clock of a run, given its settings."""
  clock: status.Clock = run.get('clock', 'env_steps')
  return clock


def read_curve(run_dir: pathlib.Path) -> Curve:
  """Returns a run's curve.

  Raises:
    ValueError: if the run has not been evaluated.
  """
  curve = _read_curve(run_dir)
  if not len(curve.steps):
    raise ValueError(
      f'{run_dir} has not been evaluated yet: '
      f'{metrics.METRICS_FILE} has no mean_return. Let it run for '
      '--eval-period steps, or leave it out.'
    )
  return curve


def has_points(run_dir: pathlib.Path) -> bool:
  """Returns whether a run has been evaluated."""
  return len(_read_curve(run_dir).steps) > 0


def _read_curve(run_dir: pathlib.Path) -> Curve:
  """Returns a run's curve; it may have no points."""
  config = run_directory.RunDirectory(run_dir).read_config()
  return curve_of(_rows(run_dir), clock_of(config['run']))


def curve_of(rows: Iterable[Mapping[str, Any]], clock: status.Clock) -> Curve:
  """Returns the curve that lies in rows of metrics; it may have no points.

  Steps that a run made after the checkpoint that it was resumed from are lost
  to the run, and left out.
  """
  points: list[tuple[int, float]] = []
  for row in rows:
    if 'mean_return' in row and clock in row:
      while points and points[-1][0] >= row[clock]:
        points.pop()
      points.append((row[clock], row['mean_return']))
  steps = np.array([step for step, _ in points], np.int64)
  returns = np.array([value for _, value in points], np.float64)
  return Curve(steps, returns, clock)


def _rows(run_dir: pathlib.Path) -> list[dict[str, Any]]:
  try:
    return metrics.read_metrics(run_dir)
  except FileNotFoundError:
    return []
