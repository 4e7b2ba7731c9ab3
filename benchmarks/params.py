"""Compares sending params to eight subscribers with a bare gRPC stream."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent import futures
import contextlib
import multiprocessing
import os
import sys
import threading
import time
from typing import Any

import grpc
import numpy as np

from benchmarks import harness
from benchmarks import servers
from distacme.run import endpoints

_SUBSCRIBERS = 8
_CHUNK = 1 << 20
_ROUNDS = 15
# The Nature CNN for 18 actions: 7 MB.
_SHAPES = {
  'conv_0': ((8, 8, 4, 32), (32,)),
  'conv_1': ((4, 4, 32, 64), (64,)),
  'conv_2': ((3, 3, 64, 64), (64,)),
  'hidden': ((3136, 512), (512,)),
  'values': ((512, 18), (18,)),
}


def main() -> None:
  """Measures and reports."""
  params = nature_params()
  with (
    servers.variables() as server,
    _subscribers(_receive_ours, server.endpoint) as our_pipes,
    _bare_push() as (push, address),
    _subscribers(_receive_bare, address) as bare_pipes,
  ):
    from distacme.variables import client

    connection = client.VariableClient(server.endpoint, 'learner/0')
    data = b''.join(
      leaf.tobytes() for module in params.values() for leaf in module.values()
    )
    ours, bare = [], []
    for version in range(_ROUNDS + 1):
      ours.append(
        _seconds(lambda v: connection.publish(v, params), version, our_pipes)
      )
      bare.append(_seconds(lambda _: push(data), version, bare_pipes))
    resident_mb = server.process.memory_info().rss / 1e6
    connection.close()
  harness.compare(
    f'7 MB of params from publish to use by {_SUBSCRIBERS} processes',
    [1e3 * seconds for seconds in ours[1:]],
    [1e3 * seconds for seconds in bare[1:]],
    unit='ms',
    limit_name='bare push of 1 MiB chunks',
    at_most=1.5,
  )
  harness.number(
    'variable server, resident after that',
    [resident_mb],
    unit='MB',
    at_most=100.0,
  )


def nature_params() -> dict[str, dict[str, np.ndarray]]:
  """Returns params of 7 MB, of random numbers, which do not compress."""
  random = np.random.default_rng(0)
  return {
    module: {
      name: random.standard_normal(shape, np.float32)
      for name, shape in zip('wb', shapes, strict=True)
    }
    for module, shapes in _SHAPES.items()
  }


def _seconds(
  publish: Callable[[int], Any], version: int, pipes: list[Any]
) -> float:
  """Returns the seconds until every subscriber had used the params."""
  start = time.perf_counter()
  publish(version)
  for pipe in pipes:
    while pipe.recv() < version:
      pass
  return time.perf_counter() - start


@contextlib.contextmanager
def _subscribers(
  function: Callable[..., None], where: endpoints.Endpoint | str
) -> Iterator[list[Any]]:
  """Runs subscribers; yields the pipes that bring the received versions."""
  context = multiprocessing.get_context('spawn')
  pairs = [context.Pipe(duplex=False) for _ in range(_SUBSCRIBERS)]
  processes = [
    context.Process(target=function, args=(where, theirs), daemon=True)
    for _, theirs in pairs
  ]
  for process in processes:
    process.start()
  try:
    for ours, _ in pairs:
      assert ours.recv() == -1  # ready
    yield [ours for ours, _ in pairs]
  finally:
    for process in processes:
      process.kill()
      process.join()


def _receive_ours(endpoint: endpoints.Endpoint, pipe: Any) -> None:
  import jax

  from distacme.variables import client

  jax.config.update('jax_platforms', 'cpu')
  connection = client.VariableClient(endpoint, 'actor/0')
  connection.subscribe()
  version = -1
  pipe.send(version)
  while True:
    if connection.wait_newer(version, 1.0) is None:
      continue
    newest = connection.newest()
    assert newest is not None
    jax.block_until_ready(jax.device_put(newest.params))  # as a policy does
    version = newest.version
    pipe.send(version)


@contextlib.contextmanager
def _bare_push() -> Iterator[tuple[Callable[[bytes], None], str]]:
  """Runs a server in this process; yields a push of bytes, and the address."""
  changed = threading.Condition()
  chunks: list[bytes] = []
  version = 0

  def subscribe(request: bytes, context: Any) -> Iterator[bytes]:
    del request, context
    sent = 0
    while True:
      with changed:
        while version <= sent:
          changed.wait()
        sent, current = version, chunks
      yield from current

  def push(data: bytes) -> None:
    nonlocal chunks, version
    cut = [data[i : i + _CHUNK] for i in range(0, len(data), _CHUNK)]
    with changed:
      chunks, version = cut, version + 1
      changed.notify_all()

  server = grpc.server(futures.ThreadPoolExecutor(_SUBSCRIBERS))
  handler = grpc.unary_stream_rpc_method_handler(subscribe)
  server.add_generic_rpc_handlers(
    [grpc.method_handlers_generic_handler('Bare', {'Subscribe': handler})]
  )
  port = server.add_insecure_port('127.0.0.1:0')
  server.start()
  try:
    yield push, f'127.0.0.1:{port}'
  finally:
    server.stop(None)


def _receive_bare(address: str, pipe: Any) -> None:
  size = sum(
    4 * int(np.prod(shape)) for shapes in _SHAPES.values() for shape in shapes
  )
  buffer = np.empty(size, np.uint8)
  with grpc.insecure_channel(address) as channel:
    stream = channel.unary_stream('/Bare/Subscribe')(b'')
    pipe.send(-1)
    version, start = 0, 0
    for chunk in stream:
      buffer[start : start + len(chunk)] = np.frombuffer(chunk, np.uint8)
      start += len(chunk)
      if start == size:
        pipe.send(version)
        version, start = version + 1, 0


if __name__ == '__main__':
  main()
  sys.stdout.flush()
  os._exit(
    0
  )  # threads of the bare server may wait for subscribers that are gone
