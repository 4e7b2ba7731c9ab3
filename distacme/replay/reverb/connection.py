"""Connects to a Reverb server, and notices that the server is gone."""

from __future__ import annotations

from collections.abc import Callable
import logging
import math
import os
import socket
import threading
import time
from typing import Any
import weakref

from distacme.replay.reverb import extension

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
  start = time.monotonic()
  tries = 0
  while not stopped():
    tries += 1
    try:
      # Not by gRPC, which tries ever more rarely while no server listens.
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


class Watch:
  """Probes the server, since Reverb's clients reconnect silently. Thread-safe."""

  def __init__(self, address: str, client: Any, doing: str, waiting: str):
    """Probes nothing yet.

    Args:
      address: of the server.
      client: of the server.
      doing: the work that needs the server, for messages.
      waiting: the side that waits if the server is there, for messages.
    """
    self._address = address
    self._client = client
    self._doing = doing
    self._waiting = waiting
    self._in_vain = 0  # probes since the server was last used
    self._used = False  # since the last probe

  def look(self) -> None:
    """Probes the server and notes whether it is gone."""
    try:
      knock(self._address)
    except OSError:
      self._in_vain += 1

  def look_now_and_then(self) -> None:
    """Probes from a thread of its own, as long as other code refers to this object.

    A server in use needs no probe.
    """
    this = weakref.ref(self)

    def look() -> None:
      while (kept := this()) is not None:
        if not kept._used:
          kept.look()
        kept._used = False
        del kept
        time.sleep(LOOK_S)

    threading.Thread(target=look, daemon=True, name='replay').start()

  def note_use(self) -> None:
    """Notes that the server answers; logs the number of failed tries before."""
    self._used = True
    if self._in_vain:
      in_vain, self._in_vain = self._in_vain, 0
      logging.warning(
        '%s goes on: the replay server at %s was tried %d times in vain.',
        self._doing,
        self._address,
        in_vain,
      )

  def describe(self) -> str:
    """Describes the tables and the side that waits, or that the server is gone."""
    try:
      knock(self._address)
      infos = self._client.ServerInfo(ANSWER_S)
    except (OSError, RuntimeError) as error:
      return (
        f'the replay server at {self._address} does not answer ({error}); it is '
        'tried again.'
      )
    tables = [extension.table_stats(info) for info in infos]
    waiting = self._waiting
    if self._in_vain:
      # The probe cannot tell which of the two is still to happen.
      waiting = (
        f'It was tried {self._in_vain} times in vain and is connected to again; '
        f'once that is done, {waiting[0].lower()}{waiting[1:]}'
      )
    held = ' '.join(
      f'{of_table}{stats.size} items; {stats.inserted} were inserted and '
      f'{stats.sampled} sampled so far, and sampling starts at '
      f'{stats.min_size}.'
      for stats in sorted(tables)
      for of_table in [f'{stats.name}: ' if len(tables) > 1 else '']
    )
    return f'the replay server at {self._address} holds {held} {waiting}'
