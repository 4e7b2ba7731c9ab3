"""Runs servers in processes of their own, as a program does."""

from __future__ import annotations

import collections
from collections.abc import Callable, Iterator
import contextlib
import multiprocessing
import pathlib
import tempfile
from typing import Any, NamedTuple

import numpy as np
import portpicker
import psutil

from distacme import replay_spec
from distacme import types
from distacme.replay import form as form_lib
from distacme.replay import pack_inserter
from distacme.replay import sampler as sampler_lib
from distacme.replay.items import frames as frames_lib
from distacme.replay.items import rows as rows_lib
from distacme.run import endpoints

_START_S = 60.0
_AT_ONCE = 1_000  # rows


class Server(NamedTuple):
  """A running replay worker, or a server of Reverb's own.

  Attributes:
    address: host:port of Reverb.
    process: of the server.
    socket: of batches through shared memory.
    endpoint: of the replay service over gRPC.
    config: of a StructuredWriter, if the server has one to give.
  """

  address: str
  process: psutil.Process
  socket: pathlib.Path = pathlib.Path()
  endpoint: endpoints.Endpoint = endpoints.Endpoint('', 0)
  config: bytes = b''

  def cpu_s(self) -> float:
    """Returns the seconds of CPU that the server has used so far."""
    times = self.process.cpu_times()
    return float(times.user + times.system)


class VariableServer(NamedTuple):
  """A running variable server."""

  endpoint: endpoints.Endpoint
  process: psutil.Process


@contextlib.contextmanager
def replay(spec: replay_spec.ReplaySpec) -> Iterator[Server]:
  """Runs a replay worker's tables, with all ways in and out."""
  with run_process(_serve_replay, spec) as (doors, process):
    yield Server(doors[0], process, *doors[1:])


@contextlib.contextmanager
def replay_here(spec: replay_spec.ReplaySpec) -> Iterator[Server]:
  """Runs a replay worker's tables in this process."""
  with _doors(spec) as doors:
    yield Server(doors[0], psutil.Process(), *doors[1:])


@contextlib.contextmanager
def raw_items(table: str) -> Iterator[Server]:
  """Runs a server with a plain prioritised table of Reverb's, of single items."""
  with run_process(_serve_raw_items, table) as (address, process):
    yield Server(address, process)


@contextlib.contextmanager
def raw_replay(window: int) -> Iterator[Server]:
  """Runs a server with a plain uniform table 'steps' of Reverb's.

  Its `config` makes items of `window` steps of 4 columns, one at every step.
  """
  with run_process(_serve_raw, window) as ((address, config), process):
    yield Server(address, process, config=config)


@contextlib.contextmanager
def variables() -> Iterator[VariableServer]:
  """Runs a variable server."""
  with run_process(_serve_variables) as (endpoint, process):
    yield VariableServer(endpoint, process)


@contextlib.contextmanager
def inserter(
  server: Server,
  spec: replay_spec.ReplaySpec,
  layout: rows_lib.RowLayout,
  observations: types.NestedSpec,
  rows: np.ndarray,
  rows_per_second: float,
) -> Iterator[None]:
  """Inserts `rows` again and again, at a steady rate, once all are in.

  Frames of stacked observations are all different, one for each row.

  Args:
    server: to insert into, through Reverb.
    spec: of the tables.
    layout: of the rows.
    observations: of the environment.
    rows: structured, [number, block_size].
    rows_per_second: the rate of inserting once all rows are in.
  """
  # Layouts do not travel.
  stacks = None if layout.frames is None else observations
  of_layout = layout.nest, stacks
  with run_process(
    _insert, server.address, spec, of_layout, rows, rows_per_second
  ):
    yield


@contextlib.contextmanager
def subscribers(endpoint: endpoints.Endpoint, number: int) -> Iterator[None]:
  """Subscribes so many clients to the params of a variable server."""
  with run_process(_subscribe, endpoint, number):
    yield


@contextlib.contextmanager
def run_process(
  function: Callable[..., None], *args: Any
) -> Iterator[tuple[Any, psutil.Process]]:
  """Runs `function` in a process; yields its first message and the process.

  The message is the other end of the process's pipe if it is None.
  """
  context = multiprocessing.get_context('spawn')
  ours, theirs = context.Pipe()
  started = context.Process(target=function, args=(theirs, *args), daemon=True)
  started.start()
  try:
    if not ours.poll(_START_S):
      raise TimeoutError(f'{function.__name__} did not start')
    sent = ours.recv()
    assert started.pid is not None
    yield sent or ours, psutil.Process(started.pid)
  finally:
    started.kill()
    started.join()


def _serve_replay(pipe: Any, spec: replay_spec.ReplaySpec) -> None:
  with _doors(spec) as doors:
    pipe.send(doors)
    pipe.poll(None)


