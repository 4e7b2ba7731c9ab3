"""Stands for many workers in two processes: their subscriptions and their reports."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Sequence
import contextlib
import multiprocessing
import pathlib
import threading
import time
from typing import Any, NamedTuple

import grpc
import numpy as np
import psutil

from distacme.rpc import keys
from distacme.rpc import line as line_lib
from distacme.rpc import messages
from distacme.rpc import token as token_lib
from distacme.run import descriptors
from distacme.run import endpoints
from distacme.variables import client
from distacme.variables import wire

_PROCESSES = 2
_START_S = 60.0
_REPORT_PERIOD_S = 0.02
_DESCRIPTORS = 8192


class Service(NamedTuple):
  """A variable server or a relay in a process of its own."""

  endpoint: endpoints.Endpoint
  process: psutil.Process

  def cpu_s(self) -> float:
    """Returns the seconds of CPU that the service has used so far."""
    times = self.process.cpu_times()
    return float(times.user + times.system)


class Delivery(NamedTuple):
  """One version on its way to all subscribers.

  Attributes:
    seconds: from the call of publish until the last subscriber had the version.
    cpu_s: seconds of CPU of each service meanwhile, the variable server's first.
    report_s: how long each report took meanwhile.
  """

  seconds: float
  cpu_s: tuple[float, ...]
  report_s: tuple[float, ...]


@contextlib.contextmanager
def deliveries(
  number: int,
  num_bytes: int,
  *,
  num_relays: int = 0,
  secrets: pathlib.Path | None = None,
) -> Iterator[Callable[[], Delivery]]:
  """Yields a function that publishes params to so many subscribers.

  Args:
    number: of subscribers, each with a connection.
    num_bytes: of the params.
    num_relays: relays that share the subscribers; 0 for the server alone.
    secrets: an empty folder for a key and a token, with which all talk by TLS.
  """
  shown: dict[str, pathlib.Path] = {}
  if secrets is not None:
    shown = {'key': keys.make(secrets), 'token': token_lib.make(secrets)}
  with contextlib.ExitStack() as stack:
    server = stack.enter_context(_service(_serve, shown))
    relays = [
      stack.enter_context(_service(_relay, shown, server.endpoint))
      for _ in range(num_relays)
    ]
    doors = [relay.endpoint for relay in relays] or [server.endpoint]
    pipes = [
      stack.enter_context(
        _process(_subscribe, doors, number // _PROCESSES, index)
      )[0]
      for index in range(_PROCESSES)
    ]
    learner = client.VariableClient(server.endpoint, 'learner/0')
    stack.callback(learner.close)
    params = {
      'w': np.random.default_rng(0).integers(0, 256, num_bytes, np.uint8)
    }
    versions = iter(range(1_000_000))

    def deliver() -> Delivery:
      before = [service.cpu_s() for service in (server, *relays)]
      with _reporting(server.endpoint) as report_s:
        start = time.perf_counter()
        learner.publish(next(versions), {'net': params}, timeout_s=300.0)
        last = max(pipe.recv() for pipe in pipes)
      spent = [
        service.cpu_s() - cpu_s
        for service, cpu_s in zip((server, *relays), before, strict=True)
      ]
      return Delivery(last - start, tuple(spent), tuple(report_s))

    deliver()  # opens the connections
    yield deliver


@contextlib.contextmanager
def published(
  num_bytes: int, secrets: pathlib.Path
) -> Iterator[endpoints.Endpoint]:
  """Yields a server, by TLS, to which another process publishes ten times a second."""
  shown = {'key': keys.make(secrets), 'token': token_lib.make(secrets)}
  with (
    _service(_serve, shown) as server,
    _process(_publish, server.endpoint, num_bytes),
  ):
    yield server.endpoint


def _publish(pipe: Any, endpoint: endpoints.Endpoint, num_bytes: int) -> None:
  learner = client.VariableClient(endpoint, 'learner/0')
  params = {'net': {'w': np.zeros(num_bytes, np.uint8)}}
  version = 0
  while not pipe.poll(0.1):
    learner.publish(version, params)
    version += 1


@contextlib.contextmanager
def _reporting(endpoint: endpoints.Endpoint) -> Iterator[list[float]]:
  """Sends reports of one worker; fills the yielded list with their seconds."""
  took: list[float] = []
  done = threading.Event()

  def report() -> None:
    line = line_lib.Line(wire.SERVICE, endpoint)
    for sequence in range(1_000_000):
      start = time.perf_counter()
      line.call('Report', report_of(0, sequence), 60.0)
      took.append(time.perf_counter() - start)
      if done.wait(_REPORT_PERIOD_S):
        break
    line.close()

  thread = threading.Thread(target=report)
  thread.start()
  try:
    yield took
  finally:
    done.set()
    thread.join()


def report_of(worker: int, sequence: int) -> bytes:
  """Returns a report as an actor sends them."""
  return messages.pack(
    {
      'worker': f'actor/{worker}',
      'session': f'{worker}',
      'sequence': sequence,
      'alive': True,
      'counts': {'env_steps': 3},
      'metrics': [{'episode_return': 1.0, 'policy_lag': 2.0}],
      'state': 'acting',
    }
  )


@contextlib.contextmanager
def reports(number: int) -> Iterator[Service]:
  """Yields a variable server to which so many workers report when they are asked to."""
  with contextlib.ExitStack() as stack:
    server = stack.enter_context(_service(_serve, {}))
    for index in range(_PROCESSES):
      share = number // _PROCESSES
      pipe, _ = stack.enter_context(
        _process(
          _report, server.endpoint, range(index * share, index * share + share)
        )
      )
      assert pipe.poll(_START_S)
      pipe.recv()  # all have heard the period
    yield server


@contextlib.contextmanager
def _service(function: Callable[..., None], *args: Any) -> Iterator[Service]:
  with _process(function, *args) as (pipe, process):
    assert pipe.poll(_START_S), f'{function.__name__} did not start'
    yield Service(pipe.recv(), process)


@contextlib.contextmanager
def _process(
  function: Callable[..., None], *args: Any
) -> Iterator[tuple[Any, psutil.Process]]:
  context = multiprocessing.get_context('spawn')
  ours, theirs = context.Pipe()
  process = context.Process(target=function, args=(theirs, *args), daemon=True)
  process.start()
  try:
    assert process.pid is not None
    yield ours, psutil.Process(process.pid)
  finally:
    process.kill()
    process.join()


def _serve(pipe: Any, secrets: dict[str, pathlib.Path]) -> None:
  from distacme.run import run_state
  from distacme.variables import server

  descriptors.allow(_DESCRIPTORS)
  service = server.VariableServer(run_state.RunState(), **secrets)
  pipe.send(service.endpoint)
  pipe.poll(None)


def _relay(
  pipe: Any, secrets: dict[str, pathlib.Path], source: endpoints.Endpoint
) -> None:
  from distacme.variables import relay as relay_lib

  descriptors.allow(_DESCRIPTORS)
  relay = relay_lib.Relay('relay/0', source, **secrets)
  pipe.send(relay.endpoint)
  pipe.poll(None)


def _subscribe(
  pipe: Any, doors: Sequence[endpoints.Endpoint], number: int, index: int
) -> None:
  """Reads params as bytes; sends the time at which all had a version."""
  descriptors.allow(_DESCRIPTORS)
  had = [0]

  async def subscribe(door: endpoints.Endpoint) -> None:
    metadata = ()
    if door.token is not None:
      metadata = ((token_lib.METADATA, token_lib.read(door.token)),)
    stream = _channel(door).unary_stream(wire.SERVICE.method('Subscribe'))(
      b'{"version": -1}', metadata=metadata
    )
    while True:
      left = wire.decode_header(await stream.read()).size
      while left:
        left -= len(await stream.read())
      had[0] += 1
      if had[0] % number == 0:
        pipe.send(time.perf_counter())

  async def subscribe_all() -> None:
    await asyncio.gather(
      *(
        subscribe(doors[(index * number + each) % len(doors)])
        for each in range(number)
      )
    )

  asyncio.run(subscribe_all())


def _report(pipe: Any, door: endpoints.Endpoint, workers: range) -> None:
  """Reports as often as the server asks for, beside a call that waits for a stop."""
  descriptors.allow(_DESCRIPTORS)
  heard: set[int] = set()

  async def report(worker: int) -> None:
    channel = _channel(door)
    stop = channel.unary_unary(wire.SERVICE.method('WaitStop'))(b'{}')
    send = channel.unary_unary(wire.SERVICE.method('Report'))
    # As processes start: not all at once.
    await asyncio.sleep(5.0 * (worker - workers.start) / len(workers))
    for sequence in range(1_000_000):
      answer = messages.unpack(await send(report_of(worker, sequence)))
      if sequence == 1:
        heard.add(worker)
        if len(heard) == len(workers):
          pipe.send(None)
      await asyncio.sleep(max(0.5, answer['period_s']))
    stop.cancel()

  async def report_all() -> None:
    await asyncio.gather(*map(report, workers))

  asyncio.run(report_all())


def _channel(door: endpoints.Endpoint) -> grpc.aio.Channel:
  """Returns a connection of its own to a service."""
  options = [
    ('grpc.use_local_subchannel_pool', 1),
    ('grpc.enable_http_proxy', 0),
  ]
  if door.key is None:
    return grpc.aio.insecure_channel(door.address, options)
  return grpc.aio.secure_channel(
    door.address,
    keys.channel_credentials(door.key),
    [*options, ('grpc.ssl_target_name_override', keys.NAME)],
  )
