"""Brings a shard's holdings to the learner, and the room for more back.

  Exchange    room, room, ...  ->  holdings, holdings, ...

`room` is the number of windows until which actors may insert. The first `holdings` come
at once, later ones when they have changed, and once a second.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
import contextlib
import math
import struct

import grpc

from distacme.replay import balance
from distacme.replay import store as store_lib
from distacme.rpc import line as line_lib
from distacme.rpc import service

_ROOM = struct.Struct('<Q')
_HOLDINGS = struct.Struct('<QQQd')
# Between two messages; the learner's ratio of samples to inserts is behind by as much.
_PERIOD_S = 0.01
_REPEAT_S = 1.0  # for a learner that has taken the shard for gone


class ExchangeService:
  """The method Exchange, in the thread of the event loop."""

  def __init__(self, store: store_lib.Store):
    """Takes the tables that are a shard."""
    self._store = store

  async def serve(
    self, requests: AsyncIterator[bytes], context: grpc.aio.ServicerContext
  ) -> None:
    """Talks with a learner until the learner is gone."""
    del requests  # see `rpc.service.read`
    over = asyncio.Event()
    listening = asyncio.ensure_future(self._listen(context))
    listening.add_done_callback(lambda _: over.set())
    try:
      # To its end: a call cannot be refused while a message is being written.
      await self._tell(context, over)
    finally:
      listening.cancel()
    listening.result()  # raises what it refused

  async def _listen(self, context: grpc.aio.ServicerContext) -> None:
    while message := await service.read(context):
      self._store.let_in(_room_from_bytes(message))

  async def _tell(
    self, context: grpc.aio.ServicerContext, over: asyncio.Event
  ) -> None:
    told, silent_s = None, 0.0
    while not over.is_set():
      held = self._store.holdings()
      if held != told or silent_s >= _REPEAT_S:
        told, silent_s = held, 0.0
        await context.write(_HOLDINGS.pack(*held))
      with contextlib.suppress(asyncio.TimeoutError):
        await asyncio.wait_for(over.wait(), _PERIOD_S)
      silent_s += _PERIOD_S


def exchange(
  line: line_lib.Line, rooms: Iterator[int]
) -> Iterator[balance.Holdings]:
  """Tells a shard the room that it has; yields the holdings of the shard.

  Args:
    line: to the shard.
    rooms: read in a thread of gRPC.

  Raises:
    ConnectionError: if the shard is gone.
    ValueError: if the shard refuses, or its answer is none.
  """
  for answer in line.stream('Exchange', map(_ROOM.pack, rooms)):
    yield _holdings_from_bytes(answer)


def _room_from_bytes(data: bytes) -> int:
  if len(data) != _ROOM.size:
    raise ValueError(f'no room of a shard: {data!r:.80}.')
  return int(_ROOM.unpack(data)[0])


def _holdings_from_bytes(data: bytes) -> balance.Holdings:
  if len(data) != _HOLDINGS.size:
    raise ValueError(f'no holdings of a shard: {data!r:.80}.')
  held = balance.Holdings(*_HOLDINGS.unpack(data))
  if not 0 <= held.priority < math.inf:
    raise ValueError(f'a shard has priorities of {held.priority} in all.')
  return held
