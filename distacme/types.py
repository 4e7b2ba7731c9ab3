"""Plain data that crosses the boundaries between workers and agents."""

from __future__ import annotations

from typing import Any, NamedTuple

import dm_env
import numpy as np

# A nest is a tree of dicts, tuples and lists with arrays at its leaves.
NestedArray = Any
NestedSpec = Any
Params = (
  Any  # a nest of arrays; what the learner publishes and an actor acts with
)
LearnerState = Any
ActorState = Any
Key = Any  # a JAX random key, raw: uint32 [2]

# dm_env's kinds of steps, as arrays of them hold them. They are arrays themselves:
# numpy compares with numbers half as fast, and with enums a tenth.
FIRST, MID, LAST = (np.array(kind, np.int8) for kind in dm_env.StepType)


class Transition(NamedTuple):
  """The ends of an n-step window; every leaf has a leading batch axis [B].

  Where `replay_spec.NStep.n` is a tuple of N numbers, reward and discount are
  [B, N] and the leaves of the next observation [B, N, ...], in the order of `n`.
  Where it is a number there is no such axis.

  Attributes:
    observation: o_t.
    action: a_t, taken at `observation`.
    reward: [B] float32, the sum over the window of discounted rewards.
    discount: [B] float32, the product over the window of gamma times the
      environment's discount: the factor of the value of `next_observation`.
      0 if the window ended in a terminal state. In a window cut short by an
      episode's end, gamma to the power of the steps that happened.
    next_observation: the observation after the window's last step.
    extras: what the agent's `act` asked to store with `observation`.
  """

  observation: NestedArray
  action: NestedArray
  reward: NestedArray
  discount: NestedArray
  next_observation: NestedArray
  extras: NestedArray = ()


class Sequence(NamedTuple):
  """Consecutive rows of one environment; leaves are [B, L, ...].

  A row is a moment: what was seen, what was done, and what followed. Rows where
  `step_type` is LAST are not steps, nothing was done there: they are the last
  observation of an episode, which bootstraps a truncated one, or padding after
  it. Of row L - 1 only observation and step type count; it bootstraps, too.
  L is the length of the replay's window, or less in a batch whose sequences all
  end in padding: the learner is spared most of it.

  Attributes:
    observation: o_t.
    action: a_t, taken at `observation`.
    reward: float32, what a_t earned; 0 where nothing was done.
    discount: float32, the environment's, after a_t: 0 if it ended in a terminal
      state, else 1 as a rule; without gamma. 0 where nothing was done.
    step_type: int8, of `observation`: FIRST, MID or LAST.
    extras: what the agent's `act` asked to store with `observation`.
    start_state: [B, ...], what it asked to store where a sequence starts.
  """

  observation: NestedArray
  action: NestedArray
  reward: NestedArray
  discount: NestedArray
  step_type: NestedArray
  extras: NestedArray = ()
  start_state: NestedArray = ()


class SampleInfo(NamedTuple):
  """How a batch was drawn.

  Attributes:
    key: [B] uint64, names each item within its table.
    probability: [B] float64, chance of each item to be an element of the batch:
      that of its table in the mixture times its own within the table. Of what
      is used once, the latter is 1.
    params_version: [B] int64, version of the params that acted; in a sequence,
      at its start. 0 in demonstrations.
    table: [B] int32, index in `ReplaySpec.tables` of each item's table.
  """

  key: np.ndarray
  probability: np.ndarray
  params_version: np.ndarray
  table: np.ndarray


class Batch(NamedTuple):
  """Holds items for a learner's update, and how they were drawn.

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
    start_state: stored with the first row of a sequence only: what an agent with
      a memory needs to go through it again, as a rule the `state` it was given.
    values: not stored; goes to the agent's `first_priority` on the actor.
  """

  action: NestedArray
  state: ActorState = ()
  extras: NestedArray = ()
  start_state: NestedArray = ()
  values: NestedArray = ()


class UpdateOutput(NamedTuple):
  """The result of an agent's `update` beside the new state.

  Attributes:
    metrics: name to scalar array.
    priorities: [B] non-negative new priorities, or None if no table of replay
      is prioritised. Those of items in uniform tables are ignored.
  """

  metrics: dict[str, Any]
  priorities: Any = None


class Streams(NamedTuple):
  """Which of a run's environments the rows of an actor's batch are.

  Attributes:
    indices: [B] int, position of each row among all environments of the run.
    total: number of environments that the run's actors step in all.
  """

  indices: np.ndarray
  total: int
