"""Networks with a memory, for one step when acting and sequences when learning."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, TypeVar

import haiku as hk
import jax
import jax.numpy as jnp
import numpy as np

from distacme import types

Array = TypeVar('Array', np.ndarray, jax.Array)

# The state of a network's core [B, ...]; () if the network has none.
Memory = types.NestedArray


class RecurrentNetwork(NamedTuple):
  """The parts of a network with a memory, made within `hk.transform`.

  Attributes:
    torso: maps a nest of observations [B, ...] to features [B, F].
    core: the memory, from features to features; None for no memory.
    head: maps features [B, F] to a nest of outputs [B, ...].
  """

  torso: Callable[[types.NestedArray], jax.Array]
  core: hk.RNNCore | None
  head: Callable[[jax.Array], types.NestedArray]


class Unrolled(NamedTuple):
  """The pure functions of a `RecurrentNetwork`.

  Attributes:
    init: (key, observation [B, ...]) to params.
    initial_state: (B) to the state [B, ...] at an episode's start.
    step: (params, key, observation [B, ...], state) to outputs and the next
      state.
    unroll: (params, key, observation [B, T, ...], first [B, T], state) to outputs
      [B, T, ...] and the state after the last row. In rows with `first` an episode
      starts, with the initial state.
  """

  init: Callable[[types.Key, types.NestedArray], hk.Params]
  initial_state: Callable[[int], Memory]
  step: Callable[
    [hk.Params, types.Key, types.NestedArray, Memory],
    tuple[types.NestedArray, Memory],
  ]
  unroll: Callable[
    [hk.Params, types.Key, types.NestedArray, jax.Array, Memory],
    tuple[types.NestedArray, Memory],
  ]


def unroll_after_burn_in(
  network: Unrolled,
  params: hk.Params,
  key: types.Key,
  data: types.Sequence,
  burn_in_length: int,
  state: Memory,
) -> types.NestedArray:
  """Returns a network's outputs [B, L, ...], with a memory from row to row.

  The first rows only bring the memory up to date (Kapturowski et al. 2019): the
  gradient does not reach back into these rows, unless the sequence starts with its
  episode. See `learnt_steps`.

  Args:
    network: to unroll.
    params: of the network.
    key: consumed.
    data: observations and step types [B, L, ...].
    burn_in_length: number of the first rows.
    state: before the first row.
  """
  # Sequences that are shorter than the burn-in start with their episode: sequences in
  # an episode's midst have more rows.
  length = min(burn_in_length, data.step_type.shape[1])
  first = data.step_type == types.FIRST
  before_key, after_key = jax.random.split(key)

  def unroll(
    key: types.Key, rows: slice, state: Memory
  ) -> tuple[types.NestedArray, Memory]:
    seen = jax.tree.map(lambda leaf: leaf[:, rows], data.observation)
    return network.unroll(params, key, seen, first[:, rows], state)

  if not length:
    return unroll(after_key, np.s_[:], state)[0]
  before, state = unroll(before_key, np.s_[:length], state)
  warm = first[:, 0]
  state = jax.tree.map(
    lambda leaf: jnp.where(
      warm.reshape(-1, *[1] * (leaf.ndim - 1)),
      leaf,
      jax.lax.stop_gradient(leaf),
    ),
    state,
  )
  if length == first.shape[1]:
    return before
  after, _ = unroll(after_key, np.s_[length:], state)
  return jax.tree.map(
    lambda *parts: jnp.concatenate(parts, axis=1), before, after
  )


def learnt_steps(step_type: Array, burn_in_length: int) -> Array:
  """Returns a mask [B, T], 0 or 1, of the steps that are learnt from.

  Padding is not learnt from. The burn-in is learnt from only if the sequence starts an
  episode, since then the start state is correct.

  Args:
    step_type: [B, T + 1].
    burn_in_length: steps.
  """
  position = np.arange(step_type.shape[1] - 1)[None]
  warm = (step_type[:, :1] == types.FIRST) | (position >= burn_in_length)
  return (warm & (step_type[:, :-1] != types.LAST)).astype(np.float32)


def unrolled(make: Callable[[], RecurrentNetwork]) -> Unrolled:
  """Returns the pure functions of a network.

  Args:
    make: makes the network's parts; may use Haiku modules.
  """

  def step(
    observation: types.NestedArray, state: Memory
  ) -> tuple[types.NestedArray, Memory]:
    torso, core, head = make()
    features = torso(observation)
    if core is not None:
      features, state = core(features, state)
    return head(features), state

  def unroll(
    observation: types.NestedArray, first: jax.Array, state: Memory
  ) -> tuple[types.NestedArray, Memory]:
    torso, core, head = make()
    # The torso takes all rows at once: convolutions are slow inside of a loop.
    features = hk.BatchApply(torso)(observation)
    if core is not None:
      features, state = hk.dynamic_unroll(
        hk.ResetCore(core), (features, first), state, time_major=False
      )
    return hk.BatchApply(head)(features), state

  def initial_state(batch_size: int) -> Memory:
    _, core, _ = make()
    return () if core is None else core.initial_state(batch_size)

  step_transformed = hk.transform(step)
  unroll_transformed = hk.transform(unroll)
  state_transformed = hk.without_apply_rng(hk.transform(initial_state))

  def init(key: types.Key, observation: types.NestedArray) -> hk.Params:
    size = jax.tree.leaves(observation)[0].shape[0]
    return step_transformed.init(
      key, observation, state_transformed.apply({}, size)
    )

  return Unrolled(
    init,
    lambda batch_size: state_transformed.apply({}, batch_size),
    step_transformed.apply,
    unroll_transformed.apply,
  )
