"""Receives params in a thread, from a relay or from the variable server."""

from __future__ import annotations

from collections.abc import Callable, Iterator
import logging
import threading
import time
from typing import TypeAlias

from distacme.rpc import line as line_lib
from distacme.rpc import messages
from distacme.variables import wire

_RETRY_S = 0.2
# A relay that died is there again after a second or two, unless its host is lost.
_WITHOUT_RELAY_S = 10.0
_ASK_RELAY_AGAIN_S = 60.0

# Takes a header as bytes, the header, and a stream of its chunks and what follows.
Receive: TypeAlias = Callable[[bytes, wire.Header, Iterator[bytes]], None]


class Subscriber:
  """Gets newer params for ever; opens the stream anew whenever it breaks.

  With a relay, params come from there. If the relay is lost for `_WITHOUT_RELAY_S`,
  they come from the variable server for a while, and then the relay is asked again.

  Attributes:
    broken: streams in a row that broke before any params came.
  """

  def __init__(
    self,
    worker: str,
    server: line_lib.Line,
    receive: Receive,
    *,
    version: Callable[[], int],
    period_s: float = 0.0,
    find_relay: line_lib.Find | None = None,
  ) -> None:
    """Starts the thread.

    Args:
      worker: the name of the subscribing worker.
      server: to the variable server.
      receive: reads one version; it is called in the thread.
      version: returns the version that is there, -1 before the first.
      period_s: seconds between two versions, at least.
      find_relay: returns where the relay listens, None if that is not known yet; None
        if there is no relay.
    """
    self.broken = 0
    self._worker = worker
    self._server = server
    self._receive = receive
    self._version = version
    self._period_s = period_s
    self._find_relay = find_relay
    self._relay: line_lib.Line | None = None
    # When the relay's stream broke; inf if it did not.
    self._lost_at = time.monotonic()
    self._warned = False  # that there is no relay
    self._opening = threading.Lock()  # or a closed subscriber might open a line
    self._closed = threading.Event()
    self._thread = threading.Thread(
      target=self._run, name=f'params of {worker}', daemon=True
    )
    self._thread.start()

  def close(self) -> None:
    """Ends the thread; closes the lines to server and relay, which end its waiting."""
    with self._opening:
      self._closed.set()
    for line in filter(None, (self._server, self._relay)):
      line.close()
    self._thread.join()

  def _run(self) -> None:
    while not self._closed.is_set():
      if self._find_relay is None:
        self._read(self._server)
      else:
        self._read_from_relay()
        lost_s = time.monotonic() - self._lost_at
        if lost_s >= _WITHOUT_RELAY_S and not self._closed.is_set():
          self._warn_of_relay(lost_s)
          self._read(self._server, _ASK_RELAY_AGAIN_S)
      self._closed.wait(_RETRY_S)

  def _read_from_relay(self) -> None:
    """Receives params from the relay, if the relay can be found, until it is lost."""
    assert self._find_relay is not None
    with self._opening:
      if self._relay is None and not self._closed.is_set():
        try:
          endpoint = self._find_relay()
          if endpoint is not None:
            # Watched, since nothing else tells of a host that is lost.
            self._relay = line_lib.Line(
              wire.RELAY, endpoint, self._find_relay, line_lib.WATCHED
            )
        except (OSError, ValueError) as error:
          self._note_break('the relay', error)
    if self._relay is not None:
      self._read(self._relay)
    self._lost_at = min(self._lost_at, time.monotonic())

  def _read(self, line: line_lib.Line, timeout_s: float | None = None) -> None:
    """Receives params until the stream ends, breaks, or has lasted `timeout_s`."""
    request = {'version': self._version(), 'period_s': self._period_s}
    began = time.monotonic()
    try:
      stream = line.stream('Subscribe', messages.pack(request), timeout_s)
      for message in stream:
        self._receive(message, wire.decode_header(message), stream)
        self._note_params(line)
    except (ConnectionError, ValueError) as error:
      lasted_s = time.monotonic() - began
      if timeout_s is None or lasted_s < 0.9 * timeout_s:
        self._note_break(line.address, error)

  def _note_params(self, line: line_lib.Line) -> None:
    if line is self._relay:
      self._lost_at = float('inf')
      self._warned = False
    if self.broken:
      logging.getLogger(__name__).warning(
        'Params come to %s again, from %s, after %d streams that broke or were not '
        'opened.',
        self._worker,
        line.address,
        self.broken,
      )
      self.broken = 0

  def _note_break(self, address: str, error: Exception) -> None:
    if self._closed.is_set():
      return
    self.broken += 1
    # Only reports tell whether the server is gone.
    if self.broken == 1:
      logging.getLogger(__name__).warning(
        'The stream of params from %s broke and is opened again: %s',
        address,
        error,
      )

  def _warn_of_relay(self, lost_s: float) -> None:
    if self._warned:
      return
    self._warned = True
    logging.getLogger(__name__).warning(
      '%s has had no relay for %.0f s%s: its params come from the variable server '
      'meanwhile, and the relay is asked again every %g s.',
      self._worker,
      lost_s,
      f', which was at {self._relay.address}' if self._relay else '',
      _ASK_RELAY_AGAIN_S,
    )
