"""A run's limits, its end, and the states of its workers, as data.

`run.run_state.RunState` makes a `Status`. The status travels through the variable
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

# Names of the clocks for people.
CLOCKS: Mapping[Clock, str] = {
  'env_steps': 'environment steps',
  'learner_steps': 'learner steps',
}

# The counters of a run, in the order in which displays show them.
COUNTERS = ('env_steps', 'learner_steps', 'episodes', 'evaluations')

# As JSON has no such numbers; see `files.to_json`.
_NON_FINITE = ('NaN', 'Infinity', '-Infinity')


class WorkerState(str, enum.Enum):
  """The states of workers."""

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


class NotFiniteError(FloatingPointError, ValueError):
  """A run's numbers are not finite, and would not be after a restart either.

  The message is a sentence, with which the run ends.
  """


class StopReason(str, enum.Enum):
  """The reasons for which a run ends."""

  SOLVED = 'solved'
  STEP_LIMIT = 'step_limit'
  TIME_LIMIT = 'time_limit'
  CONVERGED = 'converged'  # the agent has nothing more to learn
  INTERRUPTED = 'interrupted'  # Ctrl-C
  TERMINATED = 'terminated'  # SIGTERM
  FAILED = 'failed'

  @classmethod
  def _missing_(cls, value: object) -> None:
    known = ', '.join(reason.value for reason in cls)
    raise ValueError(f'{value!r:.80} is no reason to stop; use one of {known}.')


def leaves_time(stop: StopReason | None) -> bool:
  """Returns whether a run goes on, or ended with time for a last evaluation.

  Args:
    stop: see `core.Directive`.
  """
  return stop in (None, StopReason.STEP_LIMIT, StopReason.CONVERGED)


@dataclasses.dataclass(frozen=True)
class Limits:
  """The limits of a run, which ends at the first one reached; None is none."""

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
  """The end of a run, for the first reason that was given."""

  reason: StopReason
  detail: str = ''  # for people; the traceback of a worker that failed
  worker: str = ''  # the worker that asked, if one did
  seconds: float | None = None  # since the run's start, if known


@dataclasses.dataclass(frozen=True)
class WorkerStatus:
  """One worker, by its reports.

  Attributes:
    state: None before the first report of a state, or if another version of
      distacme reported a state that this version does not know.
    seconds_since_report: since the worker's last report.
    counts: the worker's own increments of the run's counters.
    rates: of `counts` per second, over the last seconds.
    metrics: the newest value of each metric.
    failure: the detail of the worker's last failure; '' before any, and once the
      worker has started anew.
    has_worked: whether the worker has counted or measured anything since it started.
  """

  state: WorkerState | None = None
  seconds_since_report: float = 0.0
  counts: Mapping[str, int] = dataclasses.field(default_factory=dict)
  rates: Mapping[str, float] = dataclasses.field(default_factory=dict)
  metrics: Mapping[str, float] = dataclasses.field(default_factory=dict)
  failure: str = ''
  has_worked: bool = False


@dataclasses.dataclass(frozen=True)
class Status:
  """A run at one moment, or at its end.

  Metrics may hold NaN and infinity. Only the launcher knows `failures`, `restarts`
  and `shown_failures`.

  Attributes:
    seconds: since the run's start.
    counts: the run's counters, summed over all workers and resumptions.
    rates: of `counts` per second, over the last seconds.
    workers: by name.
    stop: None while the run goes on.
    limits: of the run.
    params_version: of the newest params, None before the first.
    num_actors: number asked for since the run began; None if none was.
    failures: the end of each worker that failed and was not restarted, by name.
    restarts: the ends of each worker that was started again, one for each restart.
    shown_failures: failures for a display to show once, above itself. They are not
      kept in the summary: readers of a summary have not seen them.
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
    """Undoes `to_dict`, of this version of distacme or another.

    A field that is missing is at its default, one that is unknown left out, and
    a worker's state that is unknown None. An unknown reason of the run's end is
    a failure, with the reason in its detail. All texts are `printable`.

    Raises:
      ValueError: if `value` is no status.
    """
    try:
      status: Status = _read_fields(cls, value)
    except ValueError as error:
      raise ValueError(f'status: {error}') from None
    return status


def printable(text: str) -> str:
  """Returns a peer's text without the characters that would command a terminal."""
  if text.isprintable():
    return text
  return ''.join(
    character if character.isprintable() or character in '\n\t' else '\ufffd'
    for character in text
  )


def _plain(value: Any) -> Any:
  """Returns a value of a field above as plain data for JSON."""
  # Not by dataclasses.asdict, which copies every number and takes ten times as long
  # for 1,000 workers.
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
  """Returns a function from plain data to a `kind`.

  The function raises a ValueError for other data.

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
  if kind is Stop:
    return _read_stop
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


def _read_stop(value: Any) -> Any:
  given = dict(_expect(dict, value))
  reason, detail = given.get('reason'), given.get('detail', '')
  known = [reason.value for reason in StopReason]
  if type(reason) is str and type(detail) is str and reason not in known:
    given['reason'] = StopReason.FAILED.value
    given['detail'] = f'{reason}: {detail}' if detail else reason
  return _read_fields(Stop, given)


def _read_mapping(read: Callable[[Any], Any], value: Any) -> dict[str, Any]:
  return {
    printable(key): _read_part(key, read, part)
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
  """Returns for each field of a dataclass its reader, and whether it is required."""
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
    return printable(value) if kind is str else value
  if kind is float and (type(value) is int or value in _NON_FINITE):
    return float(value)
  raise ValueError(f'expected {kind.__name__}, got {value!r:.80}.')
