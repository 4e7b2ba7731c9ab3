"""Groups the curves of runs by their settings, to be drawn as one line each."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
import contextlib
import json
import pathlib
from typing import Any, NamedTuple

import numpy as np

from distacme.programs import agents_by_name
from distacme.programs import recorded_run
from distacme.programs import run_config
from distacme.programs import trusted_names
from distacme.run import curves as curves_lib
from distacme.run import notices
from distacme.run import run_directory


class Group(NamedTuple):
  """Runs of the same settings, with different seeds."""

  settings: dict[str, Any]
  curves: list[curves_lib.Curve]


def grouped(
  run_dirs: Iterable[pathlib.Path], trusted: bool = False
) -> list[Group]:
  """Returns the runs' curves, grouped by settings.

  Args:
    run_dirs: directories of runs; or directories that hold runs, where runs
      without an evaluation are left out.
    trusted: whether to import agents of other packages, where runs of one agent
      lack some settings of others.

  Raises:
    ValueError: if a directory is neither, or its run has not been evaluated.
  """
  groups: dict[str, Group] = {}
  ignored = run_config.fields_with(plot='ignore')
  # A run that is named twice would count twice.
  paths = dict.fromkeys(run for given in run_dirs for run in _runs(given))
  configs = {
    path: run_directory.RunDirectory(path).read_config() for path in paths
  }
  defaults = recorded_run.defaults(run_config.RunConfig)
  of_agents = _agents_defaults(configs.values(), trusted)
  for path, config in configs.items():
    run = defaults | config['run']
    settings = run | of_agents[run['agent']] | config['agent']
    settings = {k: v for k, v in settings.items() if k not in ignored}
    for part, function in config.get('functions', {}).items():
      if ':' not in settings[part]:  # a function's own name, which others have
        settings[part] = function['name']
      settings[f'{part}_source'] = function['source']
    key = json.dumps(settings, sort_keys=True)
    group = groups.setdefault(key, Group(settings, []))
    group.curves.append(curves_lib.read_curve(path))
  return list(groups.values())


def _agents_defaults(
  configs: Collection[Mapping[str, Any]], trusted: bool
) -> dict[str, dict[str, Any]]:
  """Returns the defaults of the agents' settings, by the agent's name.

  None of an agent whose runs all have the same settings, or which is not here.
  """
  known: dict[str, list[Any]] = {}
  for config in configs:
    known.setdefault(config['run']['agent'], []).append(config['agent'].keys())
  found: dict[str, dict[str, Any]] = {}
  for agent, settings in known.items():
    found[agent] = {}
    if all(names == settings[0] for names in settings):
      continue
    if trusted or trusted_names.is_loaded_or_ours(agent):
      with contextlib.suppress(ValueError):  # it cannot be imported
        config = agents_by_name.agent_module(agent).Config
        found[agent] = recorded_run.defaults(config)
    else:
      notices.warn_once(
        f'some runs of {agent} lack settings that others have, and what their '
        'defaults are is not known: the agent is no part of distacme, and is '
        f"not imported. If you trust the directories, add '{trusted_names.FLAG}'."
      )
  return found


def _runs(path: pathlib.Path) -> list[pathlib.Path]:
  """Returns the path of a run, or the paths of evaluated runs below `path`."""
  path = path.resolve()
  below = run_directory.runs_below(path)
  if not below:
    return [path]
  evaluated = [run for run in below if curves_lib.has_points(run)]
  if not evaluated:
    raise ValueError(
      f'none of the {len(below)} runs in {path} has been evaluated yet. Let them '
      'run for --eval-period steps.'
    )
  return evaluated


def label(group: Group, groups: Iterable[Group]) -> str:
  """Returns the agent and the settings that differ within the panel."""
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


def common(curves: Sequence[curves_lib.Curve]) -> tuple[np.ndarray, np.ndarray]:
  """Returns steps [N] that all curves span, and their returns [K, N] there.

  Between evaluations a curve is a straight line. All curves end where the
  shortest ends: a mean over fewer runs would be another number.
  """
  first = max(curve.steps[0] for curve in curves)
  last = min(curve.steps[-1] for curve in curves)
  steps = np.unique(np.concatenate([curve.steps for curve in curves]))
  steps = steps[(first <= steps) & (steps <= last)]
  returns = [np.interp(steps, curve.steps, curve.returns) for curve in curves]
  return steps, np.array(returns)
