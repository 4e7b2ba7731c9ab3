"""The contracts between agents, workers and services; the file to read first.

An *agent* is mathematics: pure functions of JAX arrays, and a description of
the replay it wants. *Workers* (actor, learner, evaluator) drive it. *Services*
(replay, variables) connect the workers. Nothing here says in which process,
thread or machine any of them lives.

    env -> Actor -> Writer | replay | Sampler -> Learner
             ^                                     |
             +--- ParamsSource <- ParamsSink <-----+
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple, Protocol, runtime_checkable

import dm_env
import numpy as np

from distacme import replay_spec
from distacme import status
from distacme import types


class Agent(Protocol):
  """Pure functions, all but `initial_actor_state` called under `jax.jit`.

  `update` gets no key: the learner's state holds one where learning is random.
  Observations, actions and states always carry a leading batch axis [B].
  """

  replay: replay_spec.ReplaySpec

  def initial_learner_state(self, key: types.Key) -> types.LearnerState:
    """Returns everything that learning changes: params, optimiser, counters."""

  def initial_actor_state(
    self, batch_size: int, streams: types.Streams | None
  ) -> types.ActorState:
    """Returns the state at an episode's start, each leaf [B, ...].

    Args:
      batch_size: B.
      streams: the acting environments' places in the run, for exploration that
        differs between environments; None asks for the evaluated policy.
    """

  def act(
    self,
    params: types.Params,
    key: types.Key,
    observation: types.NestedArray,
    state: types.ActorState,
  ) -> types.ActorOutput:
    """Chooses actions for a batch of observations. Consumes `key`."""

  def update(
    self, state: types.LearnerState, batch: types.Batch
  ) -> tuple[types.LearnerState, types.UpdateOutput]:
    """Takes one step of learning."""

  def actor_params(self, state: types.LearnerState) -> types.Params:
    """Returns the part of the learner's state that acting needs."""


class PrioritizingAgent(Agent, Protocol):
  """An agent whose actors fill a prioritised table."""

  def first_priority(self, window: Any, values: Any) -> np.ndarray:
    """Returns priorities [B] of new windows, in numpy on the actor.

    Args:
      window: a `Transition` or a `Sequence` of numpy rows [B, ...], as the
        replay's window says. Observations that are stacks of frames are empty.
      values: the `values` that `act` returned at the window's observations. Of a
        transition, a list of nests [B, ...]: at the first observation, then at
        each end. Of a sequence, one nest [B, L, ...]: at each row, 0 in padding.
        No action is taken at an episode's end. There a transition has the values
        of the step before, and a sequence those of the ignored action.
    """


@runtime_checkable
class PlanningAgent(Agent, Protocol):
  """An agent that searches a model of its environment before it acts.

  The model is the environment's own: the environment is a `ModelEnvironment`, or
  has a `Simulator` for each row. `act` is the agent's policy without a search. An
  agent that learns its model needs no such environment, and searches within `act`.
  Its Config says `searches_environment = True`, so that programs make environments
  that can be searched.

  Attributes:
    planner: searches, as pure functions.
  """

  planner: Planner


class Planner(Protocol):
  """A search as pure functions, under `jax.jit`.

  Outputs have the structure, shapes and dtypes of what the agent's `act` returns:
  replay's rows are laid out by `act`. `plan` searches a `Model` in one call. Where
  the environment is a simulator, which compiled code cannot step, `begin`, `advance`
  (once for each simulation) and `finish` do the same from outside.

  Attributes:
    num_simulations: steps of the model in a search.
  """

  num_simulations: int

  def plan(
    self,
    params: types.Params,
    key: types.Key,
    observation: types.NestedArray,
    state: types.ActorState,
    model: Model,
    root: Any,
  ) -> types.ActorOutput:
    """Chooses actions for a batch of observations by a search from `root`.

    Args:
      params: of acting.
      key: consumed.
      observation: nest of [B, ...].
      state: of the actor.
      model: of each row.
      root: [B, ...] the model's states now.
    """

  def begin(
    self,
    params: types.Params,
    key: types.Key,
    observation: types.NestedArray,
    state: types.ActorState,
  ) -> tuple[Any, Leaf]:
    """Returns a search that has only roots, and its first leaf."""

  def advance(
    self, params: types.Params, key: types.Key, search: Any, step: LeafStep
  ) -> tuple[Any, Leaf]:
    """Adds the step from the last leaf; returns the search and its next leaf."""

  def finish(
    self, key: types.Key, search: Any, state: types.ActorState
  ) -> types.ActorOutput:
    """Chooses actions by a search of `num_simulations` steps; consumes `key`."""


