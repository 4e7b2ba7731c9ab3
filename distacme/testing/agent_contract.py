"""Checks that an agent keeps the contract `core.Agent`, but not that it learns.

def test_my_agent_keeps_the_contract():
  spec = specs.make_environment_spec(environments.Catch(seed=0))
  agents.check_agent(my_agent.make_agent(my_agent.Config(), spec), spec)
"""

from __future__ import annotations

import math
from typing import Any

import jax
import numpy as np

from distacme import core
from distacme import replay_spec
from distacme import specs
from distacme import types
from distacme.learning import batches
from distacme.run import seeding
from distacme.variables import nests

_BATCH_SIZES = (1, 5)

_UNIT = specs.BoundedArray((), np.float32, 0.0, 1.0)


def check_agent(
  agent: core.Agent,
  spec: specs.EnvironmentSpec,
  seed: int = 0,
  without_jit: bool = True,
) -> None:
  """Checks every promise of an agent that workers rely on; takes some seconds.

  Args:
    agent: made for `spec`.
    spec: of the environment.
    seed: of params, observations and batches.
    without_jit: whether to run the agent without compiling as well, as in a
      debugger. This is the slowest check, and the same for all settings of an agent.

  Raises:
    AssertionError: if the agent breaks a promise; the message names the promise.
  """
  check = _Check(agent, spec, seed)
  check.learner_state_depends_on_the_key_alone()
  check.learner_state_can_be_saved()
  check.actor_params_can_travel()
  for batch_size in _BATCH_SIZES:
    check.actor_state_has_a_row_for_each_environment(batch_size)
    check.actions_conform(batch_size)
    check.actor_state_keeps_its_form(batch_size)
  check.rows_do_not_touch_each_other()
  check.update_keeps_the_form_of_its_state()
  check.update_takes_donated_state()
  check.update_answers_what_replay_asks()
  check.first_priorities_are_priorities()
  check.update_does_not_miss_padding()
  if without_jit:
    check.nothing_changes_without_jit()


