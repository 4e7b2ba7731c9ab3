"""An actor of a program, with its environments."""

from __future__ import annotations

import dataclasses

import numpy as np

from distacme import environments
from distacme import row_layout
from distacme import specs
from distacme import types
from distacme.acting import actor
from distacme.acting import policy
from distacme.programs import program
from distacme.programs.workers import context as context_lib
from distacme.programs.workers import devices as devices_lib
from distacme.replay.reverb import inserter as inserter_lib
from distacme.replay.writers import factory
from distacme.run import seeding


def run(context: context_lib.Context) -> None:
  """Acts until the run stops, as the actor number `context.index`."""
  device = context.experiment.run.actor_device(context.index)
  with devices_lib.for_acting(context.name, device, context.owns_process):
    _act(context)


def _act(context: context_lib.Context) -> None:
  connection, index = context.connection, context.index
  experiment = context.experiment
  replay = context.find(program.REPLAY)
  if replay is None:
    return
  status = connection.status()
  if status['workers'].get(connection.name, {}).get('counts'):
    # One that was restarted would else act its first episodes again.
    experiment = dataclasses.replace(
      experiment, resumed_at=status['counts']['env_steps']
    )
  run = experiment.run
  rows = run.envs_per_actor
  # The evaluator's stream is that after the first actors'.
  stream = index + (index >= run.num_actors)
  environment = experiment.make_vector(rows, stream=stream)
  spec = specs.make_environment_spec(environment)
  agent = experiment.make_agent(spec)
  if not connection.wait_for_params():
    return
  num_actors = max(run.num_actors, index + 1)  # it may have been added later
  streams = types.Streams(
    np.arange(index * rows, (index + 1) * rows), num_actors * rows
  )
  key = seeding.actor_key(experiment.seed, stream)
  newest = connection.params.newest()
  assert newest is not None  # just waited for
  layout = row_layout.row_layout(agent, spec, newest.params)
  inserter = inserter_lib.ReverbInserter(
    replay.address,
    layout,
    connection.stopped,
    at_once=agent.replay.used_once,
  )
  actor.Actor(
    environments.check_first_episode(environment),
    policy.Policy(agent, connection.params, rows, key, streams),
    factory.make_writer(agent.replay, layout, rows, inserter),
    connection,
  ).run()
