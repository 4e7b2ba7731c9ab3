"""The share of a run on a cluster that one job has: supervises the job's workers.

A worker that fails is started again in its place, as on one host. What differs is the
end: where a worker fails again and again, its job is started anew, perhaps on another
host; only a worker that would fail anywhere ends the run.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
import dataclasses
import functools
import logging
import os
import pathlib
import platform
import random
import time
from typing import NamedTuple

from distacme import status as status_lib
from distacme.deploy import engine as engine_lib
from distacme.deploy import records
from distacme.programs import program as program_lib
from distacme.programs.launchers import supervised_run
from distacme.run import endpoints
from distacme.run import run_directory
from distacme.runtime import supervision
from distacme.runtime import topology
from distacme.variables import client

# Between two questions for the status of this share, times the workers of the run: all
# jobs together ask 100 times a second at most, each for 0.75 ms of the server's core.
_STATUS_PERIOD_S = 0.01
_TIMEOUT_S = 2.0
# Without an answer of the variable server before the engine is asked for its job, and
# the longest pause between two such questions of a thousand jobs.
_UNHEARD_S = 60.0
_LONGEST_S = 600.0
# For the summary of a run that has ended to be seen here: a network file system may
# show it as late as this.
_SEEN_S = 90.0
# The file that supervision touches while it lives, for an engine's probe.
ALIVE = 'DISTACME_ALIVE'
_ALIVE_PERIOD_S = 1.0
_DAY_S = 86_400.0
_POLL_S = 0.5
# Between two looks whether the job was started anew elsewhere.
_PLACE_PERIOD_S = 10.0


class Leaving(NamedTuple):
  """The reason for which this job ends although the run goes on.

  Attributes:
    how: in words.
    anew: whether the job is to be started anew.
    grace_s: seconds for workers to save and end.
    failed: whether a worker of the job failed.
  """

  how: str
  anew: bool
  grace_s: float
  failed: bool = False


class Share(supervised_run.SupervisedRun):
  """Answers supervision's questions for the workers of one job; for one thread."""

  def __init__(
    self,
    program: topology.Program,
    directory: run_directory.RunDirectory,
    names: Sequence[str],
    place: records.Place,
    engine: engine_lib.Engine,
    max_requeues: int,
  ):
    """Waits for the workers, which `attach` brings.

    Args:
      program: of the run.
      directory: of the run.
      names: of this job's workers, and of those that live with them.
      place: of this job.
      engine: of the cluster.
      max_requeues: how often the job may be started anew for a failure, in a day.
    """
    super().__init__(program, directory, lambda status: None)
    self._names = names
    self._engine = engine
    self._max_requeues = max_requeues
    self._period_s = max(_POLL_S, _STATUS_PERIOD_S * len(program.workers))
    # A line that stays: to open one over TLS costs both sides milliseconds.
    self._client = client.StatusClient(
      functools.partial(
        endpoints.find, directory.endpoints, program_lib.VARIABLES
      )
    )
    self._heard_s = max(self._heard_s, 3 * self._period_s)
    self._leaving: Leaving | None = None
    self._asked_to_leave = False
    self._place = place
    self.is_replaced = False  # the job was started anew elsewhere
    self._place_at = 0.0
    self._alive_at = 0.0
    self._cluster_heard = time.monotonic()
    self._look_at = self._cluster_heard + _UNHEARD_S
    self._look_period_s = _UNHEARD_S

  @property
  def leaving(self) -> Leaving | None:
    """The reason for which this job ends although the run goes on, if it does."""
    return self._leaving

  @property
  def serves(self) -> bool:
    """True if the variable server is in this job."""
    return program_lib.VARIABLES in self._names

  def leave(
    self,
    how: str,
    anew: bool,
    grace_s: float | None = None,
    failed: bool = False,
  ) -> None:
    """Ends the job's workers, not the run; may be called from a signal handler.

    Args:
      how: in words.
      anew: whether the job is to be started anew.
      grace_s: seconds for workers to save and end, by default the engine's.
      failed: whether a worker of the job failed.
    """
    if grace_s is None:
      grace_s = self._engine.grace_s
    self._leaving = self._leaving or Leaving(how, anew, grace_s, failed)

  def stopping(self) -> bool:
    """Returns whether the job's workers are to end."""
    return self._leaving is not None or super().stopping()

  def grace_s(self) -> float:
    """Returns the seconds that workers may take to save and end."""
    if self._leaving is not None:
      return self._leaving.grace_s
    return super().grace_s()

  def poll(self) -> None:
    """Asks for the status now and then, and ends the workers of a job that leaves."""
    if self._leaving is not None and not self._asked_to_leave:
      self._asked_to_leave = True
      for member in self._members:
        if member.name == program_lib.VARIABLES:
          member.kill()  # asked to end, it would end the run
        else:
          member.terminate()
    now = time.monotonic()
    if now >= self._place_at and self._leaving is None:
      self._place_at = now + max(_PLACE_PERIOD_S, 5 * self._period_s)
      self.leave_if_replaced()
    if now >= self._alive_at:
      self._alive_at = now + _ALIVE_PERIOD_S
      tell_alive()
    if now >= self._look_at and self._leaving is None:
      self._look(now)
    if now < self._next:
      return
    super().poll()
    self._next = now + self._period_s

  def leave_if_replaced(self) -> None:
    """Ends a job that was started anew elsewhere while this host was cut off."""
    place = records.read_place(self._directory, self._names[0])
    if place is None or place.start == self._place.start:
      return
    how = f'its job was started anew on {place.host}, and this host was cut off'
    self.is_replaced = True
    self._leaving = Leaving(how, anew=False, grace_s=self._engine.grace_s)
    # At once, since two workers of one name write the same files.
    for member in self._members:
      member.kill()

  def refresh(self) -> None:
    """Asks for the status until it is known, or this job leaves.

    A worker has ended: its run may have, and with it the variable server.
    """
    give_up_at = time.monotonic() + _SEEN_S
    while time.monotonic() < give_up_at and not self.stopping():
      try:
        self._status = self._ask()
        break
      except ConnectionError:
        summary = self._read_summary()
        if summary is not None:
          self._status = summary
          break
      if self.serves:  # its own server has just ended
        break
      time.sleep(_POLL_S)

  def _ask(self) -> status_lib.Status:
    names = [name for one in self._names for name in self._all(one)]
    status = self._client.status(_TIMEOUT_S, only=names)
    self._cluster_heard = time.monotonic()
    return status

  def _remember(self, workers: Mapping[str, status_lib.WorkerStatus]) -> None:
    if time.monotonic() - self._heard > self._heard_s:
      # The server was away, or not there yet: nobody could report to it.
      self._heartbeats = dict.fromkeys(self._names, time.monotonic())
    super()._remember(workers)

  def _read_summary(self) -> status_lib.Status | None:
    return records.read_summary(self._directory)

  def _pass_on_warnings(self) -> None:
    """Leaves the workers' warnings in their logs, and in the run's."""

  def _look(self, now: float) -> None:
    """Ends a job that the others have left, or a run whose needed jobs are gone."""
    if now - self._cluster_heard < _UNHEARD_S:
      self._look_at = now + _UNHEARD_S
      self._look_period_s = _UNHEARD_S
      if self.serves:
        self._look_for_others()
      return
    if self.serves:  # supervision restarts the server
      self._look_at = now + _UNHEARD_S
      return
    job = records.job_of(self._directory, program_lib.VARIABLES)
    state = self._engine.state(job) if job else engine_lib.JobState.UNKNOWN
    if state == engine_lib.JobState.GONE:
      self.leave(
        f'the job {job} of {program_lib.VARIABLES} is gone, and with it the run',
        anew=False,
      )
    logging.info(
      '%s: its job %s is %s', program_lib.VARIABLES, job, state.value
    )
    # At random, so that a thousand jobs do not ask at once.
    self._look_period_s = min(_LONGEST_S, 2 * self._look_period_s)
    self._look_at = now + self._look_period_s * random.uniform(0.5, 1.0)

  def _look_for_others(self) -> None:
    """Ends the run if the job of a worker that the run needs is gone for good."""
    if self.stopping():
      return
    for name in records.needed(self._program):
      if name in self._names:
        continue
      job = records.job_of(self._directory, name)
      if not job or self._engine.state(job) != engine_lib.JobState.GONE:
        continue
      place = records.read_place(self._directory, name)
      how = place.ends[-1].how if place and place.ends else 'it never started'
      self.request_stop(
        status_lib.StopReason.FAILED,
        f'the job {job} of {name} is gone ({how}), and the run cannot go on '
        "without. 'distacme train' with the same settings and --run-dir goes on "
        'from the last checkpoint.',
        name,
      )
      return

  def on_restart(
    self, worker: supervision.Worker, how: str, delay_s: float
  ) -> None:
    """Notes that a worker is started again in its place."""
    logging.warning(
      '%s on %s %s; it is restarted in %g s',
      worker.name,
      platform.node(),
      how,
      delay_s,
    )
    super().on_restart(worker, how, delay_s)

  def on_failure(self, worker: supervision.Worker, how: str) -> None:
    """Has the job started anew, or ends the run where that would not help."""
    if super().stopping():
      super().on_failure(worker, how)
      return
    if self._leaving is not None:
      logging.error('%s %s', worker.name, how)
      return
    detail = f'{worker.name} on {platform.node()} {how}'
    logging.error('%s', detail)
    if self._requeues() < self._max_requeues and self._may_work_elsewhere(
      worker
    ):
      self.leave(detail, anew=True, failed=True)
      return
    super().on_failure(worker, how)

  def _requeues(self) -> int:
    place = records.read_place(self._directory, self._names[0])
    since = time.time() - _DAY_S
    ends = place.ends if place else ()
    return sum(end.requeued and end.time > since for end in ends)

  def _may_work_elsewhere(self, worker: supervision.Worker) -> bool:
    """Returns whether another host may do better: the program itself works.

    A worker that has failed before it did any work would fail anywhere, unless
    another worker of its kind works.
    """
    if (worker.exit_code() or 0) <= 0 or worker.name in self._worked:
      return True
    kind = self._program[worker.name].kind
    try:
      status = self._client.status(_TIMEOUT_S)
    except ConnectionError:
      return True
    return any(
      name.startswith(f'{kind}/') and other.has_worked
      for name, other in status.workers.items()
    )

  def finish(self) -> status_lib.Status:
    """Returns the run's last status, which the job of the variable server writes."""
    if self._leaving is None and self.serves:
      return super().finish()
    self._client.close()
    status = self._read_summary() or self._status
    status = status or status_lib.Status(seconds=0.0, counts={})
    return dataclasses.replace(status, stop=status.stop or self._stop)


def tell_alive() -> None:
  """Touches the file of this process's probe, if it has one."""
  if path := os.environ.get(ALIVE):
    pathlib.Path(path).touch()


def names_of(
  program: topology.Program, kind: str, job: int, per_job: int
) -> list[str]:
  """Returns the workers of the job of a number, of a kind with so many in a job.

  Raises:
    ValueError: if there are none.
  """
  numbers = range(job * per_job, (job + 1) * per_job)
  owners = [spec.name for spec in program.owners()]
  names = [name for i in numbers if (name := f'{kind}/{i}') in owners]
  if not names:
    raise ValueError(
      f'the program has no worker {kind}/{numbers[0]} with a process of its own. '
      f'It has {", ".join(owners)}.'
    )
  return names


def spread(program: topology.Program, host: int, hosts: int) -> list[str]:
  """Returns the workers of one of several hosts of a program that is one job.

  The first host has all but the actors, which are spread over all hosts.
  """
  return [
    spec.name
    for spec in program.owners()
    if (spec.index % hosts if program_lib.is_actor(spec.name) else 0) == host
  ]
