from types import SimpleNamespace
from typing import Any

import grpc
from nst_service.rpc.error_interceptor import ErrorInterceptor


async def test_the_bytes_of_a_request_are_let_go_before_it_is_served():
    left: list[bytes] = []

    async def behavior(request: str, _: object) -> None:
        left.append(received.take())
        assert request == "a picture"

    async def continuation(_: object) -> Any:
        return grpc.unary_stream_rpc_method_handler(behavior, request_deserializer=bytes.decode)

    handler: Any = await ErrorInterceptor("nst").intercept_service(continuation, SimpleNamespace(method="/nst/Stylize"))
    received = handler.request_deserializer(b"a picture")
    await handler.unary_stream(received, None)
    assert left == [b""]
