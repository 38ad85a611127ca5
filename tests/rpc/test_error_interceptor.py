from types import SimpleNamespace
from typing import Any

import grpc
import pytest
from nst_service.rpc.error_interceptor import ErrorInterceptor
from nst_service.rpc.errors import MalformedRequestError


async def test_an_error_of_the_intake_ends_the_call_with_its_status():
    async def behavior(_: object, __: object) -> None:
        raise MalformedRequestError

    async def continuation(_: object) -> Any:
        return grpc.stream_stream_rpc_method_handler(behavior)

    async def abort(*arguments: Any) -> None:
        raise grpc.aio.AbortError(*arguments)

    handler: Any = await ErrorInterceptor().intercept_service(continuation, SimpleNamespace(method="/nst/Stylize"))
    with pytest.raises(grpc.aio.AbortError) as caught:
        await handler.stream_stream(None, SimpleNamespace(abort=abort))
    assert caught.value.args[0] is grpc.StatusCode.INVALID_ARGUMENT


async def test_an_unknown_method_stays_unknown():
    async def continuation(_: object) -> None:
        return None

    assert await ErrorInterceptor().intercept_service(continuation, SimpleNamespace(method="/nst/Unknown")) is None
