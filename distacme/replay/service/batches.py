"""Draws batches for learners on other hosts."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from concurrent import futures

import grpc

from distacme.replay import form as form_lib
from distacme.replay import store as store_lib
from distacme.replay.service import wire
from distacme.rpc import messages
from distacme.rpc import service

# Time in which a draw that waits for the rate limits notices that its learner left.
_LOOK_S = 0.1
_MAX_LEARNERS = 16  # each has a thread


class BatchService:
  """The method Batches. A draw may wait, and so has a thread."""

  def __init__(self, store: store_lib.Store):
    """Takes the tables to draw from."""
    self._store = store
    self._threads = futures.ThreadPoolExecutor(_MAX_LEARNERS, 'replay draws')
    self._learners = 0

  def close(self) -> None:
    """Waits for the end of draws, in at most `_LOOK_S`; after the last call."""
    self._threads.shutdown()

  async def serve(
    self, requests: AsyncIterator[bytes], context: grpc.aio.ServicerContext
  ) -> None:
    """Sends a learner as many batches as it asks for; takes its priorities."""
    del requests  # see `rpc.service.read`
    form = form_lib.Form.from_dict(messages.unpack(await service.read(context)))
    if self._learners >= _MAX_LEARNERS:
      raise ValueError(f'replay has {self._learners} learners already.')
    self._learners += 1
    try:
      await self._talk(form, context)
    finally:
      self._learners -= 1

  async def _talk(
    self, form: form_lib.Form, context: grpc.aio.ServicerContext
  ) -> None:
    await context.write(b'')
    asked = asyncio.Semaphore(0)
    tasks = [
      asyncio.ensure_future(self._listen(asked, context)),
      asyncio.ensure_future(self._send(form, asked, context)),
    ]
    try:
      await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
      for task in tasks:
        if task.done():
          task.result()  # raises what ended it
    finally:
      for task in tasks:
        task.cancel()

  async def _listen(
    self, asked: asyncio.Semaphore, context: grpc.aio.ServicerContext
  ) -> None:
    """Does what a learner says, until the learner is gone."""
    while message := await service.read(context):
      if message == wire.ASK:
        asked.release()
      elif message[:1] == wire.PRIORITIES:
        self._store.update_priorities(
          *form_lib.priorities_from_bytes(message[1:])
        )
      else:
        raise ValueError(f'no message of a learner: {message!r:.80}.')

  async def _send(
    self,
    form: form_lib.Form,
    asked: asyncio.Semaphore,
    context: grpc.aio.ServicerContext,
  ) -> None:
    loop = asyncio.get_running_loop()
    while True:
      await asked.acquire()
      batch = None
      while batch is None:  # a learner's end ends the wait, at the await
        batch = await loop.run_in_executor(self._threads, self._draw, form)
      for piece in batch:
        await context.write(piece)

  def _draw(self, form: form_lib.Form) -> list[bytes] | None:
    """Returns the pieces of a batch; None if the limits allow none just now."""
    drawn = self._store.draw(_LOOK_S)
    return None if drawn is None else wire.batch_to_pieces(form, drawn)
