"""The event loop of a process's servers, in a thread of its own."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
import functools
import threading
from typing import Any, TypeVar

_T = TypeVar('_T')


_making = threading.Lock()


def shared() -> asyncio.AbstractEventLoop:
  """Returns the loop, which runs until the process ends.

  All servers share one loop, since gRPC has one queue of events in a process: each
  event would wake every loop, all but one of them in vain.
  """
  with _making:  # Two threads that find no loop would make two.
    return _shared()


@functools.cache
def _shared() -> asyncio.AbstractEventLoop:
  loop = asyncio.new_event_loop()
  threading.Thread(target=loop.run_forever, name='servers', daemon=True).start()
  return loop


def run(coroutine: Coroutine[Any, Any, _T]) -> _T:
  """Runs a coroutine in the loop and waits for the result; in any other thread."""
  return asyncio.run_coroutine_threadsafe(coroutine, shared()).result()
