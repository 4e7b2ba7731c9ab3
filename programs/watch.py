"""`distacme watch RUN_DIR`: a running program, seen from another terminal."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
import contextlib
import pathlib
import queue
import time

from rich import console as rich_console
from rich import live as rich_live
from rich import text as rich_text

from distacme.programs import attach
from distacme.programs import display
from distacme.programs import plot
from distacme.programs import terminal
from distacme.programs import waits
from distacme.runtime import stop_signals

_PERIOD_S = 0.5
_CHART_HEIGHT = 10  # lines


def main(arguments: Sequence[str]) -> int:
  """Shows the run until it ends; without a terminal, once."""
  parser = argparse.ArgumentParser(
    prog='distacme watch',
    description='Shows what the workers of a run do, who waits for whom, and '
    'the evaluated returns so far, twice a second until the run ends. Where '
    'the output is no terminal, it is shown once. Ctrl-C ends the watching '
    'only, never the run.',
    epilog='exit codes: 0 after what there was to see, 130 after Ctrl-C, 2 if '
    'the directory is no run, or its run was killed or does not answer.',
  )
  parser.add_argument(
    'run_dir',
    type=pathlib.Path,
    metavar='RUN_DIR',
    help="what 'distacme train' printed as 'run directory'",
  )
  flags = parser.parse_args(arguments)
  attachment = attach.Attachment(flags.run_dir)
  console = terminal.console()
  if not console.is_terminal:
    sight = attachment.look()
    if sight.phase in ('lost', 'silent'):
      raise ValueError(sight.note)
    console.print(view(sight, attachment.curve(), console.width))
    return 0
  # Not as an exception, which may come where somebody else takes it.
  reasons: queue.SimpleQueue[str] = queue.SimpleQueue()
  with stop_signals.requested_from(reasons.put):
    return _follow(attachment, console, reasons)


def _follow(
  attachment: attach.Attachment,
  console: rich_console.Console,
  reasons: queue.SimpleQueue[str],
) -> int:
  """Shows the run until it ends, or there is one of `reasons` to stop."""
  with rich_live.Live(console=console, auto_refresh=False) as live:
    while True:
      start = time.monotonic()
      sight = attachment.look()
      if sight.phase != 'lost':
        shown = view(sight, attachment.curve(), console.width)
        live.update(shown, refresh=True)
      if sight.phase in ('ended', 'lost'):
        break
      pause_s = max(0.0, start + _PERIOD_S - time.monotonic())
      with contextlib.suppress(queue.Empty):
        return stop_signals.exit_code(reasons.get(timeout=pause_s))
  if sight.phase == 'lost':
    raise ValueError(sight.note)
  return 0


def view(
  sight: attach.Sight, curve: plot.Curve, width: int
) -> rich_console.Group:
  """Returns what is shown of a run.

  Args:
    sight: of the run.
    curve: its evaluated returns, perhaps none.
    width: of the terminal, in characters.
  """
  parts: list[rich_console.RenderableType] = []
  if sight.status is not None:
    parts.append(display.progress_table(sight.status))
  if sight.status is not None and sight.phase == 'running' and not sight.note:
    parts.append(_text('\n'.join(waits.who_waits(sight.status))))
  if sight.note:
    parts.append(_text(sight.note))
  if len(curve.env_steps) > 1:
    parts.append(_text(f'\n{chart(curve, width)}'))
  if sight.phase == 'ended' and sight.status is not None:
    parts.append(_text(display.ending(sight.status)))
  return rich_console.Group(*parts)


def chart(curve: plot.Curve, width: int) -> str:
  """Draws a curve in characters; lines of at most `width`, or 50."""
  import plotille

  figure = plotille.Figure()
  figure.width = max(20, min(width, 100) - 30)  # of the plot within the axes
  figure.height = _CHART_HEIGHT
  figure.with_colors = False
  figure.origin = False
  figure.x_label, figure.y_label = 'env steps', 'return'
  figure.x_ticks_fkt = lambda low, high: _short(low)
  figure.y_ticks_fkt = lambda low, high: f'{low:,.4g}'
  figure.set_x_limits(min_=0)
  figure.plot(curve.env_steps.tolist(), curve.returns.tolist())
  return str(figure.show())


def _short(count: float) -> str:
  """Returns a count in few characters: 950, 12.5k, 3M."""
  for size, unit in ((1e6, 'M'), (1e3, 'k')):
    if count >= size:
      return f'{count / size:.3g}{unit}'
  return f'{count:.0f}'


def _text(text: str) -> rich_text.Text:
  # As it is: what looks like markup in a traceback is none.
  return rich_text.Text(text)
