"""Compares several replay servers with one: inserts, batches, the learner's CPU."""

from __future__ import annotations

from collections.abc import Sequence
import contextlib
import functools
import time
from typing import Any

import numpy as np

from benchmarks import harness
from benchmarks import servers
from distacme import core
from distacme import replay_spec
from distacme import specs
from distacme.replay import form as form_lib
from distacme.replay import sharded_sampler
from distacme.replay.items import rows as rows_lib
from distacme.replay.service import exchange
from distacme.replay.service import wire
from distacme.replay.shared_memory import outlet
from distacme.rpc import line as line_lib

_COUNTS = (1, 2, 4)
_WRITERS = 2  # processes that insert, as actors
_AT_ONCE = 32  # rows
_BATCH = 256
_WINDOW = replay_spec.NStep(1, 0.9)
_SPEC = replay_spec.single(
  _WINDOW,
  batch_size=_BATCH,
  max_size=20_000,
  min_size=1_000,
  samples_per_insert=None,  # neither side is held up for the other
  priority_exponent=0.6,
)
# Elements of an observation: CartPole's, and such that a batch is 7 MB.
_SIZES = {'transitions of CartPole': 4, 'transitions of 28 KB': 3_500}


def main() -> None:
  """Measures and reports."""
  for name, size in _SIZES.items():
    measure(name, size)


def measure(name: str, size: int) -> None:
  """Compares 1, 2 and 4 servers of items of one size."""
  layout = _layout(size)
  with contextlib.ExitStack() as stack:
    of_count = {
      count: [
        stack.enter_context(
          servers.replay(replay_spec.of_shard(_SPEC, index, count))
        )
        for index in range(count)
      ]
      for count in _COUNTS
    }
    endpoints = [[s.endpoint for s in each] for each in of_count.values()]
    writers = [
      stack.enter_context(servers.run_process(_write, endpoints, size, number))[
        0
      ]
      for number in range(_WRITERS)
    ]
    rates = harness.rates(
      {
        str(count): functools.partial(_inserting, writers, position)
        for position, count in enumerate(_COUNTS)
      }
    )
    for count in _COUNTS[1:]:
      harness.compare(
        f'replay, {count} servers, {name} inserted by {_WRITERS} processes',
        rates[str(count)],
        rates['1'],
        unit='transitions/s',
        limit_name='1 server',
      )
    samplers = {
      count: _make_sampler(stack, each, layout)
      for count, each in of_count.items()
    }
    works = {
      str(count): harness.repeated(functools.partial(_sample, sampler), 1)
      for count, sampler in samplers.items()
    }
    rates = harness.rates(works)
    costs = harness.rates(works, clock=time.process_time)
    for count in _COUNTS[1:]:
      harness.compare(
        f'replay, {count} servers, batches of {_BATCH} {name}',
        rates[str(count)],
        rates['1'],
        unit='batches/s',
        limit_name='1 server',
      )
    for count in _COUNTS:
      harness.number(
        f'replay, {count} server{"s" * (count > 1)}, batches of {_BATCH} {name}: '
        'CPU of the learner',
        [1e6 / rate for rate in costs[str(count)]],
        unit='µs a batch',
      )
    for sampler in samplers.values():
      sampler.close()


def _layout(size: int) -> rows_lib.RowLayout:
  return rows_lib.make_layout(
    _WINDOW,
    specs.EnvironmentSpec(
      specs.Array((size,), np.float32),
      specs.DiscreteArray(2),
      specs.Array((), np.float32),
      specs.BoundedArray((), np.float32, 0.0, 1.0),
    ),
  )


def _sample(sampler: core.Sampler) -> int:
  sampler.sample()
  return 1


def _inserting(writers: Sequence[Any], position: int, seconds: float) -> float:
  """Lets all writers insert; returns the number of transitions."""
  for writer in writers:
    writer.send((position, seconds))
  return float(sum(writer.recv() for writer in writers))


def _write(
  pipe: Any, endpoints: Sequence[Sequence[Any]], size: int, number: int
) -> None:
  """Inserts into the servers of one count, as asked for over `pipe`."""
  layout = _layout(size)
  rows = np.zeros((_AT_ONCE, 1), layout.dtype)
  priorities = np.random.default_rng(number).uniform(0.1, 1.0, _AT_ONCE)
  inserters = [
    [
      servers.make_inserter(endpoint, _SPEC, layout)
      # Of as many servers as there are writers each has one of its own.
      for endpoint in (each[number::_WRITERS] or each)
    ]
    for each in endpoints
  ]
  pipe.send(None)
  while True:
    position, seconds = pipe.recv()
    until, done = time.perf_counter() + seconds, 0
    while time.perf_counter() < until:
      for inserter in inserters[position]:
        inserter.insert(rows, priorities)
        done += _AT_ONCE
    for inserter in inserters[position]:
      inserter.flush()
    pipe.send(done)


def _make_sampler(
  stack: contextlib.ExitStack,
  of_count: Sequence[servers.Server],
  layout: rows_lib.RowLayout,
) -> core.Sampler:
  """Returns a learner's sampler, the sharded one if there are several servers."""
  if len(of_count) == 1:
    return servers.make_sampler(of_count[0], _SPEC, layout)
  shards = []
  for index, server in enumerate(of_count):
    spec = replay_spec.of_shard(_SPEC, index, len(of_count))
    line = line_lib.Line(wire.SERVICE, server.endpoint)
    stack.callback(line.close)
    shards.append(
      sharded_sampler.Shard(
        f'replay/{index}',
        functools.partial(
          outlet.LocalOutlet, server.socket, form_lib.Form.of(spec, layout)
        ),
        functools.partial(exchange.exchange, line),
        functools.partial(wire.describe, line),
      )
    )
  return sharded_sampler.make(shards, _SPEC, layout)


if __name__ == '__main__':
  main()
