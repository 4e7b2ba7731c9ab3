"""Keeps the workers of a program running: restarts those that fail or hang.

Workers know nothing of it. Whoever launched them calls `Supervisor.watch`, in the main
thread: a process gets the kernel's signal of its parent's end when the thread that
made it ends.
"""

from __future__ import annotations

import collections
from collections.abc import Callable, Sequence
import dataclasses
import math
import pathlib
import signal
import time
from typing import NamedTuple, Protocol


class Worker(NamedTuple):
  """A running worker.

  Attributes:
    name: group and number.
    exit_code: returns None while it runs, 0 if it is done.
    terminate: asks it to end (SIGTERM to a process).
    kill: makes it end. Threads cannot be made to.
    explain: asks a process to write into its log where it is.
    log: the file of what it printed.
    restart: starts it again, once it has ended; None if that cannot be.
  """

  name: str
  exit_code: Callable[[], int | None]
  terminate: Callable[[], None]
  kill: Callable[[], None]
  explain: Callable[[], None]
  log: pathlib.Path | None
  restart: Callable[[], None] | None


@dataclasses.dataclass(frozen=True)
class RestartPolicy:
  """How often a worker may fail, and how long it may be silent.

  Attributes:
    max_restarts: of one worker within `period_s`; one more failure ends the run.
    period_s: seconds after which a restart is forgotten.
    first_delay_s: seconds before the first restart within that time; every
      further one waits twice as long.
    hang_timeout_s: seconds without a heartbeat after which a worker is killed.
    start_s: what the first heartbeat may take longer.
    explain_s: seconds for a worker to write where it hangs, before it is killed.
    dismiss_s: seconds within which a worker that is not wanted any more ends.
  """

  max_restarts: int = 3
  period_s: float = 600.0
  first_delay_s: float = 0.5
  hang_timeout_s: float = 300.0
  start_s: float = 120.0
  explain_s: float = 0.2
  dismiss_s: float = 15.0


class Run(Protocol):
  """What a supervisor must know of the run, and tell it."""

  def stopping(self) -> bool:
    """Whether the run is to end: then nothing is restarted."""

  def grace_s(self) -> float:
    """Returns how long workers of a run that is to end may take to save and end.

    They are asked once more, by a signal, at half that time, and then killed.
    """

  def poll(self) -> None:
    """Called between looks at the workers, many times a second."""

  def refresh(self) -> None:
    """Learns at once whether the run is to end; called when a worker has ended."""

  def silent_s(self, worker: str) -> float:
    """Returns the seconds since a worker's last heartbeat; inf before the first."""

  def may_restart(self, worker: str, code: int) -> bool:
    """Whether it is of use to start a worker again that ended with `code`."""

  def on_restart(self, worker: Worker, how: str, delay_s: float) -> None:
    """Called when a worker will be started again, with how it ended."""

  def on_absence(self, worker: Worker) -> None:
    """Called for a worker that is gone for good and could not say so."""

  def on_failure(self, worker: Worker, how: str) -> None:
    """Called for a worker that is not started again; makes the run end."""


class _Life:
  """One worker, over its restarts."""

  def __init__(self, worker: Worker):
    self.worker = worker
    self.since = time.monotonic()
    self.restart_at: float | None = None
    self.hung = ''
    self.dismissed_at = math.inf
    self.restarts: collections.deque[float] = collections.deque()


