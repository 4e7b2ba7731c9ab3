"""Lets services wait until their clients have ended."""

from __future__ import annotations

from collections.abc import Callable, Collection
import time

from distacme import status as status_lib
from distacme.programs import program

_FINISH_S = 30.0  # how long a service waits for its clients to save and end
# The same after SIGTERM, after which a cluster kills soon. Replay has saved by then.
_TERMINATED_S = 7.0
_PERIOD_S = 0.2  # between looks at who has ended


def patience_s(stop: status_lib.StopReason) -> float:
  """Returns the seconds that a service waits in a run that ends for `stop`."""
  terminated = stop == status_lib.StopReason.TERMINATED
  return _TERMINATED_S if terminated else _FINISH_S


def wait_for(
  workers: Collection[str],
  status: Callable[[], status_lib.Status],
  timeout_s: float,
) -> None:
  """Waits until `workers` are done, at most `timeout_s`.

  The worker whose failure ends the run is not waited for.
  """
  deadline = time.monotonic() + timeout_s
  while time.monotonic() < deadline:
    try:
      now = status()
    except ConnectionError:  # the variable server is gone, and with it the run
      return
    ended = {
      name
      for name, worker in now.workers.items()
      if worker.state == status_lib.WorkerState.DONE
    }
    if now.stop:
      ended.add(now.stop.worker)
    added = {name for name in now.workers if program.is_actor(name)}
    if ended.issuperset(added.union(workers)):
      return
    time.sleep(_PERIOD_S)
