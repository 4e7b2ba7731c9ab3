"""Draws curves as PNG."""

from __future__ import annotations

from collections.abc import Sequence
import contextlib
import functools
import importlib
import logging
import pathlib
import threading
from typing import Any

import numpy as np

from distacme import status
from distacme.programs.view import curve_groups
from distacme.programs.view import terminal

FILE = 'curves.png'


@functools.cache
def prepare() -> None:
  """Starts to import what `draw` needs, once, in a thread.

  The import takes a second of a core, as long as the workers of a run take to end.
  """
  threading.Thread(target=_import, name='import to draw', daemon=True).start()


def _import() -> None:
  with contextlib.suppress(Exception):  # `draw` meets the error, too
    importlib.import_module('matplotlib.figure')


def draw(groups: Sequence[curve_groups.Group], output: pathlib.Path) -> None:
  """Writes a PNG with a line for each group.

  Each environment has a panel; an environment of several clocks has several.

  Raises:
    ImportError: if matplotlib is not installed.
  """
  try:
    from matplotlib import figure
  except Exception as error:  # the import looks for a home directory, too
    raise ImportError(
      f'curves need matplotlib, which cannot be imported ({error}). '
      f'{matplotlib_remedy(error)}'
    ) from error
  panels: dict[tuple[str, status.Clock], list[curve_groups.Group]] = {}
  for group in groups:
    panel = group.settings['env'], group.settings['clock']
    panels.setdefault(panel, []).append(group)
  # Without pyplot, since pyplot looks for a display.
  drawing = figure.Figure(
    figsize=(8, 1 + 4 * len(panels)), layout='constrained'
  )
  rows = drawing.subplots(len(panels), squeeze=False)[:, 0]
  for axes, ((env, clock), rivals) in zip(rows, panels.items(), strict=True):
    axes.set(title=env, xlabel=status.CLOCKS[clock], ylabel='mean return')
    for number, group in enumerate(rivals):
      _draw_group(
        axes, group, f'C{number % 10}', curve_groups.label(group, groups)
      )
    axes.grid(alpha=0.3)
    axes.legend(fontsize='small')
  drawing.savefig(output, dpi=120)


def matplotlib_remedy(error: Exception) -> str:
  """Returns a remedy in words where importing matplotlib raises `error`."""
  if isinstance(error, ImportError):
    return "Run: pip install 'distacme[plot]'"
  return 'Set MPLCONFIGDIR, or HOME, to a directory that you may write to'


def _draw_group(
  axes: Any, group: curve_groups.Group, color: str, name: str
) -> None:
  if len(group.curves) > 1:
    for curve in group.curves:
      axes.plot(
        curve.steps, curve.returns, color=color, alpha=0.3, linewidth=0.8
      )
  steps, returns = curve_groups.common(group.curves)
  mean, low, high = (f(returns, axis=0) for f in (np.mean, np.min, np.max))
  axes.plot(steps, mean, color=color, label=name, marker='.')
  axes.fill_between(steps, low, high, color=color, alpha=0.2, linewidth=0)


def draw_if_possible(path: pathlib.Path) -> None:
  """Draws the curves of a run, or of the runs below `path`, into `path`.

  The runs have ended, and drawing makes no run fail: without matplotlib or
  evaluations there is no picture, and any other error is only printed.
  """
  output = path / FILE
  try:
    draw(curve_groups.grouped([path]), output)
  except (ImportError, ValueError):
    return
  except Exception as error:
    logging.warning('Could not draw %s: %s', output, error)
    return
  terminal.say(f'learning curve: {output}')
