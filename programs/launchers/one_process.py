"""Runs everything in one thread, in a fixed order: the mode for debugging."""

from __future__ import annotations

from collections.abc import Callable, Mapping
import contextlib
import dataclasses
import logging
import math
import pathlib
import threading
import time
import traceback
from typing import Any, NamedTuple

import jax

from distacme import core
from distacme import environment_loop
from distacme import learner_loop
from distacme import status as status_lib
from distacme import wiring
from distacme.acting import evaluator
from distacme.programs import experiment as experiment_lib
from distacme.programs import opponents
from distacme.programs import program
from distacme.programs.workers import devices
from distacme.replay import checkpoints
from distacme.replay import filling
from distacme.replay import in_process
from distacme.replay import memory
from distacme.run import checkpoint
from distacme.run import files
from distacme.run import metrics as metrics_lib
from distacme.run import run_directory
from distacme.run import run_state as run_state_lib
from distacme.run import seeding
from distacme.runtime import signals

_COUNTS = 'counts.json'
_REPLAY_PERIOD_S = 1.0
_POLL_EVERY = 16  # steps of the actor between looks at the other parts


def run(
  experiment: experiment_lib.Experiment,
  directory: run_directory.RunDirectory,
  show: Callable[[status_lib.Status], None],
  stops: signals.StopRequests,
) -> status_lib.Status:
  """Runs an experiment to its end; see `modes.Launcher.run`.

  `breakpoint()` works in actor, environment and (without jit) agent.
  """
  with jax.disable_jit(not experiment.run.jit):
    return _run(experiment, directory, show, stops)


def _run(
  experiment: experiment_lib.Experiment,
  directory: run_directory.RunDirectory,
  show: Callable[[status_lib.Status], None],
  stops: signals.StopRequests,
) -> status_lib.Status:
  try:
    parts = _Parts(experiment, directory, stops)
  except files.NotWrittenError as error:
    stop = status_lib.Stop(status_lib.StopReason.FAILED, str(error))
    status = status_lib.Status(seconds=0.0, counts={}, stop=stop)
    directory.write_summary(status)
    show(status)
    return status
  failure = ''
  try:
    # What could not be written is found out at the latest when the parts close.
    with (
      stops.passed_to(parts.request_stop),
      contextlib.closing(parts),
    ):
      while parts.state.directive().stop is None:
        parts.act()
        parts.evaluate()
        parts.checkpoint_if_due()
        if parts.report_replay():
          show(parts.state.status())
      parts.finish()
  except (files.NotWrittenError, status_lib.NotFiniteError) as error:
    failure = str(error)
  except KeyboardInterrupt:  # the third one, or the environment's own
    parts.state.request_stop(status_lib.StopReason.INTERRUPTED)
    raise
  except SystemExit as error:
    failure = traceback.format_exc()
    # Else the command would end with the code that was given there, perhaps 0.
    raise RuntimeError(
      f'environment or agent called sys.exit({error.code!r}), which ends no run. '
      'Raise an error there, or end the episode.'
    ) from error
  except Exception:
    failure = traceback.format_exc()
    raise  # to the user's debugger
  finally:
    status = parts.state.status()
    if failure:  # also one after the run has come to its end
      stop = status_lib.Stop(
        status_lib.StopReason.FAILED, failure, seconds=status.seconds
      )
      status = dataclasses.replace(status, stop=stop)
    directory.write_summary(status)
  show(status)
  return status


