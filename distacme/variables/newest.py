"""Keeps the newest params as bytes, and sends them to subscribers."""

from __future__ import annotations

import asyncio

import grpc

from distacme.variables import requests
from distacme.variables import wire


class NewestParams:
  """The newest version of the params, and those who wait for the next one.

  The variable server and each relay has one. The methods run in the thread of the
  event loop, so that they need no locks; a waiting subscriber is a coroutine, and
  costs no thread.

  A version that is not newer than the newest is ignored. So a publisher may send a
  version twice. If a learner goes back to a checkpoint, actors keep the newer params
  until the learner has caught up.

  Memory holds the newest version, and of older ones those that a slow subscriber is
  being sent, one each at most: it skips what was published meanwhile.
  """

  def __init__(self) -> None:
    """Starts without params, as version -1."""
    self._newest = wire.VersionedBytes(-1, b'', [])
    self._published = asyncio.Event()  # another one for each version
    self._subscribers = 0
    self._ended = False

  @property
  def version(self) -> int:
    """The newest version, -1 before the first; any thread may ask."""
    return self._newest.version

  @property
  def subscribers(self) -> int:
    """The number of subscribers; any thread may ask."""
    return self._subscribers

  def take(self, params: wire.VersionedBytes) -> bool:
    """Sends a version to all subscribers; returns whether it is the newest."""
    if params.version <= self._newest.version:
      return False
    self._newest = params
    self._published.set()
    self._published = asyncio.Event()
    return True

  def end(self) -> None:
    """Ends the streams of all subscribers."""
    self._ended = True
    self._published.set()

  async def subscribe(
    self, request: bytes, context: grpc.aio.ServicerContext
  ) -> None:
    """Answers 'Subscribe' of `wire`."""
    version, period_s = requests.subscription(request)
    self._subscribers += 1
    try:
      while not self._ended:
        newest = self._newest
        if newest.version <= version:
          await self._published.wait()
          continue
        version = newest.version
        await context.write(newest.header)
        for chunk in newest.chunks:
          await context.write(chunk)
        await asyncio.sleep(period_s)
    finally:
      self._subscribers -= 1
