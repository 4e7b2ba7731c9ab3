"""Every way into replay and out of it, behind the few words that tests use."""

import importlib.util
import pathlib
import tempfile
import threading

import numpy as np
import portpicker
import pytest

from distacme import types
from distacme.replay import checkpoints
from distacme.replay import form as form_lib
from distacme.replay import in_process
from distacme.replay import memory
from distacme.replay import pack_inserter
from distacme.replay import packs
from distacme.replay import sampler
from distacme.replay import store
from distacme.replay import store_outlet
from distacme.replay.service import outlet as grpc_outlet
from distacme.replay.service import server as grpc_server
from distacme.replay.service import way as grpc_way
from distacme.replay.shared_memory import outlet
from distacme.replay.shared_memory import server

needs_reverb = pytest.mark.skipif(
  importlib.util.find_spec('reverb') is None, reason='Reverb is not installed.'
)


def named(spec, names):
  """Returns the tables of these names, or all."""
  return [t for t in spec.tables if not names or t.name in names]


def info_of(key, table=0):
  """Returns what names items of one table."""
  tables = np.full(len(key), table, np.int32)
  return types.SampleInfo(key, None, None, tables)


class InProcess:
  """Replay of one process, whose owner saves it."""

  draws_ahead = False

  def __init__(self, spec, layout, directory=None):
    self._spec = spec
    self.replay = in_process.InProcessReplay(spec, layout, seed=1)
    self.sample = self.replay.sample
    self.metrics = self.replay.metrics
    self._checkpoints = None
    if directory is not None:
      self._checkpoints = checkpoints.Checkpoints(
        directory, memory.FORMAT, spec
      )
      arrays = self._checkpoints.restore(memory.read)
      if arrays is not None:
        self.replay.load(arrays)

  def save(self):
    folder = self._checkpoints.unfinished / 'tables'
    folder.mkdir()
    self.replay.save(folder)
    return self._checkpoints.add(folder)

  def inserter(self, *names):
    return self.replay.inserter(named(self._spec, names))

  def insert(self, rows, priorities, *names):
    self.inserter(*names).insert(rows, priorities)

  def update_priorities(self, key, priority, table=0):
    self.replay.update_priorities(info_of(key, table), priority)

  def settle(self, inserted):
    pass

  def stop(self):
    pass

  def close(self):
    pass


class Direct:
  """A way without a transport: a thread inserts what is sent."""

  def __init__(self, store_, stopped):
    self._store, self._stopped = store_, stopped
    self._waiting = []
    self._error = None
    self.describe = store_.describe

  def send(self, pack):
    self._waiting.append(self._store.begin(packs.decode(pack)))

  def wait(self, on_the_way, timeout_s):
    until = threading.Event()
    for tries in range(2):
      while self._waiting and self._insert_some():
        del self._waiting[0]
      if len(self._waiting) <= on_the_way or tries or not timeout_s:
        break
      until.wait(min(timeout_s, 0.01))
    return len(self._waiting) <= on_the_way

  def _insert_some(self):
    try:
      return self._store.insert_some(self._waiting[0])
    except ValueError:
      del self._waiting[0]
      raise

  def close(self):
    pass


class Worker:
  """A replay worker's store, with ways in for actors and one out."""

  draws_ahead = True

  def __init__(self, spec, layout, directory=None):
    self._spec, self._layout = spec, layout
    self.store = store.Store(spec, directory)
    self.metrics, self.save = self.store.metrics, self.store.save
    self._stopped = threading.Event()
    self._folder = tempfile.TemporaryDirectory()
    self._socket = pathlib.Path(self._folder.name) / 'socket'
    self._server = server.LocalServer(self.store, self._socket)
    self._inserters = {}
    self._sampler = None
    self.open()

  def open(self):
    """Opens the doors for actors."""

  def way(self):
    return Direct(self.store, self._stopped.is_set)

  def inserter(self, *names):
    if names not in self._inserters:
      self._inserters[names] = pack_inserter.PackInserter(
        self.way(),
        self._spec,
        named(self._spec, names),
        self._layout,
        self._stopped.is_set,
      )
    return self._inserters[names]

  def insert(self, rows, priorities, *names):
    inserter = self.inserter(*names)
    before = self.metrics()['inserted']
    inserter.insert(rows, priorities)
    inserter.flush()  # The test wants to count what is in the table.
    self.settle(before + rows.size)

  def settle(self, inserted):
    """Waits until so many are in the tables, if a way knows it later."""

  def outlet(self):
    form = form_lib.Form.of(self._spec, self._layout)
    return outlet.LocalOutlet(self._socket, form)

  @property
  def sampler(self):
    if self._sampler is None:
      self._sampler = sampler.Sampler(
        self.outlet, self._layout, self.store.describe, self._stopped.is_set
      )
    return self._sampler

  def sample(self):
    return self.sampler.sample()

  def update_priorities(self, key, priority, table=0):
    # What was drawn ahead was drawn with the old ones.
    if self._sampler is not None:
      self._sampler.close()
      self._sampler = None
    self.store.update_priorities(np.full(len(key), table), key, priority)

  def stop(self):
    self._stopped.set()

  def close(self):
    self.stop()
    for made in self._inserters.values():
      made.close()
    if self._sampler is not None:
      self._sampler.close()
    self._server.stop()
    self._folder.cleanup()


class OwnStore(Worker):
  """In the process of a learner that no actor brings anything."""

  draws_ahead = False

  def outlet(self):
    return store_outlet.StoreOutlet(self.store)


class Reverb(Worker):
  """With Reverb as the way in."""

  def open(self):
    from distacme.replay.reverb import queue

    self._port = portpicker.pick_unused_port()
    self.queue = queue.PackQueue(self.store, self._port)

  def way(self):
    from distacme.replay.reverb import way

    return way.ReverbWay(
      f'127.0.0.1:{self._port}', self._stopped.is_set, self.store.describe
    )

  def settle(self, inserted):
    # Reverb has the pack; the thread that inserts it is fast.
    for _ in range(1000):
      if self._stopped.is_set() or self.metrics()['inserted'] >= inserted:
        break
      threading.Event().wait(0.01)

  def close(self):
    super().close()
    self.queue.stop()


class Grpc(Worker):
  """With our service as the way in, and out."""

  def open(self):
    self._service = grpc_server.ReplayServer(self.store)

  def way(self):
    return grpc_way.GrpcWay(self._service.endpoint)

  def insert(self, rows, priorities, *names):
    try:
      super().insert(rows, priorities, *names)
    except ValueError:  # which ends the way of an actor
      self._inserters.pop(names)._way.close()
      raise

  def outlet(self):
    form = form_lib.Form.of(self._spec, self._layout)
    return grpc_outlet.GrpcOutlet(self._service.endpoint, form)

  def close(self):
    super().close()
    self._service.stop(0)


ALL = [
  InProcess,
  Worker,
  OwnStore,
  Grpc,
  pytest.param(Reverb, marks=needs_reverb),
]
