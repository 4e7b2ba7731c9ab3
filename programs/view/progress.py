"""Shows a run's progress: a live table in a terminal or notebook, or lines."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
import time
from typing import Any

from rich import console as rich_console
from rich import live as rich_live
from rich import table as rich_table
from rich import text as rich_text

from distacme import status as status_lib
from distacme.programs.view import notebook
from distacme.programs.view import terminal

SILENT_S = 5.0  # a worker that is silent for longer is shown as silent
_LINE_PERIOD_S = 5.0
_REFRESH_PERIOD_S = 0.25
_LARGE_SHARE_AT_ENDS = (
  0.5  # of the returns that a categorical critic (D4PG, DMPO) foresees
)


class Display:
  """Shows statuses of a run as they come."""

  def __init__(self, console: rich_console.Console | None = None):
    self._console = console or terminal.console()
    self._live: rich_live.Live | None = None
    self._picture: notebook.Picture | None = None
    self._next = 0.0
    self._ends = False
    self._shown_failures = 0

  def __enter__(self) -> Display:
    if notebook.is_here():
      self._picture = notebook.Picture()
    elif self._console.is_terminal:
      self._live = rich_live.Live(
        console=self._console, auto_refresh=False, transient=False
      )
      self._live.__enter__()
    return self

  def __exit__(self, *args: Any) -> None:
    if self._live is not None:
      self._live.__exit__(*args)

  def show(self, status: status_lib.Status) -> None:
    """Shows `status` in place if that is possible, else a line now and then.

    Each failure that the user must see is shown once, above the table.
    """
    failures = status.shown_failures
    for failure in failures[self._shown_failures :]:
      self._console.print(
        failure, markup=False, highlight=False, soft_wrap=True
      )
    self._shown_failures = len(failures)
    ends = status.stop is not None
    self.show_view(
      lambda: progress_table(status),
      lambda: [progress_line(status)],
      # The table is shown last of all; of lines, one at the start of the end.
      last=ends and (self._in_place or not self._ends),
    )
    self._ends = ends

  @property
  def _in_place(self) -> bool:
    return self._live is not None or self._picture is not None

  def show_view(
    self,
    table: Callable[[], rich_table.Table],
    lines: Callable[[], Iterable[str]],
    last: bool,
  ) -> None:
    """Shows the table or the lines, if it is time or `last` is set."""
    now = time.monotonic()
    if now < self._next and not last:
      return
    if self._in_place:
      self._next = now + _REFRESH_PERIOD_S
      if self._picture is not None:
        self._picture.update(table())
      elif self._live is not None:
        self._live.update(table(), refresh=True)
    else:
      self._next = now + _LINE_PERIOD_S
      for line in lines():
        self._console.print(line, markup=False, highlight=False, soft_wrap=True)


def progress_line(status: status_lib.Status) -> str:
  """Returns one line about the whole run."""
  parts = [f'{status.seconds:6.1f} s', *_overview(status)]
  return ' | '.join(parts)


def progress_table(status: status_lib.Status) -> rich_table.Table:
  """Returns a table with a row for each worker.

  The lag of a worker is the number of learner steps since the worker's params;
  silent is the time since the worker's last report.
  """
  table = rich_table.Table(
    # A text, since rich looks for markup in what is a string.
    title=rich_text.Text(
      ' | '.join([f'{status.seconds:.0f} s', *_overview(status)])
    ),
    title_justify='left',
  )
  for column in ('worker', 'does', 'steps/s', 'lag', 'silent', 'notes'):
    number = column in ('steps/s', 'lag', 'silent')
    table.add_column(column, justify='right' if number else 'left')
  for name, worker in sorted(status.workers.items()):
    lag = worker.metrics.get('policy_lag')
    table.add_row(
      rich_text.Text(name),
      _does(worker),
      _rate(worker.rates),
      '' if lag is None else f'{lag:,.0f}',
      _silent(worker),
      _notes(worker.metrics),
    )
  return table


def ending(status: status_lib.Status) -> str:
  """Returns the last lines about a run that has ended."""
  stop, counts = status.stop, status.counts
  reason = stop.reason.value if stop else 'unknown'
  worker = f' ({stop.worker})' if stop and stop.worker else ''
  acted = f'{counts.get("env_steps", 0):,} environment steps, '
  lines = [
    f'ended: {reason}{worker} after {status.seconds:.1f} s, '
    f'{acted if _acts(status) else ""}'
    f'{counts.get("learner_steps", 0):,} learner steps'
  ]
  shown = status.shown_failures
  detail = stop.detail.rstrip() if stop else ''
  if detail and detail not in shown:
    lines.append(detail)
  lines += _last_evaluation(status)
  lines += [
    how if how not in shown else f'{failed} failed, see above'
    for failed, how in status.failures.items()
    if stop is None or failed != stop.worker
  ]
  if status.restarts:
    lines.append(f'restarted: {_restarted(status)}')
  return '\n'.join(lines)


def _last_evaluation(status: status_lib.Status) -> list[str]:
  """Returns a line about the last evaluation, unless the run's end tells more."""
  reasons = status_lib.StopReason
  if status.stop and status.stop.reason in (reasons.SOLVED, reasons.FAILED):
    return []
  return [
    f'last evaluation: mean return {metrics["mean_return"]:.4g}, at params version '
    f'{metrics.get("params_version", 0):.0f}'
    for metrics in (worker.metrics for worker in status.workers.values())
    if 'mean_return' in metrics
  ]


