"""Measures what one core does, and simulates runs of 10 to 10,000 actors by it.

Prints the rows of the tables of docs/scale.md, which are no measurements.
"""

from __future__ import annotations

import dataclasses
import math
import pathlib
import statistics
import tempfile
import time

import numpy as np
import psutil

from benchmarks import fan_out
from benchmarks import harness
from benchmarks import program as program_lib
from benchmarks import rates as rates_lib
from benchmarks import servers
from benchmarks import simulation
from distacme import environments
from distacme import replay_spec
from distacme import specs
from distacme.replay.items import rows as rows_lib
from distacme.run import run_directory

_ACTORS = (10, 100, 1_000, 10_000)
_ACTORS_OF_A_RELAY = 100
_BUSY = 0.8  # of a replay server, at most, where there are as many as it takes
_MOST_REPLAYS = 16
_SECONDS = 4.0

# Updates a second and their batches: what one learner does. The first and the last are
# rows of docs/benchmarks.md, on one core of this machine; the other is Ape-X's learner
# on a GPU (Horgan et al. 2018: 19 batches of 512 transitions a second).
_LEARNERS = {
  'CartPole': (539.0, 256),
  'CartPole, 32 a worker': (539.0, 256),
  'Pong': (19.0, 512),
  'HalfCheetah': (120.0, 256),
}


def main() -> None:
  """Measures and reports."""
  rates = rates_lib.measure()
  _report(rates)
  _check_replay(rates)
  _check_params(rates)
  _check_program(rates)
  for name in rates.experience:
    print(
      f'| {name} | replay | relays | env steps/s | limited by | updates/s | '
      'samples per insert | params | a report | variable server |'
    )
    for num_actors in _ACTORS:
      for wide in (False, True):
        _show(rates, name, num_actors, wide)


def _report(rates: simulation.Rates) -> None:
  """Reports the rates that were measured."""
  for name, of in rates.experience.items():
    for what, seconds in (
      ('an actor, CPU for an environment step', of.step_s),
      ('replay, CPU for a transition inserted over gRPC', of.insert_s),
      ('replay, CPU for a transition sampled over gRPC', of.sample_s),
      ("learner's process, CPU for a transition sampled so", of.read_s),
    ):
      harness.number(f'scale, {name}: {what}', [1e6 * seconds], unit='µs')
  for what, seconds in (
    ('CPU to send a version by TLS, without its bytes', rates.send_s),
    ('CPU for each MB of it', 1e6 * rates.send_byte_s),
    ('CPU of an actor to receive a version', rates.receive_s),
    ('CPU for each MB of that', 1e6 * rates.receive_byte_s),
    ('CPU for a report', rates.report_s),
  ):
    harness.number(f'scale: {what}', [1e6 * seconds], unit='µs')


def _check_replay(rates: simulation.Rates) -> None:
  """Compares replay's share of a core with the predicted share."""
  of = rates.experience['CartPole']
  spec = replay_spec.single(
    window=replay_spec.NStep(1, 0.99),
    batch_size=256,
    max_size=20_000,
    min_size=1_000,
    samples_per_insert=None,
    priority_exponent=0.6,
  )
  layout = rows_lib.make_layout(
    spec.window,
    specs.make_environment_spec(environments.make('gymnasium:CartPole-v1', 0)),
  )
  for number in (2, 4, 8, 16):
    with servers.replay(spec) as server:
      inserters = [
        servers.make_inserter(server.endpoint, spec, layout)
        for _ in range(number)
      ]
      rows, one = np.zeros((2_000, 1), layout.dtype), np.ones(2_000)
      inserters[0].insert(rows, one)
      sampler = servers.make_sampler(server, spec, layout, by_grpc=True)
      start, cpu_s = time.perf_counter(), server.cpu_s()
      inserted = sampled = 0
      while (now := time.perf_counter()) < start + _SECONDS:
        # The fake actors insert as fast as they can; the learner draws 20 batches.
        for inserter in inserters:
          inserter.insert(rows[:32], one[:32])
          inserted += 32
        while sampled < (now - start) * 20 * 256:
          _, info = sampler.sample()
          sampler.update_priorities(info, np.full(256, 0.5))
          sampled += 256
      spent = server.cpu_s() - cpu_s
      for inserter in inserters:
        inserter.close()
      sampler.close()
    _compare(
      f'scale, check: CPU of replay, {number} fake actors',
      spent,
      inserted * of.insert_s + sampled * of.sample_s,
    )


