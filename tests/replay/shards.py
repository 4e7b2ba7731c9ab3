"""Several replay workers with real services, as one learner sees them."""

import functools
import pathlib
import tempfile

import numpy as np

from distacme import replay_spec
from distacme.replay import form as form_lib
from distacme.replay import packs
from distacme.replay import sharded_sampler
from distacme.replay import store as store_lib
from distacme.replay.items import rows as rows_lib
from distacme.replay.service import exchange
from distacme.replay.service import outlet as grpc_outlet
from distacme.replay.service import server as service_lib
from distacme.replay.service import wire
from distacme.replay.shared_memory import outlet as local_outlet
from distacme.replay.shared_memory import server as local_server
from distacme.rpc import line as line_lib


class Server:
  """One replay worker: a store and its doors, which can die and come back."""

  def __init__(self, spec, index, count, folder, checkpoints=None):
    self._place = spec, index, count
    self._socket = pathlib.Path(folder) / f'socket{index}'
    self._checkpoints = checkpoints
    self.start()
    self._line = line_lib.Line(
      wire.SERVICE, self.service.endpoint, lambda: self.service.endpoint
    )

  def start(self):
    spec, index, count = self._place
    self.spec = replay_spec.of_shard(spec, index, count)
    self.store = store_lib.Store(
      self.spec,
      self._checkpoints,
      first_room=replay_spec.first_room(spec, count),
    )
    self._local = local_server.LocalServer(self.store, self._socket)
    self.service = service_lib.ReplayServer(self.store)

  def die(self):
    self._local.stop()
    self.service.stop(0)

  def insert(self, rows, priorities=None, stopped=lambda: True):
    """Inserts rows; returns whether there was room for all of them."""
    items = rows.view(np.uint8).reshape(len(rows), -1)
    if priorities is None:
      priorities = np.ones(len(rows))
    pack = packs.Pack((0,), items, np.asarray(priorities, float), None)
    return self.store.insert(pack, stopped)

  def shard(self, layout, by_grpc):
    form = form_lib.Form.of(self.spec, layout)

    def open_outlet():
      if by_grpc:
        return grpc_outlet.GrpcOutlet(
          self.service.endpoint, form, timeout_s=0.5
        )
      return local_outlet.LocalOutlet(self._socket, form)

    return sharded_sampler.Shard(
      f'replay/{self._place[1]}',
      open_outlet,
      functools.partial(exchange.exchange, self._line),
      functools.partial(wire.describe, self._line),
    )

  def close(self):
    self._line.close()
    self.die()


class Shards:
  """All servers, and the learner's sampler."""

  def __init__(self, spec, count, layout, checkpoints=None):
    self.spec, self._layout = spec, layout
    self._folder = tempfile.TemporaryDirectory()
    self.servers = [
      Server(
        spec,
        index,
        count,
        self._folder.name,
        checkpoints and checkpoints / str(index),
      )
      for index in range(count)
    ]
    self.sampler = None

  def connect(self, by_grpc=False, seed=None):
    """Returns a sampler, the only one there is."""
    self.sampler = sharded_sampler.make(
      [server.shard(self._layout, by_grpc) for server in self.servers],
      self.spec,
      self._layout,
      seed=seed,
    )
    return self.sampler

  def close(self):
    if self.sampler is not None:
      self.sampler.close()
    for server in self.servers:
      server.close()
    self._folder.cleanup()


def rows_of(layout, numbers, block_size=1):
  """Returns rows that say their number as the version of the params."""
  rows = np.zeros(len(numbers), layout.dtype)
  rows[rows_lib.PARAMS_VERSION] = numbers
  return rows.reshape(-1, block_size)