class Supervisor:
  """Watches workers until all have ended; one thread."""

  def __init__(
    self,
    workers: Sequence[Worker],
    run: Run,
    policy: RestartPolicy = RestartPolicy(),
    *,
    period_s: float = 0.05,
  ):
    """Takes over workers that were started.

    Args:
      workers: to watch.
      run: that they belong to.
      policy: of their restarts.
      period_s: seconds between looks.
    """
    self._lives = [_Life(worker) for worker in workers]
    self._run = run
    self._policy = policy
    self._period_s = period_s

  def add(self, workers: Sequence[Worker]) -> None:
    """Watches more workers."""
    self._lives += [_Life(worker) for worker in workers]

  def dismiss(self, name: str) -> None:
    """Lets a worker end, and not start again; it may be asked to more than once."""
    for life in self._lives:
      if life.worker.name == name:
        life.dismissed_at = min(life.dismissed_at, time.monotonic())
        life.worker.terminate()

  def has(self, name: str) -> bool:
    """Whether a worker is looked after: it runs, or is to run again."""
    return any(life.worker.name == name for life in self._lives)

  def watch(self) -> None:
    """Returns once every worker has ended, or was killed for not ending."""
    asked = False
    stop_at = math.inf
    while self._lives:
      for life in list(self._lives):
        if not self._goes_on(life):
          self._lives.remove(life)
      if self._run.stopping():
        stop_at = min(stop_at, time.monotonic())
        grace_s = self._run.grace_s()
        waited_s = time.monotonic() - stop_at
        if waited_s > grace_s / 2 and not asked:
          asked = True
          for life in self._lives:
            life.worker.terminate()
        if waited_s > grace_s:
          how = f'did not end within {grace_s:.0f} s and was killed'
          for life in self._lives:
            life.worker.kill()
          for life in self._lives:
            self._run.on_failure(life.worker, how)
          return
      self._run.poll()
      time.sleep(self._period_s)

  def _goes_on(self, life: _Life) -> bool:
    """Looks after one worker; returns whether it will be looked after again."""
    if life.restart_at is not None:
      return self._goes_on_waiting(life)
    code = life.worker.exit_code()
    if code is None:
      if not self._run.stopping():
        self._kill_if_it_hangs(life)
      return True
    self._run.refresh()
    stopping = self._run.stopping()
    if life.dismissed_at < math.inf:
      if code:
        self._run.on_absence(life.worker)
      return False
    # One that had not begun yet when it was asked to end did nothing wrong.
    if stopping and code in (0, -signal.SIGTERM):
      return False
    how = life.hung or _how_it_ended(code)
    life.hung = ''
    if stopping or not self._has_restarts_left(life, code):
      self._run.on_failure(life.worker, how)
      return False
    delay_s = self._policy.first_delay_s * 2 ** len(life.restarts)
    life.restart_at = time.monotonic() + delay_s
    self._run.on_restart(life.worker, how, delay_s)
    return True

  def _goes_on_waiting(self, life: _Life) -> bool:
    assert life.restart_at is not None and life.worker.restart is not None
    if self._run.stopping() or life.dismissed_at < math.inf:
      self._run.on_absence(life.worker)
      return False
    now = time.monotonic()
    if now >= life.restart_at:
      life.worker.restart()
      life.restarts.append(now)
      life.since, life.restart_at = now, None
    return True

  def _has_restarts_left(self, life: _Life, code: int) -> bool:
    while life.restarts and (
      life.restarts[0] < time.monotonic() - self._policy.period_s
    ):
      life.restarts.popleft()
    return (
      life.worker.restart is not None
      and len(life.restarts) < self._policy.max_restarts
      and self._run.may_restart(life.worker.name, code)
    )

  def _kill_if_it_hangs(self, life: _Life) -> None:
    now = time.monotonic()
    silent_s = self._run.silent_s(life.worker.name)
    timeout_s = self._policy.hang_timeout_s
    age_s = now - life.since
    if silent_s > age_s:  # none yet, or one of the process before this one
      silent_s = age_s
      timeout_s += self._policy.start_s
    if silent_s > timeout_s and not life.hung:
      life.hung = f'gave no sign of life for {silent_s:.0f} s and was killed'
      life.worker.explain()
      time.sleep(self._policy.explain_s)
      life.worker.kill()
    if now - life.dismissed_at > self._policy.dismiss_s:
      life.worker.kill()


def _how_it_ended(code: int) -> str:
  if code == 0:
    return 'ended although the run goes on'
  return (
    f'ended with signal {-code}' if code < 0 else f'ended with exit code {code}'
  )
