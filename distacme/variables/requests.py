"""Checks requests to the server, which does not trust their senders."""

from __future__ import annotations

from typing import Any, NamedTuple

from distacme import status
from distacme.rpc import messages
from distacme.run import files
from distacme.variables import wire

_MAX_NAME = 200  # characters
_MAX_DETAIL = 20_000  # last characters of a traceback, which tell most
_MAX_PERIOD_S = 60


class Subscription(NamedTuple):
  """A request to be sent params.

  Attributes:
    version: of the subscriber's params.
    period_s: seconds between two versions, at least.
  """

  version: int
  period_s: float


def subscription(data: bytes) -> Subscription:
  """Reads a request to be sent params.

  Raises:
    ValueError: if `data` is anything else.
  """
  message = messages.unpack(data)
  version, period_s = message.get('version'), message.get('period_s', 0)
  if type(version) is not int:
    raise ValueError(
      f'Subscribe takes the version that is there, got {version!r:.80}.'
    )
  if type(period_s) not in (int, float) or not 0 <= period_s <= _MAX_PERIOD_S:
    raise ValueError(
      f'period_s must be in [0, {_MAX_PERIOD_S}], got {period_s!r:.80}.'
    )
  return Subscription(version, period_s)


def workers(data: bytes) -> list[str] | None:
  """Reads a request for a status: the workers to tell of, None for all.

  Raises:
    ValueError: if `data` is anything else.
  """
  names = messages.unpack(data).get('workers')
  if names is None:
    return None
  if not isinstance(names, list) or not all(
    isinstance(name, str) for name in names
  ):
    raise ValueError(f'workers must be a list of names, got {names!r:.80}.')
  return names


def report(data: bytes) -> dict[str, Any]:
  """Reads a report; see `variables.wire`.

  Returns:
    The fields, with `state` as a `WorkerState` or None.

  Raises:
    ValueError: if a field is missing or of another type, a number is no number, the
      state or a counter is unknown, or there are more metrics than a client sends.
  """
  message = messages.unpack(data)
  types = {'worker': str, 'session': str, 'sequence': int, 'alive': bool}
  types |= {'counts': dict, 'metrics': list}
  for name, kind in types.items():
    if not isinstance(message.get(name), kind):
      raise ValueError(
        f'{name} of a report must be of type {kind.__name__}, got'
        f' {message.get(name)!r:.80}.'
      )
  for name, count in message['counts'].items():
    if name not in status.COUNTERS:
      known = ', '.join(status.COUNTERS)
      raise ValueError(f'A counter is one of {known}, got {name!r:.80}.')
    # A learner that went back to its last checkpoint sends negative increments.
    if type(count) is not int or not -(2**63) <= count < 2**63:
      raise ValueError(f'{name} must change by an int, got {count!r:.80}.')
  if len(message['metrics']) > wire.MAX_MOMENTS:
    raise ValueError(
      f'A report has metrics of at most {wire.MAX_MOMENTS} moments, got '
      f'{len(message["metrics"])}.'
    )
  message['metrics'] = list(map(files.unspelled, message['metrics']))
  for metrics in message['metrics']:
    if not isinstance(metrics, dict) or not all(
      map(_is_number, metrics.values())
    ):
      raise ValueError(f'Metrics must be numbers, got {metrics!r:.80}.')
  values = sum(map(len, message['metrics']))
  if values > wire.MAX_VALUES:
    raise ValueError(
      f'A report has at most {wire.MAX_VALUES} values, got {values}.'
    )
  for name in ('worker', 'session'):
    message[name] = _name(message[name])
  message['metrics'] = [
    {_name(name): value for name, value in metrics.items()}
    for metrics in message['metrics']
  ]
  return {**message, 'state': _state(message.get('state'))}


def _name(text: str) -> str:
  """Returns a name as it may be shown and kept: printable, and cut if it is long."""
  return status.printable(text[:_MAX_NAME])


def _state(value: Any) -> status.WorkerState | None:
  if value is None:
    return None
  try:
    return status.WorkerState(value)
  except ValueError:
    known = ', '.join(state.value for state in status.WorkerState)
    raise ValueError(
      f'state of a report must be null or one of {known}, got {value!r:.80}.'
    ) from None


def stop(data: bytes) -> status.Stop:
  """Reads a request to end the run: its reason, detail and worker.

  Raises:
    ValueError: if the reason is unknown.
  """
  message = messages.unpack(data)
  reason = status.StopReason(message.get('reason'))
  return status.Stop(reason, _detail(message), _worker(message))


class Failure(NamedTuple):
  """A worker's failure, with its traceback."""

  worker: str
  detail: str


def failure(data: bytes) -> Failure:
  """Reads a worker's failure; raises ValueError if `data` is no message."""
  message = messages.unpack(data)
  return Failure(_worker(message), _detail(message))


def num_actors(data: bytes) -> int:
  """Reads the number of actors asked for.

  Raises:
    ValueError: if `data` names no number.
  """
  number = messages.unpack(data).get('num_actors')
  if type(number) is not int:
    raise ValueError(f'num_actors must be an int, got {number!r:.80}.')
  return number


def _worker(message: dict[str, Any]) -> str:
  return _name(str(message.get('worker', '')))


def _detail(message: dict[str, Any]) -> str:
  return status.printable(str(message.get('detail', ''))[-_MAX_DETAIL:])


def _is_number(value: Any) -> bool:
  """Returns whether a metric can be kept as a float."""
  return type(value) is float or (type(value) is int and abs(value) < 2**63)
