"""An interceptor that turns every error of a call into a status of the contract."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import grpc
from google.protobuf.message import DecodeError

from nst_service.rpc.errors import MalformedRequestError
from nst_service.rpc.status import abort_arguments, status_of

_Request = TypeVar("_Request")
_Response = TypeVar("_Response")
_Context = grpc.aio.ServicerContext[Any, Any]


class ErrorInterceptor(grpc.aio.ServerInterceptor):
    """Ends a call with the status of the error that its handler, or the decoding of its request, raises.

    Without it, gRPC sends the class and the text of the exception to the client.
    """

    def __init__(self, service: str):
        """Intercept the methods of a service.

        Args:
            service: the full name of the service. Its handlers must be coroutines that take one request.
        """
        self._prefix = f"/{service}/"

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[grpc.RpcMethodHandler[_Request, _Response] | None]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> grpc.RpcMethodHandler[_Request, _Response] | None:
        """Return the handler of a call that ends with a status of the contract."""
        handler: Any = await continuation(handler_call_details)
        if handler is None or not handler_call_details.method.startswith(self._prefix):
            return handler  # type: ignore[no-any-return]
        # The request is decoded here and not by gRPC, whose refusal would quote protobuf.
        make, behavior = (
            (grpc.unary_stream_rpc_method_handler, handler.unary_stream)
            if handler.response_streaming
            else (grpc.unary_unary_rpc_method_handler, handler.unary_unary)
        )
        guarded: Any = _guarded(behavior, handler.request_deserializer)
        receive: Any = _RequestBytes
        return make(guarded, request_deserializer=receive, response_serializer=handler.response_serializer)


class _RequestBytes:
    """The bytes of a request, until they are taken. gRPC holds this object until the call ends."""

    def __init__(self, data: bytes):
        self._data = data

    def take(self) -> bytes:
        """Return the bytes and keep no reference to them."""
        data, self._data = self._data, b""
        return data


def _guarded(
    behavior: Callable[[Any, _Context], Awaitable[Any]], decode: Callable[[bytes], Any]
) -> Callable[[_RequestBytes, _Context], Awaitable[Any]]:
    async def guarded(request: _RequestBytes, context: _Context) -> Any:
        try:
            return await behavior(_decoded(request.take(), decode), context)
        except (asyncio.CancelledError, grpc.aio.AbortError):
            raise
        except Exception as error:
            return await context.abort(*abort_arguments(status_of(error)))

    return guarded


def _decoded(data: bytes, decode: Callable[[bytes], Any]) -> Any:
    try:
        return decode(data)
    except DecodeError as error:
        raise MalformedRequestError from error
