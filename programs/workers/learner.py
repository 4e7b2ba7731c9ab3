"""The learner of a program, from its last checkpoint if there is one."""

from __future__ import annotations

from typing import Any

import jax

from distacme import row_layout
from distacme.learning import batches
from distacme.learning import frame_stacks
from distacme.learning import learner
from distacme.learning import placement as placement_lib
from distacme.learning import updates
from distacme.programs import program
from distacme.programs.workers import context as context_lib
from distacme.programs.workers import devices as devices_lib
from distacme.replay.reverb import sampler as sampler_lib
from distacme.run import checkpoint
from distacme.run import seeding


def run(context: context_lib.Context) -> None:
  """Learns until the run stops; saves and publishes what was learnt."""
  connection, experiment = context.connection, context.experiment
  directory = context.directory
  devices = devices_lib.for_learner(
    experiment.run.learner_devices, context.owns_process
  )
  spec = experiment.environment_spec()
  agent = experiment.make_agent(spec)
  key = seeding.learner_key(experiment.run.seed)
  checkpointer = checkpoint.Checkpointer(directory.checkpoints)

  def save(steps: int, state: Any) -> None:
    directory.write_counts(steps, connection.report().counts)
    checkpointer.save(steps, state)

  state = jax.jit(agent.initial_learner_state)(key)
  restored = checkpointer.restore(state)
  # One that was restarted went back to its last checkpoint.
  counted = connection.status()['counts'].get('learner_steps', 0)
  behind = counted - (restored.steps if restored else 0)
  connection.report({'learner_steps': -behind} if behind else None)
  params = jax.eval_shape(agent.actor_params, state)
  layout = row_layout.row_layout(agent, spec, params)
  agent = frame_stacks.learning_from(layout, agent)
  count = updates.choose_count(
    experiment.run.updates_per_call,
    agent,
    state,
    layout,
    devices[0].platform,
  )
  placement = placement_lib.Placement(agent.replay.batch_size, count, devices)
  replay = context.find(program.REPLAY)
  if replay is None:
    return
  sampler = sampler_lib.ReverbSampler(
    replay.address, agent.replay, layout, connection.stopped
  )
  worker = learner.Learner(
    agent,
    batches.PrefetchedBatches(
      sampler,
      count,
      placement,
      # What waits here grows old.
      depth=1 if agent.replay.used_once else 2,
      padded=agent.replay.padded,
    ),
    connection.params,
    connection,
    restored.state if restored else state,
    placement=placement,
    steps=restored.steps if restored else 0,
    publish_period=experiment.publish_period(agent),
    save=save,
    save_period_s=experiment.run.checkpoint_period_s,
    executor=learner.background_executor,
    stop_if_not_finite=experiment.run.stop_if_not_finite,
    last_saved=directory.last_saved,
  )
  worker.run()
  connection.report(state='saving')
  checkpointer.close()
