"""Policies that search: of environments that are models, and of simulators."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
import contextlib
import random
import time
from typing import Any

import jax
import numpy as np
import tree

from distacme import core
from distacme import types
from distacme.acting import policy as policy_lib


def make_policy(
  agent: core.PlanningAgent,
  source: core.ParamsSource,
  environment: core.VectorEnvironment,
  key: types.Key,
  streams: types.Streams | None,
) -> core.Policy:
  """Returns a policy that searches in the rows of `environment`.

  Args:
    agent: has the planner.
    source: of params; asked before every action.
    environment: a `core.ModelEnvironment`, or a vector whose `simulators` are one
      `core.Simulator` for each row.
    key: consumed; decides all that is random.
    streams: see `core.Agent.initial_actor_state`; None evaluates.

  Raises:
    ValueError: if the environment has neither a model nor simulators.
  """
  check_searchable(agent, environment)
  if isinstance(environment, core.ModelEnvironment):
    return ModelPolicy(agent, source, environment, key, streams)
  return SimulatorPolicy(agent, source, environment, key, streams)


def check_searchable(
  agent: core.PlanningAgent, environment: core.VectorEnvironment
) -> None:
  """Checks that an environment has a model, or rows that can be saved.

  Raises:
    ValueError: if the environment has neither.
  """
  if isinstance(environment, core.ModelEnvironment):
    return
  if not hasattr(environment, 'simulators'):  # which raises, too
    raise ValueError(
      f'{type(agent).__name__} searches the states of its environment, and '
      f'{type(environment).__name__} steps all rows at once, so that none can be '
      'saved. Make it with environments.make_vector(..., searchable=True), as '
      'programs do if the Config of the agent says searches_environment = True, or '
      'use agent muzero, which learns a model.'
    )


class ModelPolicy:
  """A `core.Policy` that searches an environment's model, in one compiled call."""

  def __init__(
    self,
    agent: core.PlanningAgent,
    source: core.ParamsSource,
    environment: core.ModelEnvironment,
    key: types.Key,
    streams: types.Streams | None,
  ):
    """See `make_policy`."""
    self._environment = environment
    self._policy = policy_lib.CompiledPolicy(
      _Planning(agent, environment.model),
      source,
      environment.num_envs,
      key,
      streams,
    )

  @property
  def version(self) -> int:
    """Version of the params that acted last."""
    return self._policy.version

  def act(
    self, observation: types.NestedArray, is_first: np.ndarray
  ) -> types.ActorOutput:
    """Returns the actions that a search chooses; see `core.Policy`."""
    start = time.perf_counter()
    output = self._policy.act((observation, self._environment.state), is_first)
    return _with_rate(output, start)

  def start_anew(self, environment: Any, key: types.Key) -> None:
    """See `core.Policy`."""
    self._environment = environment
    self._policy.start_anew(environment, key)


class _Planning:
  """An agent whose `act` takes the model's states with the observations."""

  def __init__(self, agent: core.PlanningAgent, model: core.Model):
    self.initial_actor_state = agent.initial_actor_state
    self._planner = agent.planner
    self._model = model

  def act(
    self,
    params: types.Params,
    key: types.Key,
    observation: types.NestedArray,
    state: types.ActorState,
  ) -> types.ActorOutput:
    """Chooses actions by a search."""
    observation, root = observation
    return self._planner.plan(
      params, key, observation, state, self._model, root
    )


