"""How services know that nobody needs them any more."""

from __future__ import annotations

from collections.abc import Callable, Collection
import time
from typing import Any

from distacme import counting

FINISH_S = 30.0  # how long a service waits for its clients to save and end


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
      if worker['state'] == counting.DONE
    }
    if now['stop']:
      ended.add(now['stop']['worker'])
    added = {name for name in now['workers'] if name.startswith('actor/')}
    if ended.issuperset(added.union(workers)):
      return
    time.sleep(0.02)
