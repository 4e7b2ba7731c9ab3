"""Connects to a Reverb server."""

from __future__ import annotations

from collections.abc import Callable
import logging
import math
import os
import socket
import time
from typing import Any

from distacme.replay.reverb import extension
from distacme.run import patience as patience_lib

ANSWER_S = 2  # for the answer to a question
EXPLAIN_AFTER_S = 5.0  # of waiting, before a warning gives the reason
LOOK_S = 0.5  # between looks for a server that is not there


def connect(
  address: str,
  stopped: Callable[[], bool] = lambda: False,
  timeout_s: float = math.inf,
  explain_after_s: float = EXPLAIN_AFTER_S,
) -> Any:
  """Returns a client once the server at `address` answers, or the run is over.

  A server answers only after it has loaded its checkpoint.

  Args:
    address: of the server.
    stopped: returns whether the run is over; samplers and writers that the client
      makes afterwards wait for ever.
    timeout_s: seconds to wait.
    explain_after_s: seconds to wait before a warning names the server; four times
      as long until the next warning, and so on.

  Raises:
    ConnectionError: if the server does not answer within `timeout_s`.
  """
  _ask_no_proxy(address)
  client = extension.load().Client(address)
  patience = patience_lib.Patience(explain_after_s)
  tries = 0
  while not stopped():
    tries += 1
    try:
      # Not by gRPC, which tries ever more rarely while no server listens.
      knock(address)
      client.ServerInfo(ANSWER_S)
      break
    except (OSError, RuntimeError) as error:
      if patience.waited_s >= timeout_s:
        raise ConnectionError(
          f'no replay server answered at {address} within {timeout_s:.0f} s '
          f'({error}). Look at the log of the replay worker.'
        ) from error
      if patience.is_over():
        logging.warning(
          'the replay server at %s has not answered for %.1f s, in %d tries '
          '(%s). It may be loading a checkpoint: its log says whether it is alive.',
          address,
          patience.waited_s,
          tries,
          error,
        )
      time.sleep(LOOK_S)
  return client


def _ask_no_proxy(address: str) -> None:
  """Keeps Reverb's channels to a server from using $http_proxy.

  Reverb has no such option: its gRPC reads the environment, and takes
  $no_grpc_proxy instead of $no_proxy. Only gRPC reads $no_grpc_proxy.
  """
  host = address.rpartition(':')[0].strip('[]')
  name = 'no_grpc_proxy'
  known = os.environ.get(name) or os.environ.get('no_proxy', '')
  if host not in known.split(','):
    os.environ[name] = ','.join(filter(None, (known, host)))


def knock(address: str) -> None:
  """Raises OSError if no server listens at `address`."""
  host, _, port = address.rpartition(':')
  socket.create_connection((host.strip('[]'), int(port)), ANSWER_S).close()
