"""Single-process debug mode: everything in one thread, in a fixed order."""

from __future__ import annotations

from collections.abc import Callable
import dataclasses
import time
import traceback
from typing import Any

import jax

from distacme import checkpoint
from distacme import counting
from distacme import environment_loop
from distacme import evaluator
from distacme import logging as metrics_logging
from distacme import run_directory
from distacme import seeding
from distacme.programs import config as config_lib
from distacme.programs import devices
from distacme.runtime import stop_signals

_REPLAY_PERIOD_S = 1.0
_POLL_EVERY = 16  # steps of the actor between looks at everything else


def run(
  experiment: config_lib.Experiment,
  directory: run_directory.RunDirectory,
  show: Callable[[dict[str, Any]], None],
) -> dict[str, Any]:
  """Runs an experiment to its end.

  Ctrl-C ends it in order, as in a program; a second one at once. `breakpoint()`
  works in actor, environment and (without jit) agent.

  Args:
    experiment: to run.
    directory: of the run.
    show: called with the run's status now and then.

  Returns:
    The last status.
  """
  jax.config.update('jax_disable_jit', not experiment.run.jit)
  parts = _Parts(experiment, directory)
  try:
    with stop_signals.requested_from(parts.state.request_stop):
      while parts.state.directive().stop is None:
        for _ in range(_POLL_EVERY):
          parts.loop.step()
        parts.evaluate()
        if parts.report_replay():
          show(parts.state.status())
    parts.finish()
  except Exception:
    parts.state.request_stop(counting.StopReason.FAILED, traceback.format_exc())
    raise  # to whoever debugs
  finally:
    status = parts.state.status()
    run_directory.write_json(directory.summary, status)
    parts.close()
  show(status)
  return status


class _Parts:
  """The loop, the evaluator and what they report to."""

  def __init__(
    self,
    experiment: config_lib.Experiment,
    directory: run_directory.RunDirectory,
  ):
    run = experiment.run
    self._directory = directory
    self._sink = metrics_logging.MetricsSink(directory.path)
    self._checkpointer = checkpoint.Checkpointer(directory.checkpoints)
    self._best = checkpoint.BestParams(directory.best)
    agent = experiment.make_agent(experiment.environment_spec())
    key = seeding.learner_key(run.seed)
    state = jax.jit(agent.initial_learner_state)(key)
    restored = self._checkpointer.restore(state)
    counts = directory.read_counts(restored.steps) if restored else {}
    experiment = dataclasses.replace(
      experiment, resumed_at=counts.get('env_steps', 0)
    )
    environment = experiment.make_vector(run.envs_per_actor, stream=0)
    self.state = counting.RunState(run.limits, self._sink, counts)
    self.loop = environment_loop.EnvironmentLoop(
      environment,
      agent,
      seed=experiment.seed,
      publish_period=experiment.publish_period(agent),
      updates_per_call=run.updates_per_call,
      devices=devices.for_learner(run.learner_devices, own_process=False),
      run_state=self.state,
      state=restored.state if restored else state,
      steps=restored.steps if restored else 0,
      save=self._save,
      save_period_s=run.checkpoint_period_s,
    )
    self._replay = self.state.reporter('replay/0')
    self._replay_at = 0.0
    rows = evaluator.num_rows(run.eval_episodes)
    self._evaluator = evaluator.Evaluator(
      experiment.make_vector(rows, stream=1),
      agent,
      self.loop.params,
      self.state.reporter('evaluator/0'),
      key=seeding.actor_key(experiment.seed, 1),
      episodes=run.eval_episodes,
      period=run.eval_period,
      solved_return=run.solved_return,
      keep=self._best.offer,
    )

  def _save(self, steps: int, state: Any) -> None:
    self._directory.write_counts(steps, self.state.directive().counts)
    self._checkpointer.save(steps, state)

  def evaluate(self) -> None:
    """Evaluates if it is time."""
    self._evaluator.directive = self.state.directive()
    if self._evaluator.directive.stop is None:
      self._evaluator.evaluate_if_due()

  def report_replay(self) -> bool:
    """Logs what replay holds, now and then; returns whether it did."""
    now = time.monotonic()
    if now < self._replay_at:
      return False
    self._replay_at = now + _REPLAY_PERIOD_S
    metrics = self.loop.replay.metrics()
    self._replay.report(metrics=metrics, state=f'{metrics["size"]} items')
    return True

  def finish(self) -> None:
    """Saves and evaluates what has been learnt."""
    self.loop.learner.close()
    self._evaluator.directive = self.state.directive()
    self._evaluator.finish()

  def close(self) -> None:
    """Waits until everything is written."""
    self._checkpointer.close()
    self._best.close()
    self._sink.close()
