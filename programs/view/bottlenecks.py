"""Who waits for whom in a run, in words."""

from __future__ import annotations

from typing import Any

from distacme.programs.view import progress
from distacme.run import metrics as metrics_lib
from distacme.run import status as status_lib

_LEAST_SHARE = 0.05  # of the time; less is not worth a sentence


def who_waits(status: dict[str, Any]) -> list[str]:
  """Returns a sentence for each kind of worker that waits, and for whom.

  Args:
    status: of the run, as of `counting.RunState.status`. The shares of time are
      of each worker's last second.
  """
  if not status['workers']:
    return ['no worker has been heard of yet']
  workers: dict[str, dict[str, Any]] = {
    name: worker
    for name, worker in status['workers'].items()
    if worker['state'] != status_lib.DONE
  }
  sentences = [
    *_for_params(workers),
    *_for_room(workers),
    *_for_data(workers, status['counts'].get('learner_steps', 0)),
    *_silent(workers),
  ]
  return sentences or ['nobody waits for anybody']


def _for_params(workers: dict[str, dict[str, Any]]) -> list[str]:
  sentences = []
  for state, which in (
    ('waiting for params', 'first'),
    ('waiting for the last params', 'last'),
  ):
    names = [n for n, worker in workers.items() if worker['state'] == state]
    if names:
      sentences.append(
        f'{_and(names)} {_wait(names)} for the learner to publish its {which} '
        'params'
      )
  return sentences


def _for_room(workers: dict[str, dict[str, Any]]) -> list[str]:
  """Of actors that replay does not let in."""
  shares = _shares(workers, 'share_blocked_by_replay')
  if not shares or max(shares.values()) < _LEAST_SHARE:
    return []
  mean = sum(shares.values()) / len(shares)
  actors = 'actors wait' if len(shares) > 1 else 'the actor waits'
  return [
    f'{actors} for the learner ({mean:.0%} of the time): replay takes no more '
    f'before more is sampled{_ratio(workers)}'
  ]


def _for_data(
  workers: dict[str, dict[str, Any]], learner_steps: int
) -> list[str]:
  """Of a learner that replay gives nothing."""
  learner = next(
    (worker for name, worker in workers.items() if _kind(name) == 'learner'),
    None,
  )
  if learner is None:
    return []
  if learner['state'] == 'waiting to set priorities':
    return ['the learner waits for replay to take priorities']
  if learner['state'] == 'waiting for data' and not learner_steps:
    size = _replay(workers).get('size', 0)
    return [
      'the learner waits for the actors: replay must hold more before it is '
      f'sampled (now {size:,.0f})'
    ]
  share = learner['metrics'].get('share_waiting_for_data', 0.0)
  if share < _LEAST_SHARE:
    return []
  blocked = _shares(workers, 'share_blocked_by_replay')
  if blocked and min(blocked.values()) >= _LEAST_SHARE:
    # The rate limits never hold up both: there is enough, it only takes long.
    return [
      f'the learner waits for its batches to be drawn ({share:.0%} of the time): '
      'replay is what is slow. --replay-in-learner makes it faster'
    ]
  return [
    f'the learner waits for the actors ({share:.0%} of the time): replay gives '
    f'no more before more is inserted{_ratio(workers)}'
  ]


def _silent(workers: dict[str, dict[str, Any]]) -> list[str]:
  return [
    f'{name} has said nothing for {worker["seconds_since_report"]:.0f} s'
    for name, worker in workers.items()
    if worker['seconds_since_report'] > progress.SILENT_S
  ]


def _ratio(workers: dict[str, dict[str, Any]]) -> str:
  """Returns the samples per insert, which decide who waits."""
  reached = _replay(workers).get('samples_per_insert')
  return f' ({reached:.3g} samples per insert so far)' if reached else ''


def _replay(workers: dict[str, dict[str, Any]]) -> dict[str, float]:
  metrics: dict[str, float] = {}
  for name, worker in workers.items():
    if _kind(name) == 'replay':
      metrics |= worker['metrics']
  return metrics


def _shares(
  workers: dict[str, dict[str, Any]], metric: str
) -> dict[str, float]:
  return {
    name: worker['metrics'][metric]
    for name, worker in workers.items()
    if metric in worker['metrics']
  }


def _kind(name: str) -> str:
  return metrics_lib.worker_kind(name)


def _and(names: list[str]) -> str:
  *others, last = sorted(names)
  return f'{", ".join(others)} and {last}' if others else last


def _wait(names: list[str]) -> str:
  return 'waits' if len(names) == 1 else 'wait'