class SimulatorPolicy:
  """A `core.Policy` that searches by stepping the environments it acts in.

  Each simulation steps every row once, from a saved state, and evaluates all rows by
  one call of the network. After a search the environments are as before.
  """

  def __init__(
    self,
    agent: core.PlanningAgent,
    source: core.ParamsSource,
    environment: Any,
    key: types.Key,
    streams: types.Streams | None,
  ):
    """See `make_policy`."""
    planner = agent.planner
    self._num_simulations = planner.num_simulations
    self._is_checked = False
    self._newest = policy_lib.NewestParams(source)
    self._initial_state = agent.initial_actor_state(
      environment.num_envs, streams
    )
    self._begin = jax.jit(planner.begin)
    self._advance = jax.jit(planner.advance, donate_argnums=2)
    self._finish = jax.jit(planner.finish)
    self.start_anew(environment, key)

  def start_anew(self, environment: Any, key: types.Key) -> None:
    """See `core.Policy`."""
    self._simulators: Sequence[core.Simulator] = environment.simulators
    self._keys = policy_lib.Keys(key)
    self._state = self._initial_state

  @property
  def version(self) -> int:
    """Version of the params that acted last."""
    return self._newest.version

  @contextlib.contextmanager
  def _check(self) -> Iterator[None]:
    """Checks in the first search that it moves no generator of the process.

    Raises:
      ValueError: if an environment draws from such a generator, which is not saved:
        the search would change what happens, and foresee chance.
    """
    if self._is_checked:
      yield
      return
    before = _global_generators()
    yield
    self._is_checked = True
    if _global_generators() != before:
      raise ValueError(
        'A search cannot step this environment: it draws from np.random or random, '
        'the generators of the whole process, which are not saved. Let it draw from '
        'one of its own, np.random.default_rng(seed), or use the agent muzero, which '
        'learns its model.'
      )

  def act(
    self, observation: types.NestedArray, is_first: np.ndarray
  ) -> types.ActorOutput:
    """Returns the actions that a search chooses; see `core.Policy`."""
    start = time.perf_counter()
    params = self._newest.params()
    state = jax.tree.map(
      lambda initial, now: np.where(_rows(is_first, initial), initial, now),
      self._initial_state,
      self._state,
    )
    search, leaf = self._begin(params, self._keys.next(), observation, state)
    trees = [
      _Row(simulator, row)
      for simulator, row in zip(
        self._simulators, _unbatched(observation), strict=True
      )
    ]
    with self._check(), contextlib.ExitStack() as stack:
      for row in trees:
        stack.callback(row.restore)  # also if an environment fails
      for _ in range(self._num_simulations):
        key = self._keys.next()
        nodes, actions = np.asarray(leaf.node), np.asarray(leaf.action)
        steps = [
          row.step(node, action, seed=_seed(key, i))
          for i, (row, node, action) in enumerate(
            zip(trees, nodes, actions, strict=True)
          )
        ]
        search, leaf = self._advance(params, key, search, _batched(steps))
    output = jax.device_get(self._finish(self._keys.next(), search, state))
    self._state = output.state
    return _with_rate(output._replace(state=()), start)


class _Row:
  """The saved states of one row's search, and what was seen there."""

  def __init__(self, simulator: core.Simulator, observation: Any):
    self._simulator = simulator
    self._saved = [simulator.save()]
    self._steps = [core.LeafStep(observation, 0.0, 1.0)]
    self._is_over = [False]

  def step(self, node: int, action: int, seed: int) -> core.LeafStep:
    """Returns the step from a node; a state where an episode is over stays.

    Beyond a terminal state the discount is 0. Beyond a truncation it is 1, and the
    value of the last observation stands for all that would follow.
    """
    timestep = None
    if not self._is_over[node]:
      self._simulator.restore(self._saved[node], seed)
      timestep = self._simulator.step(action)
    if timestep is None or timestep.first():  # the root's episode is over, too
      over = self._steps[node]
      # A truncation's discount may be -1, but nobody moves beyond it.
      step = over._replace(reward=0.0, discount=abs(over.discount))
      saved = None
    else:
      step = core.LeafStep(
        timestep.observation, timestep.reward, timestep.discount
      )
      saved = None if timestep.last() else self._simulator.save()
      if saved is None:  # shown again, when the environment has moved on
        copied = tree.map_structure(np.array, timestep.observation)
        step = step._replace(observation=copied)
    self._saved.append(saved)
    self._steps.append(step)
    self._is_over.append(saved is None)
    return step

  def restore(self) -> None:
    """Puts the environment back to the root."""
    self._simulator.restore(self._saved[0])


def _seed(key: np.ndarray, row: int) -> int:
  """Returns a seed of 31 bits for a row: rows of one search share no chance."""
  return (int(key[0]) + row * 0x9E3779B9) & 0x7FFFFFFF


def _global_generators() -> tuple[Any, Any]:
  """Returns the states of the generators that a process shares."""
  kind, words, *others = np.random.get_state()
  return (kind, np.asarray(words).tobytes(), *others), random.getstate()


def _batched(steps: Sequence[core.LeafStep]) -> core.LeafStep:
  """Returns a step of arrays [B, ...]."""
  observations, rewards, discounts = zip(*steps, strict=True)
  return core.LeafStep(
    tree.map_structure(lambda *rows: np.stack(rows), *observations),
    np.array(rewards, np.float32),
    np.array(discounts, np.float32),
  )


def _unbatched(nest: types.NestedArray) -> list[types.NestedArray]:
  """Returns the rows of a nest of [B, ...]."""
  leaves = zip(*tree.flatten(nest), strict=True)
  return [tree.unflatten_as(nest, row) for row in leaves]


def _rows(mask: np.ndarray, leaf: np.ndarray) -> np.ndarray:
  return mask.reshape(mask.shape + (1,) * (leaf.ndim - 1))


def _with_rate(output: types.ActorOutput, start: float) -> types.ActorOutput:
  """Returns the output with one more metric, the searches in a second."""
  rows = len(output.action)
  rate = rows / (time.perf_counter() - start)
  metrics = {
    **output.metrics,
    'searches_per_second': np.full(rows, rate, np.float32),
  }
  return output._replace(metrics=metrics)
