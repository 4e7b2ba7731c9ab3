"""Reaching a Reverb server, and noticing that it is gone."""

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
  _ask_no_proxy(address)
  client = extension.load().Client(address)
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


def _ask_no_proxy(address: str) -> None:
  """Keeps Reverb's channels to a server from asking $http_proxy for it.

  Reverb takes no option for that: its gRPC reads the environment, of which
  no_grpc_proxy stands in for no_proxy. Nothing but gRPC reads that one.
  """
  host = address.rpartition(':')[0].strip('[]')
  name = 'no_grpc_proxy'
  known = os.environ.get(name) or os.environ.get('no_proxy', '')
  if host not in known.split(','):
    os.environ[name] = ','.join(filter(None, (known, host)))


def knock(address: str) -> None:
  """Raises OSError if nobody listens at `address`."""
  host, _, port = address.rpartition(':')
  socket.create_connection((host.strip('[]'), int(port)), ANSWER_S).close()


class Watch:
  """Notices that a server is gone, to which writers and samplers connect again.

  They do so by themselves, and Reverb tells nobody; so it is looked for. Any
  thread.
  """

  def __init__(self, address: str, client: Any, doing: str, waiting: str):
    """Looks for nothing yet.

    Args:
      address: of the server.
      client: of the server.
      doing: what needs it, for messages.
      waiting: who waits for whom, if the server is there.
    """
    self._address = address
    self._client = client
    self._doing = doing
    self._waiting = waiting
    self._in_vain = 0  # looks since it was last of use
    self._used = False  # since the last look

  def look(self) -> None:
    """Notes whether the server is gone."""
    try:
      knock(self._address)
    except OSError:
      self._in_vain += 1

  def look_now_and_then(self) -> None:
    """Looks from a thread of its own, as long as somebody else keeps this.

    While the server is of use there is nothing to look for.
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
    """Logs how often the server was tried in vain, now that it answers."""
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
    """Describes the tables and who waits for whom, or says that it is gone."""
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
      # It cannot be told which of the two is still to happen.
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