class Leaf(NamedTuple):
  """A state that a search steps next, and the action.

  Attributes:
    node: [B] int32, 0 for the root, n for the state after the nth step.
    action: [B] int32.
  """

  node: Any
  action: Any


class LeafStep(NamedTuple):
  """The environment's answer to a `Leaf`.

  Attributes:
    observation: nest of [B, ...].
    reward: [B] float32.
    discount: [B] float32, as the environment's.
  """

  observation: types.NestedArray
  reward: Any
  discount: Any


class Policy(Protocol):
  """Acts in the rows of a vector of environments; one thread."""

  @property
  def version(self) -> int:
    """Version of the params that acted last, -1 before the first action."""

  def act(
    self, observation: types.NestedArray, is_first: np.ndarray
  ) -> types.ActorOutput:
    """Returns actions, extras, values and metrics as numpy arrays [B, ...].

    Args:
      observation: nest of [B, ...].
      is_first: [B] bool, rows where an episode starts: the policy forgets the
        row's previous episode.
    """

  def start_anew(self, environment: VectorEnvironment, key: types.Key) -> None:
    """Goes on in other environments, and forgets all that acting has changed.

    Args:
      environment: that is acted in from here on, of as many rows; the one before
        is closed.
      key: consumed; decides all that is random.
    """


class VectorEnvironment(Protocol):
  """`num_envs` environments stepped by one call; each row obeys dm_env.

  In a game for two, an agent moves for both players in turn. Observation and reward
  are those of the player who moves, and a discount of -1 says that the other player
  moves next: values of the next observation count with the opposite sign.

  A TimeStep here holds arrays: step_type [N] int, reward [N] float32 (0 where
  FIRST), discount [N] float32 (1 where FIRST), observation a nest of [N, ...].
  A row that was LAST ignores its next action and answers FIRST. Returned
  arrays are never written to again. Specs are those of a single row.
  """

  num_envs: int

  def reset(self) -> dm_env.TimeStep:
    """Starts all rows anew; every row is FIRST."""

  def step(self, action: types.NestedArray) -> dm_env.TimeStep:
    """Steps every row with `action`, a nest of [N, ...]."""

  def observation_spec(self) -> types.NestedSpec:
    """Returns specs of a row's observation."""

  def action_spec(self) -> types.NestedSpec:
    """Returns specs of a row's action."""

  def reward_spec(self) -> Any:
    """Returns the spec of a row's reward."""

  def discount_spec(self) -> Any:
    """Returns the spec of a row's discount."""

  def close(self) -> None:
    """Frees the environments' resources."""


class ModelStep(NamedTuple):
  """The result of a step of a `Model`, of one row.

  Attributes:
    state: after the step.
    reward: [] float32, of the player who moved.
    discount: [] float32, as the environment's: 0 at a terminal state, -1 where the
      opponent of the player who moved is next, else 1.
  """

  state: Any
  reward: Any
  discount: Any


class Model(Protocol):
  """An environment as pure functions of one row, under `jax.jit` and `jax.vmap`.

  A model is hashable, as plain objects are: what is compiled is kept with it.
  A terminal state is stepped to itself, with reward 0 and discount 0.
  """

  def init(self, key: types.Key) -> Any:
    """Returns the state at an episode's start; consumes `key`."""

  def step(self, state: Any, action: Any, key: types.Key) -> ModelStep:
    """Returns the state after a legal action; consumes `key`."""

  def observe(self, state: Any) -> types.NestedArray:
    """Returns the observation of the player who moves next."""


