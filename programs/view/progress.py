"""A run's progress in the terminal: a live table, or lines where there is none."""

from __future__ import annotations

from collections.abc import Callable, Iterable
import time
from typing import Any

from rich import console as rich_console
from rich import live as rich_live
from rich import table as rich_table
from rich import text as rich_text

from distacme.programs.view import terminal
from distacme.run import status as status_lib

SILENT_S = 5.0  # after which a worker's silence is noticed
_LINE_PERIOD_S = 5.0
_REFRESH_PERIOD_S = 0.25
_LARGE_SHARE_AT_ENDS = 0.5  # of what a categorical critic (D4PG, DMPO) foresees


class Display:
  """Shows statuses (`counting.RunState.status`) as they come."""

  def __init__(self, console: rich_console.Console | None = None):
    self._console = console or terminal.console()
    self._live: rich_live.Live | None = None
    self._next = 0.0
    self._ends = False
    self._shown_failures = 0

  def __enter__(self) -> Display:
    if self._console.is_terminal:
      self._live = rich_live.Live(
        console=self._console, auto_refresh=False, transient=False
      )
      self._live.__enter__()
    return self

  def __exit__(self, *args: Any) -> None:
    if self._live is not None:
      self._live.__exit__(*args)

  def show(self, status: dict[str, Any]) -> None:
    """Shows `status`; on a terminal in place, else a line every few seconds.

    Failures that are to be seen are shown once, above all that comes.
    """
    failures = status.get('shown_failures', [])
    for failure in failures[self._shown_failures :]:
      self._console.print(
        failure, markup=False, highlight=False, soft_wrap=True
      )
    self._shown_failures = len(failures)
    ends = bool(status.get('stop'))
    self.show_view(
      lambda: progress_table(status),
      lambda: [progress_line(status)],
      # The table is to be the last; of lines, one when it begins to end will do.
      last=ends and (self._live is not None or not self._ends),
    )
    self._ends = ends

  def show_view(
    self,
    table: Callable[[], rich_table.Table],
    lines: Callable[[], Iterable[str]],
    last: bool,
  ) -> None:
    """Shows what either function returns, if it is time or it is the last."""
    now = time.monotonic()
    if now < self._next and not last:
      return
    if self._live is not None:
      self._next = now + _REFRESH_PERIOD_S
      self._live.update(table(), refresh=True)
    else:
      self._next = now + _LINE_PERIOD_S
      for line in lines():
        self._console.print(line, soft_wrap=True, highlight=False)


def progress_line(status: dict[str, Any]) -> str:
  """Returns one line about the whole run."""
  parts = [f'{status["seconds"]:6.1f} s', *_overview(status)]
  return ' | '.join(parts)


def progress_table(status: dict[str, Any]) -> rich_table.Table:
  """Returns a table with a row for each worker.

  Its lag is the learner steps made since the params that it acts with; silent is
  how long ago its last report came.
  """
  table = rich_table.Table(
    title=' | '.join([f'{status["seconds"]:.0f} s', *_overview(status)]),
    title_justify='left',
  )
  for column in ('worker', 'does', 'steps/s', 'lag', 'silent', 'notes'):
    number = column in ('steps/s', 'lag', 'silent')
    table.add_column(column, justify='right' if number else 'left')
  for name, worker in sorted(status['workers'].items()):
    lag = worker['metrics'].get('policy_lag')
    table.add_row(
      name,
      worker['state'],
      _rate(worker['rates']),
      '' if lag is None else f'{lag:,.0f}',
      _silent(worker),
      _notes(worker['metrics']),
    )
  return table


def ending(status: dict[str, Any]) -> str:
  """Returns what to print of a run that has ended."""
  stop, counts = status['stop'] or {'reason': 'unknown'}, status['counts']
  who = f' ({stop["worker"]})' if stop.get('worker') else ''
  lines = [
    f'ended: {stop["reason"]}{who} after {status["seconds"]:.1f} s, '
    f'{counts.get("env_steps", 0):,} environment steps, '
    f'{counts.get("learner_steps", 0):,} learner steps'
  ]
  detail = stop.get('detail', '').rstrip()
  shown = status.get('shown_failures', [])
  if detail and detail not in shown:
    lines.append(detail)
  lines += [
    how if how not in shown else f'{worker} failed, see above'
    for worker, how in status.get('failures', {}).items()
    if worker != stop.get('worker')
  ]
  if status.get('restarts'):
    lines.append(f'restarted: {restarted(status)}')
  return '\n'.join(lines)


def restarted(status: dict[str, Any]) -> str:
  """Returns which workers were restarted, and how often."""
  restarts = sorted(status['restarts'].items())
  return ', '.join(f'{worker} {len(hows)}x' for worker, hows in restarts)


def _overview(status: dict[str, Any]) -> list[str]:
  """Returns what matters of the whole run, a few words each."""
  counts, rates = status['counts'], status['rates']
  env_steps, learner_steps = (
    counts.get(name, 0) for name in ('env_steps', 'learner_steps')
  )
  parts = [
    f'env {env_steps:,} steps, {rates.get("env_steps", 0.0):,.0f}/s',
    f'learner {learner_steps:,} steps, {rates.get("learner_steps", 0.0):,.0f}/s',
  ]
  means = {
    title: _mean(status, metric)
    for title, metric in (
      ('replay', 'size'),
      ('acting return', 'episode_return'),
      ('evaluated return', 'mean_return'),
    )
  }
  parts += [
    f'{title} {mean:,.4g}' for title, mean in means.items() if mean is not None
  ]
  at_ends = _mean(status, 'share_at_ends')
  if at_ends is not None and at_ends > _LARGE_SHARE_AT_ENDS:
    parts.append(
      f'critic {at_ends:.0%} at the ends of its atoms: returns may reach beyond '
      'min_value or max_value'
    )
  if status.get('restarts'):
    parts.append(f'restarted {restarted(status)}')
  limits = status['limits']
  if limits['max_seconds']:
    left = max(0.0, limits['max_seconds'] - status['seconds'])
    parts.append(f'{left:.0f} s left')
  elif limits['max_env_steps']:
    left = max(0, limits['max_env_steps'] - env_steps)
    parts.append(f'{left:,} env steps left')
  return parts


def _mean(status: dict[str, Any], metric: str) -> float | None:
  """Returns the mean over the workers that have measured `metric`."""
  values = [
    worker['metrics'][metric]
    for worker in status['workers'].values()
    if metric in worker['metrics']
  ]
  return sum(values) / len(values) if values else None


def _silent(worker: dict[str, Any]) -> rich_text.Text:
  """Returns how long the worker has said nothing; red if that is too long."""
  if worker['state'] == status_lib.DONE:
    return rich_text.Text()
  silent_s = worker['seconds_since_report']
  style = 'red' if silent_s > SILENT_S else ''
  return rich_text.Text(f'{silent_s:.1f} s', style)


def _rate(rates: dict[str, float]) -> str:
  for name in ('env_steps', 'learner_steps'):
    if name in rates:
      return f'{rates[name]:,.0f}'
  return ''


_NOTED = (
  'episode_return',
  'mean_return',
  'size',
  'samples_per_insert',
  'share_waiting_for_data',
  'share_blocked_by_replay',
  'loss',
)


def _notes(metrics: dict[str, float]) -> str:
  noted = [f'{n} {metrics[n]:.4g}' for n in _NOTED if n in metrics]
  return ', '.join(noted)
