"""Takes batches from the replay service, for a learner on another host."""

from __future__ import annotations

import contextlib
import dataclasses
import queue

import numpy as np

from distacme.replay import form as form_lib
from distacme.replay import tables
from distacme.replay.service import wire
from distacme.rpc import line as line_lib
from distacme.rpc import messages
from distacme.run import endpoints

_CONNECT_S = 2.0


class GrpcOutlet:
  """A `replay.following_outlet.Outlet` over one stream, used up once that breaks."""

  def __init__(
    self,
    endpoint: endpoints.Endpoint,
    form: form_lib.Form,
    *,
    learner: str = 'learner/0',
    timeout_s: float = _CONNECT_S,
  ):
    """Connects.

    Args:
      endpoint: of the replay service.
      form: of a batch.
      learner: name of the worker, for messages.
      timeout_s: seconds to wait for the service.

    Raises:
      OSError: if the service is not there, or its key or token cannot be used.
      ValueError: if replay refuses.
    """
    self._form = form
    self._requests: queue.SimpleQueue[bytes] = queue.SimpleQueue()
    self._given = False  # whether the learner has a batch, which it then frees
    self._gone = ''  # the reason
    self._line = line_lib.Line(wire.SERVICE, endpoint, options=line_lib.WATCHED)
    try:
      self._line.wait_for_server(learner, timeout_s)
      self._answers = self._line.stream(
        'Batches', iter(self._requests.get, b'')
      )
      self._requests.put(messages.pack(dataclasses.asdict(form)))
      if self._receive():
        raise ValueError('the replay server answered no learner.')
    except BaseException:
      self.close()
      raise
    for _ in range(form_lib.DRAWN):
      self._requests.put(wire.ASK)

  def next(self) -> tables.DrawnItems:
    """Waits for the next batch.

    Raises:
      OSError: if replay is gone, or this outlet was closed.
      ValueError: if replay refuses.
    """
    if self._given:
      self._requests.put(wire.ASK)
    joining = wire.join_batch(self._form, self._receive())
    while not joining.whole:
      joining.add(self._receive())
    self._given = True
    return wire.batch_from_bytes(self._form, joining.data)

  def update_priorities(
    self, tables: np.ndarray, keys: np.ndarray, priorities: np.ndarray
  ) -> None:
    """Sends the priorities [N] of items; replay skips items that are gone.

    Raises:
      OSError: if replay is gone.
    """
    if self._gone:
      raise ConnectionError(self._gone)
    for message in wire.priorities_to_messages(tables, keys, priorities):
      self._requests.put(message)

  def close(self) -> None:
    """Ends the outlet, and a `next` that waits."""
    self._gone = self._gone or 'the outlet of replay was closed'
    self._requests.put(b'')  # ends the thread of gRPC that reads them
    self._line.close()

  def _receive(self) -> bytes:
    """Returns the next message."""
    with contextlib.ExitStack() as stack:
      stack.callback(self.close)
      try:
        answer = next(self._answers, None)
      except ConnectionError as error:
        self._gone = str(error)
        raise
      if answer is None:
        self._gone = f'the replay server at {self._line.address} hung up'
        raise ConnectionError(self._gone)
      stack.pop_all()  # the outlet goes on
    return answer
