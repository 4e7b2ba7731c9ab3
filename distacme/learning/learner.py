"""The worker that learns: batches in, params and priorities out."""

from __future__ import annotations

import collections
from collections.abc import Callable
from concurrent import futures
import logging
import math
import time
from typing import Any

import jax
import numpy as np

from distacme import core
from distacme import replay_spec
from distacme import status
from distacme import types
from distacme.learning import batches as batches_lib
from distacme.learning import placement as placement_lib
from distacme.learning import priorities as priorities_lib
from distacme.learning import updates
from distacme.run import patience as patience_lib

_METRICS_PERIOD_S = 1.0
_REPORT_PERIOD_S = 0.1
_LAST_PARAMS_S = 20.0
_POLL_S = 0.1  # how soon a learner without data notices a stop
# How long the run may take to end by its counters, which are lost in part where
# the server of a run was restarted.
_STOP_S = 10.0
_UNDER_WAY = 2  # calls of the update, of which the device does one
_TOGETHER = 4  # updates whose priorities are sent at once, if not inline


class Learner:
  """Owns the learner's state and updates it; one thread.

  One call makes K updates, the number of batches that `batches` draws at once. A
  learner step remains one update. The priorities of all K updates go back
  together, so that some are up to K - 1 updates staler than one by one. With an
  executor, the priorities of at least 4 updates go together.

  The state's buffers are donated to every update, so params and checkpoints are
  copied before they leave the learner.
  """

  def __init__(
    self,
    agent: core.Agent,
    batches: batches_lib.Batches,
    sink: core.ParamsSink,
    reporter: core.Reporter,
    state: types.LearnerState,
    *,
    placement: placement_lib.Placement | None = None,
    steps: int = 0,
    last_step: float = math.inf,
    publish_period: int = 1,
    publish_period_s: float = 0.0,
    save: Callable[[int, types.LearnerState], None] | None = None,
    save_period_s: float = math.inf,
    executor: Callable[[], futures.Executor] | None = None,
    explain_after_s: float = 5.0,
    stop_if_not_finite: bool = True,
    last_saved: Callable[[], str] = lambda: '',
  ):
    """Publishes the initial params.

    Args:
      agent: has the `update` to use.
      batches: gives batches.
      sink: takes the params.
      reporter: line to the run.
      state: to start from; the caller may not use it afterwards.
      placement: the devices to learn on; by default all local ones.
      steps: learner steps that made `state`.
      last_step: learner steps after which `run` makes no more calls of the
        update; one call of several updates may go beyond.
      publish_period: learner steps between publications; those are made
        between two calls.
      publish_period_s: seconds between two such publications, at least.
      save: writes a checkpoint.
      save_period_s: seconds between checkpoints.
      executor: makes the executor that sends params and priorities; by default
        this thread sends at once.
      explain_after_s: seconds without data before a warning gives the reason; four
        times as long before the next warning.
      stop_if_not_finite: whether a metric that is not finite is an error.
      last_saved: returns the place of the last checkpoint, for that error.
    """
    self.steps = steps
    self._last_step = last_step
    self.directive = core.Directive(None, {})
    self._batches = batches
    self._sink = sink
    self._reporter = reporter
    self._placement = placement or placement_lib.Placement(
      agent.replay.batch_size, batches.count
    )
    self._state = self._placement.put_state(state)
    self._publish_period = publish_period
    self._publish_period_s = publish_period_s
    self._publish_at = 0.0
    self._save = save
    self._save_period_s = save_period_s
    self._save_at = time.monotonic() + save_period_s
    make_executor = executor or InlineExecutor
    self._params_executor = make_executor()
    self._priorities = priorities_lib.PrioritySender(
      batches.sampler.update_priorities,
      make_executor(),
      together=-(-_TOGETHER // batches.count) if executor else 1,
    )
    self._explain_after_s = explain_after_s
    self._stop_if_not_finite = stop_if_not_finite
    self._last_saved = last_saved
    self._publishing: futures.Future[object] | None = None
    self._update = updates.compiled(agent, batches.count, self._placement)
    self._copy_params = jax.jit(
      lambda state: jax.tree.map(jax.numpy.copy, agent.actor_params(state))
    )
    self._output: types.UpdateOutput | None = None
    self._under_way: collections.deque[tuple[Any, Any]] = collections.deque()
    self._converged = False
    self._meter = _Meter(agent.replay)
    self._unreported_steps = 0
    self._report_at = 0.0
    self.publish()

  @property
  def updates_per_call(self) -> int:
    """Number of updates in one call of `step`."""
    return self._batches.count

  @property
  def has_learnt_all(self) -> bool:
    """Whether the learner has made its last step, or has converged."""
    return self._converged or self.steps >= self._last_step

  @property
  def state(self) -> types.LearnerState:
    """The current state, on one device; valid until the next step."""
    return self._placement.on_one_device(self._state)

  def step(self, timeout_s: float | None = None) -> bool:
    """Makes one call: an update, or several.

    Args:
      timeout_s: seconds to wait for a batch; None waits for ever.

    Returns:
      Whether there was a batch.
    """
    start = time.monotonic()
    drawn = self._batches.get(timeout_s)
    self._meter.waited_s += time.monotonic() - start
    if drawn is None:
      return False
    given = self._state
    self._state, self._output = self._update(given, drawn.batch)
    self._under_way.append((given, self._output))
    del given
    self._wait_for_room()
    count = self._batches.count
    self._meter.add(self.steps, count, drawn.info)
    self.steps += count
    self._unreported_steps += count
    if self._output.priorities is not None:
      self._send_priorities(drawn.info, self._output.priorities)
    if (
      self.steps % self._publish_period < count
      and time.monotonic() >= self._publish_at
    ):
      self.publish()
    return True

  def run(self) -> None:
    """Learns until the run stops, then publishes and saves the last state."""
    patience = patience_lib.Patience(self._explain_after_s)
    while self.directive.stop is None and not self.has_learnt_all:
      learnt = self.step(_POLL_S)
      state = status.WorkerState
      self.tend(state.LEARNING if learnt else state.WAITING_FOR_DATA)
      if learnt:
        patience = patience_lib.Patience(self._explain_after_s)
      elif patience.is_over():
        logging.warning(
          'the learner has waited for data for %.1f s: %s',
          patience.waited_s,
          self._batches.sampler.describe(),
        )
    self._wait_for_stop()
    self.close()

  def _wait_for_stop(self) -> None:
    """Reports the last step until the run stops, for which it may be asked."""
    ask_at = time.monotonic() + _STOP_S
    while self.directive.stop is None:
      self.report(status.WorkerState.LEARNING)
      if self.directive.stop is not None:
        break
      if time.monotonic() >= ask_at:
        self._reporter.request_stop(
          status.StopReason.STEP_LIMIT, f'{self.steps} learner_steps'
        )
        ask_at = math.inf
      time.sleep(_POLL_S)

  def tend(
    self, state: status.WorkerState = status.WorkerState.LEARNING
  ) -> None:
    """Makes the reports and checkpoints that are due."""
    now = time.monotonic()
    if now >= self._report_at:
      self._report_at = now + _REPORT_PERIOD_S
      try:
        self._priorities.send()
      except status.NotFiniteError:
        self.check()  # names the metric, if there is one
        raise
      self.report(state)
    if now >= self._save_at:
      self.save()

  def close(self) -> None:
    """Saves and publishes the last state and ends the senders."""
    self.save()  # first: the servers may be gone
    self._priorities.close()
    self._batches.close()
    self._wait_until_published()
    self.publish()
    self._wait_until_published()
    self._params_executor.shutdown()
    self.report(status.WorkerState.SAVING)  # the process may go on saving

  def abandon(self) -> None:
    """Ends the learner's threads, also after a failure; saves nothing more."""
    self._priorities.close()
    self._batches.close()
    self._params_executor.shutdown(wait=False, cancel_futures=True)

  def save(self) -> None:
    """Writes a checkpoint, if the learner was given a `save`.

    Raises:
      status.NotFiniteError: if a metric is not finite: the state may not be finite.
    """
    self._save_at = time.monotonic() + self._save_period_s
    if self._save is not None:
      self.check()
      self._save(self.steps, self.state)

  def check(self) -> None:
    """Waits for the last update and checks its metrics.

    Raises:
      status.NotFiniteError: if a metric is not finite.
    """
    self._metrics()

  def report(self, state: status.WorkerState) -> None:
    """Reports progress to the run; the answer tells whether to stop.

    Raises:
      status.NotFiniteError: if the loss or another metric is not finite.
    """
    metrics = None
    if self._output is not None and self._meter.due():
      metrics = self._metrics() | self._meter.take()
    counts = {'learner_steps': self._unreported_steps}
    self._unreported_steps = 0
    self.directive = self._reporter.report(counts, metrics, state)
    if self._converged and self.directive.stop is None:
      self._reporter.request_stop(
        status.StopReason.CONVERGED, f'{self.steps} learner_steps'
      )

  def _metrics(self) -> dict[str, float]:
    """Waits for the last update and returns its metrics, which are finite."""
    if self._output is None:
      return {}
    metrics = {k: float(v) for k, v in self._output.metrics.items()}
    for name, value in metrics.items():
      if self._stop_if_not_finite and not math.isfinite(value):
        raise status.NotFiniteError(
          f'{name} is {value} after learner step {self.steps}. Rewards or '
          'observations that are not finite or a learning rate that is too '
          'high do this; nothing later than the last checkpoint is saved. '
          f'{self._last_saved()}'.rstrip()
        )
    return metrics

  def publish(self) -> None:
    """Sends a copy of the params, unless the last sending is unfinished."""
    if self._publishing is not None:
      if not self._publishing.done():
        return
      self._publishing.result()  # raises its error
    self._publish_at = time.monotonic() + self._publish_period_s
    params = self._copy_params(self.state)
    self._publishing = self._params_executor.submit(
      self._sink.publish, self.steps, params
    )

  def _wait_for_room(self) -> None:
    """Waits until few enough calls are unfinished, and drops their donated states.

    Dropping donated state before its update ends holds the GIL for the rest of the
    update (jax 0.6.2, CPU), and no thread could draw batches. Waiting for the
    update first does not hold the GIL.
    """
    while len(self._under_way) > _UNDER_WAY:
      _, output = self._under_way[0]
      jax.block_until_ready(output)
      self._under_way.popleft()
      # Two calls late, where looking costs no waiting.
      if output.converged is not None:
        self._converged |= bool(output.converged)

  def _wait_until_published(self) -> None:
    assert self._publishing is not None
    try:
      self._publishing.result(_LAST_PARAMS_S)
    except futures.TimeoutError:
      raise TimeoutError(
        f'the params of learner step {self.steps} were not taken within '
        f'{_LAST_PARAMS_S:.0f} s; is the variable server alive? What was '
        'learnt is in the checkpoint of that step, if there is a run directory.'
      ) from None

  def _send_priorities(
    self, info: types.SampleInfo, priorities: jax.Array
  ) -> None:
    try:
      behind = self._priorities.add(info, priorities)
    except status.NotFiniteError:
      self.check()  # names the metric, if there is one
      raise
    while behind and self.directive.stop is None:
      self._priorities.wait(_POLL_S)
      behind = self._priorities.behind()
      if behind:
        self.tend(status.WorkerState.SETTING_PRIORITIES)


class _Meter:
  """The learner's own metrics between two reports."""

  def __init__(self, spec: replay_spec.ReplaySpec) -> None:
    self._spec = spec
    self._is_recorded = np.array(
      [table.filled_by == 'demonstrations' for table in spec.tables]
    )
    self._some_recorded = bool(self._is_recorded.any())
    self._recorded = 0  # items
    self.waited_s = 0.0
    self._start = time.monotonic()
    self._aged = 0  # calls
    self._updates = 0
    self._items = 0
    self._age = 0.0

  def add(self, steps: int, updates: int, info: types.SampleInfo) -> None:
    self._updates += updates
    self._items += len(info.key)
    first = 0
    if self._some_recorded:
      recorded = self._is_recorded[info.table]
      self._recorded += np.count_nonzero(recorded)
      first = int(recorded.argmin())
      if recorded[first]:  # all of them: no policy's age
        return
    # Of one item in each call: a mean over all items would cost too much time.
    self._age += steps - int(info.params_version[first])
    self._aged += 1

  def due(self) -> bool:
    return time.monotonic() - self._start >= _METRICS_PERIOD_S

  def take(self) -> dict[str, float]:
    period = time.monotonic() - self._start
    metrics = {
      'learner_steps_per_second': self._updates / period,
      'samples_per_second': self._items / period,
      'share_waiting_for_data': self.waited_s / period,
    }
    if self._aged:
      # Learner steps since the item was acted.
      metrics['data_age'] = self._age / self._aged
    if self._some_recorded and self._items:
      metrics['share_of_demonstrations'] = self._recorded / self._items
    self.__init__(self._spec)  # type: ignore[misc]  # starts the next period
    return metrics


class InlineExecutor(futures.Executor):
  """Runs submitted functions at once, in the submitting thread."""

  def submit(
    self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any
  ) -> futures.Future[Any]:
    """Runs `fn` and returns a future that is done."""
    future: futures.Future[Any] = futures.Future()
    future.set_result(fn(*args, **kwargs))
    return future


def background_executor() -> futures.Executor:
  """Returns an executor of one thread, for `Learner`."""
  return futures.ThreadPoolExecutor(1)
