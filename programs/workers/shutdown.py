"""How services know that nobody needs them any more."""

from __future__ import annotations

from collections.abc import Callable, Collection
import time
from typing import Any

from distacme.run import status as status_lib

_FINISH_S = 30.0  # how long a service waits for its clients to save and end
# The same after SIGTERM, after which a cluster kills soon. Replay has saved by then.
_TERMINATED_S = 7.0


def patience_s(stop: str) -> float:
  """Returns how long a service waits in a run that ends for the reason `stop`."""
  terminated = stop == status_lib.StopReason.TERMINATED
  return _TERMINATED_S if terminated else _FINISH_S


def wait_for(
  workers: Collection[str],
  status: Callable[[], dict[str, Any]],
  timeout_s: float,
) -> None:
  """Waits until `workers` have said goodbye, or for too long.

  A worker that the run ends because of is not waited for.
  """
  deadline = time.monotonic() + timeout_s
  while time.monotonic() < deadline:
    try:
      now = status()
    except ConnectionError:  # the variable server is gone, and with it the run
      return
    ended = {
      name
      for name, worker in now['workers'].items()
      if worker['state'] == status_lib.DONE
    }
    if now['stop']:
      ended.add(now['stop']['worker'])
    added = {name for name in now['workers'] if name.startswith('actor/')}
    if ended.issuperset(added.union(workers)):
      return
    time.sleep(0.02)
