"""Clients that never finish a request, never read an answer, or never leave. The server stays within its memory."""

import asyncio
import contextlib
import hashlib
import signal
import time

import grpc
import pytest
from grpc_health.v1 import health_pb2
from nst.v1 import style_transfer_pb2 as pb

from tests.reliability.raw import CHECK_HEALTH, REFLECTION, WATCH_HEALTH, method, raw_connection
from tests.reliability.serving import ENDLESS, KillableServer, MakeRequest, Story, refusal

_MIB = 2**20
_UNAVAILABLE, _RESOURCE_EXHAUSTED = "14", "8"


def resident(server: KillableServer) -> int:
    """Return the resident memory of a server in bytes."""
    return int(server.process.memory_info().rss)


async def test_requests_that_never_end_take_no_more_memory_than_the_limit(server: KillableServer):
    await server.serve(max_request_bytes=32 * _MIB, max_pending_bytes=100 * _MIB)
    async with server.stub() as stub, contextlib.AsyncExitStack() as stack:
        await stub.info()
        before = resident(server)
        attackers = [await stack.enter_async_context(raw_connection(server.port)) for _ in range(4)]
        streams = [(each, each.open(method(name))) for each in attackers for name in ("Stylize", "Estimate") * 3]
        sent = sum(await asyncio.gather(*(each.send_part(stream, 30 * _MIB, 32 * _MIB) for each, stream in streams)))
        grown = resident(server) - before
        # Other methods do not wait for them.
        await asyncio.wait_for(stub.info(), 10)
    print(f"{len(streams)} requests that never end: {sent / _MIB:.0f} MiB sent, {grown / _MIB:.0f} MiB held")
    assert grown < 120 * _MIB


@pytest.mark.parametrize("path", [method("GetJob"), method("WatchJob"), CHECK_HEALTH, WATCH_HEALTH, REFLECTION])
async def test_requests_that_are_never_large_are_read_a_few_at_a_time(server: KillableServer, path: str):
    await server.serve(max_request_bytes=16 * _MIB)
    async with server.stub() as stub, contextlib.AsyncExitStack() as stack:
        await stub.info()
        before = resident(server)
        attackers = [await stack.enter_async_context(raw_connection(server.port)) for _ in range(4)]
        streams = [(each, each.open(path)) for each in attackers for _ in range(8)]
        sending = asyncio.gather(*(each.send_part(stream, 15 * _MIB, 16 * _MIB) for each, stream in streams))
        most = 0
        while not sending.done():
            most = max(most, resident(server) - before)
            await asyncio.wait_for(stub.info(), 30)
            await asyncio.sleep(0.02)
        await sending
    print(f"{path}: {most / _MIB:.0f} MiB held at most")
    assert most < 100 * _MIB


async def test_a_request_must_be_complete_in_time(server: KillableServer, named: MakeRequest):
    await server.serve(message_seconds=0.5)
    async with raw_connection(server.port) as attacker, server.stub() as stub:
        streams = [attacker.open(method(name)) for name in ("Stylize", "GetJob")]
        for stream in streams:
            await attacker.send_part(stream, 10, 100)
            assert (await attacker.status(stream))["grpc-status"] == _UNAVAILABLE
        assert "0.5 s" in attacker.trailers[streams[0]]["grpc-message"]
        # Nor may nothing of it come at all.
        assert (await attacker.status(attacker.open(method("ListJobs"))))["grpc-status"] == _UNAVAILABLE
        story = Story()
        await story.read(stub.stylize(named()))
        assert story.completed


async def test_an_answer_must_be_taken_in_time(server: KillableServer):
    await server.serve(message_seconds=0.5)
    async with raw_connection(server.port, window=0) as attacker:
        attacker.send_message(attacker.open(method("GetServerInfo")), b"")
        await attacker.closed()


async def test_idle_connections_make_room_for_others(server: KillableServer):
    await server.serve({"idle": 1.0}, max_connections=8)
    async with contextlib.AsyncExitStack() as stack:
        attackers = [await stack.enter_async_context(raw_connection(server.port)) for _ in range(8)]
        await asyncio.gather(*(attacker.closed() for attacker in attackers))
        async with server.stub() as stub:
            assert (await stub.info()).version


