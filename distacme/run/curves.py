"""Curves of evaluated returns, read from the metrics of runs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
import json
import pathlib
from typing import Any, NamedTuple

import numpy as np

from distacme.run import metrics
from distacme.run import run_directory
from distacme.run import status

# Fields of a run that say how long and where it ran, not how it learnt.
_NOT_SETTINGS = (
  'seed',
  'run_dir',
  'max_env_steps',
  'max_learner_steps',
  'max_seconds',
  'solved_return',
  'checkpoint_period_s',
  'replay_in_learner',
  'learner_devices',
  'actor_devices',
)


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


class Group(NamedTuple):
  """Runs of the same settings, which differ in their seeds."""

  settings: dict[str, Any]
  curves: list[Curve]


def grouped(run_dirs: Iterable[pathlib.Path]) -> list[Group]:
  """Returns the runs' curves, those of the same settings together.

  Args:
    run_dirs: of runs; or directories of runs, of which those that have not been
      evaluated yet are left out.

  Raises:
    ValueError: if one is neither, or has not been evaluated.
  """
  groups: dict[str, Group] = {}
  # A run that is named twice would count twice.
  for path in dict.fromkeys(run for given in run_dirs for run in _runs(given)):
    config = run_directory.RunDirectory(path).read_config()
    settings = config['run'] | config['agent']
    settings['clock'] = clock_of(config['run'])  # older runs do not say
    settings = {k: v for k, v in settings.items() if k not in _NOT_SETTINGS}
    for part, function in config.get('functions', {}).items():
      if ':' not in settings[part]:  # a function's own name, which others have
        settings[part] = function['name']
      settings[f'{part}_source'] = function['source']
    key = json.dumps(settings, sort_keys=True)
    group = groups.setdefault(key, Group(settings, []))
    group.curves.append(read_curve(path))
  return list(groups.values())


def _runs(path: pathlib.Path) -> list[pathlib.Path]:
  """Returns a run's path, or those of the evaluated runs below it."""
  path = path.resolve()
  below = run_directory.runs_below(path)
  if not below:
    return [path]
  evaluated = [run for run in below if len(_read_curve(run).steps)]
  if not evaluated:
    raise ValueError(
      f'none of the {len(below)} runs in {path} has been evaluated yet. Let them '
      'run for --eval-period steps.'
    )
  return evaluated


def clock_of(run: Mapping[str, Any]) -> status.Clock:
  """Returns the clock of a run, given its settings."""
  clock: status.Clock = run.get('clock', 'env_steps')
  return clock


def label(group: Group, groups: Iterable[Group]) -> str:
  """Returns the agent and what tells it from others in the same panel."""
  settings = group.settings
  name = settings['agent']
  rivals = [
    other.settings
    for other in groups
    if all(
      other.settings[key] == settings[key] for key in ('agent', 'env', 'clock')
    )
  ]
  different = [
    f'{key}={value}'
    for key, value in settings.items()
    if any(rival.get(key) != value for rival in rivals)
  ]
  text = ', '.join([name, *different])
  if len(group.curves) > 1:
    text += f' ({len(group.curves)} runs: mean, lowest to highest)'
  return text


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


def common(curves: Sequence[Curve]) -> tuple[np.ndarray, np.ndarray]:
  """Returns steps [N] that all curves span, and their returns [K, N] there.

  Between evaluations a curve is a straight line. Where a curve has ended, none
  of the others goes on: a mean over fewer runs would be another number.
  """
  first = max(curve.steps[0] for curve in curves)
  last = min(curve.steps[-1] for curve in curves)
  steps = np.unique(np.concatenate([curve.steps for curve in curves]))
  steps = steps[(first <= steps) & (steps <= last)]
  returns = [np.interp(steps, curve.steps, curve.returns) for curve in curves]
  return steps, np.array(returns)
