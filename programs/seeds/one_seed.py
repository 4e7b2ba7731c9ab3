"""Starts and follows one of the runs of `distacme train --seeds`.

The run is a `distacme train` in a process of its own, and so the same as a run
that is started alone.
"""

from __future__ import annotations

from collections.abc import Sequence
import dataclasses
import os
import subprocess
import sys
import time

from distacme import status as status_lib
from distacme.programs import experiment as experiment_lib
from distacme.programs import modes
from distacme.programs import run_config
from distacme.programs.view import observer
from distacme.programs.view import progress
from distacme.run import files
from distacme.run import run_directory
from distacme.runtime import process_tree
from distacme.runtime import signals

_LOOK_S = 0.5
_TAIL = 12  # lines that are shown of a failed run's output


class SeedRun:
  """A run of one seed, from before its start to after its end; one thread."""

  def __init__(
    self,
    experiment: experiment_lib.Experiment,
    directory: run_directory.RunDirectory,
    arguments: Sequence[str],
  ) -> None:
    self.code: int | None = None  # None also if the run need not be started
    self._experiment = experiment
    self._directory = directory
    self._arguments = arguments
    self._output = directory.path.with_suffix('.out')
    self._process: subprocess.Popen[bytes] | None = None
    self._observer: observer.Observer | None = None
    self._view: observer.View | None = None
    self._look_at = 0.0

  def has_ended(self) -> bool:
    """Returns whether an earlier session reached the run's present limits."""
    if not self._directory.summary.exists():
      return False
    self.look()
    status = self._status
    if status is None or status.stop is None or status.failures:
      return False
    before = self._directory.read_config()['run']
    now = dataclasses.asdict(self._experiment.run)
    return signals.exit_code(status.stop.reason) == 0 and all(
      before.get(name) == now[name]
      # Another limit lets a run that had ended go on.
      for name in run_config.fields_with(resume='limit')
    )

  def start(self) -> None:
    """Starts the run's process."""
    command = [sys.executable, '-m', 'distacme.programs.seed_process']
    command += [*self._arguments, '--seed', str(self._experiment.run.seed)]
    command += ['--run-dir', str(self._directory.path)]
    with open(self._output, 'ab') as output:
      self._process = subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=output,
        stderr=subprocess.STDOUT,
        start_new_session=True,  # this process passes Ctrl-C on, once
        env=os.environ | process_tree.parent_variable(),
      )
    self._view = None

  def running(self) -> bool:
    """Returns whether the run's process has been started and not ended yet."""
    return self._process is not None and self.code is None

  def poll(self) -> int | None:
    """Returns the process's exit code, None while the process runs."""
    if self._process is not None and self.code is None:
      code = self._process.poll()
      if code is not None:
        self.code = code if code >= 0 else 128 - code
        self._look_at = 0.0
        self.look()
    return self.code

  def send(self, reason: status_lib.StopReason) -> None:
    """Passes on the signal that asks for a stop for `reason`."""
    assert self._process is not None
    self._process.send_signal(signals.signal_of(reason))

  def wait_or_kill(self, timeout_s: float) -> None:
    """Waits for the end of the process; kills the process after `timeout_s`."""
    assert self._process is not None
    try:
      self._process.wait(max(0.0, timeout_s))
    except subprocess.TimeoutExpired:
      self._process.kill()
      self._process.wait()
    self.poll()

  def look(self) -> None:
    """Reads the run's progress, now and then."""
    now = time.monotonic()
    if now < self._look_at or not self._directory.config.exists():
      return
    self._look_at = now + _LOOK_S
    self._observer = self._observer or observer.Observer(self._directory.path)
    self._view = self._observer.look()

  @property
  def remote(self) -> bool:
    """True if the run goes on in a cluster once its process has ended."""
    return modes.find(self._experiment.run.mode).remote

  @property
  def clock(self) -> status_lib.Clock:
    """The counter of the run's progress."""
    return self._experiment.run.clock

  @property
  def _status(self) -> status_lib.Status | None:
    """The newest known status."""
    return self._view.status if self._view else None

  def row(self) -> list[str]:
    """Returns the run's row of the table."""
    status, final = self._status, self.final()
    clock = self.clock
    cells = [str(self._experiment.run.seed), self._state()]
    cells.append('' if final is None else f'{final:.4g}')
    if status is None:
      return [*cells, '', '', '']
    return [
      *cells,
      f'{status.counts.get(clock, 0):,}',
      f'{status.rates.get(clock, 0.0):,.0f}' if self.running() else '',
      f'{status.seconds:.0f}',
    ]

  def line(self) -> str:
    """Returns a line about the run's progress."""
    status = self._status
    text = progress.progress_line(status) if status else self._state()
    return f'seed {self._experiment.run.seed} | {text.strip()}'

  def final(self) -> float | None:
    """Returns the mean return of the last evaluation, None without one."""
    if self._observer is None:
      return None
    returns = self._observer.curve().returns
    return float(returns[-1]) if len(returns) else None

  def complaint(self) -> str:
    """Returns a description of the failure, with the last lines of output."""
    lines = files.tail(self._output).splitlines()[-_TAIL:]
    return '\n  '.join(
      [
        f'seed {self._experiment.run.seed} ended with exit code {self.code}; '
        f'the last of {self._output}:',
        *lines,
      ]
    )

  def _state(self) -> str:
    status = self._status
    if self.running():
      return 'runs' if status else 'starts'
    stop = status.stop.reason.value if status and status.stop else ''
    if self.code:
      ends = {code: reason.value for reason, code in signals.EXIT_CODES.items()}
      return f'{stop or ends.get(self.code, "failed")} (exit code {self.code})'
    if stop or self._process is None:
      return stop or 'waits'
    return 'submitted'
