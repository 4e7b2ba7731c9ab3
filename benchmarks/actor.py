"""Compares the actor's step with the leanest loop of the same work."""

from __future__ import annotations

from collections.abc import Callable, Iterator
import contextlib
import dataclasses
import time
from typing import Any, NamedTuple

import dm_env
import gymnasium
import jax
import jax.numpy as jnp
import numpy as np

from benchmarks import harness
from benchmarks import servers
from distacme import core
from distacme import environments
from distacme import row_layout
from distacme import specs
from distacme import types
from distacme.acting import actor
from distacme.acting import params as params_lib
from distacme.acting import policy as policy_lib
from distacme.agents import dqn
from distacme.programs.workers import devices
from distacme.replay.items import rows as rows_lib
from distacme.replay.reverb import extension
from distacme.replay.writers import factory
from distacme.run import run_state
from distacme.run import seeding

_CARTPOLE = 'gymnasium:CartPole-v1'
_PONG = 'atari:Pong'
# Nothing is sampled here; the actor must not wait for samples.
_FREE = 1e12


def main() -> None:
  """Measures and reports."""
  devices.use_one_core()
  one_environment()
  many_environments()
  atari()
  own_python()


def one_environment() -> None:
  """Measures one CartPole, writing to replay with and without priorities."""
  prioritized = dqn.Config(error_buffer=_FREE)
  uniform = dataclasses.replace(prioritized, priority_exponent=0.0)
  with (
    acting(_CARTPOLE, 1, prioritized) as ours,
    acting(_CARTPOLE, 1, uniform) as ours_uniform,
    lean_loop() as lean,
  ):
    rates = harness.rates(
      {
        'prioritized': harness.repeated(ours.actor.step),
        'uniform': harness.repeated(ours_uniform.actor.step),
        'lean': harness.repeated(lean),
      }
    )
  for kind in ('prioritized', 'uniform'):
    harness.compare(
      f'actor, CartPole, 1 environment, {kind} replay',
      rates[kind],
      rates['lean'],
      unit='env steps/s',
      limit_name='lean loop, one structured writer',
      at_least=0.8,
    )


def many_environments() -> None:
  """Measures 32 CartPoles in one process, writing blocks of transitions."""
  config = dqn.Config(
    error_buffer=_FREE, priority_exponent=0.0, block_size=32, batch_size=256
  )
  with acting(_CARTPOLE, 32, config) as ours:
    rates = harness.rates({'ours': harness.repeated(ours.actor.step, 4)})
  harness.number(
    'actor, CartPole, 32 environments, blocks of 32',
    rates['ours'],
    unit='env steps/s',
    at_least=40_000,
  )


def atari() -> None:
  """Compares Pong with the Nature CNN with environment and policy alone."""
  for rows in (1, 8):
    alone = environments.make_vector(_PONG, rows, seed=1)
    action = np.zeros(rows, np.int32)
    observation = alone.reset().observation
    goes_on = np.zeros(rows, np.bool_)
    with acting(_PONG, rows, dqn.Config(error_buffer=_FREE)) as ours:
      policy = ours.policy

      def step_alone(alone: Any = alone, action: Any = action) -> int:
        alone.step(action)
        return len(action)

      def act_alone(
        policy: Any = policy,
        observation: Any = observation,
        goes_on: Any = goes_on,
      ) -> int:
        policy.act(observation, goes_on)
        return len(goes_on)

      rates = harness.rates(
        {
          'ours': harness.repeated(ours.actor.step, 4),
          'environment': harness.repeated(step_alone, 4),
          'policy': harness.repeated(act_alone, 4),
        },
        seconds=1.0,
      )
    harness.compare(
      f'actor, Pong with the Nature CNN, {_environments(rows)}',
      rates['ours'],
      [
        1 / (1 / environment + 1 / policy)
        for environment, policy in zip(
          rates['environment'], rates['policy'], strict=True
        )
      ],
      unit='env steps/s',
      limit_name='environment alone and policy alone',
      at_least=0.85,
    )


def _environments(rows: int) -> str:
  return f'{rows} environment' + ('s' if rows > 1 else '')


def own_python() -> None:
  """Measures the actor's loop around parts that do nothing."""
  vector = environments.make_vector(_CARTPOLE, 1, seed=0)
  vector.reset()
  action = np.zeros(1, np.int32)
  still = _Still(vector.step(action), types.ActorOutput(action))
  loop = actor.Actor(
    still, still, still, run_state.RunState().reporter('actor/0')
  )
  rates = harness.rates(
    {'ours': harness.repeated(loop.step, 256)}, clock=time.process_time
  )
  harness.number(
    "framework's own Python per actor step",
    [1e6 / rate for rate in rates['ours']],
    unit='us',
    at_most=10.0,
  )


