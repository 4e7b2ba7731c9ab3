"""Runs servers in processes of their own, as a program does."""

from __future__ import annotations

from collections.abc import Callable, Iterator
import contextlib
import multiprocessing
from typing import Any, NamedTuple

import numpy as np
import portpicker
import psutil

from distacme import replay_spec
from distacme.replay.items import rows as rows_lib
from distacme.run import endpoints

_START_S = 60.0


class Server(NamedTuple):
  """A running replay server.

  Attributes:
    address: host:port.
    config: of a StructuredWriter, if the server has one to give.
    process: of the server.
  """

  address: str
  config: bytes
  process: psutil.Process

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
  """Runs a replay server."""
  with _process(_serve_replay, spec) as (address, process):
    yield Server(address, b'', process)


@contextlib.contextmanager
def raw_replay(window: int) -> Iterator[Server]:
  """Runs a server with a plain uniform table 'steps' of Reverb's.

  Its `config` makes items of `window` steps of 4 columns, one at every step.
  """
  with _process(_serve_raw, window) as ((address, config), process):
    yield Server(address, config, process)


@contextlib.contextmanager
def variables() -> Iterator[VariableServer]:
  """Runs a variable server."""
  with _process(_serve_variables) as (endpoint, process):
    yield VariableServer(endpoint, process)


@contextlib.contextmanager
def inserter(
  address: str,
  tables: tuple[replay_spec.Table, ...],
  layout: rows_lib.RowLayout,
  rows: np.ndarray,
  rows_per_second: float,
) -> Iterator[None]:
  """Inserts `rows` again and again, at a steady rate, once all are in.

  Args:
    address: of the replay server.
    tables: to insert into.
    layout: of the rows.
    rows: structured, [number, block_size].
    rows_per_second: the rate of inserting once all rows are in.
  """
  with _process(_insert, address, tables, layout, rows, rows_per_second):
    yield


@contextlib.contextmanager
def subscribers(endpoint: endpoints.Endpoint, number: int) -> Iterator[None]:
  """Subscribes so many clients to the params of a variable server."""
  with _process(_subscribe, endpoint, number):
    yield


@contextlib.contextmanager
def _process(
  function: Callable[..., None], *args: Any
) -> Iterator[tuple[Any, psutil.Process]]:
  """Runs `function` in a process; yields its first message and the process."""
  context = multiprocessing.get_context('spawn')
  ours, theirs = context.Pipe()
  process = context.Process(target=function, args=(theirs, *args), daemon=True)
  process.start()
  try:
    if not ours.poll(_START_S):
      raise TimeoutError(f'{function.__name__} did not start')
    sent = ours.recv()
    assert process.pid is not None
    yield sent, psutil.Process(process.pid)
  finally:
    process.kill()
    process.join()


def _serve_replay(pipe: Any, spec: replay_spec.ReplaySpec) -> None:
  from distacme.replay.reverb import server as server_lib

  port = portpicker.pick_unused_port()
  server = server_lib.ReplayServer(spec, port)
  pipe.send(f'localhost:{port}')
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
  tables: tuple[replay_spec.Table, ...],
  layout: rows_lib.RowLayout,
  data: np.ndarray,
  rows_per_second: float,
) -> None:
  from distacme.replay.reverb import inserter as inserter_lib

  writer = inserter_lib.ReverbInserter(
    address, tables, layout, stopped=lambda: False
  )
  random = np.random.default_rng(0)

  def insert(rows: np.ndarray) -> None:
    writer.insert(rows, random.random(len(rows)) + 0.1)

  insert(data)
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
