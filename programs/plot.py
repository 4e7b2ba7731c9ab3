"""`distacme plot RUN_DIR...`: learning curves as PNG."""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Sequence
import json
import logging
import pathlib
from typing import Any, NamedTuple

import numpy as np

from distacme import logging as metrics_logging
from distacme import run_directory
from distacme.programs import terminal

FILE = 'curves.png'

# Fields of a run that say how long and where it ran, not what was learnt.
_NOT_SETTINGS = (
  'seed',
  'run_dir',
  'max_env_steps',
  'max_seconds',
  'solved_return',
  'checkpoint_period_s',
  'replay_in_learner',
  'learner_devices',
  'actor_devices',
)


class Curve(NamedTuple):
  """Mean returns of a run's evaluations, over increasing env_steps; both [N]."""

  env_steps: np.ndarray
  returns: np.ndarray


class Group(NamedTuple):
  """Runs of the same settings, which differ in their seeds."""

  settings: dict[str, Any]
  curves: list[Curve]


def main(arguments: Sequence[str]) -> int:
  """Draws the curves and prints where they are."""
  parser = argparse.ArgumentParser(
    prog='distacme plot',
    description='Draws the evaluated returns of runs over environment steps, a '
    'panel for each environment. Runs that differ in their seed only share a '
    'line, their mean, in a band from the lowest to the highest.',
  )
  parser.add_argument(
    'run_dirs',
    type=pathlib.Path,
    nargs='+',
    metavar='RUN_DIR',
    help="what 'distacme train' printed as 'run directory', or as 'directory of "
    "the runs' (--seeds)",
  )
  parser.add_argument(
    '--output',
    type=pathlib.Path,
    metavar='FILE',
    default=pathlib.Path(FILE),
    help=f'file to write (default: {FILE})',
  )
  flags = parser.parse_args(arguments)
  if flags.output.suffix != '.png':
    raise ValueError(
      f'output must be a .png file, got {str(flags.output)!r}. Write for '
      f'instance {str(flags.output.with_suffix(".png"))!r}.'
    )
  if not flags.output.parent.is_dir():
    raise ValueError(
      f'{flags.output.parent} is no directory. Make it, or choose another '
      '--output.'
    )
  draw(grouped(flags.run_dirs), flags.output)
  print(flags.output.resolve())
  return 0


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
  evaluated = [run for run in below if len(curve_of(_rows(run)).env_steps)]
  if not evaluated:
    raise ValueError(
      f'none of the {len(below)} runs in {path} has been evaluated yet. Let them '
      'run for --eval-period steps.'
    )
  return evaluated


def label(group: Group, groups: Iterable[Group]) -> str:
  """Returns the agent and what tells it from others in the same environment."""
  settings = group.settings
  name = settings['agent']
  rivals = [
    other.settings
    for other in groups
    if all(other.settings[key] == settings[key] for key in ('agent', 'env'))
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
  curve = curve_of(_rows(run_dir))
  if not len(curve.env_steps):
    raise ValueError(
      f'{run_dir} has not been evaluated yet: '
      f'{metrics_logging.METRICS_FILE} has no mean_return. Let it run for '
      '--eval-period steps, or leave it out.'
    )
  return curve


def curve_of(rows: Iterable[dict[str, Any]]) -> Curve:
  """Returns the curve that lies in rows of metrics; it may have no points.

  What a run did after the checkpoint that it was resumed from is lost to it,
  and left out.
  """
  points: list[tuple[int, float]] = []
  for row in rows:
    if 'mean_return' in row and 'env_steps' in row:
      while points and points[-1][0] >= row['env_steps']:
        points.pop()
      points.append((row['env_steps'], row['mean_return']))
  env_steps = np.array([step for step, _ in points], np.int64)
  return Curve(env_steps, np.array([value for _, value in points], np.float64))


def _rows(run_dir: pathlib.Path) -> list[dict[str, Any]]:
  try:
    return metrics_logging.read_metrics(run_dir)
  except FileNotFoundError:
    return []


def common(curves: Sequence[Curve]) -> tuple[np.ndarray, np.ndarray]:
  """Returns env_steps [N] that all curves span, and their returns [K, N] there.

  Between evaluations a curve is a straight line. Where a curve has ended, none
  of the others goes on: a mean over fewer runs would be another number.
  """
  first = max(curve.env_steps[0] for curve in curves)
  last = min(curve.env_steps[-1] for curve in curves)
  env_steps = np.unique(np.concatenate([curve.env_steps for curve in curves]))
  env_steps = env_steps[(first <= env_steps) & (env_steps <= last)]
  returns = [
    np.interp(env_steps, curve.env_steps, curve.returns) for curve in curves
  ]
  return env_steps, np.array(returns)


def draw(groups: Sequence[Group], output: pathlib.Path) -> None:
  """Writes a PNG with a panel for each environment, a line for each group.

  Raises:
    ImportError: if matplotlib is not installed.
  """
  try:
    from matplotlib import figure
  except Exception as error:  # it looks for a home directory, too
    raise ImportError(
      f'curves need matplotlib, which cannot be imported ({error}). '
      f'{matplotlib_remedy(error)}'
    ) from error
  panels: dict[str, list[Group]] = {}
  for group in groups:
    panels.setdefault(group.settings['env'], []).append(group)
  # Without pyplot, which would look for a display.
  drawing = figure.Figure(
    figsize=(8, 1 + 4 * len(panels)), layout='constrained'
  )
  rows = drawing.subplots(len(panels), squeeze=False)[:, 0]
  for axes, (env, rivals) in zip(rows, panels.items(), strict=True):
    axes.set(title=env, xlabel='environment steps', ylabel='mean return')
    for number, group in enumerate(rivals):
      _draw_group(axes, group, f'C{number % 10}', label(group, groups))
    axes.grid(alpha=0.3)
    axes.legend(fontsize='small')
  drawing.savefig(output, dpi=120)


def matplotlib_remedy(error: Exception) -> str:
  """Returns what to do where importing matplotlib raises `error`."""
  if isinstance(error, ImportError):
    return "Run: pip install 'distacme[plot]'"
  return 'Set MPLCONFIGDIR, or HOME, to a directory that you may write to'


def _draw_group(axes: Any, group: Group, color: str, name: str) -> None:
  if len(group.curves) > 1:
    for curve in group.curves:
      axes.plot(*curve, color=color, alpha=0.3, linewidth=0.8)
  env_steps, returns = common(group.curves)
  mean, low, high = (f(returns, axis=0) for f in (np.mean, np.min, np.max))
  axes.plot(env_steps, mean, color=color, label=name, marker='.')
  axes.fill_between(env_steps, low, high, color=color, alpha=0.2, linewidth=0)


def draw_if_possible(path: pathlib.Path) -> None:
  """Draws the curves of a run, or of the runs below `path`, into `path`.

  It comes after them and fails nobody: without matplotlib or evaluations it
  draws nothing, and what else goes wrong is only said.
  """
  output = path / FILE
  try:
    draw(grouped([path]), output)
  except (ImportError, ValueError, KeyboardInterrupt):
    return
  except Exception as error:
    logging.warning('Could not draw %s: %s', output, error)
    return
  terminal.say(f'learning curve: {output}')
