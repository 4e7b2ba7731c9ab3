"""Says in words which worker of a run waits for which."""

from __future__ import annotations

from collections.abc import Mapping

from distacme import status as status_lib
from distacme.programs.view import progress
from distacme.run import metrics as metrics_lib

_LEAST_SHARE = 0.05  # of the time; a smaller share is not worth a sentence

# The params that a worker in that state waits for.
_PARAMS = {
  status_lib.WorkerState.WAITING_FOR_PARAMS: 'first',
  status_lib.WorkerState.WAITING_FOR_LAST_PARAMS: 'last',
}

_Workers = Mapping[str, status_lib.WorkerStatus]


def who_waits(status: status_lib.Status) -> list[str]:
  """Returns a sentence for each kind of worker that waits.

  Args:
    status: of the run. Shares of time are those of each worker's last second.
  """
  if not status.workers:
    return ['no worker has been heard of yet']
  workers = {
    name: worker
    for name, worker in status.workers.items()
    if worker.state != status_lib.WorkerState.DONE
  }
  sentences = [
    *_for_params(workers),
    *_for_room(workers),
    *_for_data(workers, status.counts.get('learner_steps', 0)),
    *_silent(workers),
  ]
  return sentences or ['nobody waits for anybody']


def _for_params(workers: _Workers) -> list[str]:
  """Returns sentences about workers that lack params, or the last params."""
  sentences = []
  for state, which in _PARAMS.items():
    names = [name for name, worker in workers.items() if worker.state == state]
    if names:
      sentences.append(
        f'{_and(names)} {_wait(names)} for the learner to publish its {which} '
        'params'
      )
  return sentences


def _for_room(workers: _Workers) -> list[str]:
  """Returns a sentence about actors that replay does not let in."""
  shares = _shares(workers, 'share_blocked_by_replay')
  if not shares or max(shares.values()) < _LEAST_SHARE:
    return []
  mean = sum(shares.values()) / len(shares)
  actors = 'actors wait' if len(shares) > 1 else 'the actor waits'
  return [
    f'{actors} for the learner ({mean:.0%} of the time): replay takes no more '
    f'before more is sampled{_ratio(workers)}'
  ]


def _for_data(workers: _Workers, learner_steps: int) -> list[str]:
  """Returns a sentence about a learner that replay gives nothing."""
  learner = next(
    (worker for name, worker in workers.items() if _kind(name) == 'learner'),
    None,
  )
  if learner is None:
    return []
  if learner.state == status_lib.WorkerState.SETTING_PRIORITIES:
    return ['the learner waits for replay to take priorities']
  waits = learner.state == status_lib.WorkerState.WAITING_FOR_DATA
  if waits and not learner_steps:
    size = _replay(workers).get('size', 0)
    return [
      'the learner waits for the actors: replay must hold more before it is '
      f'sampled (now {size:,.0f})'
    ]
  share = learner.metrics.get('share_waiting_for_data', 0.0)
  if share < _LEAST_SHARE:
    return []
  if not any(_kind(name) in ('actor', 'replay') for name in workers):
    return [
      f'the learner waits for its batches to be drawn ({share:.0%} of the time)'
    ]
  blocked = _shares(workers, 'share_blocked_by_replay')
  if blocked and min(blocked.values()) >= _LEAST_SHARE:
    # The rate limits never hold up both sides: replay has enough items, and
    # sampling takes long.
    return [
      f'the learner waits for its batches to be drawn ({share:.0%} of the time): '
      f'replay is what is slow.{_remedy(workers)}'
    ]
  return [
    f'the learner waits for the actors ({share:.0%} of the time): replay gives '
    f'no more before more is inserted{_ratio(workers)}'
  ]


def _remedy(workers: _Workers) -> str:
  """Returns the flag that makes replay faster, for a run with one server."""
  servers = sum(_kind(name) == 'replay' for name in workers)
  return ' --replay-in-learner makes it faster' if servers <= 1 else ''


def _silent(workers: _Workers) -> list[str]:
  return [
    f'{name} has said nothing for {worker.seconds_since_report:.0f} s'
    for name, worker in workers.items()
    if worker.seconds_since_report > progress.SILENT_S
  ]


def _ratio(workers: _Workers) -> str:
  """Returns the samples per insert, which decide which side waits."""
  reached = _replay(workers).get('samples_per_insert')
  return f' ({reached:.3g} samples per insert so far)' if reached else ''


def _replay(workers: _Workers) -> dict[str, float]:
  """Returns the metrics of replay, the sums of several servers'."""
  servers = [
    worker.metrics
    for name, worker in workers.items()
    if _kind(name) == 'replay'
  ]
  if len(servers) == 1:
    return dict(servers[0])
  # The ratio of the whole is held, and not that of each server.
  ratios = [
    (each.get('inserted', 0.0), each['samples_per_insert'])
    for each in servers
    if each.get('samples_per_insert')
  ]
  inserted = sum(number for number, _ in ratios)
  metrics = {'size': sum(each.get('size', 0.0) for each in servers)}
  if inserted:
    weighted = sum(number * ratio for number, ratio in ratios)
    metrics['samples_per_insert'] = weighted / inserted
  return metrics


def _shares(workers: _Workers, metric: str) -> dict[str, float]:
  """Returns a metric by worker, for the workers that report the metric."""
  return {
    name: worker.metrics[metric]
    for name, worker in workers.items()
    if metric in worker.metrics
  }


def _kind(name: str) -> str:
  return metrics_lib.worker_kind(name)


def _and(names: list[str]) -> str:
  *others, last = sorted(names)
  return f'{", ".join(others)} and {last}' if others else last


def _wait(names: list[str]) -> str:
  return 'waits' if len(names) == 1 else 'wait'
