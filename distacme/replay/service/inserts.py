"""Takes the packs of actors, who wait for the rate limits without a thread each."""

from __future__ import annotations

import asyncio
import collections
from collections.abc import AsyncIterator

import grpc

from distacme.replay import packs
from distacme.replay import store as store_lib
from distacme.replay.service import wire
from distacme.rpc import event_loop
from distacme.rpc import service

# Of actors, restarted ones included; the stillest goes first.
_MAX_ACTORS = 2048


class Inserts:
  """The method Insert. All of it runs in the thread of the event loop."""

  def __init__(self, store: store_lib.Store):
    """Takes the tables that get the items."""
    self._store = store
    self._actors: collections.OrderedDict[int, _Actor] = (
      collections.OrderedDict()
    )
    # Actors whose items go to the same tables wait in line; the first of the line
    # waits for the next room.
    self._lines = collections.defaultdict[tuple[int, ...], asyncio.Lock](
      asyncio.Lock
    )
    self._first_in_line = 0  # that wait
    self._room = asyncio.Event()  # another one for each time that there is room
    store.on_room(self._on_room)

  def _on_room(self) -> None:
    if self._first_in_line:
      event_loop.shared().call_soon_threadsafe(self._let_in)

  def _let_in(self) -> None:
    self._room.set()
    self._room = asyncio.Event()

  async def serve(
    self, requests: AsyncIterator[bytes], context: grpc.aio.ServicerContext
  ) -> None:
    """Inserts the packs of an actor; tells the actor how many are in the tables."""
    del requests  # see `rpc.service.read`
    visit = wire.Visit.from_bytes(await service.read(context))
    actor = self._enter(visit)
    number = visit.first
    while first := await service.read(context):
      joining = wire.join_pack(first)
      while not joining.whole:
        joining.add(await service.read(context))
      if self._actors.get(visit.actor) is not actor:
        return  # the actor has connected again, and goes on there
      if number == actor.inserted:
        if actor.waiting is None:
          actor.waiting = self._store.begin(packs.decode(joining.data))
        await self._insert(actor.waiting)
        actor.waiting = None
        actor.inserted += 1
      number += 1
      await context.write(wire.count_to_bytes(number))

  def _enter(self, visit: wire.Visit) -> _Actor:
    """Returns the state of an actor, which no former visit changes any more.

    Raises:
      ValueError: if packs are missing before the first of this visit.
    """
    former = self._actors.pop(visit.actor, None)
    # Replay that was restarted knows nothing of the actor's packs.
    actor = _Actor(visit.first)
    if former is not None:
      if visit.first > former.inserted:
        raise ValueError(
          f'an actor goes on with pack {visit.first}, of which {former.inserted} '
          'came.'
        )
      actor.inserted, actor.waiting = former.inserted, former.waiting
    self._actors[visit.actor] = actor  # the newest comes last
    if len(self._actors) > _MAX_ACTORS:
      self._actors.popitem(last=False)
    return actor

  async def _insert(self, waiting: store_lib.Waiting) -> None:
    """Inserts all items of a pack, as soon as there is room."""
    async with self._lines[waiting.pack.tables]:
      if self._store.insert_some(waiting):
        return
      self._first_in_line += 1
      try:
        while True:
          room = self._room  # before the look, so that none is missed
          if self._store.insert_some(waiting):
            return
          await room.wait()
      finally:
        self._first_in_line -= 1


class _Actor:
  """The state of an actor in replay, over all of the actor's visits.

  Attributes:
    inserted: packs that are in the tables.
    waiting: the next one, if it is only in part.
  """

  def __init__(self, inserted: int):
    self.inserted = inserted
    self.waiting: store_lib.Waiting | None = None
