"""Compares IMPALA's loop with its environment, policy and update alone."""

from __future__ import annotations

from typing import Any

import jax
import numpy as np

from benchmarks import harness
from distacme import environment_loop
from distacme import environments
from distacme import row_layout
from distacme import specs
from distacme import types
from distacme.acting import policy as policy_lib
from distacme.agents import impala
from distacme.learning import frame_stacks
from distacme.run import seeding

_PONG = impala.Config(
  batch_size=8, queue_size=16, hidden_sizes=(256,), max_abs_reward=1.0
)


def main() -> None:
  """Measures and reports."""
  measure('catch', 'bsuite:catch/0', 32, impala.Config())
  measure('Pong, shallow', 'atari:Pong', 8, _PONG)


def measure(name: str, env: str, rows: int, config: impala.Config) -> None:
  """Measures one environment, stepped `rows` at a time."""
  spec = specs.make_environment_spec(environments.make(env, seed=0))
  agent = impala.make_agent(config, spec)
  loop = environment_loop.EnvironmentLoop(
    environments.make_vector(env, rows, seed=0), agent
  )
  vector = environments.make_vector(env, rows, seed=1)
  still = np.zeros(rows, np.int32)
  observation = vector.reset().observation
  goes_on = np.zeros(rows, np.bool_)
  streams = types.Streams(np.arange(rows), rows)
  policy = policy_lib.CompiledPolicy(
    agent, loop.params, rows, seeding.actor_key(1), streams
  )

  def step_alone() -> int:
    vector.step(still)
    return rows

  def act_alone() -> int:
    policy.act(observation, goes_on)
    return rows

  rates = harness.rates(
    {
      'ours': harness.repeated(loop.step, config.unroll_length),
      'environment': harness.repeated(step_alone),
      'policy': harness.repeated(act_alone),
      'update': harness.repeated(update_alone(agent, spec), 1),
    },
    seconds=2.0,
    rounds=5,
  )
  parts = ('environment', 'policy', 'update')
  limit = [
    1 / sum(1 / rates[part][number] for part in parts)
    for number in range(len(rates['ours']))
  ]
  harness.compare(
    f'IMPALA, {name}, {rows} environments, one process',
    rates['ours'],
    limit,
    unit='env steps/s',
    limit_name='environment, policy and update one after the other',
  )
  for part in parts:
    harness.number(f'{part} of that, alone', rates[part], unit='env steps/s')


def update_alone(agent: impala.IMPALA, spec: specs.EnvironmentSpec) -> Any:
  """Returns a function that makes an update and returns its number of steps."""
  state = agent.initial_learner_state(seeding.learner_key(0))
  layout = row_layout.row_layout(agent, spec, agent.actor_params(state))
  size = agent.replay.batch_size
  batch = types.Batch(layout.example(size), np.ones(size, np.float32))
  update = jax.jit(
    frame_stacks.learning_from(layout, agent).update, donate_argnums=0
  )

  def step() -> int:
    nonlocal state
    state, output = update(state, batch)
    jax.block_until_ready(output)
    return size * agent.replay.window.period

  return step


if __name__ == '__main__':
  main()
