"""Measures in two minutes what one core of this machine does, for `scale`."""

from __future__ import annotations

from collections.abc import Callable
import pathlib
import statistics
import tempfile
import time
from typing import Any

import jax
import numpy as np

from benchmarks import actor as acting_lib
from benchmarks import crowd
from benchmarks import fan_out
from benchmarks import servers
from benchmarks import simulation
from distacme.agents import dqn
from distacme.agents import sac
from distacme.programs.workers import devices
from distacme.variables import client

_FREE = 1e12  # samples that either side may run ahead: nobody waits
_SECONDS = 1.5
_ROUNDS = 3
_BATCH = 256
_ROWS = 32


def measure() -> simulation.Rates:
  """Measures all."""
  small, large = (
    statistics.median(fan_out.send_costs(100, size, encrypted=True))
    for size in (10_000, 2_000_000)
  )
  report_s = fan_out.report_cost(200)
  devices.use_one_core()
  received_small, received_large = map(_receive_cost, (10_000, 2_000_000))
  received_byte_s = (received_large - received_small) / 1_990_000
  byte_s = (large - small) / 1_990_000
  return simulation.Rates(
    {
      'CartPole': _experience('gymnasium:CartPole-v1', 1, _dqn(0.6), dqn),
      'CartPole, 32 a worker': _experience(
        'gymnasium:CartPole-v1', 32, _dqn(0.6), dqn
      ),
      'Pong': _experience('atari:Pong', 8, _dqn(0.6), dqn),
      'HalfCheetah': _experience(
        'gymnasium:HalfCheetah-v5',
        1,
        sac.Config(
          error_buffer=_FREE, batch_size=_BATCH, max_replay_size=20_000
        ),
        sac,
      ),
    },
    small - 10_000 * byte_s,
    byte_s,
    received_small - 10_000 * received_byte_s,
    received_byte_s,
    report_s,
  )


def _receive_cost(size: int) -> float:
  """Returns the CPU-seconds of this process to receive a version."""
  with (
    tempfile.TemporaryDirectory() as folder,
    crowd.published(size, pathlib.Path(folder)) as endpoint,
  ):
    connection = client.VariableClient(endpoint, 'actor/0')
    connection.subscribe()
    first = connection.wait_newer(-1, 60.0)
    assert first is not None, 'nothing was published'
    version = first.version
    for _ in range(2):  # the first compiles
      start, until = time.process_time(), time.perf_counter() + _SECONDS
      versions = 0
      while time.perf_counter() < until:
        newest = connection.wait_newer(version, 1.0)
        if newest is not None:
          jax.block_until_ready(jax.device_put(newest.params))
          version, versions = newest.version, versions + 1
      spent = time.process_time() - start
    connection.close()
  return spent / versions


def _dqn(priority_exponent: float) -> dqn.Config:
  return dqn.Config(
    error_buffer=_FREE,
    batch_size=_BATCH,
    priority_exponent=priority_exponent,
    max_replay_size=20_000,
  )


def _experience(
  env: str, rows: int, config: Any, agent: Any
) -> simulation.Experience:
  """Measures an actor and the replay beside it, and then a sampler alone."""
  with acting_lib.acting(
    env, rows, config, agent.make_agent, by_grpc=True
  ) as ours:
    per_step = _costs(ours.actor.step, ours.server)
    insert_s = per_step[1]
    if ours.layout.frames is None:
      insert_s = _costs(_inserting(ours), ours.server)[1]
    _fill(ours, config.min_replay_size)
    sampler = servers.make_sampler(
      ours.server, ours.agent.replay, ours.layout, by_grpc=True
    )
    info = [sampler.sample()[1]]
    priority = np.full(_BATCH, 0.5)

    def sample() -> int:
      sampler.update_priorities(info[0], priority)
      info[0] = sampler.sample()[1]
      return _BATCH

    per_sample = _costs(sample, ours.server)
    sampler.close()
    frames = ours.layout.frames
    frame = 0 if frames is None else frames.dtype.itemsize
    shown = 0 if frames is None else frames.slots
    return simulation.Experience(
      step_s=per_step[0],
      insert_s=insert_s,
      sample_s=per_sample[1],
      read_s=per_sample[0],
      row_bytes=ours.layout.itemsize + frame,
      sample_bytes=ours.layout.itemsize + frame * shown,
      params_bytes=sum(leaf.nbytes for leaf in jax.tree.leaves(ours.params)),
    )


def _inserting(ours: acting_lib.Acting) -> Callable[[], int]:
  """Returns an insert of rows, which come faster than from an actor.

  What a transition costs falls with the load: replay does more each time it wakes.
  """
  inserter = servers.make_inserter(
    ours.server.endpoint, ours.agent.replay, ours.layout
  )
  block = ours.agent.replay.tables[0].block_size
  rows = np.zeros((_ROWS, block), ours.layout.dtype)
  priorities = np.ones(_ROWS)

  def insert() -> int:
    inserter.insert(rows, priorities)
    return _ROWS * block

  return insert


def _costs(
  step: Callable[[], int], server: servers.Server
) -> tuple[float, float]:
  """Returns the CPU-seconds of this process and of the server for one of a step."""
  _steps(step, 0.3)  # compiles
  here, there = [], []
  for _ in range(_ROUNDS):
    before = time.process_time(), server.cpu_s()
    done = _steps(step, _SECONDS)
    here.append((time.process_time() - before[0]) / done)
    there.append((server.cpu_s() - before[1]) / done)
  return statistics.median(here), statistics.median(there)


def _steps(step: Callable[[], int], seconds: float) -> int:
  """Calls `step` for so many seconds; returns the amount done."""
  until, done = time.perf_counter() + seconds, 0
  while time.perf_counter() < until:
    done += step()
  return done


def _fill(ours: acting_lib.Acting, transitions: int) -> None:
  """Acts until replay may be sampled."""
  done = 0
  while done < 2 * transitions:
    done += ours.actor.step()
