"""Clients that do not read what they have asked for. The server stays within its memory, and others are served."""

import asyncio
import contextlib
import hashlib
import time
from collections.abc import Awaitable, Callable
from typing import Any

from nst.v1 import style_transfer_pb2 as pb

from tests.reliability.finished import store_finished_jobs
from tests.reliability.raw import method, raw_connection
from tests.reliability.serving import ENDLESS, KillableServer, MakeRequest, Story

_MIB = 2**20
_CHUNK = {"chunk": 2**20 - 2**10}
_STALLED = 160


def resident(server: KillableServer) -> int:
    """Return the resident memory of a server in bytes."""
    return int(server.process.memory_info().rss)


async def watch(stack: contextlib.AsyncExitStack, server: KillableServer, job_id: str, after: int = 0) -> Any:
    """Watch a job from a connection of its own, and read nothing."""
    connection = await stack.enter_async_context(raw_connection(server.port, window=2**16))
    request = pb.WatchJobRequest(job_id=job_id, after_sequence=after)
    connection.send_message(connection.open(method("WatchJob")), request.SerializeToString())
    return connection


async def most_resident(server: KillableServer, seconds: float) -> int:
    """Return the largest memory of a server that is seen for some time."""
    most, end = 0, time.monotonic() + seconds
    while time.monotonic() < end:
        most = max(most, resident(server))
        await asyncio.sleep(0.05)
    return most


async def picture(read: Callable[[], Awaitable[Any]]) -> str:
    """Return the SHA-256 of the picture that a call delivers."""
    digest = hashlib.sha256()
    while (response := await read()) and not response.event.HasField("completed"):
        digest.update(response.event.result_chunk.data)
    return digest.hexdigest()


async def test_watchers_of_one_finished_job_who_never_read_share_what_they_wait_for(server: KillableServer):
    ((job_id, sha256),) = store_finished_jobs(server.data, [8 * _MIB + 12345]).items()
    await server.serve(_CHUNK)
    async with server.stub() as stub, contextlib.AsyncExitStack() as stack:
        assert await picture(stub.watch(job_id).read) == sha256
        before = resident(server)
        for _ in range(_STALLED):
            await watch(stack, server, job_id)
        held = await most_resident(server, 3.0) - before
        # Those who do not read give way.
        assert await asyncio.wait_for(picture(stub.watch(job_id).read), 120) == sha256
    print(f"{_STALLED} stalled watchers of a finished job hold {held / _MIB:.0f} MiB")
    assert held < 250 * _MIB


async def test_watchers_of_many_finished_jobs_hold_no_picture_as_a_whole(server: KillableServer):
    pictures = store_finished_jobs(server.data, [16 * _MIB + number for number in range(24)])
    await server.serve(_CHUNK)
    async with server.stub() as stub, contextlib.AsyncExitStack() as stack:
        job_id, sha256 = next(iter(pictures.items()))
        assert await picture(stub.watch(job_id).read) == sha256
        before = resident(server)
        for each in pictures:
            await watch(stack, server, each)
        held = await most_resident(server, 5.0) - before
        assert await picture(stub.watch(job_id).read) == sha256
    print(f"{len(pictures)} stalled watchers of as many pictures of 16 MiB hold {held / _MIB:.0f} MiB")
    assert held < 120 * _MIB


async def test_the_watcher_who_has_stalled_for_longest_leaves_when_others_wait(server: KillableServer):
    ((job_id, sha256),) = store_finished_jobs(server.data, [3 * _MIB]).items()
    await server.serve(_CHUNK | {"delivery": [4 * _MIB, 1.0]})
    async with server.stub() as stub, contextlib.AsyncExitStack() as stack:
        stalled = [await watch(stack, server, job_id) for _ in range(4)]
        assert await picture(stub.watch(job_id).read) == sha256
        await asyncio.gather(*(each.closed() for each in stalled))


async def test_a_follower_who_stalls_at_the_result_does_not_hold_the_picture(
    server: KillableServer, named: MakeRequest
):
    await server.serve({"picture": 16 * _MIB} | _CHUNK)
    async with server.stub() as stub, contextlib.AsyncExitStack() as stack:

        async def follow() -> None:
            call, story = stub.stylize(named(ENDLESS)), Story()
            await story.read(call, "progress")
            await watch(stack, server, story.job_id)
            await asyncio.sleep(0.2)
            await stub.cancel(story.job_id)
            assert (await asyncio.wait_for(read_to_end(call), 60)) > 16 * _MIB

        await follow()
        before = resident(server)
        for _ in range(12):
            await follow()
        held = resident(server) - before
    print(f"12 stalled followers of pictures of 16 MiB hold {held / _MIB:.0f} MiB")
    assert held < 100 * _MIB


async def read_to_end(call: Any) -> int:
    """Return the number of bytes of the picture that a call delivers."""
    size = 0
    async for response in call:
        size += len(response.event.result_chunk.data)
    return size
