"""An interceptor that turns every error of a call into a status of the contract."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import grpc

from nst_service.rpc.status import abort_arguments, status_of

_Request = TypeVar("_Request")
_Response = TypeVar("_Response")
_Context = grpc.aio.ServicerContext[Any, Any]


class ErrorInterceptor(grpc.aio.ServerInterceptor):
    """Ends a call with the status of the error that its handler, or the intake of its request, raises.

    Without it, gRPC sends the class and the text of the exception to the client. The interceptors after this one must
    return handlers with streams of requests and responses, which are coroutines (see `IntakeInterceptor`).
    """

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[grpc.RpcMethodHandler[_Request, _Response] | None]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> grpc.RpcMethodHandler[_Request, _Response] | None:
        """Return the handler of a call that ends with a status of the contract."""
        handler: Any = await continuation(handler_call_details)
        return handler and grpc.stream_stream_rpc_method_handler(_guarded(handler.stream_stream))


def _guarded(behavior: Callable[[object, _Context], Awaitable[None]]) -> Callable[[object, _Context], Awaitable[None]]:
    async def guarded(requests: object, context: _Context) -> None:
        try:
            await behavior(requests, context)
        except (asyncio.CancelledError, grpc.aio.AbortError):
            raise
        except Exception as error:
            await context.abort(*abort_arguments(status_of(error)))

    return guarded
