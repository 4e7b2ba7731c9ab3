"""Runs an actor of a program, with the actor's environments."""

from __future__ import annotations

import dataclasses
import functools

import numpy as np

from distacme import specs
from distacme import types
from distacme import wiring
from distacme.programs import program
from distacme.programs.workers import context as context_lib
from distacme.programs.workers import devices as devices_lib
from distacme.programs.workers import replay_links
from distacme.run import seeding


def run(context: context_lib.Context) -> None:
  """Acts until the run stops, as the actor number `context.index`."""
  device = context.experiment.run.actor_device(context.index)
  with devices_lib.for_acting(context.name, device, context.owns_process):
    _act(context)


def _act(context: context_lib.Context) -> None:
  connection, index = context.connection, context.index
  experiment = context.experiment
  (replay,) = program.replay_servers(context.spec)
  if context.find(replay) is None:
    return
  status = connection.first_status()
  before = status.workers.get(connection.name)
  if before is not None and before.counts:
    # Without the steps, a restarted actor would act its first episodes again.
    experiment = dataclasses.replace(experiment, resumed_from=status.counts)
  run = experiment.run
  rows = run.envs_per_actor
  # The evaluator's stream comes after the streams of the first actors.
  stream = index + (index >= run.num_actors)
  environment = experiment.make_vector(rows, stream=stream)
  context.opened.callback(environment.close)
  agent = experiment.make_agent(specs.make_environment_spec(environment))
  if not connection.wait_for_params(relay=program.relay_of(context.spec)):
    return
  num_actors = max(run.num_actors, index + 1)  # a later actor's is larger
  streams = types.Streams(
    np.arange(index * rows, (index + 1) * rows), num_actors * rows
  )

  wiring.make_actor(
    agent,
    environment,
    functools.partial(replay_links.make_inserter, context, agent),
    connection.params,
    connection,
    key=seeding.actor_key(experiment.seed, stream),
    streams=streams,
  ).run()
