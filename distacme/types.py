"""Plain data that crosses the boundaries between workers and agents."""

from __future__ import annotations

from typing import Any, NamedTuple

import dm_env
import numpy as np

# A nest is a tree of dicts, tuples and lists with arrays at its leaves.
NestedArray = Any
NestedSpec = Any
Params = (
  Any  # a nest of arrays, which the learner publishes and an actor acts with
)
LearnerState = Any
ActorState = Any
Key = Any  # a JAX random key, raw: uint32 [2]

# dm_env's kinds of steps, as arrays: numpy compares an array with a number half as
# fast as with an array, and with an enum a tenth as fast.
FIRST, MID, LAST = (np.array(kind, np.int8) for kind in dm_env.StepType)


class Transition(NamedTuple):
  """The ends of an n-step window; every leaf has a leading batch axis [B].

  If `replay_spec.NStep.n` is a tuple of N numbers, reward and discount are
  [B, N] and the leaves of the next observation [B, N, ...], in the order of `n`.
  If `n` is a number there is no such axis.

  Attributes:
    observation: o_t.
    action: a_t, taken at `observation`.
    reward: [B] float32, the sum over the window of discounted rewards.
    discount: [B] float32, the product over the window of gamma times the
      environment's discount: the factor of the value of `next_observation`.
      0 if the window ended in a terminal state. In a window cut short by an
      episode's end, gamma to the power of the steps that happened.
    next_observation: the observation after the window's last step.
    extras: `ActorOutput.extras` of the `act` that saw `observation`.
  """

  observation: NestedArray
  action: NestedArray
  reward: NestedArray
  discount: NestedArray
  next_observation: NestedArray
  extras: NestedArray = ()


class Sequence(NamedTuple):
  """Consecutive rows of one environment; leaves are [B, L, ...].

  A row is a moment: an observation, the action, its reward and discount. Rows
  where `step_type` is LAST are not steps and have no action. Such a row is the
  last observation of an episode, which bootstraps a truncated episode, or
  padding after that observation. Of row L - 1 only observation and step type
  count; this row bootstraps, too. L is the length of the replay's window, or
  less in a batch whose sequences all end in padding: most padding is cut off.

  Attributes:
    observation: o_t.
    action: a_t, taken at `observation`.
    reward: float32, for a_t; 0 in rows without an action.
    discount: float32, the environment's, after a_t: 0 if a_t led to a terminal
      state, else 1 as a rule; without gamma. 0 in rows without an action.
    step_type: int8, of `observation`: FIRST, MID or LAST.
    extras: `ActorOutput.extras` of the `act` that saw `observation`.
    start_state: [B, ...], `ActorOutput.start_state` at the sequence's start.
  """

  observation: NestedArray
  action: NestedArray
  reward: NestedArray
  discount: NestedArray
  step_type: NestedArray
  extras: NestedArray = ()
  start_state: NestedArray = ()


class SampleInfo(NamedTuple):
  """The origin of a batch's items, and the chance of drawing each.

  Attributes:
    key: [B] uint64, names each item within its table.
    probability: [B] float64, chance of each item to be an element of the batch:
      the chance of the item's table in the mixture, times the chance of the item
      within its table. The latter is 1 in tables that are used once.
    params_version: [B] int64, version of the params that acted; in a sequence,
      at the start. 0 in demonstrations.
    table: [B] int32, index in `ReplaySpec.tables` of each item's table.
  """

  key: np.ndarray
  probability: np.ndarray
  params_version: np.ndarray
  table: np.ndarray


class Batch(NamedTuple):
  """Items for a learner's update, and the chance of drawing each.

  Attributes:
    data: a `Transition` or a `Sequence`, as the replay's window says.
    probability: [B] float32, as in `SampleInfo`, for importance weights.
    table: [B] int32, as in `SampleInfo`, for losses that differ between
      demonstrations and the agent's own steps. May be left out in tests of
      agents with one table.
  """

  data: Any
  probability: NestedArray
  table: NestedArray = ()


class ActorOutput(NamedTuple):
  """The result of an agent's `act`; every leaf has a leading batch axis [B].

  Attributes:
    action: conforms to the environment's action spec, batched.
    state: carried to the next call.
    extras: stored in replay with the observation.
    start_state: stored with the first row of a sequence only. An agent with a
      memory replays the sequence from this state, as a rule the `state` that
      `act` was given.
    values: not stored; go to the agent's `first_priority` on the actor.
    metrics: not stored; numbers [B] by name, whose means the actor reports.
  """

  action: NestedArray
  state: ActorState = ()
  extras: NestedArray = ()
  start_state: NestedArray = ()
  values: NestedArray = ()
  metrics: NestedArray = ()


class UpdateOutput(NamedTuple):
  """The result of an agent's `update` beside the new state.

  Attributes:
    metrics: name to scalar array.
    priorities: [B] non-negative new priorities, or None if no table of replay
      is prioritised. Priorities of items in uniform tables are ignored.
    converged: [] bool, True once the agent has nothing more to learn, with which
      the run ends; None of an agent that never says so.
  """

  metrics: dict[str, Any]
  priorities: Any = None
  converged: Any = None


class Streams(NamedTuple):
  """The places of an actor's rows among all environments of the run.

  Attributes:
    indices: [B] int, one place for each row, from 0.
    total: number of environments that all actors of the run step.
  """

  indices: np.ndarray
  total: int
