"""Runs the replay worker of a program, and saves replay now and then."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent import futures
import contextlib
import logging
import math
import time
from typing import Any

from distacme import replay_spec
from distacme import status as status_lib
from distacme.programs import recorded_run
from distacme.programs import run_config
from distacme.programs.workers import context as context_lib
from distacme.programs.workers import replay_links
from distacme.programs.workers import shutdown
from distacme.replay import store as store_lib
from distacme.replay.service import server as service_lib
from distacme.replay.shared_memory import server as local_server
from distacme.rpc import keys
from distacme.rpc import token as token_lib
from distacme.run import endpoints
from distacme.run import notices
from distacme.runtime import listening

_REPORT_PERIOD_S = 1.0
# Seconds that saving may take at the end, after waiting for clients. A cluster
# that sends SIGTERM kills soon: the end does not wait for longer savings.
_SAVE_S = 20.0
_TERMINATED_WAIT_S = 1.0
_TERMINATED_SAVE_S = 5.0


def run(context: context_lib.Context) -> None:
  """Serves replay and reports metrics; saves and ends after the clients.

  The server starts with the items of the newest checkpoint in the run
  directory, both in a resumed run and after a restart of this worker alone.
  """
  run = recorded_run.run_config(context.config, context.directory)
  save_period_s = run.replay_checkpoint_period_s
  spec = replay_spec.from_dict(context.config['replay'])
  place = context.index, run.num_replay_servers
  store = store_lib.Store(
    replay_spec.of_shard(spec, *place),
    context.directory.replay_shard(*place) if save_period_s else None,
    context.directory.demonstrations,
    learnt=context.connection.first_status().counts.get('learner_steps', 0),
    first_room=replay_spec.first_room(spec, run.num_replay_servers),
  )
  with _doors(context, store, run) as checks:
    _serve(context, store, save_period_s, checks)


@contextlib.contextmanager
def _doors(
  context: context_lib.Context,
  store: store_lib.Store,
  run: run_config.RunConfig,
) -> Iterator[list[Callable[[], None]]]:
  """Lets actors and the learner reach the store, until the context ends.

  Yields:
    Functions that raise what failed in other threads.
  """
  with contextlib.ExitStack() as stack:
    checks = [store.check]
    if run.transport == 'reverb':
      from distacme.replay.reverb import queue as queue_lib

      name = replay_links.queue_name(context.name)
      before = context.listened(name)
      # At the address that actors look for: Reverb's clients connect to no other.
      port = before.port if before else listening.free_port()
      queue = queue_lib.PackQueue(store, port)
      stack.callback(queue.stop)
      checks.append(queue.check)
      context.listens(endpoints.Endpoint('127.0.0.1', port), name)
    path = replay_links.socket_path(context.directory, context.name)
    try:
      stack.callback(local_server.LocalServer(store, path).stop)
    except OSError as error:
      notices.warn_once(
        f'{path.parent} can hold no socket ({error}): batches go to the learner '
        'over gRPC, and more slowly. A run directory on a disk of this host can.'
      )
    before = context.listened()
    service = service_lib.ReplayServer(
      store,
      **context.interface._asdict(),
      key=context.directory.path / keys.FILE if run.encrypted else None,
      token=context.directory.path / token_lib.FILE,
      incarnation=before.incarnation + 1 if before else 0,
    )
    stack.callback(service.stop)
    context.listens(service.endpoint)
    yield checks


def _serve(
  context: context_lib.Context,
  store: store_lib.Store,
  save_period_s: float | None,
  checks: Sequence[Callable[[], None]],
) -> None:
  """Reports and saves until the run stops and the clients have gone."""
  connection = context.connection
  saving = _Saving(store, save_period_s)
  report_at = time.monotonic()
  while (stop := connection.report().stop) is None:
    saving.start_if_due()
    for check in checks:
      check()
    if time.monotonic() >= report_at:
      report_at = time.monotonic() + _REPORT_PERIOD_S
      metrics = store.metrics() | saving.metrics()
      connection.report(metrics=metrics, state=status_lib.WorkerState.SERVING)
    time.sleep(0.05)
  terminated = stop == status_lib.StopReason.TERMINATED
  # Without replay, clients that write or sample never end.
  wait_s = _TERMINATED_WAIT_S if terminated else shutdown.patience_s(stop)
  shutdown.wait_for(
    context.program.clients(context.name), connection.status, wait_s
  )
  connection.report(metrics=store.metrics() | saving.metrics())
  if stop != status_lib.StopReason.FAILED:  # replay's items may be the reason
    saving.finish(_TERMINATED_SAVE_S if terminated else _SAVE_S)


class _Saving:
  """Saves replay now and then, in a thread, since a saving may take long.

  A failed saving is warned of, and tried again after the next period: a server
  that ended instead would lose all items since the checkpoint before.

  Attributes:
    error: of the last saving, None if the saving succeeded.
  """

  def __init__(self, store: store_lib.Store, period_s: float | None):
    """Starts the first period; a period of None saves nothing."""
    self._store = store
    self._period_s = math.inf if period_s is None else period_s
    self._wanted = period_s is not None
    self._at = time.monotonic() + self._period_s
    self._pool = futures.ThreadPoolExecutor(1)
    self._saved: futures.Future[Any] | None = None
    self._failed = self._failed_in_a_row = 0  # savings
    self.error: Exception | None = None

  @property
  def under_way(self) -> bool:
    """True if a checkpoint is being written."""
    return self._saved is not None and not self._saved.done()

  def metrics(self) -> dict[str, float]:
    """Returns the numbers of failed savings, in all and since the last success.

    There are no metrics before the first failure.
    """
    if not self._failed:
      return {}
    return {
      'failed_saves': self._failed,
      'failed_saves_in_a_row': self._failed_in_a_row,
    }

  def start_if_due(self) -> None:
    """Starts a saving if one is due and the last checkpoint is written."""
    if time.monotonic() >= self._at and not self.under_way:
      self._start()

  def _start(self) -> None:
    self._at = time.monotonic() + self._period_s
    self._saved = self._pool.submit(self._save)

  def _save(self) -> None:
    try:
      self._store.save()
      self.error = None
      self._failed_in_a_row = 0
    except Exception as error:  # of the file system
      self.error = error
      self._failed += 1
      self._failed_in_a_row += 1
      logging.warning(
        'saving replay failed, %d times so far: %s. It is tried again in %.0f s; '
        'until then a restart goes on from the checkpoint before. Is the disk '
        'full?',
        self._failed,
        error,
        self._period_s,
      )

  def finish(self, timeout_s: float) -> None:
    """Saves the present items, unless the saving takes too long.

    Raises:
      Exception: the error of the saving, since no later saving follows.
    """
    if not self._wanted:
      return
    deadline = time.monotonic() + timeout_s
    if self.under_way and not self._wait(deadline):
      return
    self._start()
    if self._wait(deadline) and self.error:
      raise self.error

  def _wait(self, deadline: float) -> bool:
    assert self._saved is not None
    try:
      self._saved.result(max(0.0, deadline - time.monotonic()))
    except futures.TimeoutError:
      logging.warning(
        'saving replay was given up for lack of time; a resumed run continues '
        'from the checkpoint before.'
      )
      return False
    return True
