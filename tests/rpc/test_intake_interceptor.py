import weakref
from types import SimpleNamespace
from typing import Any

import grpc
from nst_service.jobs.queue_limits import PendingBytes
from nst_service.rpc.auth import Authenticator
from nst_service.rpc.delivery import Deliveries
from nst_service.rpc.intake import Intake, IntakeLimits
from nst_service.rpc.intake_interceptor import IntakeInterceptor


class Request:
    """A decoded request."""

    def __init__(self, data: bytes):
        self.data = data


async def handler_of(behavior: Any, make: Any) -> Any:
    async def continuation(_: object) -> Any:
        return make(behavior, request_deserializer=Request, response_serializer=str.encode)

    limits = IntakeLimits(max_request_bytes=2**20, message_seconds=10.0, max_calls=8, max_health_watches=2)
    interceptor = IntakeInterceptor(
        Intake(PendingBytes(2**20), limits), Deliveries(2**20), Authenticator(), message_seconds=10.0
    )
    return await interceptor.intercept_service(continuation, SimpleNamespace(method="/nst/Stylize"))


def context() -> Any:
    written: list[bytes] = []

    async def read() -> bytes:
        return b"a picture"

    async def write(message: bytes) -> None:
        written.append(message)

    return SimpleNamespace(
        peer=lambda: "unix:", auth_context=dict, invocation_metadata=tuple, read=read, write=write, written=written
    )


async def test_a_request_is_freed_when_its_handler_does_not_need_it_any_more():
    alive: list[bool] = []

    async def behavior(request: Request, _: object) -> None:
        assert request.data == b"a picture"
        held = weakref.ref(request)
        del request
        alive.append(held() is not None)

    handler = await handler_of(behavior, grpc.unary_stream_rpc_method_handler)
    await handler.stream_stream(None, context())
    assert alive == [False]


async def test_a_method_with_one_response_writes_it():
    async def behavior(request: Request, _: object) -> str:
        return request.data.decode()

    handler, call = await handler_of(behavior, grpc.unary_unary_rpc_method_handler), context()
    await handler.stream_stream(None, call)
    assert call.written == [b"a picture"]
