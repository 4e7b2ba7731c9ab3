"""Networks with a memory, for one step when acting and sequences when learning."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import haiku as hk
import jax

from distacme import types

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