async def test_watches_of_health_leave_room_for_others_and_a_drain_does_not_wait_for_them(server: KillableServer):
    await server.serve({"idle": 1.0}, max_connections=16)
    async with contextlib.AsyncExitStack() as stack:
        attackers = [await stack.enter_async_context(raw_connection(server.port, window=0)) for _ in range(12)]
        streams = [attacker.open(WATCH_HEALTH) for attacker in attackers]
        for attacker, stream in zip(attackers, streams, strict=True):
            attacker.send_message(stream, b"")
        # Four may watch, or as many of one caller as leave room for another one. The others are idle then.
        done = await asyncio.gather(*(attacker.closed(5.0) for attacker in attackers), return_exceptions=True)
        assert done.count(None) == 8
        async with server.stub() as stub:
            response = await stub.health.Check(health_pb2.HealthCheckRequest())
            assert response.status == health_pb2.HealthCheckResponse.SERVING
        started = time.monotonic()
        server.kill(signal.SIGTERM)
        assert time.monotonic() - started < 30


async def test_calls_over_the_limit_are_told_when_to_come_back(server: KillableServer, named: MakeRequest):
    await server.serve(max_calls=8)
    async with server.stub() as stub:
        call, story = stub.stylize(named(ENDLESS)), Story()
        await story.read(call, "progress")
        watches = [stub.watch(story.job_id) for _ in range(6)]
        for watch in watches:
            await watch.read()
        assert await refusal(stub.watch(story.job_id)) == (
            grpc.StatusCode.RESOURCE_EXHAUSTED,
            "TOO_MANY_CALLS",
        )
        watches[0].cancel()
        while True:
            try:
                await stub.cancel(story.job_id)
                break
            except grpc.aio.AioRpcError as error:
                if error.code() is not grpc.StatusCode.RESOURCE_EXHAUSTED:
                    raise
                await asyncio.sleep(0.05)
        await story.read(call)


async def test_a_call_that_follows_its_job_holds_nothing_of_its_request(server: KillableServer, named: MakeRequest):
    await server.serve()
    async with server.stub() as stub:
        followers = []

        async def follow(until: str) -> None:
            request = named(ENDLESS, seed=len(followers))
            # Anything may follow the end of a PNG.
            request.content.data += bytes(20 * _MIB)
            followers.append(stub.stylize(request))
            await Story().read(followers[-1], until)

        await follow("progress")
        # The heap keeps what reading one of them needs.
        await follow("queued")
        before = resident(server)
        for _ in range(8):
            await follow("queued")
        held = resident(server) - before
    print(f"8 calls that follow jobs of 20 MiB hold {held / _MIB:.0f} MiB")
    assert held < 40 * _MIB


async def test_pictures_that_requests_name_are_read_within_the_limit(server: KillableServer, named: MakeRequest):
    await server.serve(max_request_bytes=32 * _MIB, max_pending_bytes=64 * _MIB, max_queued=20)
    async with server.stub() as stub:
        # The same picture, followed by as many bytes as a request may have.
        plain = named(1).content.data
        pictures = [plain + bytes([number]) * (24 * _MIB) for number in range(6)]
        for data in pictures:
            request = named(1)
            request.content.data = data
            await Story().read(stub.stylize(request))
        names = [hashlib.sha256(data).hexdigest() for data in pictures]
        request = named(1, styles=[pb.Style(picture=pb.Picture(sha256=name)) for name in names])
        # The heap keeps what reading one of them needs.
        await stub.estimate(pb.EstimateRequest(stylize=request))
        before, most = resident(server), 0
        estimates = [asyncio.ensure_future(stub.estimate(pb.EstimateRequest(stylize=request))) for _ in range(12)]
        while not all(each.done() for each in estimates):
            most = max(most, resident(server) - before)
            await asyncio.sleep(0.05)
        assert all(each.result().width for each in estimates)
    print(f"12 small requests that name 144 MiB of pictures each: {most / _MIB:.0f} MiB held at most")
    assert most < 200 * _MIB