class _Check:
  """One method for each promise, with the promise as its name."""

  def __init__(self, agent: core.Agent, spec: specs.EnvironmentSpec, seed: int):
    self._agent = agent
    self._spec = spec
    self._random = np.random.default_rng(seed)
    self._key = np.asarray(seeding.learner_key(seed))
    self._act_key = np.asarray(seeding.actor_key(seed))
    self._state = agent.initial_learner_state(self._key)
    self._params = agent.actor_params(self._state)
    self._act = jax.jit(agent.act)
    self._update = jax.jit(agent.update)

  def learner_state_depends_on_the_key_alone(self) -> None:
    again = self._agent.initial_learner_state(self._key)
    _same(self._state, again, 'two initial_learner_state of one key')

  def learner_state_can_be_saved(self) -> None:
    for path, leaf in jax.tree_util.tree_leaves_with_path(self._state):
      assert np.size(leaf), (
        f'the learner state is empty at {jax.tree_util.keystr(path)}, and '
        'checkpoints cannot hold empty arrays. Leave it out.'
      )

  def actor_params_can_travel(self) -> None:
    flat = nests.flatten(self._params)
    _same(self._params, nests.unflatten(flat), 'actor_params and its copy')

  def actor_state_has_a_row_for_each_environment(self, batch_size: int) -> None:
    training, evaluated = self._actor_states(batch_size)
    for state in (training, evaluated):
      _check_rows(state, batch_size, 'initial_actor_state')
    _same_form(training, evaluated, 'actor states for training and evaluation')

  def actions_conform(self, batch_size: int) -> None:
    observation = self._observations(batch_size)
    for state in self._actor_states(batch_size):
      output = self._act(self._params, self._act_key, observation, state)
      again = self._act(self._params, self._act_key, observation, state)
      _same(output, again, 'two act with one key')
      jax.tree.map(_check_actions, self._spec.actions, output.action)
      _check_rows(output.action, batch_size, 'actions')
      _check_rows(output.extras, batch_size, 'extras')
      _check_rows(output.start_state, batch_size, 'start_state')
      _check_rows(output.values, batch_size, 'values')

  def actor_state_keeps_its_form(self, batch_size: int) -> None:
    observation = self._observations(batch_size)
    for state in self._actor_states(batch_size):
      output = self._act(self._params, self._act_key, observation, state)
      _same_form(state, output.state, 'actor states before and after act')

  def rows_do_not_touch_each_other(self) -> None:
    size = max(_BATCH_SIZES)
    initial, _ = self._actor_states(size)
    first, second = self._observations(size), self._observations(size)
    later = self._act(self._params, self._act_key, first, initial).state
    # Row 0 starts an episode; the other rows are in the midst of episodes.
    row_0 = np.arange(size) == 0
    mixed = self._act(
      self._params, self._act_key, second, _where(row_0, initial, later)
    )
    fresh = self._act(self._params, self._act_key, second, initial)
    going_on = self._act(self._params, self._act_key, second, later)
    what = 'row of act, with and without another row reset'
    _same(_rows(mixed, row_0), _rows(fresh, row_0), what)
    _same(_rows(mixed, ~row_0), _rows(going_on, ~row_0), what)
    other = _where(row_0, first, second)
    changed = self._act(self._params, self._act_key, other, later)
    what = 'row of act, with and without another observation in another row'
    _same(_rows(changed, ~row_0), _rows(going_on, ~row_0), what, 1e-5)

  def update_keeps_the_form_of_its_state(self) -> None:
    after, _ = jax.eval_shape(self._agent.update, self._state, self._batch())
    _same_form(self._state, after, 'learner states before and after update')

  def update_takes_donated_state(self) -> None:
    state = self._agent.initial_learner_state(self._key)
    donating = jax.jit(self._agent.update, donate_argnums=0)
    try:
      jax.block_until_ready(donating(state, self._batch()))
    except RuntimeError as error:
      raise AssertionError(
        'the buffers of initial_learner_state cannot be donated to update; if '
        f'two leaves share one, copy it (jnp.copy): {error}'
      ) from error

  def update_answers_what_replay_asks(self) -> None:
    batch = self._batch()
    _, output = self._update(self._state, batch)
    _, again = self._update(self._state, batch)
    _same(output, again, 'two update of one state and batch')
    for name, value in output.metrics.items():
      assert np.shape(value) == () and np.isfinite(value), (
        f'the metric {name!r} must be one finite number, got {value}.'
      )
    priorities = output.priorities
    if not self._agent.replay.prioritized:
      assert priorities is None, 'replay is uniform: priorities must be None.'
      return
    assert priorities is not None, 'replay is prioritised: give priorities.'
    _check_priorities(priorities, self._agent.replay.batch_size, 'priorities')

  def first_priorities_are_priorities(self) -> None:
    replay = self._agent.replay
    if not any(table.prioritized for table in replay.tables_of_actors):
      return
    size, data = replay.batch_size, self._batch().data
    values: Any
    if isinstance(data, types.Sequence):
      length = data.step_type.shape[1]
      values = jax.tree.map(
        lambda leaf: np.asarray(leaf).reshape(size, length, *leaf.shape[1:]),
        self._acted(size * length)[1].values,
      )
    else:
      assert isinstance(replay.window, replay_spec.NStep)
      values = [
        jax.tree.map(np.asarray, self._acted(size)[1].values)
        for _ in range(1 + len(replay.window.lengths))
      ]
    window = jax.tree.map(np.asarray, data)
    first_priority = getattr(self._agent, 'first_priority', None)
    assert first_priority is not None, (
      'actors fill a prioritised table: write a method first_priority.'
    )
    priorities = first_priority(window, values)
    _check_priorities(priorities, size, 'first_priority')

  def update_does_not_miss_padding(self) -> None:
    if not self._agent.replay.padded:
      return
    whole = self._batch()
    step_type = whole.data.step_type.copy()
    half = (step_type.shape[1] + 1) // 2
    step_type[:, max(1, half - 1) :] = types.LAST
    whole = whole._replace(data=_only_steps(whole.data, step_type))
    (data,) = batches.trimmed([whole.data])
    _same(
      self._update(self._state, whole._replace(data=data)),
      self._update(self._state, whole),
      'update with and without padding at the end of all sequences',
      1e-4,
    )

  def nothing_changes_without_jit(self) -> None:
    batch, observation = self._batch(), self._observations(1)
    training, _ = self._actor_states(1)
    acting = (self._params, self._act_key, observation, training)
    with jax.disable_jit():
      output = self._agent.act(*acting)
      updated = self._agent.update(self._state, batch)
    _same(output, self._act(*acting), 'act with and without jit', 1e-3)
    _same(
      updated,
      self._update(self._state, batch),
      'update with and without jit',
      1e-3,
    )

  def _actor_states(self, batch_size: int) -> tuple[Any, Any]:
    """Returns the initial states for training and for evaluation."""
    streams = types.Streams(np.arange(batch_size), batch_size)
    return (
      self._agent.initial_actor_state(batch_size, streams),
      self._agent.initial_actor_state(batch_size, None),
    )

  def _observations(self, batch_size: int) -> types.NestedArray:
    return self._sample(self._spec.observations, batch_size)

  def _batch(self) -> types.Batch:
    """Returns a batch that replay could have drawn."""
    size = self._agent.replay.batch_size
    window = self._agent.replay.window
    if isinstance(window, replay_spec.Sequences):
      data: Any = self._sequences(size, window.length)
    else:
      data = self._transitions(size, window.ends)
    probability = self._random.uniform(0.1, 1.0, size).astype(np.float32)
    table = np.arange(size, dtype=np.int32) % len(self._agent.replay.tables)
    return types.Batch(data, probability, table)

  def _transitions(self, size: int, ends: tuple[int, ...]) -> types.Transition:
    observation, output = self._acted(size)
    reward, discount, next_observation = jax.tree.map(
      lambda leaf: leaf.reshape(size, *ends, *leaf.shape[1:]),
      self._sample(
        (_UNIT, _UNIT, self._spec.observations), size * math.prod(ends)
      ),
    )
    return types.Transition(
      observation=observation,
      action=self._as_sent(output.action),
      reward=reward,
      discount=discount,
      next_observation=next_observation,
      extras=output.extras,
    )

  def _sequences(self, size: int, length: int) -> types.Sequence:
    """Returns sequences; some of them start an episode, and some are padded."""
    observation, output = self._acted(size * length)
    shape = (size, length)

    def in_rows(nest: Any) -> Any:
      return jax.tree.map(
        lambda leaf: np.asarray(leaf).reshape(*shape, *leaf.shape[1:]), nest
      )

    step_type = np.full(shape, types.MID)
    step_type[::2, 0] = types.FIRST
    step_type[::3, length // 2 + 1 :] = types.LAST
    data = types.Sequence(
      observation=in_rows(observation),
      action=in_rows(self._as_sent(output.action)),
      reward=in_rows(self._sample(_UNIT, size * length)),
      discount=in_rows(self._sample(_UNIT, size * length)),
      step_type=step_type,
      extras=in_rows(output.extras),
      start_state=jax.tree.map(
        lambda leaf: leaf[:, 0], in_rows(output.start_state)
      ),
    )
    return _only_steps(data, step_type)

  def _acted(self, size: int) -> tuple[types.NestedArray, types.ActorOutput]:
    observation = self._observations(size)
    training, _ = self._actor_states(size)
    return observation, self._act(
      self._params, self._act_key, observation, training
    )

  def _as_sent(self, action: types.NestedArray) -> types.NestedArray:
    return jax.tree.map(
      lambda leaf, spec: np.asarray(leaf, spec.dtype),
      action,
      self._spec.actions,
    )

  def _sample(self, nest: types.NestedSpec, batch_size: int) -> Any:
    """Returns values within the bounds of specs, or of normal size."""

    def sample(spec: specs.Array) -> np.ndarray:
      shape = (batch_size, *spec.shape)
      values = self._random.normal(size=shape)
      if isinstance(spec, specs.BoundedArray):
        low = np.maximum(spec.minimum, -10.0)
        high = np.minimum(spec.maximum, 10.0)
        values = self._random.uniform(low, high, shape)
      return values.astype(spec.dtype)

    return jax.tree.map(sample, nest)


def _only_steps(data: types.Sequence, step_type: np.ndarray) -> types.Sequence:
  """Returns sequences with `step_type`; rewards and discounts are 0 at LAST."""
  stepped = step_type != types.LAST
  return data._replace(
    reward=data.reward * stepped,
    discount=data.discount * stepped,
    step_type=step_type,
  )


def _check_actions(spec: specs.Array, actions: Any) -> None:
  actions = np.asarray(actions)
  assert np.can_cast(actions.dtype, spec.dtype, 'same_kind'), (
    f'actions are {actions.dtype}, the action spec asks for {spec.dtype}.'
  )
  for action in actions:
    try:
      spec.validate(action.astype(spec.dtype))
    except ValueError as error:
      raise AssertionError(
        f'the action {action} does not conform to {spec}: {error}'
      ) from error


def _check_rows(nest: Any, batch_size: int, what: str) -> None:
  for leaf in jax.tree.leaves(nest):
    assert np.shape(leaf)[:1] == (batch_size,), (
      f'{what}: every leaf must be [B, ...] with B={batch_size}, got one of '
      f'shape {np.shape(leaf)}.'
    )


def _check_priorities(priorities: Any, batch_size: int, what: str) -> None:
  _check_rows(priorities, batch_size, what)
  assert np.ndim(priorities) == 1, f'{what} must be [B].'
  assert np.isfinite(priorities).all() and (priorities >= 0).all(), (
    f'{what} must be finite and not negative, got {priorities}.'
  )


def _form(nest: Any) -> Any:
  """Returns structure, shapes and dtypes."""
  leaves, structure = jax.tree.flatten(nest)
  return structure, [(leaf.shape, np.dtype(leaf.dtype)) for leaf in leaves]


def _same_form(a: Any, b: Any, what: str) -> None:
  assert _form(a) == _form(b), (
    f'{what} differ in structure, shape or dtype:\n{_form(a)}\n{_form(b)}'
  )


def _same(a: Any, b: Any, what: str, tolerance: float = 0.0) -> None:
  _same_form(a, b, what)
  for leaf_a, leaf_b in zip(
    jax.tree.leaves(a), jax.tree.leaves(b), strict=True
  ):
    np.testing.assert_allclose(
      leaf_a, leaf_b, tolerance, tolerance, err_msg=f'{what} differ'
    )


def _where(mask: np.ndarray, a: Any, b: Any) -> Any:
  def choose(leaf_a: Any, leaf_b: Any) -> np.ndarray:
    expanded = mask.reshape(mask.shape + (1,) * (np.ndim(leaf_a) - 1))
    return np.where(expanded, leaf_a, leaf_b)

  return jax.tree.map(choose, a, b)


def _rows(nest: Any, mask: np.ndarray) -> Any:
  return jax.tree.map(lambda leaf: np.asarray(leaf)[mask], nest)
