"""`distacme watch RUN_DIR`: shows a running program in another terminal."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
import contextlib
import queue
import time

from rich import console as rich_console
from rich import live as rich_live

from distacme import status
from distacme.programs import modes
from distacme.programs.commands import run_flags
from distacme.programs.view import dashboard
from distacme.programs.view import observer
from distacme.programs.view import terminal
from distacme.run import run_directory
from distacme.runtime import signals

_PERIOD_S = 0.5


def main(arguments: Sequence[str]) -> int:
  """Shows the run until the run ends; without a terminal, only once."""
  parser = argparse.ArgumentParser(
    prog='distacme watch',
    description='Shows what the workers of a run do, who waits for whom, and '
    'the evaluated returns so far, twice a second until the run ends. Where '
    'the output is no terminal, it is shown once. Ctrl-C ends the watching '
    'only, never the run.',
    epilog='exit codes: 0 after what there was to see, 130 after Ctrl-C, 2 if '
    'the directory is no run, or its run was killed or does not answer.',
  )
  run_flags.add_run_dir(parser)
  flags = parser.parse_args(arguments)
  directory = run_directory.RunDirectory(flags.run_dir.resolve())
  launcher = modes.find(directory.read_config()['run']['mode'])
  if (code := launcher.forward(directory, ['watch'])) is not None:
    return code
  run = observer.Observer(flags.run_dir)
  console = terminal.console()
  if not console.is_terminal:
    view = run.look()
    if view.phase in ('lost', 'silent'):
      raise ValueError(view.note)
    console.print(dashboard.picture(view, run.curve(), console.width))
    return 0
  # The signal puts a reason: some library might catch an exception.
  reasons: queue.SimpleQueue[status.StopReason] = queue.SimpleQueue()
  with signals.StopRequests() as stops, stops.passed_to(reasons.put):
    return _follow(run, console, reasons)


def _follow(
  run: observer.Observer,
  console: rich_console.Console,
  reasons: queue.SimpleQueue[status.StopReason],
) -> int:
  """Shows the run until the run ends or one of `reasons` to stop comes."""
  with rich_live.Live(console=console, auto_refresh=False) as live:
    while True:
      start = time.monotonic()
      view = run.look()
      if view.phase != 'lost':
        shown = dashboard.picture(view, run.curve(), console.width)
        live.update(shown, refresh=True)
      if view.phase in ('ended', 'lost'):
        break
      pause_s = max(0.0, start + _PERIOD_S - time.monotonic())
      with contextlib.suppress(queue.Empty):
        return signals.exit_code(reasons.get(timeout=pause_s))
  if view.phase == 'lost':
    raise ValueError(view.note)
  return 0