class _Parts:
  """The loop, the evaluator, the counters and the checkpoints of a run.

  A checkpoint holds the state of learning; environments cannot be saved. A
  resumed run starts new episodes, from seeds that the steps made so far decide.
  With one environment, a run that goes on does the same at each place for a
  checkpoint (`_start_anew`), between two episodes. A resumed run then equals
  the run that goes on, bit for bit. Several environments are never between
  episodes at once: checkpoints are written at any moment, and change nothing.
  """

  def __init__(
    self,
    experiment: experiment_lib.Experiment,
    directory: run_directory.RunDirectory,
    stops: signals.StopRequests,
  ):
    self._experiment = experiment
    self._directory = directory
    self._stops = stops
    with contextlib.ExitStack() as opened:
      self._make(opened)
      self._opened = opened.pop_all()

  def _make(self, opened: contextlib.ExitStack) -> None:
    """Makes the parts; `opened` closes those that hold files or environments."""
    experiment, directory = self._experiment, self._directory
    run = experiment.run
    agent = experiment.make_agent(experiment.environment_spec())
    self._agent = agent
    self._best = checkpoint.BestParams(directory.best)
    opened.callback(self._best.close)
    with files.writing_to(directory.path):
      self._saved = _Saved(directory, agent, run.replay_checkpoint_period_s)
    opened.callback(self._saved.close)
    key = seeding.learner_key(run.seed)
    restored = self._saved.restore(jax.jit(agent.initial_learner_state)(key))
    self._ends_at = time.monotonic() + (run.max_seconds or math.inf)
    self._asked_to_stop = threading.Event()
    steps = restored.counts.get(run.clock, 0)
    with files.writing_to(directory.path):
      sink = metrics_lib.MetricsSink(
        directory.path, clock=run.clock, resumed_at=steps
      )
    opened.callback(_close_sink, sink, directory)
    self.state = run_state_lib.RunState(run.limits, sink, restored.counts)
    experiment = self._resumed_from(restored.counts)
    self.loop = self._make_loop(
      experiment,
      agent,
      opened,
      seed=experiment.seed,
      devices=devices.for_learner(run.learner_devices, own_process=False),
      run_state=self.state,
      state=restored.state,
      steps=restored.steps,
      save=self._save,
      **experiment.learner_settings(agent, directory),
    )
    held = restored.replay or filling.load(
      directory.demonstrations, restored.steps
    )
    if held is not None:
      self.loop.replay.load(held)
    self._steps_since = 0  # since the last place for a checkpoint
    self._save_at = time.monotonic() + run.checkpoint_period_s
    self._replay = self.state.reporter(program.REPLAY)
    self._replay_at = 0.0
    self._evaluated = self._make_evaluated(experiment, agent)
    opened.callback(lambda: _close_environment(self._evaluated))
    self._evaluator = wiring.make_evaluator(
      agent,
      self._evaluated,
      self.loop.params,
      self.state.reporter(program.EVALUATOR),
      run.evaluator_settings,
      key=seeding.actor_key(experiment.seed, 1),
      steps=steps,
      keep=self._best.offer,
      is_hurried=self._is_hurried,
    )

  def _make_loop(
    self,
    experiment: experiment_lib.Experiment,
    agent: core.Agent,
    opened: contextlib.ExitStack,
    **settings: Any,
  ) -> learner_loop.LearnerLoop:
    """Returns the loop for an agent that acts and learns, or only learns."""
    if not agent.replay.needs_actors:
      return learner_loop.LearnerLoop(
        experiment.environment_spec(), agent, **settings
      )
    self._environment = experiment.make_vector(
      experiment.run.envs_per_actor, stream=0
    )
    opened.callback(lambda: _close_environment(self._environment))
    return environment_loop.EnvironmentLoop(
      self._environment, agent, **settings
    )

  def _make_evaluated(
    self, experiment: experiment_lib.Experiment, agent: core.Agent
  ) -> core.VectorEnvironment:
    """Returns the environments of evaluations."""
    rows = evaluator.num_rows(experiment.run.eval_episodes)
    environment = experiment.make_vector(rows, stream=1)
    return opponents.evaluated(experiment, agent, environment, stream=1)

  def _resumed_from(
    self, counts: Mapping[str, int]
  ) -> experiment_lib.Experiment:
    return dataclasses.replace(self._experiment, resumed_from=counts)

  def request_stop(self, reason: status_lib.StopReason) -> None:
    """Ends the run, or only its last evaluation."""
    self._asked_to_stop.set()
    self.state.request_stop(reason)

  def _is_hurried(self) -> bool:
    return self._asked_to_stop.is_set() or time.monotonic() >= self._ends_at

  def act(self) -> None:
    """Acts and learns for some steps, at most to a place for a checkpoint."""
    for _ in range(_POLL_EVERY):
      self._steps_since += self.loop.step()
      if (
        self._is_exact_place()
        or self.loop.is_hurried
        or self.loop.has_learnt_all
      ):
        break
    # All steps are counted here, however often the workers reported in the
    # meantime: the counters decide when the run is evaluated and when it ends.
    self.loop.report()

  def _is_exact_place(self) -> bool:
    """Returns whether a checkpoint here decides all that the run does next."""
    run = self._experiment.run
    return (
      isinstance(self.loop, environment_loop.EnvironmentLoop)
      and run.envs_per_actor == 1
      and self._steps_since >= run.checkpoint_period_steps
      and self.loop.actor.between_episodes
    )

  def _may_save_anywhere(self) -> bool:
    """Returns whether the run needs no exact place, or has long found none."""
    run = self._experiment.run
    return (
      not isinstance(self.loop, environment_loop.EnvironmentLoop)
      or self.loop.replay.is_pretraining  # nothing has acted yet
      or run.envs_per_actor > 1
      or self._steps_since >= 2 * run.checkpoint_period_steps
    )

  def checkpoint_if_due(self) -> None:
    """Saves if a checkpoint is due, and starts anew at an exact place."""
    if self.state.directive().stop is not None:
      return
    exact = self._is_exact_place()
    if (
      exact or self._may_save_anywhere()
    ) and time.monotonic() >= self._save_at:
      self.loop.learner.save()
      period_s = self._experiment.run.checkpoint_period_s
      self._save_at = time.monotonic() + period_s
    if exact:
      self._start_anew()

  def _start_anew(self) -> None:
    """Puts this run into the state of a run that is resumed here."""
    counts = self.state.directive().counts
    experiment = self._resumed_from(counts)
    self._environment.close()
    self._environment = experiment.make_vector(
      experiment.run.envs_per_actor, stream=0
    )
    assert isinstance(self.loop, environment_loop.EnvironmentLoop)
    self.loop.start_anew(self._environment, experiment.seed)
    self._evaluated.close()
    self._evaluated = self._make_evaluated(experiment, self._agent)
    self._evaluator.start_anew(
      self._evaluated,
      seeding.actor_key(experiment.seed, 1),
      counts.get(experiment.run.clock, 0),
    )
    self._steps_since = 0

  def _save(self, steps: int, state: Any) -> None:
    directive = self.state.directive()
    if (
      directive.stop == status_lib.StopReason.TERMINATED
      and not self._may_save_anywhere()
    ):
      return  # a resumed run repeats the steps since the last exact place
    with self._stops.held():  # no half of a checkpoint stays
      self._saved.save(steps, state, directive.counts, self.loop.replay)

  def evaluate(self) -> None:
    """Evaluates if an evaluation is due."""
    self._evaluator.directive = self.state.directive()
    if self._evaluator.directive.stop is None:
      self._evaluator.evaluate_if_due()

  def report_replay(self) -> bool:
    """Logs replay's metrics now and then; returns whether it logged."""
    now = time.monotonic()
    if now < self._replay_at:
      return False
    self._replay_at = now + _REPLAY_PERIOD_S
    if self._directory.stop_request.exists():
      self.request_stop(status_lib.StopReason.INTERRUPTED)
    metrics = self.loop.replay.metrics()
    self._replay.report(metrics=metrics, state=status_lib.WorkerState.SERVING)
    return True

  def finish(self) -> None:
    """Saves and evaluates the last params."""
    self.loop.learner.close()
    self._evaluator.directive = self.state.directive()
    self._evaluator.finish()

  def close(self) -> None:
    """Waits until all files are written, and closes the environments."""
    self._opened.close()


