"""Holds a run's limits, its end, and the states of its workers, as data.

A `Status` is made by `run.run_state.RunState`, travels through the variable
server to the launcher and to every display, and is kept as `summary.json`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
import dataclasses
import enum
import functools
import types
import typing
from typing import Any, Literal

from distacme import config_checks

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
  """Names the states of workers."""

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
  """Names the reasons for which a run ends."""

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
  """Ends a run by itself at the first limit that it reaches; None is none."""

  max_env_steps: int | None = None  # summed over all actors, resumed ones too
  max_learner_steps: int | None = None  # those before a resumption count, too
  max_seconds: float | None = None  # wall clock, since this process's start

  def __post_init__(self) -> None:
    config_checks.make_whole(self, 'max_env_steps', 'max_learner_steps')
    for field in dataclasses.fields(self):
      value = getattr(self, field.name)
      if value is not None and not value > 0:
        raise ValueError(
          f'{field.name} must be positive, got {value}; use None for no limit.'
        )


@dataclasses.dataclass(frozen=True)
class Stop:
  """Ends a run, for the first reason that was given."""

  reason: StopReason
  detail: str = ''  # for people; the traceback of a worker that failed
  worker: str = ''  # that asked, if a worker did
  seconds: float | None = None  # since the run's start, if that is known


@dataclasses.dataclass(frozen=True)
class WorkerStatus:
  """Describes one worker by its reports.

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
  """Describes a run at one moment, or at its end.

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
    fields: dict[str, Any] = _plain(self)
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
    try:
      status: Status = _read_fields(cls, value)
    except ValueError as error:
      raise ValueError(f'status: {error}') from None
    return status


def _plain(value: Any) -> Any:
  """Returns a value of a field above as JSON has it."""
  # Not by dataclasses.asdict, which copies every number: for 1,000 workers it
  # takes ten times as long.
  if dataclasses.is_dataclass(value):
    return {name: _plain(field) for name, field in vars(value).items()}
  if isinstance(value, enum.Enum):
    return value.value
  if isinstance(value, Mapping):
    first = next(iter(value.values()), None)
    if dataclasses.is_dataclass(first):  # and so are the others
      return {key: _plain(part) for key, part in value.items()}
    return dict(value)
  return value


@functools.cache
def _reader(kind: Any) -> Callable[[Any], Any]:
  """Returns a function from what JSON gave to a `kind`.

  It raises a ValueError for anything else.

  Args:
    kind: a class or the annotation of a field above.
  """
  container, inner = typing.get_origin(kind), typing.get_args(kind)
  if container is types.UnionType:  # of something and None
    return functools.partial(_read_optional, inner[0])
  if container is not None and issubclass(container, Mapping):
    return functools.partial(_read_mapping, _reader(inner[1]))
  if container is not None:
    return functools.partial(_read_list, _reader(inner[0]))
  if dataclasses.is_dataclass(kind):
    return functools.partial(_read_fields, kind)
  if issubclass(kind, enum.Enum):
    return functools.partial(kind)
  return functools.partial(_expect, kind)


def _read_optional(kind: Any, value: Any) -> Any:
  if value is None:
    return None
  if kind is WorkerState and value not in [state.value for state in kind]:
    return None
  return _reader(kind)(value)


def _read_mapping(read: Callable[[Any], Any], value: Any) -> dict[str, Any]:
  return {
    key: _read_part(key, read, part)
    for key, part in _expect(dict, value).items()
  }


def _read_list(read: Callable[[Any], Any], value: Any) -> list[Any]:
  parts = enumerate(_expect(list, value))
  return [_read_part(index, read, part) for index, part in parts]


def _read_fields(kind: Any, value: Any) -> Any:
  given = _expect(dict, value)
  fields = {}
  for name, (read, required) in _fields(kind).items():
    if name in given:
      fields[name] = _read_part(name, read, given[name])
    elif required:
      raise ValueError(f'{name} is missing, got {given!r:.80}.')
  return kind(**fields)


@functools.cache
def _fields(kind: Any) -> dict[str, tuple[Callable[[Any], Any], bool]]:
  """Returns for each field of a dataclass its reader, and if it is required."""
  annotations = typing.get_type_hints(kind)
  missing = dataclasses.MISSING
  return {
    field.name: (
      _reader(annotations[field.name]),
      field.default is missing and field.default_factory is missing,
    )
    for field in dataclasses.fields(kind)
  }


def _read_part(name: object, read: Callable[[Any], Any], value: Any) -> Any:
  try:
    return read(value)
  except ValueError as error:
    raise ValueError(f'{name!s:.80}: {error}') from None


def _expect(kind: Any, value: Any) -> Any:
  if type(value) is kind:
    return value
  if kind is float and (type(value) is int or value in _NON_FINITE):
    return float(value)
  raise ValueError(f'expected {kind.__name__}, got {value!r:.80}.')
