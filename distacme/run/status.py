"""How a run stands: its limits and end, and what each of its workers does.

A `Status` is made by `run.run_state.RunState`, travels through the variable
server to the launcher and to every display, and is kept as `summary.json`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
import dataclasses
import enum
import functools
import types
import typing
from typing import Any, Literal

# The counter on which evaluations are due, and over which curves are drawn.
Clock = Literal['env_steps', 'learner_steps']

# What people call a clock.
CLOCKS: Mapping[Clock, str] = {
  'env_steps': 'environment steps',
  'learner_steps': 'learner steps',
}


# In JSON, which has no such numbers; see `files.to_json`.
_NON_FINITE = ('NaN', 'Infinity', '-Infinity')


class WorkerState(str, enum.Enum):
  """What a worker does."""

  STARTING = 'starting'
  WAITING_FOR_PARAMS = 'waiting_for_params'  # the first of the run
  WAITING_FOR_LEARNER = 'waiting_for_learner'  # to make its first step
  ACTING = 'acting'
  LEARNING = 'learning'
  WAITING_FOR_DATA = 'waiting_for_data'
  SETTING_PRIORITIES = 'setting_priorities'  # which replay takes too slowly
  EVALUATING = 'evaluating'
  IDLE = 'idle'  # until the next evaluation is due
  WAITING_FOR_LAST_PARAMS = 'waiting_for_last_params'
  SERVING = 'serving'
  SAVING = 'saving'
  DONE = 'done'  # said in the last report


class StopReason(str, enum.Enum):
  """Why a run ends."""

  SOLVED = 'solved'
  STEP_LIMIT = 'step_limit'
  TIME_LIMIT = 'time_limit'
  INTERRUPTED = 'interrupted'  # Ctrl-C
  TERMINATED = 'terminated'  # SIGTERM
  FAILED = 'failed'

  @classmethod
  def _missing_(cls, value: object) -> None:
    known = ', '.join(reason.value for reason in cls)
    raise ValueError(f'{value!r:.80} is no reason to stop; use one of {known}.')


def leaves_time(stop: StopReason | None) -> bool:
  """Returns whether a run goes on, or ended so that it may yet be measured.

  Args:
    stop: as of `core.Directive`.
  """
  return stop in (None, StopReason.STEP_LIMIT)


@dataclasses.dataclass(frozen=True)
class Limits:
  """When a run ends by itself; None is no limit."""

  max_env_steps: int | None = None  # summed over all actors, resumed ones too
  max_learner_steps: int | None = None  # those before a resumption count, too
  max_seconds: float | None = None  # wall clock, since this process's start

  def __post_init__(self) -> None:
    for field in dataclasses.fields(self):
      value = getattr(self, field.name)
      if value is not None and not value > 0:
        raise ValueError(
          f'{field.name} must be positive, got {value}; use None for no limit.'
        )


@dataclasses.dataclass(frozen=True)
class Stop:
  """The end of a run, as it was asked for."""

  reason: StopReason
  detail: str = ''  # for people; the traceback of a worker that failed
  worker: str = ''  # that asked, if a worker did
  seconds: float | None = None  # since the run's start, if that is known


@dataclasses.dataclass(frozen=True)
class WorkerStatus:
  """One worker, as its reports tell.

  Attributes:
    state: None if it has not said, or a version that this one does not know has.
    seconds_since_report: its last one.
    counts: increments of the run's counters that are its own.
    rates: the same per second, over the last seconds.
    metrics: the newest value of each.
    failure: the detail of its last failure, '' if it has had none.
  """

  state: WorkerState | None = None
  seconds_since_report: float = 0.0
  counts: Mapping[str, int] = dataclasses.field(default_factory=dict)
  rates: Mapping[str, float] = dataclasses.field(default_factory=dict)
  metrics: Mapping[str, float] = dataclasses.field(default_factory=dict)
  failure: str = ''


@dataclasses.dataclass(frozen=True)
class Status:
  """A run, at one moment or at its end.

  Metrics may hold NaN and infinity.

  Attributes:
    seconds: since its start.
    counts: its counters, summed over all workers and resumptions.
    rates: the same per second, over the last seconds.
    workers: by name.
    stop: None while it goes on.
    limits: when it ends by itself.
    params_version: of the newest params, None before the first.
    num_actors: that were asked for since it began, if any were.
    failures: how each worker failed that was not restarted, by name. This and
      what follows is known to the launcher only.
    restarts: how each worker ended before it was started again, every time.
    shown_failures: to be shown once above a display. They are not kept with
      the rest: readers of a summary have not seen them.
  """

  seconds: float
  counts: Mapping[str, int]
  rates: Mapping[str, float] = dataclasses.field(default_factory=dict)
  workers: Mapping[str, WorkerStatus] = dataclasses.field(default_factory=dict)
  stop: Stop | None = None
  limits: Limits = Limits()
  params_version: int | None = None
  num_actors: int | None = None
  failures: Mapping[str, str] = dataclasses.field(default_factory=dict)
  restarts: Mapping[str, Sequence[str]] = dataclasses.field(
    default_factory=dict
  )
  shown_failures: Sequence[str] = ()

  def to_dict(self) -> dict[str, Any]:
    """Returns plain data for JSON, without `shown_failures`."""
    fields = dataclasses.asdict(self, dict_factory=_plain)
    del fields['shown_failures']
    return fields

  @classmethod
  def from_dict(cls, value: Any) -> Status:
    """Returns the status that `to_dict` made plain, in this version or another.

    A field that is missing is at its default, one that is unknown left out, and
    a worker's state that is unknown None.

    Raises:
      ValueError: if `value` is something else.
    """
    status: Status = _read(cls, value, 'status')
    return status


def _plain(fields: list[tuple[str, Any]]) -> dict[str, Any]:
  return {
    name: value.value if isinstance(value, enum.Enum) else value
    for name, value in fields
  }


def _read(kind: Any, value: Any, name: str) -> Any:
  """Returns what JSON gave as a `kind`.

  Args:
    kind: the annotation of a field above.
    value: found in its place.
    name: of the field, for errors.

  Raises:
    ValueError: if `value` is no `kind`.
  """
  container, inner = typing.get_origin(kind), typing.get_args(kind)
  if container is types.UnionType:  # of something and None
    return _read_optional(inner[0], value, name)
  if container is not None and issubclass(container, Mapping):
    return {
      key: _read(inner[1], part, f'{name}[{key!r:.80}]')
      for key, part in _expect(dict, value, name).items()
    }
  if container is not None:
    items = enumerate(_expect(list, value, name))
    return [_read(inner[0], part, f'{name}[{i}]') for i, part in items]
  if dataclasses.is_dataclass(kind):
    return _read_fields(kind, value, name)
  if issubclass(kind, enum.Enum):
    return kind(value)
  if kind is float and (type(value) is int or value in _NON_FINITE):
    return float(value)
  return _expect(kind, value, name)


def _read_optional(kind: Any, value: Any, name: str) -> Any:
  if value is None:
    return None
  if kind is WorkerState and value not in [state.value for state in kind]:
    return None
  return _read(kind, value, name)


def _read_fields(kind: Any, value: Any, name: str) -> Any:
  given = _expect(dict, value, name)
  for field in dataclasses.fields(kind):
    if field.name not in given and _is_required(field):
      raise ValueError(f'{name} must have {field.name}, got {given!r:.80}.')
  return kind(
    **{
      field: _read(annotation, given[field], field)
      for field, annotation in _annotations(kind).items()
      if field in given
    }
  )


def _is_required(field: dataclasses.Field[Any]) -> bool:
  missing = dataclasses.MISSING
  return field.default is missing and field.default_factory is missing


@functools.cache
def _annotations(kind: Any) -> dict[str, Any]:
  return typing.get_type_hints(kind)


def _expect(kind: Any, value: Any, name: str) -> Any:
  if type(value) is not kind:
    raise ValueError(
      f'{name} must be of type {kind.__name__}, got {value!r:.80}.'
    )
  return value