@contextlib.contextmanager
def _doors(
  spec: replay_spec.ReplaySpec,
) -> Iterator[tuple[str, pathlib.Path, endpoints.Endpoint]]:
  """Serves tables of this process; yields where, as in `Server`."""
  from distacme.replay import store as store_lib
  from distacme.replay.reverb import queue as queue_lib
  from distacme.replay.service import server as service_lib
  from distacme.replay.shared_memory import server as local_server

  port = portpicker.pick_unused_port()
  store = store_lib.Store(spec)
  with tempfile.TemporaryDirectory() as folder:
    socket = pathlib.Path(folder) / 'socket'
    queue = queue_lib.PackQueue(store, port)
    local = local_server.LocalServer(store, socket)
    service = service_lib.ReplayServer(store)
    yield f'127.0.0.1:{port}', socket, service.endpoint
    service.stop()
    local.stop()
    queue.stop()


def make_inserter(
  address: str | endpoints.Endpoint,
  spec: replay_spec.ReplaySpec,
  layout: rows_lib.RowLayout,
) -> pack_inserter.PackInserter:
  """Returns an actor's inserter into the tables of `replay`.

  Args:
    address: of Reverb; or the endpoint of the replay service.
    spec: of the tables.
    layout: of the rows.
  """
  way: pack_inserter.Way
  if isinstance(address, str):
    from distacme.replay.reverb import way as reverb_way

    way = reverb_way.ReverbWay(address, lambda: False, lambda: '')
  else:
    from distacme.replay.service import way as grpc_way

    way = grpc_way.GrpcWay(address)
  return pack_inserter.PackInserter(
    way, spec, spec.tables, layout, lambda: False
  )


def make_sampler(
  server: Server,
  spec: replay_spec.ReplaySpec,
  layout: rows_lib.RowLayout,
  *,
  by_grpc: bool = False,
) -> sampler_lib.Sampler:
  """Returns a learner's sampler; through shared memory if not over gRPC."""
  from distacme.replay.service import outlet as grpc_outlet
  from distacme.replay.shared_memory import outlet as local_outlet

  form = form_lib.Form.of(spec, layout)

  def open_outlet() -> sampler_lib.Outlet:
    if by_grpc:
      return grpc_outlet.GrpcOutlet(server.endpoint, form)
    return local_outlet.LocalOutlet(server.socket, form)

  return sampler_lib.Sampler(open_outlet, layout, str)


def _serve_raw_items(pipe: Any, table: str) -> None:
  import reverb

  server = reverb.Server(
    [
      reverb.Table(
        table,
        reverb.selectors.Prioritized(0.6),
        reverb.selectors.Fifo(),
        max_size=100_000,
        rate_limiter=reverb.rate_limiters.MinSize(1),
      )
    ],
    port=portpicker.pick_unused_port(),
  )
  pipe.send(f'localhost:{server.port}')
  pipe.poll(None)
  server.stop()


def _serve_raw(pipe: Any, window: int) -> None:
  # Reverb as its users run it, TensorFlow included: the limit of our server.
  import reverb
  from reverb import structured_writer

  server = reverb.Server(
    [
      reverb.Table(
        'steps',
        reverb.selectors.Uniform(),
        reverb.selectors.Fifo(),
        max_size=100_000,
        rate_limiter=reverb.rate_limiters.MinSize(1),
      )
    ],
    port=portpicker.pick_unused_port(),
  )
  pattern = structured_writer.pattern_from_transform(
    [None] * 4, lambda step: [column[-window:] for column in step]
  )
  config = structured_writer.create_config(
    pattern,
    'steps',
    [structured_writer.Condition.step_index() >= window - 1],
  )
  pipe.send((f'localhost:{server.port}', config.SerializeToString()))
  pipe.poll(None)
  server.stop()


def _serve_variables(pipe: Any) -> None:
  from distacme.run import run_state
  from distacme.variables import server

  service = server.VariableServer(run_state.RunState())
  pipe.send(service.endpoint)
  pipe.poll(None)
  service.stop()


def _insert(
  pipe: Any,
  address: str,
  spec: replay_spec.ReplaySpec,
  of_layout: tuple[Any, Any],
  data: np.ndarray,
  rows_per_second: float,
) -> None:
  nest, stacks = of_layout
  frames = stacks and frames_lib.FrameLayout(stacks, spec.window)
  writer = make_inserter(address, spec, rows_lib.RowLayout(nest, frames))
  random = np.random.default_rng(0)
  named: collections.deque[int] = collections.deque(
    maxlen=frames and frames.moments + frames.stack - 1
  )

  def insert(rows: np.ndarray) -> None:
    names = None
    if frames is not None:
      names = []
      for row in rows:
        pixels = random.integers(0, 255, frames.dtype.itemsize, np.uint8)
        named.extend(writer.insert_frames(pixels.view(frames.dtype)))
        row[frames_lib.FRAMES_BEFORE] = min(len(named), frames.stack) - 1
        names.append([*named])
    writer.insert(rows, random.random(len(rows)) + 0.1, names)

  for start in range(0, len(data), _AT_ONCE):
    insert(data[start : start + _AT_ONCE])
  writer.flush()
  pipe.send(None)
  some = max(1, round(0.02 * rows_per_second))
  while not pipe.poll(some / rows_per_second):
    insert(data[random.integers(0, len(data), some)])


def _subscribe(pipe: Any, endpoint: endpoints.Endpoint, number: int) -> None:
  from distacme.variables import client

  clients = [
    client.VariableClient(endpoint, f'actor/{index}') for index in range(number)
  ]
  for each in clients:
    each.subscribe()
  pipe.send(None)
  pipe.poll(None)
