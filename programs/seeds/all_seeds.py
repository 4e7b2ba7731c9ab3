"""`distacme train --seeds 0-4`: starts a run for each seed in one directory."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
import contextlib
import dataclasses
import pathlib
import re
import time

from rich import console as rich_console
from rich import table as rich_table

from distacme import status
from distacme.programs import checks
from distacme.programs import experiment as experiment_lib
from distacme.programs import modes
from distacme.programs.seeds import config as config_lib
from distacme.programs.seeds import one_seed
from distacme.programs.view import plotting
from distacme.programs.view import progress
from distacme.programs.view import terminal
from distacme.programs.workers import devices
from distacme.run import run_directory
from distacme.runtime import signals

_POLL_S = 0.1
_GRACE_S = 20.0  # runs may save and end for so long, then they are killed


def prepare(
  experiment: experiment_lib.Experiment,
  settings: config_lib.SeedsConfig,
  arguments: Sequence[str],
) -> PreparedSeeds:
  """Checks the runs before any of them starts; makes their directory.

  Args:
    experiment: the experiment that `arguments` describe, except for the seed.
    settings: the seeds.
    arguments: of `distacme train`.

  Raises:
    ValueError: if experiment, seeds and directory do not fit.
    ImportError: if the mode needs a library that is not installed.
  """
  if len(_without(arguments, 'seed')) < len(arguments):
    raise ValueError(
      f'--seed and --seeds were given together. Leave out --seed: '
      f'--seeds {settings.seeds} says which.'
    )
  modes.find(experiment.run.mode).check_installed()
  with devices.on_the_cpu():  # the runs need the accelerators
    checks.check_agent(experiment)
  run = experiment.run
  arguments = _without(arguments, 'seeds', 'seeds-at-once', 'run-dir')
  runs = []
  with contextlib.ExitStack() as stack:
    path = run.run_dir
    if path is None:
      path = run_directory.make_new(run.agent, run.env, 'seeds')
      stack.callback(run_directory.take_back, path)
    path = path.resolve()
    _check_parent(path)
    for seed in config_lib.parse_seeds(settings.seeds):
      one = dataclasses.replace(
        experiment, run=dataclasses.replace(run, seed=seed)
      )
      directory = run_directory.RunDirectory(path / f'seed{seed}')
      checks.check_resumable(one, directory)
      runs.append(one_seed.SeedRun(one, directory, arguments))
    path.mkdir(parents=True, exist_ok=True)
    stack.pop_all()  # the directory stays
  return PreparedSeeds(path, runs, settings.seeds_at_once)


def _without(arguments: Sequence[str], *flags: str) -> list[str]:
  """Returns the arguments without `flags` and the one value of each flag."""
  left = []
  rest = iter(arguments)
  for argument in rest:
    name, equals, _ = argument.partition('=')
    if name.replace('_', '-') not in [f'--{flag}' for flag in flags]:
      left.append(argument)
    elif not equals:
      next(rest, None)
  return left


def _check_parent(path: pathlib.Path) -> None:
  """Refuses a path that no run may have, or that holds other files."""
  run_directory.check_path(path)
  if not path.exists():
    return
  if not path.is_dir() or any(
    not re.fullmatch(rf'seed\d+(\.out)?|{plotting.FILE}', entry.name)
    for entry in path.iterdir()
  ):
    raise ValueError(
      f'{path} exists and is no directory of seeds. Choose another run_dir.'
    )


class PreparedSeeds:
  """Runs that have been checked and may start; used by one thread."""

  def __init__(
    self, path: pathlib.Path, runs: list[one_seed.SeedRun], at_once: int
  ) -> None:
    self._path = path
    self._runs = runs
    self._at_once = at_once
    self._stop: status.StopReason | None = None  # asked for by a signal

  @property
  def is_remote(self) -> bool:
    """False: each run is a process of its own, which submits the run's jobs."""
    return False

  def run(self) -> int:
    """Follows all runs to their ends and draws curves; returns the exit code.

    The first Ctrl-C or SIGTERM is passed on to the runs, and no other run
    starts; so is the second Ctrl-C, which hurries the ends of the runs.
    """
    console = terminal.console()
    terminal.say(f'directory of the runs: {self._path}')
    with signals.StopRequests() as stops:
      try:
        with progress.Display(console) as display:
          with stops.passed_to(self._request_stop):
            self._run_all(display)
      except signals.Stopped as stopped:
        self._stop = stopped.reason
      finally:
        self._end()
      with contextlib.suppress(signals.Stopped):
        self._report(console)
    terminal.flush()
    return self._exit_code()

  def _report(self, console: rich_console.Console) -> None:
    """Shows how the runs ended, and draws their curves."""
    if not console.is_terminal:  # a terminal shows the table already
      console.print(self._table())
    for run in self._runs:
      if run.code and not self._stop:
        terminal.say(run.complaint())
    if not self._runs[0].remote:
      terminal.say(self._returns())
      plotting.draw_if_possible(self._path)
    terminal.say(f'directory of the runs: {self._path}')

  def _request_stop(self, reason: status.StopReason) -> None:
    self._stop = reason

  def _run_all(self, display: progress.Display) -> None:
    waiting = [run for run in self._runs if not run.has_ended()]
    running: list[one_seed.SeedRun] = []
    asked = False
    while running or (waiting and not self._stop):
      running = [run for run in running if run.poll() is None]
      while waiting and len(running) < self._at_once and not self._stop:
        running.append(waiting.pop(0))
        running[-1].start()
      if self._stop and not asked:
        asked = True
        for run in running:
          run.send(self._stop)
      for run in running:
        run.look()
      display.show_view(self._table, self._lines, last=False)
      time.sleep(_POLL_S)
    display.show_view(self._table, self._lines, last=True)

  def _end(self) -> None:
    """Ends the runs that still go on, since this process ends."""
    running = [run for run in self._runs if run.running()]
    for run in running:  # at a second Ctrl-C it is the second for them
      run.send(self._stop or status.StopReason.TERMINATED)
    deadline = time.monotonic() + _GRACE_S
    for run in running:
      run.wait_or_kill(deadline - time.monotonic())

  def _table(self) -> rich_table.Table:
    table = rich_table.Table()
    steps = self._runs[0].clock.replace('_', ' ')
    for name in ('seed', 'state', 'return', steps, 'steps/s', 'seconds'):
      table.add_column(name, justify='left' if name == 'state' else 'right')
    for run in self._runs:
      table.add_row(*run.row())
    return table

  def _lines(self) -> Iterable[str]:
    for run in self._runs:
      if run.running():
        yield run.line()

  def _returns(self) -> str:
    """Returns a sentence about all final returns."""
    finals = [value for run in self._runs if (value := run.final()) is not None]
    if not finals:
      return 'final return: no seed has been evaluated'
    return (
      f'final return: mean {sum(finals) / len(finals):.4g} (min '
      f'{min(finals):.4g}, max {max(finals):.4g}) over {len(finals)} of '
      f'{len(self._runs)} seeds'
    )

  def _exit_code(self) -> int:
    """Returns 0 if all runs reached their end, else the first other code.

    After a request to stop, the code is that of the request.
    """
    if self._stop:
      return signals.exit_code(self._stop)
    return next((run.code for run in self._runs if run.code), 0)