@runtime_checkable
class ModelEnvironment(VectorEnvironment, Protocol):
  """A vector whose dynamics are a `Model`, which a search may step.

  Attributes:
    model: of each row.
    state: [N, ...] the rows' states now.
  """

  model: Model
  state: Any


@runtime_checkable
class Simulator(Protocol):
  """A single environment that saves and restores its state."""

  def save(self) -> Any:
    """Returns all that the next steps depend on."""

  def restore(self, saved: Any, seed: int | None = None) -> None:
    """Puts the environment back where `save` was called, any number of times.

    Args:
      saved: a result of `save` of this environment.
      seed: of 31 bits; of all that is random from here on, so that a search does
        not foresee chance. None restores the random numbers, too.
    """

  def step(self, action: types.NestedArray) -> dm_env.TimeStep:
    """Steps the environment, as dm_env's."""


class Writer(Protocol):
  """Takes an actor's steps into all tables of actors; used by one thread."""

  @property
  def blocked_s(self) -> float:
    """Seconds spent waiting for replay's rate limits so far."""

  def append(
    self,
    timestep: dm_env.TimeStep,
    output: types.ActorOutput,
    next_timestep: dm_env.TimeStep,
    params_version: int,
  ) -> None:
    """Adds one step of every environment; blocks while replay asks it to.

    Rows where `timestep` is LAST are not steps and are skipped.
    """

  def close(self) -> None:
    """Sends the complete windows, unless the run has stopped."""


class Sampler(Protocol):
  """Gives a learner its batches.

  One thread samples; another may set priorities meanwhile.
  """

  def sample(self) -> tuple[Any, types.SampleInfo]:
    """Returns the next batch, a `Transition` or a `Sequence`.

    Blocks while the rate limits of a table that the batch draws from ask for it.
    """

  def update_priorities(
    self, info: types.SampleInfo, priority: np.ndarray
  ) -> None:
    """Sets priorities [B] of sampled items.

    Items that their table has dropped are skipped. So are items of tables that
    are uniform or used once.
    """

  def describe(self) -> str:
    """Describes the tables, and which side waits if that is known; any thread."""

  def close(self) -> None:
    """Ends a `sample` that waits, with an error; any thread."""


class VersionedParams(NamedTuple):
  """Params, and the number of learner steps that made the params."""

  version: int
  params: types.Params


class ParamsSource(Protocol):
  """An actor's way to the newest params."""

  def newest(self) -> VersionedParams | None:
    """Returns the newest params without waiting; None before the first."""


class ParamsSink(Protocol):
  """A learner's way to publish its params."""

  def publish(self, version: int, params: types.Params) -> object:
    """Makes `params` the newest; keeps no reference to donated buffers."""


class ParamsStore(ParamsSink, ParamsSource, Protocol):
  """Both ends, in one process."""


class Directive(NamedTuple):
  """The run's answer to a worker's report.

  Attributes:
    stop: the reason of the run's end; None while the run goes on.
    counts: the run's counters, summed over all workers.
  """

  stop: status.StopReason | None
  counts: Mapping[str, int]


class Reporter(Protocol):
  """A worker's line to the run: heartbeat, counters, metrics, stop."""

  def report(
    self,
    counts: Mapping[str, int] | None = None,
    metrics: Mapping[str, float] | None = None,
    state: status.WorkerState | None = None,
  ) -> Directive:
    """Sends the worker's changes; doubles as heartbeat.

    Args:
      counts: increments since the last report, e.g. {'env_steps': 64}.
      metrics: numbers to log now, if any.
      state: of the worker from now on; None if the state is unchanged.
    """

  def request_stop(self, reason: status.StopReason, detail: str = '') -> None:
    """Asks the whole run to end; the first reason given stands."""

  def fail(self, detail: str) -> None:
    """Tells the run that this worker failed and ends; the run may continue.

    Args:
      detail: a traceback, for people.
    """
