"""Draws a run as `distacme watch` shows it."""

from __future__ import annotations

from rich import console as rich_console
from rich import text as rich_text

from distacme.programs.view import bottlenecks
from distacme.programs.view import observer
from distacme.programs.view import progress
from distacme.run import curves

_CHART_HEIGHT = 10  # lines


def picture(
  view: observer.View, curve: curves.Curve, width: int
) -> rich_console.Group:
  """Returns a picture of a run's workers, waits, curve and end.

  Args:
    view: of the run.
    curve: the run's evaluated returns, perhaps none.
    width: of the terminal, in characters.
  """
  parts: list[rich_console.RenderableType] = []
  if view.status is not None:
    parts.append(progress.progress_table(view.status))
    if view.phase == 'running' and not view.note:
      parts.append(_text('\n'.join(bottlenecks.who_waits(view.status))))
  if view.note:
    parts.append(_text(view.note))
  if len(curve.steps) > 1:
    parts.append(_text(f'\n{chart(curve, width)}'))
  if view.phase == 'ended' and view.status is not None:
    parts.append(_text(progress.ending(view.status)))
  return rich_console.Group(*parts)


def chart(curve: curves.Curve, width: int) -> str:
  """Draws a curve in characters; lines of at most `width`, or 50."""
  import plotille

  figure = plotille.Figure()
  figure.width = max(20, min(width, 100) - 30)  # of the plot within the axes
  figure.height = _CHART_HEIGHT
  figure.with_colors = False
  figure.origin = False
  figure.x_label, figure.y_label = curve.clock.replace('_', ' '), 'return'
  figure.x_ticks_fkt = lambda low, high: _short(low)
  figure.y_ticks_fkt = lambda low, high: f'{low:,.4g}'
  figure.set_x_limits(min_=0)
  figure.plot(curve.steps.tolist(), curve.returns.tolist())
  return str(figure.show())


def _short(count: float) -> str:
  """Returns a count in few characters: 950, 12.5k, 3M."""
  for size, unit in ((1e6, 'M'), (1e3, 'k')):
    if count >= size:
      return f'{count / size:.3g}{unit}'
  return f'{count:.0f}'


def _text(text: str) -> rich_text.Text:
  # As text, since a traceback may look like markup.
  return rich_text.Text(text)