def _restarted(status: status_lib.Status) -> str:
  """Returns the restarted workers, each with its number of restarts."""
  restarts = sorted(status.restarts.items())
  return ', '.join(f'{worker} {len(hows)}x' for worker, hows in restarts)


def _overview(status: status_lib.Status) -> list[str]:
  """Returns the main numbers of the whole run, a few words each."""
  counts, rates = status.counts, status.rates
  parts = [
    f'{name} {counts.get(clock, 0):,} steps, {rates.get(clock, 0.0):,.0f}/s'
    for name, clock in (('env', 'env_steps'), ('learner', 'learner_steps'))
    if clock == 'learner_steps' or _acts(status)
  ]
  # Replay may be several servers.
  means = {'replay': _sum(status, 'size')} | {
    title: _mean(status, metric)
    for title, metric in (
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
  if status.restarts:
    parts.append(f'restarted {_restarted(status)}')
  return parts + _left(status)


def _acts(status: status_lib.Status) -> bool:
  """Returns whether a run makes environment steps, or is to make any."""
  limit = status.limits.max_env_steps
  return bool(status.counts.get('env_steps')) or limit is not None


def _left(status: status_lib.Status) -> list[str]:
  """Returns the steps and seconds left until the run ends by itself."""
  limits, counts = status.limits, status.counts
  if limits.max_seconds is not None:
    return [f'{max(0.0, limits.max_seconds - status.seconds):.0f} s left']
  return [
    f'{max(0, most - counts.get(clock, 0)):,} {name} left'
    for name, clock, most in (
      ('env steps', 'env_steps', limits.max_env_steps),
      ('learner steps', 'learner_steps', limits.max_learner_steps),
    )
    if most is not None
  ]


def _mean(status: status_lib.Status, metric: str) -> float | None:
  """Returns the mean over the workers that have measured `metric`."""
  values = _values(status, metric)
  return sum(values) / len(values) if values else None


def _sum(status: status_lib.Status, metric: str) -> float | None:
  """Returns the sum over the workers that have measured `metric`."""
  values = _values(status, metric)
  return sum(values) if values else None


def _values(status: status_lib.Status, metric: str) -> list[float]:
  return [
    worker.metrics[metric]
    for worker in status.workers.values()
    if metric in worker.metrics
  ]


def _does(worker: status_lib.WorkerStatus) -> str:
  """Returns a worker's activity, or the worker's end, in a few words."""
  metrics = worker.metrics
  if worker.state is None:
    return ''
  if worker.state == status_lib.WorkerState.SERVING and 'size' in metrics:
    unsaved = ', not saved' if metrics.get('failed_saves_in_a_row') else ''
    return f'{metrics["size"]:,.0f} items{unsaved}'
  if worker.state == status_lib.WorkerState.IDLE and 'mean_return' in metrics:
    cut_off = metrics.get('episodes_cut_off', 0)
    cut = f', {cut_off:.0f} episodes cut off' if cut_off else ''
    return f'return {metrics["mean_return"]:.4g}{cut}'
  return worker.state.value.replace('_', ' ')


def _silent(worker: status_lib.WorkerStatus) -> rich_text.Text:
  """Returns the time since a worker's last report, in red if too long."""
  if worker.state == status_lib.WorkerState.DONE:
    return rich_text.Text()
  silent_s = worker.seconds_since_report
  style = 'red' if silent_s > SILENT_S else ''
  return rich_text.Text(f'{silent_s:.1f} s', style)


def _rate(rates: Mapping[str, float]) -> str:
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
  'subscribers',
)


def _notes(metrics: Mapping[str, float]) -> str:
  noted = [f'{n} {metrics[n]:.4g}' for n in _NOTED if n in metrics]
  return ', '.join(noted)
