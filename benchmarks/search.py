"""Compares our searches with mctx alone, and programs of 1, 2 and 4 actors."""

from __future__ import annotations

import itertools
import pathlib
import tempfile
import time
from typing import Any

import jax
import numpy as np

from benchmarks import harness
from benchmarks import program
from distacme import core
from distacme import environment_loop
from distacme import environments
from distacme import specs
from distacme import types
from distacme import wiring
from distacme.acting import params as params_lib
from distacme.agents import mcts
from distacme.environments import opponents
from distacme.run import run_directory
from distacme.run import seeding

_ROWS = 32
_SECONDS = 20.0
_POSITIONS = 60


def main() -> None:
  """Measures and reports."""
  for env in ('pgx:connect_four', 'pgx:tic_tac_toe'):
    measure(env)
  measure_actors()


def measure(env: str) -> None:
  """Measures simulations per second: of mctx, our policy, and our actor."""
  import mctx

  vector = environments.make_vector(env, _ROWS, seed=0)
  assert isinstance(vector, core.ModelEnvironment)
  model = vector.model
  config = mcts.Config(discount=1.0, n_step=512, min_replay_size=50_000)
  agent = mcts.make_agent(config, specs.make_environment_spec(vector))
  state = agent.initial_learner_state(seeding.learner_key(0))
  params = agent.actor_params(state)
  positions = itertools.cycle(_positions(vector))
  goes_on = np.zeros(_ROWS, np.bool_)
  simulations = _ROWS * config.num_simulations
  key = seeding.actor_key(0)

  def recurrent(_: Any, key: Any, action: Any, embedding: Any) -> Any:
    keys = jax.random.split(key, _ROWS)
    stepped = jax.vmap(model.step)(embedding, action, keys)
    seen = jax.vmap(model.observe)(stepped.state)
    evaluation = agent.evaluate(params, key, seen)
    output = mctx.RecurrentFnOutput(
      reward=stepped.reward,
      discount=stepped.discount,
      prior_logits=evaluation.logits,
      value=evaluation.value,
    )
    return output, stepped.state

  @jax.jit
  def bare(key: Any, observation: Any, embedding: Any) -> Any:
    evaluation = agent.evaluate(params, key, observation)
    root = mctx.RootFnOutput(
      prior_logits=evaluation.logits,
      value=evaluation.value,
      embedding=embedding,
    )
    illegal = ~observation[specs.LEGAL_ACTIONS]
    return mctx.muzero_policy(
      params=(),
      rng_key=key,
      root=root,
      recurrent_fn=recurrent,
      num_simulations=config.num_simulations,
      invalid_actions=illegal,
    ).action_weights

  newest = params_lib.LocalParams(core.VersionedParams(0, params))
  streams = types.Streams(np.arange(_ROWS), _ROWS)
  policy = wiring.make_policy(agent, newest, vector, key, streams)
  loop = environment_loop.EnvironmentLoop(
    environments.make_vector(env, _ROWS, seed=1), agent
  )

  def search_alone() -> int:
    jax.block_until_ready(bare(key, *next(positions)))
    return simulations

  def act() -> int:
    observation, vector.state = next(positions)
    policy.act(observation, goes_on)
    return simulations

  def act_and_store() -> int:
    loop.actor.step()
    return simulations

  rates = harness.rates(
    {
      'mctx': harness.repeated(search_alone),
      'policy': harness.repeated(act),
      'actor': harness.repeated(act_and_store),
    }
  )
  for name, goal in (('policy', None), ('actor', 0.8)):
    harness.compare(
      f'MCTS, {env}, {_ROWS} games, {name}',
      rates[name],
      rates['mctx'],
      unit='simulations/s',
      limit_name='mctx alone',
      at_least=goal,
    )


def _positions(vector: Any) -> list[tuple[types.NestedArray, Any]]:
  """Returns observations and states of random games, as an actor would meet them.

  Trees are deeper towards a game's end, so that first positions would flatter.
  """
  random = opponents.RandomOpponent(vector.action_spec(), seeding.actor_key(2))
  observation, positions = vector.reset().observation, []
  for _ in range(_POSITIONS):
    positions.append((observation, vector.state))
    action = random.act(observation, np.zeros(_ROWS, np.bool_)).action
    observation = vector.step(action).observation
  return positions


def measure_actors() -> None:
  """Measures searches per second of programs of several actors."""
  rates = {count: [searches(count)] for count in (1, 2, 4)}
  for count in (2, 4):
    harness.compare(
      f'MCTS, connect four, {count} actors of 32 games',
      rates[count],
      rates[1],
      unit='searches/s',
      limit_name='1 actor',
    )


def searches(num_actors: int) -> float:
  """Returns the searches per second of a program that learns."""
  with tempfile.TemporaryDirectory() as folder:
    directory = run_directory.RunDirectory(pathlib.Path(folder) / 'run')
    flags = (
      *('--agent', 'mcts', '--env', 'pgx:connect_four'),
      *('--mode', 'processes', '--num-actors', f'{num_actors}'),
      # An evaluation would search on the same cores.
      *('--eval-period', '100000000'),
    )
    with program.program(directory, flags):
      program.wait_for_learner_steps(directory, 1)
      first, start = _steps(directory), time.perf_counter()
      time.sleep(_SECONDS)
      return (_steps(directory) - first) / (time.perf_counter() - start)


def _steps(directory: run_directory.RunDirectory) -> int:
  status = program.read_status(directory)
  assert status is not None  # it learns
  return status.counts['env_steps']


if __name__ == '__main__':
  main()
