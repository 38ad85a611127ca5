"""Nothing that a call raises reaches the client but as a status of the contract."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import grpc
from google.protobuf.message import DecodeError

from nst_service.rpc.status import MalformedRequestError, abort_arguments, status_of

_Request = TypeVar("_Request")
_Response = TypeVar("_Response")
_Context = grpc.aio.ServicerContext[Any, Any]


class ErrorInterceptor(grpc.aio.ServerInterceptor):
    """Ends a call with the status of whatever its handler raises, or the decoding of its request.

    gRPC by itself would send the class of an exception and its text.
    """

    def __init__(self, service: str):
        """Seal the methods of a service, by its full name; its handlers are coroutines that take one request."""
        self._prefix = f"/{service}/"

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[grpc.RpcMethodHandler[_Request, _Response] | None]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> grpc.RpcMethodHandler[_Request, _Response] | None:
        """Return the handler of a call, sealed."""
        handler: Any = await continuation(handler_call_details)
        if handler is None or not handler_call_details.method.startswith(self._prefix):
            return handler  # type: ignore[no-any-return]
        # Decoded here and not by gRPC, whose refusal would quote protobuf.
        make, behavior = (
            (grpc.unary_stream_rpc_method_handler, handler.unary_stream)
            if handler.response_streaming
            else (grpc.unary_unary_rpc_method_handler, handler.unary_unary)
        )
        sealed: Any = _sealed(behavior, handler.request_deserializer)
        receive: Any = _Received
        return make(sealed, request_deserializer=receive, response_serializer=handler.response_serializer)


class _Received:
    """The bytes of a request, until they are taken: gRPC holds what it hands over until the call ends."""

    def __init__(self, data: bytes):
        self._data = data

    def taken(self) -> bytes:
        """Return them, and forget them."""
        data, self._data = self._data, b""
        return data


def _sealed(
    behavior: Callable[[Any, _Context], Awaitable[Any]], decode: Callable[[bytes], Any]
) -> Callable[[_Received, _Context], Awaitable[Any]]:
    async def sealed(received: _Received, context: _Context) -> Any:
        try:
            return await behavior(_decoded(received.taken(), decode), context)
        except (asyncio.CancelledError, grpc.aio.AbortError):
            raise
        except Exception as error:
            return await context.abort(*abort_arguments(status_of(error)))

    return sealed


def _decoded(data: bytes, decode: Callable[[bytes], Any]) -> Any:
    try:
        return decode(data)
    except DecodeError as error:
        raise MalformedRequestError from error
