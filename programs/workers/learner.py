"""Runs the learner of a program, from the last checkpoint if there is one."""

from __future__ import annotations

import functools
import math
from typing import Any

import jax

from distacme import wiring
from distacme.programs import program
from distacme.programs.workers import context as context_lib
from distacme.programs.workers import devices as devices_lib
from distacme.programs.workers import replay_links
from distacme.replay import store as store_lib
from distacme.run import checkpoint
from distacme.run import seeding

# Each publication is received and read by all actors. Where experience is used
# once, it is acted by params as new as can be.
_PUBLISH_PERIOD_S = 0.1


def run(context: context_lib.Context) -> None:
  """Learns until the run stops; saves and publishes params."""
  connection, experiment = context.connection, context.experiment
  directory = context.directory
  devices = devices_lib.for_learner(
    experiment.run.learner_devices, context.owns_process
  )
  spec = experiment.environment_spec()
  agent = experiment.make_agent(spec)
  key = seeding.learner_key(experiment.run.seed)
  checkpointer = checkpoint.Checkpointer(directory.checkpoints)
  context.opened.callback(checkpointer.close)

  state = jax.jit(agent.initial_learner_state)(key)
  restored = checkpointer.restore(state)
  # A restarted learner went back to the last checkpoint.
  counted = connection.first_status().counts.get('learner_steps', 0)
  behind = counted - (restored.steps if restored else 0)
  connection.report({'learner_steps': -behind} if behind else None)
  make_sampler = functools.partial(replay_links.make_sampler, context, agent)
  store: store_lib.Store | None = None
  servers = program.replay_servers(context.spec)
  if not servers:
    # Nobody acts: the tables of demonstrations are here.
    saves = experiment.run.replay_checkpoint_period_s is not None
    store = store_lib.Store(
      agent.replay,
      directory.replay if saves and agent.replay.prioritized else None,
      directory.demonstrations,
      learnt=restored.steps if restored else 0,
    )
    make_sampler = functools.partial(replay_links.make_own_sampler, store)
  elif any(context.find(replay) is None for replay in servers):
    return

  def save(steps: int, state: Any) -> None:
    if store is not None and store.saves:  # first: no learner lacks its replay
      store.save()
    directory.write_counts(steps, connection.report().counts)
    checkpointer.save(steps, state)

  learner = wiring.make_learner(
    agent,
    spec,
    restored.state if restored else state,
    make_sampler,
    connection.params,
    connection,
    devices=devices,
    in_background=True,
    publish_period_s=(
      _PUBLISH_PERIOD_S
      if experiment.run.publish_period is None and not agent.replay.used_once
      else 0.0
    ),
    steps=restored.steps if restored else 0,
    # Which are what the run counts, from here on.
    last_step=experiment.run.max_learner_steps or math.inf,
    save=save,
    save_period_s=experiment.run.checkpoint_period_s,
    **experiment.learner_settings(agent, directory),
  )
  context.opened.callback(learner.abandon)
  learner.run()
  checkpointer.close()