def _check_params(rates: simulation.Rates) -> None:
  """Compares the CPU of a version with the prediction, beyond what was measured."""
  for number, size in ((30, 7_000_000), (300, 1_000_000), (1_000, 100_000)):
    spent = fan_out.send_costs(number, size, encrypted=True)
    _compare(
      f'scale, check: CPU for {size / 1e6:g} MB to {number:,} subscribers',
      number * statistics.median(spent),
      number * (rates.send_s + size * rates.send_byte_s),
    )


def _check_program(rates: simulation.Rates) -> None:
  """Compares the CPU of a program's actors and variable server with the prediction."""
  for number in (2, 4):
    flags = (
      *('--agent', 'dqn', '--env', 'gymnasium:CartPole-v1', '--tls'),
      *('--num-actors', f'{number}', '--envs-per-actor', '1'),
      # The learner does not hold them up.
      *('--samples-per-insert', '1', '--error-buffer', '1e12'),
      *('--max-env-steps', '100000000', '--eval-period', '100000000'),
    )
    with tempfile.TemporaryDirectory() as folder:
      directory = run_directory.RunDirectory(pathlib.Path(folder) / 'run')
      with program_lib.program(directory, flags) as launcher:
        program_lib.wait_for_learner_steps(directory, 200)
        acting = program_lib.actors(launcher)
        before = program_lib.read_status(directory)
        cpu_s = sum(map(_cpu_s, acting))
        time.sleep(2 * _SECONDS)
        after = program_lib.read_status(directory)
        spent = sum(map(_cpu_s, acting)) - cpu_s
    assert before is not None and after is not None
    of = rates.experience['CartPole']
    steps = after.counts['env_steps'] - before.counts['env_steps']
    # The learner publishes ten times a second, where it makes so many steps.
    learnt = after.counts['learner_steps'] - before.counts['learner_steps']
    versions = min(learnt / 10, 10.0 * (after.seconds - before.seconds))
    received_s = rates.receive_s + of.params_bytes * rates.receive_byte_s
    _compare(
      f'scale, check: CPU of {number} actors of a program, CartPole',
      spent,
      steps * of.step_s + versions * number * received_s,
    )


def _cpu_s(process: psutil.Process) -> float:
  times = process.cpu_times()
  return float(times.user + times.system)


def _compare(name: str, measured: float, predicted: float) -> None:
  harness.compare(
    name, [predicted], [measured], unit='s, predicted', limit_name='measured'
  )


def _show(
  rates: simulation.Rates, name: str, num_actors: int, wide: bool
) -> None:
  """Simulates a run and prints the outcome.

  Args:
    rates: of one core.
    name: of the environments.
    num_actors: of the run.
    wide: whether there are relays, and as many replay servers as it takes.
  """
  of = rates.experience[name]
  updates_per_s, batch = _LEARNERS[name]
  run = simulation.Run(rates, of, updates_per_s, batch, num_actors=num_actors)
  if wide:
    run = dataclasses.replace(
      run,
      num_replays=_replays(run),
      num_relays=math.ceil(num_actors / _ACTORS_OF_A_RELAY)
      if num_actors > 200
      else 0,
    )
    if (run.num_replays, run.num_relays) == (1, 0):
      return
  did = simulation.simulate(run)
  print(
    f'| {num_actors:,} | {run.num_replays} | {run.num_relays} | '
    f'{did.env_steps_per_s:,.0f} | {did.limit} | {did.updates_per_s:,.0f} | '
    f'{did.samples_per_insert:.2g} | {did.params_s:.2g} s | '
    f'{did.report_s:.2g} s | {did.busy["variable server"]:.0%} |',
    flush=True,
  )


def _replays(run: simulation.Run) -> int:
  """Returns the number of replay servers that take what all actors make."""
  of = run.experience
  steps_per_s = run.num_actors / of.step_s
  work = steps_per_s * max(of.insert_s, of.row_bytes / run.network)
  work += run.updates_per_s * run.batch * of.sample_s
  return min(_MOST_REPLAYS, max(1, math.ceil(work / _BUSY)))


if __name__ == '__main__':
  main()
