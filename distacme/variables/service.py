"""Answers the calls of the variable service; see `wire` for the protocol."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from concurrent import futures

import grpc

from distacme.rpc import event_loop
from distacme.rpc import messages
from distacme.rpc import service as service_lib
from distacme.run import run_state as run_state_lib
from distacme.variables import newest
from distacme.variables import requests
from distacme.variables import wire

# Time between reports, times the number of workers. A report costs half a millisecond
# of a core, so that all reports together take a quarter of a core.
_PERIOD_S = 0.002
# Of clients; the client that was silent for longest is dropped first.
_MAX_SESSIONS = 10_000


class VariableService:
  """A run's state and newest params, behind coroutines of one event loop.

  A waiting call is a coroutine, and costs no thread. All handlers run in the thread of
  the loop, so that they need no locks. Only metrics, which go to a disk, are written in
  another thread.
  """

  def __init__(self, run_state: run_state_lib.RunState) -> None:
    """Takes the state that reports go to; `end` ends all waiting calls."""
    self._state = run_state
    self._newest = newest.NewestParams()
    self._publishing = False
    self._acknowledged: dict[str, int] = {}  # session: last sequence number
    self._to_stop = asyncio.Event()
    self._waiting = 0  # workers, each with one call
    self._disk = futures.ThreadPoolExecutor(1, 'metrics')
    run_state.on_stop(self._on_stop)

  def handlers(self) -> grpc.GenericRpcHandler:
    """Returns the handlers for a server of the event loop."""
    unary = grpc.unary_unary_rpc_method_handler
    return service_lib.handlers(
      wire.SERVICE,
      {
        'Publish': service_lib.Method(
          grpc.stream_unary_rpc_method_handler, self._publish
        ),
        'Subscribe': service_lib.Method(
          grpc.unary_stream_rpc_method_handler, self._newest.subscribe
        ),
        'Report': service_lib.Method(unary, self._report),
        'WaitStop': service_lib.Method(unary, self._wait_stop),
        'RequestStop': service_lib.Method(unary, self._request_stop),
        'Fail': service_lib.Method(unary, self._fail),
        'Scale': service_lib.Method(unary, self._scale),
        'Status': service_lib.Method(unary, self._status),
      },
    )

  def _on_stop(self) -> None:
    event_loop.shared().call_soon_threadsafe(self._to_stop.set)

  def end(self) -> None:
    """Ends the waiting calls; call this in the thread of the loop."""
    self._to_stop.set()
    self._newest.end()

  def close(self) -> None:
    """Waits until all metrics are written; call this after the last report."""
    self._disk.shutdown()

  async def _publish(
    self, chunks: AsyncIterator[bytes], context: grpc.aio.ServicerContext
  ) -> bytes:
    del chunks  # see `rpc.service.read`
    # One at a time bounds the memory that half-received versions can take.
    if self._publishing:
      await context.abort(
        grpc.StatusCode.ABORTED,
        'Another publisher is sending params; a run has one learner.',
      )
    self._publishing = True
    try:
      data = await service_lib.read(context)
      header = wire.decode_header(data)
      accepted = header.version > self._newest.version
      if accepted:
        await self._take(data, header, context)
    finally:
      self._publishing = False
    return messages.pack({'accepted': accepted, 'newest': self._newest.version})

  async def _take(
    self,
    data: bytes,
    header: wire.Header,
    context: grpc.aio.ServicerContext,
  ) -> None:
    """Receives a version, which becomes the newest once it is complete."""
    chunks: list[bytes] = []
    received = 0
    while received < header.size:
      chunk = await service_lib.read(context)
      received = wire.check_chunk(header, received, chunk)
      chunks.append(chunk)
    self._newest.take(wire.VersionedBytes(header.version, data, chunks))
    self._state.set_params_version(header.version)

  async def _report(
    self, request: bytes, context: grpc.aio.ServicerContext
  ) -> bytes:
    message = requests.report(request)
    worker, session = message['worker'], message['session']
    # A client repeats a report if it did not get the answer.
    if message['sequence'] <= self._acknowledged.get(session, -1):
      return self._answer()
    self._acknowledged.pop(session, None)  # the newest comes last
    self._acknowledged[session] = message['sequence']
    if len(self._acknowledged) > _MAX_SESSIONS:
      del self._acknowledged[next(iter(self._acknowledged))]
    if message['alive']:
      self._state.report(worker, message['counts'], state=message['state'])
    if message['metrics']:
      # In a thread: a stalled disk must not block a thousand workers.
      await asyncio.wrap_future(
        self._disk.submit(self._keep, worker, message['metrics'])
      )
    return self._answer()

  def _keep(self, worker: str, reports: list[dict[str, float]]) -> None:
    for metrics in reports:
      self._state.report(worker, metrics=metrics)

  async def _wait_stop(
    self, request: bytes, context: grpc.aio.ServicerContext
  ) -> bytes:
    self._waiting += 1
    try:
      await self._to_stop.wait()
    finally:
      self._waiting -= 1
    return self._answer()

  async def _request_stop(
    self, request: bytes, context: grpc.aio.ServicerContext
  ) -> bytes:
    stop = requests.stop(request)
    self._state.request_stop(stop.reason, stop.detail, stop.worker)
    return self._answer()

  async def _fail(
    self, request: bytes, context: grpc.aio.ServicerContext
  ) -> bytes:
    self._state.fail(*requests.failure(request))
    return self._answer()

  async def _scale(
    self, request: bytes, context: grpc.aio.ServicerContext
  ) -> bytes:
    self._state.scale(requests.num_actors(request))
    return self._answer()

  async def _status(
    self, request: bytes, context: grpc.aio.ServicerContext
  ) -> bytes:
    return messages.pack(
      self._state.status(requests.workers(request)).to_dict()
    )

  def _answer(self) -> bytes:
    """Returns the directive, the params' version and the time between reports.

    The version is -1 before the first params.
    """
    directive = self._state.directive()
    return messages.pack(
      {
        'stop': directive.stop and directive.stop.value,
        'counts': dict(directive.counts),
        'params_version': self._newest.version,
        'period_s': _PERIOD_S * self._waiting,
      }
    )
