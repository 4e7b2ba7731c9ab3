"""Connects actors and the learner of a program to its replay worker."""

from __future__ import annotations

import pathlib

from distacme import core
from distacme.programs import program
from distacme.programs.workers import context as context_lib
from distacme.replay import pack_inserter
from distacme.replay import sampler as sampler_lib
from distacme.replay.items import rows
from distacme.replay.shared_memory import outlet
from distacme.replay.shared_memory import slots
from distacme.run import run_directory

# The name of the endpoint of Reverb's server, in the replay worker's process.
QUEUE = 'reverb/0'


def socket_path(directory: run_directory.RunDirectory) -> pathlib.Path:
  """Returns the path at which a learner of the same host finds replay."""
  return directory.endpoints / f'{program.REPLAY.replace("/", "-")}.socket'


def make_inserter(
  context: context_lib.Context, agent: core.Agent, layout: rows.RowLayout
) -> pack_inserter.PackInserter:
  """Returns an actor's inserter; replay listens already."""
  stopped = context.connection.stopped
  queue = context.listened(QUEUE)
  assert queue is not None
  from distacme.replay.reverb import way as way_lib

  way = way_lib.ReverbWay(queue.address, stopped, lambda: 'replay')
  return pack_inserter.PackInserter(
    way, agent.replay, agent.replay.tables_of_actors, layout, stopped
  )


def make_sampler(
  context: context_lib.Context, agent: core.Agent, layout: rows.RowLayout
) -> sampler_lib.Sampler:
  """Returns the learner's sampler; waits for replay while the run goes on."""
  form = slots.Form.of(agent.replay, layout)
  path = socket_path(context.directory)
  return sampler_lib.Sampler(
    lambda: outlet.LocalOutlet(path, form), layout, context.connection.stopped
  )
