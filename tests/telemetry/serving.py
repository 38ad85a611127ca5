"""Servers within a test, and requests that they refuse."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc
from nst.v1 import style_transfer_pb2_grpc as pb_grpc
from nst_service.config import ServerConfig
from nst_service.server import Server

HANG_SECONDS = 300
"""Seconds after which a test counts as hung. No test measures time."""


class Service:
    """A server, and a connection to it."""

    def __init__(self, server: Server, channel: grpc.aio.Channel, stop: asyncio.Event, task: "asyncio.Task[Any]"):
        self.server = server
        self.stub = pb_grpc.StyleTransferServiceStub(channel)
        self.health = health_pb2_grpc.HealthStub(channel)
        self.channel = channel
        self._stop = stop
        self._task = task

    async def drain(self) -> None:
        self._stop.set()
        await self._task


@contextlib.asynccontextmanager
async def serving(**settings: Any) -> AsyncIterator[Service]:
    """Yield a server that serves, and drain it afterwards."""
    server = Server(ServerConfig(**({"address": "127.0.0.1:0", "grace": 0.0} | settings)))
    stop, listening = asyncio.Event(), asyncio.get_running_loop().create_future()
    task = asyncio.create_task(server.run(stop, listening.set_result))
    # A server that cannot listen ends with an error.
    await asyncio.wait((task, listening), return_when=asyncio.FIRST_COMPLETED)
    try:
        if task.done():
            await task
        async with asyncio.timeout(HANG_SECONDS), grpc.aio.insecure_channel(f"127.0.0.1:{await listening}") as channel:
            service = Service(server, channel, stop, task)
            watch = service.health.Watch(health_pb2.HealthCheckRequest())
            while (await watch.read()).status != health_pb2.HealthCheckResponse.SERVING:
                pass
            watch.cancel()
            yield service
    finally:
        stop.set()
        await task


async def refused(call: Any) -> grpc.StatusCode:
    """Return the code with which a call ends."""
    try:
        if isinstance(call, grpc.aio.UnaryUnaryCall):
            await call
        else:
            async for _ in call:
                pass
    except grpc.aio.AioRpcError as error:
        return error.code()
    return grpc.StatusCode.OK


async def until(call: Any, kind: str) -> Any:
    """Read the events of a call until one of a kind, and return it."""
    async for response in call:
        if response.event.WhichOneof("event") == kind:
            return response.event
    raise AssertionError(f"no {kind}")
