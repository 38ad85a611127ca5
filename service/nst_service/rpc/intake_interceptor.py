"""An interceptor that reads the requests of calls by `intake` and sends single responses by `delivery`."""

from __future__ import annotations

import contextlib
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import grpc
from google.protobuf.message import DecodeError
from grpc_health.v1 import health

from nst_service.rpc.auth import Authenticator
from nst_service.rpc.delivery import Deliveries
from nst_service.rpc.errors import MalformedRequestError
from nst_service.rpc.intake import Context, Intake, caller_of

_WITH_PICTURES = ("Stylize", "Estimate")
"""The methods whose requests contain pictures."""
_HEALTH_PREFIX = f"/{health.SERVICE_NAME}/"
_WATCH_HEALTH = f"{_HEALTH_PREFIX}Watch"

_Request = TypeVar("_Request")
_Response = TypeVar("_Response")
_Behavior = Callable[[object, Context], Awaitable[None]]


class IntakeInterceptor(grpc.aio.ServerInterceptor):
    """Makes each handler one that gets the stream of its requests as bytes, and writes bytes.

    Handlers with one request must be coroutines. Those with a stream of responses write bytes by `Deliveries`. Handlers
    with a stream of requests must be asynchronous generators.
    """

    def __init__(self, intake: Intake, deliveries: Deliveries, authenticator: Authenticator, message_seconds: float):
        """Make an interceptor.

        Args:
            intake: reads requests.
            deliveries: sends responses.
            authenticator: tells the owner of a call.
            message_seconds: seconds within which a client must take a single response.
        """
        self._intake = intake
        self._deliveries = deliveries
        self._authenticator = authenticator
        self._message_seconds = message_seconds

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[grpc.RpcMethodHandler[_Request, _Response] | None]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> grpc.RpcMethodHandler[_Request, _Response] | None:
        """Return the handler of a call, which reads its requests itself."""
        handler: Any = await continuation(handler_call_details)
        if handler is None:
            return None
        method = handler_call_details.method
        behavior = self._with_stream(handler) if handler.request_streaming else self._with_request(handler, method)
        # gRPC reads nothing of a stream of requests by itself.
        return grpc.stream_stream_rpc_method_handler(self._counted(behavior, method))

    def _caller(self, method: str, context: Context) -> str:
        return caller_of("" if method.startswith(_HEALTH_PREFIX) else self._authenticator.owner(context).name, context)

    def _open(self, method: str, caller: str) -> contextlib.AbstractContextManager[None]:
        intake = self._intake
        if method == _WATCH_HEALTH:
            return intake.health_watches.open(caller)
        return (intake.health_checks if method.startswith(_HEALTH_PREFIX) else intake.calls).open(caller)

    def _counted(self, behavior: Callable[[Context, str], Awaitable[None]], method: str) -> _Behavior:
        async def counted(_: object, context: Context) -> None:
            caller = self._caller(method, context)
            with self._open(method, caller):
                await behavior(context, caller)

        return counted

    def _with_request(self, handler: Any, method: str) -> Callable[[Context, str], Awaitable[None]]:
        has_pictures = method.rpartition("/")[2] in _WITH_PICTURES

        async def answer(context: Context, caller: str) -> None:
            # No variable here holds a request, so that it is freed as soon as its handler does not need it any more.
            if handler.response_streaming:
                await handler.unary_stream(
                    _decoded(await self._intake.read(context, caller, has_pictures=has_pictures), handler), context
                )
                return
            response = await handler.unary_unary(
                _decoded(await self._intake.read(context, caller, has_pictures=has_pictures), handler), context
            )
            await self._write(context, caller, handler.response_serializer(response))

        return answer

    def _with_stream(self, handler: Any) -> Callable[[Context, str], Awaitable[None]]:
        async def answer(context: Context, caller: str) -> None:
            requests = self._intake.messages(context, caller, lambda data: _decoded(data, handler))
            async with (
                contextlib.aclosing(requests),
                contextlib.aclosing(handler.stream_stream(requests, context)) as responses,
            ):
                async for response in responses:
                    await self._write(context, caller, handler.response_serializer(response))

        return answer

    async def _write(self, context: Context, caller: str, message: bytes) -> None:
        await self._deliveries.write(context, caller, message, seconds=self._message_seconds)


def _decoded(data: bytes, handler: Any) -> Any:
    # The request is decoded here and not by gRPC, whose refusal would quote protobuf.
    try:
        return handler.request_deserializer(data)
    except DecodeError as error:
        raise MalformedRequestError from error
