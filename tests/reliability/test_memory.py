"""One server under every attack on its memory at once. It stays within `memory_bytes`."""

import asyncio
import contextlib
import io
import time

import grpc
import pytest
from nst.v1 import style_transfer_pb2 as pb
from PIL import Image

from tests.reliability.finished import store_finished_jobs
from tests.reliability.raw import method, raw_connection
from tests.reliability.serving import ENDLESS, KillableServer, MakeRequest, Story

_MIB = 2**20
_TOTAL = 2200 * _MIB


def resident(server: KillableServer) -> int:
    """Return the resident memory of a server and of its decoders in bytes."""
    processes = [server.process, *server.process.children(recursive=True)]
    return sum(int(each.memory_info().rss) for each in processes)


def png(edge: int, colour: int) -> bytes:
    """Return a square picture of one colour, which takes few bytes."""
    buffer = io.BytesIO()
    Image.new("RGB", (edge, edge), (colour, 90, 200)).save(buffer, "PNG")
    return buffer.getvalue()


async def test_a_server_stays_within_its_memory_under_all_attacks_at_once(
    server: KillableServer, named: MakeRequest, chaos: bool
):
    pictures = store_finished_jobs(server.data, [12 * _MIB + number for number in range(8)])
    await server.serve(
        {"chunk": 2**20 - 2**10},
        memory_bytes=_TOTAL,
        max_request_bytes=16 * _MIB,
        max_running=4,
        message_seconds=5.0,
        max_queued=50,
    )
    most, is_over, outcomes = 0, asyncio.Event(), list[str | None]()

    async def measure() -> None:
        nonlocal most
        while not is_over.is_set():
            with contextlib.suppress(Exception):
                most = max(most, resident(server))
            await asyncio.sleep(0.02)

    async with server.stub() as stub, contextlib.AsyncExitStack() as stack:
        await stub.info()
        before, measuring = resident(server), asyncio.create_task(measure())

        async def send_parts() -> None:
            connection = await stack.enter_async_context(raw_connection(server.port))
            streams = [connection.open(method(name)) for name in ("Stylize", "Estimate", "GetJob") * 3]
            await asyncio.gather(*(connection.send_part(stream, 15 * _MIB, 16 * _MIB) for stream in streams))

        async def stall() -> None:
            for job_id in pictures:
                connection = await stack.enter_async_context(raw_connection(server.port, window=2**16))
                for _ in range(4):
                    request = pb.WatchJobRequest(job_id=job_id)
                    connection.send_message(connection.open(method("WatchJob")), request.SerializeToString())

        async def compute(number: int) -> None:
            # Few bytes that become many pixels, both when they are decoded and when they are a style.
            style = pb.Style(picture=pb.Picture(data=png(4000, number)), scale=3.0)
            request = named(2, seed=number, content=pb.Picture(data=png(1200, number)), styles=[style])
            request.options.image_size = 700
            try:
                await Story().read(stub.stylize(request))
                outcomes.append("done")
            except grpc.aio.AioRpcError as error:
                outcomes.append(error.details())

        async def send_large() -> None:
            request = named(ENDLESS)
            request.content.data += bytes(14 * _MIB)
            with contextlib.suppress(grpc.aio.AioRpcError):
                await stub.estimate(pb.EstimateRequest(stylize=request))

        attack = asyncio.gather(
            *(send_parts() for _ in range(4)),
            stall(),
            *(compute(number) for number in range(12 if chaos else 2)),
            *(send_large() for _ in range(12)),
        )
        started = time.monotonic()
        while not attack.done():
            # The server answers all the while.
            with contextlib.suppress(grpc.aio.AioRpcError):
                await asyncio.wait_for(stub.info(), 60)
            await asyncio.sleep(0.2)
        await attack
        is_over.set()
        await measuring
    assert outcomes.count("done") > 1
    print(
        f"{before / _MIB:.0f} MiB at rest, {most / _MIB:.0f} MiB at most in {time.monotonic() - started:.0f} s of "
        f"attacks, of {_TOTAL / _MIB:.0f} MiB"
    )
    assert most <= 1.1 * _TOTAL


async def test_a_job_that_could_never_fit_is_told_the_setting(server: KillableServer, named: MakeRequest):
    await server.serve(memory_bytes=1500 * _MIB, max_request_bytes=_MIB, max_calls=64)
    request = named(1, content=pb.Picture(data=png(4000, 1)))
    request.options.image_size = 4000
    async with server.stub() as stub:
        with pytest.raises(grpc.aio.AioRpcError, match="memory_bytes of this server") as caught:
            await Story().read(stub.stylize(request))
    assert caught.value.code() is grpc.StatusCode.FAILED_PRECONDITION