def _close_sink(
  sink: metrics_lib.MetricsSink, directory: run_directory.RunDirectory
) -> None:
  with files.writing_to(directory.path):
    sink.close()


def _close_environment(environment: core.VectorEnvironment) -> None:
  """Closes an environment that is not needed any more; an error is only said."""
  try:
    environment.close()
  except Exception:
    logging.getLogger(__name__).warning(
      'an environment could not be closed:\n%s', traceback.format_exc()
    )


class _Restored(NamedTuple):
  state: Any  # of the learner
  steps: int
  counts: Mapping[str, int]
  replay: memory.HeldMemory | None


class _Saved:
  """Checkpoints of learner and replay, saved at the same moments."""

  def __init__(
    self,
    directory: run_directory.RunDirectory,
    agent: core.Agent,
    replay_period_s: float | None,
  ):
    self._directory = directory
    self._learner = checkpoint.Checkpointer(directory.checkpoints)
    self._replay: checkpoints.Checkpoints | None = None
    if replay_period_s is not None:
      self._replay = checkpoints.Checkpoints(
        directory.replay, memory.FORMAT, agent.replay
      )

  def save(
    self,
    steps: int,
    state: Any,
    counts: Mapping[str, int],
    replay: in_process.InProcessReplay,
  ) -> None:
    """Saves replay, then the learner, so that no learner lacks its replay."""
    counts = {**counts, 'learner_steps': steps}
    if self._replay is not None:
      with files.writing_to(self._directory.replay):
        folder = self._replay.unfinished / 'table'
        folder.mkdir()
        replay.save(folder)
        files.write_json(folder / _COUNTS, counts)
        self._replay.add(folder)
    self._directory.write_counts(steps, counts)
    self._learner.save(steps, state)

  def restore(self, state: Any) -> _Restored:
    """Returns the newest checkpoint; only `state` if there is none."""
    restored = self._learner.restore(state)
    if restored is None:
      return _Restored(state, 0, {}, None)
    steps = restored.steps
    counts: Mapping[str, int] = self._directory.read_counts(steps)
    replay = None

    def load(
      folder: pathlib.Path,
    ) -> tuple[Mapping[str, int], memory.HeldMemory]:
      path = folder / _COUNTS  # programs write none
      counts = files.read_json(path) if path.exists() else {}
      if counts.get('learner_steps', 0) > steps:
        raise ValueError(f'it is of a later learner step than {steps}')
      return counts, memory.read(folder)

    if self._replay is not None:
      found = self._replay.restore(load)
      if found is not None:
        replay = found[1]
        # Until the first learner step, one state belongs to several moments.
        if found[0].get('learner_steps') == steps:
          counts = found[0]
    return _Restored(restored.state, steps, counts, replay)

  def close(self) -> None:
    """Waits until all files are written."""
    self._learner.close()
