"""Runs the evaluator of a program, which keeps the best params."""

from __future__ import annotations

from distacme import specs
from distacme import wiring
from distacme.acting import evaluator
from distacme.programs import opponents
from distacme.programs.workers import context as context_lib
from distacme.programs.workers import devices as devices_lib
from distacme.run import checkpoint
from distacme.run import seeding

# The launcher gives a run that used up its steps a minute to end.
_LAST_S = 45.0
# Most versions are never evaluated, and each takes a millisecond of a core.
_PARAMS_PERIOD_S = 0.25


def run(context: context_lib.Context) -> None:
  """Evaluates until the run stops."""
  with devices_lib.for_acting(context.name, None, context.owns_process):
    _evaluate(context)


def _evaluate(context: context_lib.Context) -> None:
  connection, experiment = context.connection, context.experiment
  # Before the first learner step there is nothing to evaluate, and workers that
  # start need the cores.
  has_params = connection.wait_for_params(
    evaluator.LAST_PARAMS_S, _PARAMS_PERIOD_S
  )
  if not has_params or not connection.wait_for_learning():
    return
  run = experiment.run
  rows = evaluator.num_rows(run.eval_episodes)
  environment = experiment.make_vector(rows, stream=run.num_actors)
  context.opened.callback(environment.close)
  agent = experiment.make_agent(specs.make_environment_spec(environment))
  environment = opponents.evaluated(
    experiment, agent, environment, stream=run.num_actors
  )
  key = seeding.actor_key(experiment.seed, run.num_actors)
  best = checkpoint.BestParams(context.directory.best)
  context.opened.callback(best.close)
  wiring.make_evaluator(
    agent,
    environment,
    connection.params,
    connection,
    run.evaluator_settings,
    key=key,
    steps=experiment.resumed_from.get(run.clock, 0),
    keep=best.offer,
    is_hurried=lambda: connection.terminated,
    last_s=_LAST_S,
  ).run()
  best.close()
