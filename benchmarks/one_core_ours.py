"""Runs an agent in one process, for `one_core.py`.

    python -m benchmarks.one_core_ours CASE SEED SECONDS

Prints one line of JSON: what was done, in updates or environment steps, and seconds.
"""

from __future__ import annotations

from collections.abc import Callable
import json
import sys
import time

from benchmarks import continuous_rivals
import distacme
from distacme import core
from distacme import environments
from distacme import specs
from distacme.agents import dqn
from distacme.agents import ppo
from distacme.agents import sac
from distacme.agents import td3

_UPDATES_BEFORE = 200
_UNCLIPPED = 1e9
_CHEETAH, _PONG = 'gymnasium:HalfCheetah-v5', 'atari:Pong'


def main(case: str, seed: int, seconds: float) -> None:
  """Runs a case, and prints its speed."""
  env, rows, make = _CASES[case]
  vector = environments.make_vector(env, rows, seed=seed)
  agent = make(specs.make_environment_spec(vector))
  loop = distacme.EnvironmentLoop(vector, agent, seed=seed, publish_period=10)
  if agent.replay.used_once:
    done, run_s = in_updates(loop, seconds)
  else:
    done, run_s = after_updates(loop, seconds, case)
  print(json.dumps({'done': done, 'run_s': run_s}))


def in_updates(
  loop: distacme.EnvironmentLoop, seconds: float
) -> tuple[int, float]:
  """Runs whole updates from the start; returns environment steps and seconds."""
  start, steps, updates = time.perf_counter(), 0, 0
  while True:
    steps += loop.step()
    if loop.learner.steps > updates:
      updates = loop.learner.steps
      loop.learner.check()
      if time.perf_counter() - start >= seconds:
        return steps, time.perf_counter() - start


def after_updates(
  loop: distacme.EnvironmentLoop, seconds: float, case: str
) -> tuple[int, float]:
  """Runs after the first updates; returns updates or environment steps, and seconds."""
  while loop.learner.steps < _UPDATES_BEFORE:
    loop.step()
  start, steps, updates = time.perf_counter(), 0, loop.learner.steps
  while time.perf_counter() - start < seconds:
    steps += loop.step()
  loop.learner.check()
  run_s = time.perf_counter() - start
  updates = loop.learner.steps - updates
  return (steps if case.endswith('pong') else updates), run_s


def _sac(spec: specs.EnvironmentSpec) -> core.Agent:
  config = sac.Config(learning_rate=3e-4, max_gradient_norm=_UNCLIPPED)
  return sac.make_agent(config, spec, continuous_rivals.plain_networks)


def _td3(spec: specs.EnvironmentSpec) -> core.Agent:
  config = td3.Config(
    policy_learning_rate=3e-4,
    critic_learning_rate=3e-4,
    max_gradient_norm=_UNCLIPPED,
  )
  return td3.make_agent(config, spec, continuous_rivals.plain_networks)


def _ppo(spec: specs.EnvironmentSpec) -> core.Agent:
  config = ppo.Config(
    hidden_sizes=(512,),
    learning_rate=2.5e-4,
    clip_ratio=0.1,
    entropy_weight=0.01,
    max_abs_reward=1.0,
  )
  return ppo.make_agent(config, spec)


def _dqn(spec: specs.EnvironmentSpec) -> core.Agent:
  config = dqn.Config(
    hidden_sizes=(512,),
    n_step=1,
    learning_rate=1e-4,
    batch_size=32,
    samples_per_insert=8.0,
    max_replay_size=20_000,
    target_update_period=1_000,
    max_abs_reward=1.0,
    priority_exponent=0.0,
  )
  return dqn.make_agent(config, spec)


_Make = Callable[[specs.EnvironmentSpec], core.Agent]
_CASES: dict[str, tuple[str, int, _Make]] = {
  'sac': (_CHEETAH, 1, _sac),
  'td3': (_CHEETAH, 1, _td3),
  'ppo_pong': (_PONG, 8, _ppo),
  'dqn_pong': (_PONG, 1, _dqn),
}


if __name__ == '__main__':
  main(sys.argv[1], int(sys.argv[2]), float(sys.argv[3]))
