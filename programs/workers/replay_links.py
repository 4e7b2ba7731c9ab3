"""Connects actors and the learner of a program to its replay."""

from __future__ import annotations

from collections.abc import Sequence
import functools
import logging
import pathlib

from distacme import core
from distacme import replay_spec
from distacme.programs import program
from distacme.programs.workers import context as context_lib
from distacme.replay import following_outlet
from distacme.replay import form as form_lib
from distacme.replay import pack_inserter
from distacme.replay import sampler as sampler_lib
from distacme.replay import sharded_sampler
from distacme.replay import store as store_lib
from distacme.replay import store_outlet
from distacme.replay.items import rows
from distacme.replay.service import exchange
from distacme.replay.service import outlet as grpc_outlet
from distacme.replay.service import way as grpc_way
from distacme.replay.service import wire
from distacme.replay.shared_memory import outlet as local_outlet
from distacme.rpc import line as line_lib
from distacme.run import run_directory

_CONNECT_S = 0.5


def queue_name(replay: str) -> str:
  """Returns the name of the endpoint of Reverb's server in a replay worker."""
  return replay.replace('replay', 'reverb')


def socket_path(
  directory: run_directory.RunDirectory, replay: str
) -> pathlib.Path:
  """Returns the path at which a learner of the same host finds a replay worker."""
  return directory.endpoints / f'{replay.replace("/", "-")}.socket'


def make_inserter(
  context: context_lib.Context, agent: core.Agent, layout: rows.RowLayout
) -> pack_inserter.PackInserter:
  """Returns an actor's inserter; replay listens already."""
  return pack_inserter.PackInserter(
    _make_way(context),
    agent.replay,
    agent.replay.tables_of_actors,
    layout,
    context.connection.stopped,
    actor=context.index,
  )


def _make_way(context: context_lib.Context) -> pack_inserter.Way:
  (replay,) = program.replay_servers(context.spec)
  find = functools.partial(context.listened, replay)
  service = find()
  assert service is not None
  if context.experiment.run.transport == 'grpc':
    way: pack_inserter.Way = grpc_way.GrpcWay(service, find)
    context.opened.callback(way.close)
    return way
  from distacme.replay.reverb import way as reverb_way

  queue = context.listened(queue_name(replay))
  assert queue is not None
  # Reverb knows its queue only; the service knows the tables.
  way = reverb_way.ReverbWay(
    queue.address,
    context.connection.stopped,
    functools.partial(wire.describe, _open_line(context, replay)),
  )
  context.opened.callback(way.close)
  return way


def _open_line(context: context_lib.Context, replay: str) -> line_lib.Line:
  """Returns a line to a replay worker, which listens already."""
  find = functools.partial(context.listened, replay)
  service = find()
  assert service is not None
  line = line_lib.Line(wire.SERVICE, service, find, line_lib.WATCHED)
  context.opened.callback(line.close)
  return line


def make_own_sampler(
  store: store_lib.Store, layout: rows.RowLayout
) -> core.Sampler:
  """Returns the sampler of a learner that has replay in its own process."""
  return sampler_lib.Sampler(
    lambda: store_outlet.StoreOutlet(store), layout, store.describe
  )


def make_sampler(
  context: context_lib.Context, agent: core.Agent, layout: rows.RowLayout
) -> core.Sampler:
  """Returns the learner's sampler; waits for replay while the run goes on."""
  servers = program.replay_servers(context.spec)
  if len(servers) > 1:
    return _make_sharded_sampler(context, agent, layout, servers)
  return sampler_lib.Sampler(
    functools.partial(
      _open_outlet, context, servers[0], form_lib.Form.of(agent.replay, layout)
    ),
    layout,
    functools.partial(wire.describe, _open_line(context, servers[0])),
    context.connection.stopped,
  )


def _make_sharded_sampler(
  context: context_lib.Context,
  agent: core.Agent,
  layout: rows.RowLayout,
  servers: Sequence[str],
) -> sharded_sampler.ShardedSampler:
  shards = []
  for index, replay in enumerate(servers):
    spec = replay_spec.of_shard(agent.replay, index, len(servers))
    line = _open_line(context, replay)
    shards.append(
      sharded_sampler.Shard(
        replay,
        functools.partial(
          _open_outlet, context, replay, form_lib.Form.of(spec, layout)
        ),
        functools.partial(exchange.exchange, line),
        functools.partial(wire.describe, line),
      )
    )
  return sharded_sampler.make(
    shards, agent.replay, layout, context.connection.stopped
  )


def _open_outlet(
  context: context_lib.Context, replay: str, form: form_lib.Form
) -> following_outlet.Outlet:
  """Returns an outlet, through shared memory if the replay worker is on this host.

  Raises:
    OSError: if the worker is not there.
  """
  # Before the look at the socket, which listens before this says so: the service
  # that is tried next is then one without such a socket, or one that is gone.
  service = context.listened(replay)
  if service is None:
    raise ConnectionError(f'where {replay} listens cannot be read')
  try:
    return local_outlet.LocalOutlet(
      socket_path(context.directory, replay), form
    )
  except OSError as error:
    outlet = grpc_outlet.GrpcOutlet(
      service, form, learner=context.name, timeout_s=_CONNECT_S
    )
    if service.loopback:
      logging.getLogger(__name__).warning(
        'batches come over gRPC, and more slowly, since replay shares no memory: '
        '%s',
        error,
      )
    return outlet