class Acting(NamedTuple):
  """Holds an actor, its policy and agent, the params, and the replay beside."""

  actor: actor.Actor
  policy: policy_lib.Policy
  agent: core.Agent
  params: types.Params
  server: servers.Server
  layout: rows_lib.RowLayout


@contextlib.contextmanager
def acting(
  env: str,
  rows: int,
  config: Any,
  make_agent: Callable[..., core.Agent] = dqn.make_agent,
  *,
  by_grpc: bool = False,
) -> Iterator[Acting]:
  """Yields an actor as in a program, with a replay server beside it.

  Args:
    env: the name of its environments.
    rows: the number of its environments.
    config: of the agent.
    make_agent: of the agent's module.
    by_grpc: whether it inserts over gRPC, instead of through Reverb.
  """
  vector = environments.make_vector(env, rows, seed=0)
  spec = specs.make_environment_spec(vector)
  agent = make_agent(config, spec)
  state = agent.initial_learner_state(seeding.learner_key(0))
  params = agent.actor_params(state)
  source = params_lib.LocalParams()
  source.publish(0, params)
  layout = row_layout.row_layout(agent, spec, params)
  streams = types.Streams(np.arange(rows), rows)
  with servers.replay(agent.replay) as server:
    address = server.endpoint if by_grpc else server.address
    inserter = servers.make_inserter(address, agent.replay, layout)
    policy = policy_lib.CompiledPolicy(
      agent, source, rows, seeding.actor_key(0), streams
    )
    worker = actor.Actor(
      environments.check_first_episode(vector),
      policy,
      lambda: factory.make_writer(agent, layout, rows, inserter),
      run_state.RunState().reporter('actor/0'),
    )
    yield Acting(worker, policy, agent, params, server, layout)
    inserter.close()


@contextlib.contextmanager
def lean_loop() -> Iterator[Any]:
  """Yields a function that makes one step of a loop without a framework.

  The loop holds an environment, a compiled policy whose noise is drawn in
  blocks, and Reverb's structured writer: items of five steps, in four columns.
  """
  environment = gymnasium.make('CartPole-v1').unwrapped
  noise = np.random.default_rng(0).random((512, 2, 1), np.float32)
  params = jax.device_put(_mlp_params((4, 256, 256, 2)))
  epsilon = np.float32(0.1)

  @jax.jit
  def act(params: Any, observation: Any, noise: Any) -> jax.Array:
    q = _mlp(params, observation)
    random = (noise[1] * 2).astype(jnp.int32)
    return jnp.where(noise[0] < epsilon, random, jnp.argmax(q, -1))

  observation, _ = environment.reset(seed=0)
  batch = np.zeros((1, 4), np.float32)
  steps = length = 0
  with servers.raw_replay(window=5) as server:
    client = extension.load().Client(server.address)
    writer = client.NewStructuredWriter([server.config])

    def step() -> int:
      nonlocal observation, steps, length
      batch[0] = observation
      action = int(np.asarray(act(params, batch, noise[steps % 512]))[0])
      after, reward, terminated, _, _ = environment.step(action)
      writer.Append(
        [
          observation,
          np.int32(action),
          np.float32(reward),
          np.float32(1 - terminated),
        ]
      )
      if steps % 16 == 0:
        writer.Flush(40, None)
      observation = after
      steps += 1
      length += 1
      if terminated or length >= 500:
        writer.EndEpisode(True, None)
        observation, _ = environment.reset()
        length = 0
      return 1

    yield step
    # An open episode would make the writer wait for ever for a stopped server.
    writer.EndEpisode(True, None)


def _mlp_params(sizes: tuple[int, ...]) -> list[Any]:
  random = np.random.default_rng(0)
  return [
    (
      0.05 * random.standard_normal((m, n)).astype(np.float32),
      np.zeros(n, np.float32),
    )
    for m, n in zip(sizes, sizes[1:], strict=False)
  ]


def _mlp(params: list[Any], features: jax.Array) -> jax.Array:
  *hidden, (last_w, last_b) = params
  for w, b in hidden:
    features = jax.nn.relu(features @ w + b)
  return features @ last_w + last_b


class _Still:
  """Stands for an environment, a policy and a writer that cost nothing."""

  num_envs = 1
  version = 0
  blocked_s = 0.0

  def __init__(self, timestep: dm_env.TimeStep, output: types.ActorOutput):
    self._timestep = timestep
    self._output = output

  def reset(self) -> dm_env.TimeStep:
    return self._timestep

  def step(self, action: Any) -> dm_env.TimeStep:
    return self._timestep

  def act(self, observation: Any, first: Any) -> types.ActorOutput:
    return self._output

  def append(self, *step: Any) -> None:
    pass


if __name__ == '__main__':
  main()
