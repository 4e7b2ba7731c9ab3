"""Finds environments that break their own specs.

Messages name the field, its spec and the value found, so that a user can mend
the environment without a debugger.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import dm_env
import numpy as np
import tree

from distacme import core
from distacme import specs
from distacme import types

_STEP_TYPES = [step_type.name for step_type in dm_env.StepType]
_STEP_TYPE_SPEC = specs.BoundedArray((), np.int8, types.FIRST, types.LAST)
_DISCOUNT_SPEC = specs.BoundedArray((), np.float32, 0.0, 1.0)
_DISCOUNT_SPEC_OF_TWO = _DISCOUNT_SPEC.replace(minimum=-1.0)
_BROKEN = 'The environment breaks its own spec: '
_REMEDY = ' Correct the environment, or the spec if that is what is wrong.'


def check_first_episode(
  environment: core.VectorEnvironment, max_steps: int = 10_000
) -> core.VectorEnvironment:
  """Returns `environment`, checked against its specs until an episode is over.

  Checks all rows until one row begins its second episode, or for `max_steps`
  steps. Later `reset` and `step` are the environment's own, so that checks cost
  nothing; callers must look the two methods up at each call.

  A broken spec raises ValueError from `reset` or `step`. An error of the
  environment itself passes through, with its traceback.
  """
  return _FirstEpisodeChecked(environment, max_steps)


class _FirstEpisodeChecked:
  """Passes calls on, and checks the results of `reset` and `step`."""

  def __init__(self, environment: core.VectorEnvironment, max_steps: int):
    self.num_envs = environment.num_envs
    self.observation_spec = environment.observation_spec
    self.action_spec = environment.action_spec
    self.reward_spec = environment.reward_spec
    self.discount_spec = environment.discount_spec
    self.close = environment.close
    self.reset = self._checked_reset
    self.step = self._checked_step
    self._environment = environment
    self._specs = specs.make_environment_spec(environment)
    self._steps_left = max_steps
    # [N] last step types; None after a reset and before the first step.
    self._previous: np.ndarray | None = None

  def _checked_reset(self) -> dm_env.TimeStep:
    timestep = self._environment.reset()
    self._previous = None
    self._check(timestep)
    return timestep

  def _checked_step(self, action: types.NestedArray) -> dm_env.TimeStep:
    timestep = self._environment.step(action)
    second_episode = self._previous is not None and (
      timestep.step_type == types.FIRST
    )
    self._check(timestep)
    self._steps_left -= 1
    if np.any(second_episode) or self._steps_left <= 0:
      self.reset, self.step = self._environment.reset, self._environment.step
    return timestep

  def _check(self, timestep: dm_env.TimeStep) -> None:
    check_batch('step_type', _STEP_TYPE_SPEC, timestep.step_type, self.num_envs)
    self._check_order(timestep.step_type)
    _check_values(self._specs, timestep, self.num_envs)

  def _check_order(self, step_type: np.ndarray) -> None:
    """Raises ValueError unless FIRST comes after LAST, and only there."""
    previous, self._previous = self._previous, step_type
    may_start = True if previous is None else previous == types.LAST
    wrong = (step_type == types.FIRST) != may_start
    if wrong.any():
      row = wrong.argmax()
      before = 'a reset' if previous is None else _STEP_TYPES[previous[row]]
      raise ValueError(
        'The environment breaks the order of an episode: '
        f'{_STEP_TYPES[step_type[row]]} came after {before}, in row {row}. '
        'FIRST must come after LAST or a reset, and only there.'
      )


def check_vector(
  environment: core.VectorEnvironment, timestep: dm_env.TimeStep
) -> None:
  """Raises ValueError unless a timestep [N, ...] conforms to its specs.

  Names the field to blame for an error that a later episode led to, whose timesteps
  nothing has checked.
  """
  num_envs = environment.num_envs
  check_batch('step_type', _STEP_TYPE_SPEC, timestep.step_type, num_envs)
  _check_values(specs.make_environment_spec(environment), timestep, num_envs)


def _check_values(
  promised: specs.EnvironmentSpec, timestep: dm_env.TimeStep, num_envs: int
) -> None:
  check_batch(
    'observation', promised.observations, timestep.observation, num_envs
  )
  check_batch('reward', promised.rewards, timestep.reward, num_envs)
  general = (
    _DISCOUNT_SPEC_OF_TWO if specs.has_two_players(promised) else _DISCOUNT_SPEC
  )
  for spec in (promised.discounts, general):
    check_batch('discount', spec, timestep.discount, num_envs)


def flatten(
  field: str, spec: types.NestedSpec, value: types.NestedArray
) -> list[Any]:
  """Returns the leaves of `value`, in the order of those of `spec`.

  Raises:
    ValueError: if the structures differ; names `field`.
  """
  try:
    return tree.flatten_up_to(spec, value, check_types=False)
  except (TypeError, ValueError) as error:
    promised = tree.map_structure(_describe, spec)
    came = tree.map_structure(_describe, value)
    raise ValueError(
      f'{_BROKEN}{field} must have the structure {promised}, got {came}.'
      f'{_REMEDY}'
    ) from error


def check_batch(
  field: str, spec: types.NestedSpec, value: types.NestedArray, num_envs: int
) -> None:
  """Raises ValueError unless `value`, a nest of [N, ...], conforms to `spec`.

  Args:
    field: name of `value` in messages, like 'observation'.
    spec: of one row.
    value: from the environment.
    num_envs: N.
  """
  for name, leaf_spec, leaf in _leaves(field, spec, value):
    if not isinstance(leaf, np.ndarray) or leaf.shape[:1] != (num_envs,):
      raise ValueError(
        f'{_BROKEN}{name} must be an array of {num_envs} rows, got '
        f'{_describe(leaf)}.{_REMEDY}'
      )
    _check_rows(name, leaf_spec, leaf)


def check_row(
  field: str, spec: types.NestedSpec, value: types.NestedArray
) -> None:
  """Raises ValueError unless `value`, of one row, conforms to `spec`."""
  for name, leaf_spec, leaf in _leaves(field, spec, value):
    _check_rows(name, leaf_spec, np.asarray(leaf)[np.newaxis])


def check_timestep(value: Any) -> None:
  """Raises ValueError unless `value` is a dm_env.TimeStep."""
  if not isinstance(value, dm_env.TimeStep):
    raise ValueError(
      'The environment must return a dm_env.TimeStep from reset() and step(), '
      f'got {value!r} of type {type(value).__name__}. Return dm_env.restart, '
      'dm_env.transition, dm_env.termination or dm_env.truncation of what came; '
      'or make it a gymnasium.Env.'
    )


def check_number(field: str, value: Any) -> None:
  """Raises ValueError unless `value` is a real number."""
  if np.ndim(value) or np.asarray(value).dtype.kind not in 'biuf':
    raise ValueError(
      f'{_BROKEN}{field} must be a number, got {value!r} of type '
      f'{type(value).__name__}.{_REMEDY}'
    )


def check_flag(field: str, value: Any) -> None:
  """Raises ValueError unless `value` is a boolean, or 0 or 1."""
  array = np.asarray(value)
  if array.dtype.kind not in 'biuf' or array.size != 1 or array not in (0, 1):
    raise ValueError(
      f'{_BROKEN}{field} must be True or False, got {value!r} of type '
      f'{type(value).__name__}.{_REMEDY}'
    )


def check_flags(field: str, value: Any, num_envs: int) -> None:
  """Raises ValueError unless `value` is an array of N booleans."""
  if getattr(value, 'dtype', None) != np.bool_ or value.shape != (num_envs,):
    raise ValueError(
      f'{_BROKEN}{field} must be an array of {num_envs} booleans, got '
      f'{value!r:.200}.{_REMEDY}'
    )


def _leaves(
  field: str, spec: types.NestedSpec, value: types.NestedArray
) -> Iterator[tuple[str, specs.Array, Any]]:
  """Yields (name, spec, value) of each leaf of `spec`."""
  leaves = flatten(field, spec, value)
  names = specs.named_leaves(field, spec)
  for (name, leaf_spec), leaf in zip(names, leaves, strict=True):
    yield name, leaf_spec, leaf


def _check_rows(name: str, spec: specs.Array, value: np.ndarray) -> None:
  """Raises ValueError unless each row of `value`, an array, obeys `spec`."""
  if value.shape[1:] != spec.shape or value.dtype != spec.dtype:
    raise ValueError(
      f'{_BROKEN}{name} must be {_describe(spec)}, got '
      f'{value.dtype} of shape {value.shape[1:]}.{_REMEDY}'
    )
  if value.dtype.kind == 'f':
    wrong = _first(np.isnan(value))
    if wrong:
      came_from = ' (as None becomes)' if name in ('reward', 'discount') else ''
      _refuse(f'{name} must not be NaN{came_from}', value, wrong)
  if isinstance(spec, specs.BoundedArray):
    wrong = _first((value < spec.minimum) | (value > spec.maximum))
    if wrong:
      low, high = (
        np.broadcast_to(bound, value.shape)[wrong]
        for bound in (spec.minimum, spec.maximum)
      )
      _refuse(f'{name} must be in [{low}, {high}]', value, wrong)


def _first(wrong: np.ndarray) -> tuple[int, ...] | None:
  """Returns the index of the first True; None if there is none."""
  return tuple(map(int, np.argwhere(wrong)[0])) if wrong.any() else None


def _refuse(rule: str, value: np.ndarray, where: tuple[int, ...]) -> None:
  """Raises ValueError with the `rule` that value[where] breaks."""
  row, *index = where
  at = f' at index {index}' if index else ''
  raise ValueError(
    f'{_BROKEN}{rule}, got {value[where]}{at} in row {row}.{_REMEDY}'
  )


def _describe(leaf: Any) -> str:
  if hasattr(leaf, 'dtype'):
    return f'{leaf.dtype} of shape {leaf.shape}'
  return type(leaf).__name__
