"""Keeps the workers of a program running: restarts those that fail or hang.

Workers know nothing of supervision. The launcher calls `Supervisor.watch` in the main
thread: the kernel signals a parent's end to a process when the thread that started the
process ends.
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
    name: kind and number.
    exit_code: returns None while the worker runs, 0 if it is done.
    terminate: asks the worker to end; SIGTERM for a process.
    kill: ends the worker (SIGKILL). For a thread, does nothing.
    explain: asks a process to write its threads' stacks into its log.
    log: file of the worker's output.
    restart: starts the worker again, once it has ended; None if it cannot restart.
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
  """Limits of a worker's failures and of its silence.

  Attributes:
    max_restarts: of one worker within `period_s`; one more failure ends the run.
    period_s: seconds after which a restart does not count any more.
    first_delay_s: seconds before the first restart within `period_s`; every further
      restart waits twice as long, up to `longest_delay_s`.
    hang_timeout_s: seconds without a heartbeat after which a worker is killed.
    start_s: additional seconds while the worker is starting.
    explain_s: seconds for a hanging worker to write its stacks, before it is killed.
    dismiss_s: seconds for a dismissed worker to end.
  """

  max_restarts: int = 3
  period_s: float = 600.0
  first_delay_s: float = 0.5
  longest_delay_s: float = 60.0
  hang_timeout_s: float = 300.0
  start_s: float = 120.0
  explain_s: float = 0.2
  dismiss_s: float = 15.0


# For the system to end the processes that were killed.
_KILLED_S = 5.0


class Run(Protocol):
  """A supervisor's questions and messages to the run."""

  def stopping(self) -> bool:
    """Returns whether the run is to end; then no worker is restarted."""

  def grace_s(self) -> float:
    """Returns the seconds for workers to save and end, once the run is to end.

    Workers are asked once more, by a signal, at half of this time. At its end they
    are killed.
    """

  def hurried(self) -> bool:
    """Returns whether the run is to end now: its workers are killed."""

  def poll(self) -> None:
    """Does regular work; called between checks of the workers, often a second."""

  def refresh(self) -> None:
    """Updates `stopping` at once; called when a worker has ended."""

  def silent_s(self, worker: str) -> float:
    """Returns the seconds since a worker's last heartbeat; inf before the first."""

  def is_starting(self, worker: str) -> bool:
    """Returns whether a worker that has a heartbeat has not begun its work yet."""

  def may_restart(self, worker: str, code: int) -> bool:
    """Returns whether a worker that ended with `code` should be restarted."""

  def on_restart(self, worker: Worker, how: str, delay_s: float) -> None:
    """Notes that a worker will be restarted, and how the worker ended."""

  def on_absence(self, worker: Worker) -> None:
    """Notes that a worker is gone for good and could not report it."""

  def on_failure(self, worker: Worker, how: str) -> None:
    """Notes that a worker failed and is not restarted; ends the run."""


# The exit code of a worker that the system did not start.
_NEVER_RAN = -signal.SIGKILL
# Between two checks: beyond it the launcher itself was stopped.
_PAUSE_S = 5.0


class _Life:
  """A worker and its restarts."""

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
    """Takes over started workers.

    Args:
      workers: to watch.
      run: the workers' run.
      policy: of restarts.
      period_s: seconds between checks.
    """
    self._lives = [_Life(worker) for worker in workers]
    self._run = run
    self._policy = policy
    self._period_s = period_s
    self._awake_since = -math.inf

  def add(self, workers: Sequence[Worker]) -> None:
    """Watches more workers."""
    self._lives += [_Life(worker) for worker in workers]

  def dismiss(self, name: str) -> None:
    """Ends a worker without a restart; repeated calls do no harm."""
    for life in self._lives:
      if life.worker.name == name:
        life.dismissed_at = min(life.dismissed_at, time.monotonic())
        life.worker.terminate()

  def has(self, name: str) -> bool:
    """Returns whether a worker is watched: it runs, or is to run again."""
    return any(life.worker.name == name for life in self._lives)

  def watch(self) -> None:
    """Watches until every worker has ended, or was killed for not ending."""
    asked = False
    stop_at = math.inf
    checked_at = time.monotonic()
    while self._lives:
      now = time.monotonic()
      if now - checked_at > _PAUSE_S:
        self._awake_since = now  # Nobody could be heard meanwhile.
      checked_at = now
      for life in list(self._lives):
        if not self._goes_on(life):
          self._lives.remove(life)
      if self._run.hurried():
        self._kill_all()
        return
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

  def _kill_all(self) -> None:
    """Kills the workers, and waits for their ends.

    Threads, which have no log of their own, cannot be killed and go on.
    """
    for life in self._lives:
      if life.restart_at is None:
        life.worker.kill()
    give_up_at = time.monotonic() + _KILLED_S
    while time.monotonic() < give_up_at and any(
      life.worker.log is not None and life.worker.exit_code() is None
      for life in self._lives
    ):
      time.sleep(self._period_s)

  def _goes_on(self, life: _Life) -> bool:
    """Checks one worker; returns whether to watch the worker any more."""
    if life.restart_at is not None:
      return self._goes_on_waiting(life)
    code = life.worker.exit_code()
    if code is None:
      if not self._run.stopping():
        self._kill_if_it_hangs(life)
      return True
    self._run.refresh()
    if life.dismissed_at < math.inf:
      if code:
        self._run.on_absence(life.worker)
      return False
    # A worker that is asked to end before it has begun has not failed.
    if self._run.stopping() and code in (0, -signal.SIGTERM):
      return False
    how = life.hung or _how_it_ended(code)
    life.hung = ''
    return self._is_to_be_restarted(life, how, code)

  def _is_to_be_restarted(self, life: _Life, how: str, code: int) -> bool:
    """Plans a restart; returns False if there is none and the run has failed."""
    if self._run.stopping() or not self._has_restarts_left(life, code):
      self._run.on_failure(life.worker, how)
      return False
    delay_s = min(
      self._policy.first_delay_s * 2 ** len(life.restarts),
      self._policy.longest_delay_s,
    )
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
      life.restarts.append(now)
      life.since, life.restart_at = now, None
      try:
        life.worker.restart()
      except OSError as error:
        # There is no memory, no descriptor, or no place for the log.
        how = f'could not be started ({error})'
        return self._is_to_be_restarted(life, how, _NEVER_RAN)
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
    name = life.worker.name
    silent_s = self._run.silent_s(name)
    timeout_s = self._policy.hang_timeout_s
    age_s = now - life.since
    # Imports and compilation take minutes on a machine that does much else.
    if silent_s > age_s or self._run.is_starting(name):
      timeout_s += self._policy.start_s
    silent_s = min(silent_s, age_s, now - self._awake_since)
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
