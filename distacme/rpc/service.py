"""A kind of service: its names, and the guard before its handlers."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
import functools
import hmac
import logging
import pathlib
from typing import Any, NamedTuple, TypeAlias

import grpc

from distacme.rpc import token as token_lib

# Coroutines of `grpc.aio`: of the request, or an iterator of requests, and the context.
Handler: TypeAlias = Callable[
  [Any, grpc.aio.ServicerContext], Awaitable[bytes | None]
]


class Service(NamedTuple):
  """The names of a kind of service.

  Attributes:
    path: name among gRPC's methods, e.g. 'distacme.Variables'.
    title: name in sentences, e.g. 'variable server'.
  """

  path: str
  title: str

  def method(self, name: str) -> str:
    """Returns the path of a gRPC method."""
    return f'/{self.path}/{name}'


class Method(NamedTuple):
  """A method of a service.

  Attributes:
    kind: makes gRPC's handler, e.g. `grpc.unary_unary_rpc_method_handler`.
    handler: answers a call. Its ValueErrors refuse the call.
  """

  kind: Callable[[Handler], grpc.RpcMethodHandler]
  handler: Handler


def handlers(
  service: Service, methods: Mapping[str, Method]
) -> grpc.GenericRpcHandler:
  """Returns gRPC's handlers of a service's methods, by their names."""
  return grpc.method_handlers_generic_handler(
    service.path,
    {
      name: method.kind(_refusing(method.handler))
      for name, method in methods.items()
    },
  )


async def read(context: grpc.aio.ServicerContext) -> bytes:
  """Returns the next message of a stream; b'' after the last.

  The iterator that gRPC gives a handler is a cycle of references, and would keep its
  last message until Python's garbage collection.
  """
  message = await context.read()
  return b'' if message is grpc.aio.EOF else message


def _refusing(handler: Handler) -> Handler:
  """Answers a ValueError of `handler` with INVALID_ARGUMENT and its message."""

  @functools.wraps(handler)
  async def handle(
    request: Any, context: grpc.aio.ServicerContext
  ) -> bytes | None:
    try:
      return await handler(request, context)
    except ValueError as error:
      logging.getLogger(__name__).warning(
        'Refused a call from %s: %s', context.peer(), error
      )
      code = grpc.StatusCode.INVALID_ARGUMENT
      return await context.abort(code, str(error))

  return handle


class Guard(grpc.aio.ServerInterceptor):
  """Refuses calls without the run's token, before anything of them is read."""

  def __init__(self, path: pathlib.Path):
    """Reads the token.

    Args:
      path: of the token.

    Raises:
      OSError: if the token cannot be read.
      ValueError: if `path` is no token, or other users can read the file.
    """
    self._path = path
    self._token = token_lib.read(path).encode()
    self._refused = 0  # calls
    # It reads no request, and so is a handler for every kind of call.
    self._refusal = grpc.stream_stream_rpc_method_handler(self._refuse)

  async def intercept_service(
    self,
    continuation: Callable[
      [grpc.HandlerCallDetails], Awaitable[grpc.RpcMethodHandler]
    ],
    handler_call_details: grpc.HandlerCallDetails,
  ) -> grpc.RpcMethodHandler:
    """Returns the handler of a call, or one that refuses the call."""
    for name, value in handler_call_details.invocation_metadata:
      if name == token_lib.METADATA:
        if hmac.compare_digest(value.encode(), self._token):
          return await continuation(handler_call_details)
    return self._refusal

  async def _refuse(
    self, requests: Any, context: grpc.aio.ServicerContext
  ) -> None:
    self._refused += 1
    if self._refused.bit_count() == 1:  # 1, 2, 4, ... calls
      logging.getLogger(__name__).warning(
        'Refused a call from %s without the token of the run, %d times so far.',
        context.peer(),
        self._refused,
      )
    await context.abort(
      grpc.StatusCode.UNAUTHENTICATED,
      f'the call lacks the token of the run, which is in {self._path}. Only the '
      'user who started the run can read it.',
    )
