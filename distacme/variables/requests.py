"""Checks requests to the server, which does not trust their senders."""

from __future__ import annotations

import itertools
from typing import Any, NamedTuple

from distacme import status
from distacme.rpc import messages
from distacme.run import files

_MAX_TEXT = 1_000  # characters of a name
MAX_DETAIL = 20_000  # last characters of a traceback, which tell most
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


def report(data: bytes) -> dict[str, Any]:
  """Reads a report; see `variables.wire`.

  Returns:
    The fields, with `state` as a `WorkerState` or None.

  Raises:
    ValueError: if a field is missing or of another type, a number is no number, the
      state is unknown, or a text is longer than our clients' texts.
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
    # A learner that went back to its last checkpoint sends negative increments.
    if type(count) is not int or not -(2**63) <= count < 2**63:
      raise ValueError(
        f'Counter {name!r:.80} must change by an int, got {count!r:.80}.'
      )
  message['metrics'] = list(map(files.unspelled, message['metrics']))
  for metrics in message['metrics']:
    if not isinstance(metrics, dict) or not all(
      map(_is_number, metrics.values())
    ):
      raise ValueError(f'Metrics must be numbers, got {metrics!r:.80}.')
  texts = [message[name] for name in ('worker', 'session')]
  for text in (
    *texts,
    *message['counts'],
    *itertools.chain(*message['metrics']),
  ):
    if len(text) > _MAX_TEXT:
      raise ValueError(
        f'A text of a report has at most {_MAX_TEXT} characters, got'
        f' {len(text)}: {text!r:.80}.'
      )
  message['worker'] = status.printable(message['worker'])
  message['counts'] = _printable_keys(message['counts'])
  message['metrics'] = list(map(_printable_keys, message['metrics']))
  return {**message, 'state': _state(message.get('state'))}


def _printable_keys(numbers: dict[str, Any]) -> dict[str, Any]:
  return {status.printable(name): number for name, number in numbers.items()}


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
  detail, worker = (
    status.printable(str(message.get(key, ''))) for key in ('detail', 'worker')
  )
  detail, worker = detail[-MAX_DETAIL:], worker[:_MAX_TEXT]
  return status.Stop(status.StopReason(message.get('reason')), detail, worker)


def _is_number(value: Any) -> bool:
  """Returns whether a metric can be kept as a float."""
  return type(value) is float or (type(value) is int and abs(value) < 2**63)
