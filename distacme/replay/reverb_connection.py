"""How clients find a Reverb server."""

from __future__ import annotations

from collections.abc import Callable
import logging
import math
import socket
import time
from typing import Any

from distacme.replay import reverb_extension

ANSWER_S = 2  # for the answer to a question
EXPLAIN_AFTER_S = 5.0  # how long to wait for something before saying so
LOOK_S = 0.5  # between looks for a server that is not there


def connect(
  address: str,
  stopped: Callable[[], bool] = lambda: False,
  timeout_s: float = math.inf,
  explain_after_s: float = EXPLAIN_AFTER_S,
) -> Any:
  """Returns a client once the server at `address` answers, or the run is over.

  A server that loads a large checkpoint is there only when it has.

  Args:
    address: of the server.
    stopped: whether the run is over; what the client makes then waits for ever.
    timeout_s: how long to wait.
    explain_after_s: how long to wait before a warning says for whom; four times
      as long until the next, and so on.

  Raises:
    ConnectionError: if it does not answer within `timeout_s`.
  """
  client = reverb_extension.load().Client(address)
  start = time.monotonic()
  tries = 0
  while not stopped():
    tries += 1
    try:
      # Not by gRPC, which tries ever more rarely while nobody is there.
      knock(address)
      client.ServerInfo(ANSWER_S)
      break
    except (OSError, RuntimeError) as error:
      waited_s = time.monotonic() - start
      if waited_s >= timeout_s:
        raise ConnectionError(
          f'no replay server answered at {address} within {timeout_s:.0f} s '
          f'({error}). Look at the log of the replay worker.'
        ) from error
      if waited_s >= explain_after_s:
        explain_after_s *= 4
        logging.warning(
          'the replay server at %s has not answered for %.1f s, in %d tries '
          '(%s). It may be loading a checkpoint: its log says whether it is alive.',
          address,
          waited_s,
          tries,
          error,
        )
      time.sleep(LOOK_S)
  return client


def knock(address: str) -> None:
  """Raises OSError if nobody listens at `address`."""
  host, _, port = address.rpartition(':')
  socket.create_connection((host.strip('[]'), int(port)), ANSWER_S).close()
