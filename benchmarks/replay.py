"""Compares inserting and sampling with Reverb's own calls."""

from __future__ import annotations

from collections.abc import Callable
import time
from typing import Any

import numpy as np

from benchmarks import harness
from benchmarks import servers
from distacme import environments
from distacme import replay_spec
from distacme import specs
from distacme.replay import pack_inserter
from distacme.replay import sampler as sampler_lib
from distacme.replay.items import rows as rows_lib
from distacme.replay.reverb import extension

_BATCH = 256
_TABLE = 'experience'
_WINDOW = 5
_SPEC = replay_spec.single(
  window=replay_spec.NStep(_WINDOW, 0.99),
  batch_size=_BATCH,
  max_size=20_000,
  min_size=1_000,
  samples_per_insert=None,  # neither side is held up for the other
  priority_exponent=0.6,
)
_LAYOUT = rows_lib.make_layout(
  replay_spec.NStep(1, 0.9),
  specs.make_environment_spec(environments.make('gymnasium:CartPole-v1', 0)),
)


def main() -> None:
  """Measures and reports."""
  with servers.replay(_SPEC) as server, servers.raw_items(_TABLE) as raw:
    writer(server, raw.address)
    sampler(server, raw)
    layout(server)


def writer(server: servers.Server, raw_address: str) -> None:
  """Compares inserting transitions with Reverb's trajectory writer.

  An actor of one environment inserts a row at a time, one of 32 all of a step.
  """
  ways = {'through Reverb': server.address, 'over gRPC': server.endpoint}
  inserters = {
    (way, rows): servers.make_inserter(address, _SPEC, _LAYOUT)
    for way, address in ways.items()
    for rows in (1, 32)
  }

  def inserting(
    inserter: pack_inserter.PackInserter, count: int
  ) -> harness.Work:
    rows, priorities = _rows(count), np.ones(count)

    def insert() -> int:
      inserter.insert(rows, priorities)
      return count

    return harness.repeated(insert)

  pybind = extension.load()
  raw_writer = pybind.Client(raw_address).NewTrajectoryWriter(
    pybind.ConstantChunkerOptions(1, 1), False
  )
  row = np.zeros(_LAYOUT.itemsize, np.uint8)

  def raw() -> int:
    for _ in range(8):
      column = raw_writer.Append([row])
      raw_writer.CreateItem(_TABLE, 1.0, [column], [True])
    raw_writer.Flush(40, 60_000)
    return 8

  rates = harness.rates(
    {
      f'{way}, {rows}': inserting(i, rows)
      for (way, rows), i in inserters.items()
    }
    | {'raw': harness.repeated(raw, 2)}
  )
  for way, rows in inserters:
    harness.compare(
      f'replay, inserting {way}, {rows} transition{"s" * (rows > 1)} at a time',
      rates[f'{way}, {rows}'],
      rates['raw'],
      unit='transitions/s',
      limit_name="Reverb's trajectory writer, an item each",
      at_least=0.9,
    )
  for inserter in inserters.values():
    inserter.close()
  raw_writer.Close()


def sampler(server: servers.Server, raw_server: servers.Server) -> None:
  """Compares sampling with Reverb's sampler of single items."""
  _fill(server.address)
  samplers = {
    'through shared memory': servers.make_sampler(server, _SPEC, _LAYOUT),
    'over gRPC': servers.make_sampler(server, _SPEC, _LAYOUT, by_grpc=True),
  }
  client = extension.load().Client(raw_server.address)
  raw_sampler = client.NewSampler(_TABLE, -1, _BATCH)

  def raw() -> int:
    items = [raw_sampler.GetNextTrajectory() for _ in range(_BATCH)]
    np.stack([item[-1] for item in items])
    return _BATCH

  works = {
    way: harness.repeated(_sampling(ours), 1) for way, ours in samplers.items()
  } | {'raw': harness.repeated(raw, 1)}
  rates = harness.rates(works)
  costs = harness.rates(works, clock=time.process_time)
  for way, ours in samplers.items():
    name = (
      f'replay, sampling {way}, batches of {_BATCH} prioritised transitions'
    )
    harness.compare(
      name,
      rates[way],
      rates['raw'],
      unit='transitions/s',
      limit_name="Reverb's sampler of single items",
      at_least=4.0,
    )
    harness.number(
      f'{name}: CPU of the learner an item',
      [1e6 / rate for rate in costs[way]],
      unit='µs',
      # The goal of a learner on replay's host.
      at_most=1.0 if way == 'through shared memory' else None,
    )
    ours.close()


def layout(server: servers.Server) -> None:
  """Compares the CPU time of a sampled transition, sampler and server together."""
  ours = servers.make_sampler(server, _SPEC, _LAYOUT)
  with servers.raw_replay(_WINDOW) as raw_server:
    _fill_naively(raw_server.address)
    client = extension.load().Client(raw_server.address)
    naive = client.NewSampler('steps', -1, _BATCH)

    def sample_naively() -> int:
      items = [naive.GetNextTrajectory() for _ in range(_BATCH)]
      for columns in zip(*[item[-4:] for item in items], strict=True):
        np.stack(columns)
      return _BATCH

    ours_per_s, naive_per_s = [], []
    for _ in range(6):
      ours_per_s.append(_per_cpu_s(_sampling(ours), server))
      naive_per_s.append(_per_cpu_s(sample_naively, raw_server))
  harness.compare(
    'default n-step layout, sampled',
    ours_per_s[1:],
    naive_per_s[1:],
    unit='transitions per CPU-second',
    limit_name='4 columns of 5 steps, chunk 1',
    at_least=6.0,
  )


def _per_cpu_s(sample: Callable[[], int], server: servers.Server) -> float:
  """Returns transitions per CPU-second of this process and the server's."""
  start = time.process_time() + server.cpu_s()
  done = harness.repeated(sample, 1)(1.0)
  return done / (time.process_time() + server.cpu_s() - start)


def _sampling(sampler: sampler_lib.Sampler) -> Callable[[], int]:
  def sample() -> int:
    sampler.sample()
    return _BATCH

  return sample


def _rows(count: int) -> np.ndarray:
  rows = np.zeros((count, 1), _LAYOUT.dtype)
  noise = np.random.default_rng(0).standard_normal
  views = _LAYOUT.views(rows)
  for leaf in (views.observation, views.next_observation, views.reward):
    leaf[...] = noise(leaf.shape)
  return rows


def _fill(address: str) -> None:
  inserter = servers.make_inserter(address, _SPEC, _LAYOUT)
  inserter.insert(_rows(5_000), np.ones(5_000))
  inserter.close()


def _fill_naively(address: str) -> None:
  """Writes steps of four columns, each a chunk of its own."""
  pybind = extension.load()
  writer = pybind.Client(address).NewTrajectoryWriter(
    pybind.ConstantChunkerOptions(1, _WINDOW), False
  )
  observations = np.random.default_rng(0).standard_normal((5_000, 4))
  steps: list[Any] = []
  for observation in observations.astype(np.float32):
    step = [observation, np.int32(1), np.float32(1.0), np.float32(1.0)]
    steps = [*steps, writer.Append(step)][-_WINDOW:]
    if len(steps) == _WINDOW:
      columns = [list(column) for column in zip(*steps, strict=True)]
      writer.CreateItem('steps', 1.0, columns, [False] * 4)
    writer.Flush(40, 60_000)
  writer.Close()


if __name__ == '__main__':
  main()
