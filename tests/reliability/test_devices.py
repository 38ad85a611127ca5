"""Devices that fail, and jobs that make them fail."""

import asyncio
import contextlib

import grpc
import pytest
from grpc_health.v1 import health_pb2
from nst.v1 import style_transfer_pb2 as pb

from tests.reliability.serving import (
    ENDLESS,
    TERMINAL,
    KillableServer,
    MakeRequest,
    Story,
    Stub,
    Undisturbed,
    refusal,
    told,
)

_KEEP = pb.DISCONNECT_POLICY_KEEP_RUNNING
_DEVICE_FAILED = 3
"""The exit code of a server whose device has failed."""


async def not_serving(stub: Stub) -> None:
    """Wait until the server has served and has ended."""
    health, seen = stub.health.Watch(health_pb2.HealthCheckRequest()), set()
    while seen < {health_pb2.HealthCheckResponse.SERVING, health_pb2.HealthCheckResponse.NOT_SERVING}:
        seen.add((await health.read()).status)
    health.cancel()


async def test_the_jobs_of_a_device_that_fails_go_on_when_the_server_is_another(
    server: KillableServer, named: MakeRequest, undisturbed: Undisturbed
):
    requests = [named(150, seed, disconnect_policy=_KEEP) for seed in range(2)]
    await server.serve({"device": 100})
    async with server.stub() as stub:
        # From the beginning: what has not been read when a server breaks off is lost.
        leaving = asyncio.ensure_future(not_serving(stub))
        calls, stories = [], [Story(), Story()]
        for request, story, kind in zip(requests, stories, ("progress", "queued"), strict=True):
            calls.append(stub.stylize(request))
            await story.read(calls[-1], kind)
        for call, story in zip(calls, stories, strict=True):
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await story.read(call)
            assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
        await leaving
    assert server.ended() == _DEVICE_FAILED
    await server.serve()
    async with server.stub() as stub:
        for request, story in zip(requests, stories, strict=True):
            await story.read(stub.watch(story.job_id, story.last))
            assert story.data == await undisturbed(request)
        await stub.idle()


async def test_a_job_that_keeps_killing_its_servers_is_given_up(
    server: KillableServer, named: MakeRequest, undisturbed: Undisturbed
):
    deadly, other = named(ENDLESS, disconnect_policy=_KEEP), named(5, disconnect_policy=_KEEP)
    expected = await undisturbed(other)
    await server.serve(checkpoint_seconds=1e6)
    async with server.stub() as stub:
        story, waiting = Story(), Story()
        await story.read(stub.stylize(deadly), "progress")
        await waiting.read(stub.stylize(other), "queued")
    server.kill()
    servers, job = 1, pb.Job()
    async with server.stub() as stub:
        while job.state != pb.JOB_STATE_FAILED:
            if not server.is_alive:
                server.kill()
                server.start({"death": 15}, checkpoint_seconds=1e6)
                servers += 1
            # It may die before anybody has heard of it.
            with contextlib.suppress(grpc.aio.AioRpcError):
                job = await stub.job(story.job_id)
            await asyncio.sleep(0.01)
        assert job.failure.reason == "KEEPS_CRASHING"
        await waiting.read(stub.watch(waiting.job_id, waiting.last))
        await stub.idle()
    # The last one has not died.
    assert servers >= 4
    assert waiting.data == expected


async def test_a_job_goes_on_in_tiles_where_memory_runs_out(server: KillableServer, named: MakeRequest):
    request = named(8)
    request.options.image_size = 256
    await server.serve({"little_memory": 4})
    async with server.stub() as stub:
        story = Story()
        await story.read(stub.stylize(request))
        assert story.completed
        assert story.completed.iterations == 8
        assert story.header
        assert story.header.width == 256
        await stub.idle()
    assert "goes on in tiles" in server.log.read_text()


async def test_a_job_that_fits_in_no_tiles_goes_on_smaller_where_the_request_allows_it(
    server: KillableServer, named: MakeRequest
):
    request = named(8)
    request.options.image_size, request.options.min_image_size = 400, 64
    await server.serve({"memory_up_to": 300})
    async with server.stub() as stub:
        story = Story()
        await story.read(stub.stylize(request), "reduced")
        reduced = story.kept[-1].reduced
        assert story.iteration == 3
        job = await stub.job(story.job_id)
        assert (job.width, job.height) == (reduced.width, reduced.height)
        await story.read(stub.watch(story.job_id, story.last))
        assert story.completed
        assert story.completed.iterations == 8
        assert story.header
        assert (story.header.width, story.header.height) == (reduced.width, reduced.height)
        assert 64 <= story.header.width <= 300
        await stub.idle()


@pytest.mark.parametrize("is_told", [False, True])
async def test_a_smaller_size_is_told_once_where_the_server_dies_with_it(
    server: KillableServer, named: MakeRequest, is_told: bool
):
    request, faults = named(8, disconnect_policy=_KEEP), {"memory_up_to": 300}
    request.options.image_size, request.options.min_image_size = 400, 64
    await server.serve(faults if is_told else faults | {"death_of_a_smaller_size": 0.2})
    async with server.stub() as stub:
        call, story = stub.stylize(request), Story()
        if is_told:
            await story.read(call, "reduced")
        else:
            with pytest.raises(grpc.aio.AioRpcError):
                await story.read(call)
    server.kill()
    await server.serve(faults)
    async with server.stub() as stub:
        await story.read(stub.watch(story.job_id, story.last))
        again = await told(stub, story.job_id)
    assert story.completed
    assert story.completed.iterations == 8
    for each in (story, again):
        [reduced] = [event.reduced for event in each.kept if event.HasField("reduced")]
        assert each.header
        assert (each.header.width, each.header.height) == (reduced.width, reduced.height)


async def test_a_job_that_fits_in_no_tiles_fails_and_nothing_else_does(server: KillableServer, named: MakeRequest):
    await server.serve({"no_memory": 4})
    async with server.stub() as stub:
        for _ in range(2):
            code, reason = await refusal(stub.stylize(named(ENDLESS)))
            assert (code, reason) == (grpc.StatusCode.FAILED_PRECONDITION, "DOES_NOT_FIT")
        await Story().read(stub.stylize(named(3)))
        await stub.idle()


async def test_a_job_that_keeps_killing_its_servers_ends_with_the_picture_that_it_has(
    server: KillableServer, named: MakeRequest
):
    await server.serve({"stall": 12}, checkpoint_seconds=0)
    async with server.stub() as stub:
        story = Story()
        await story.read(stub.stylize(named(ENDLESS, disconnect_policy=_KEEP)), "progress")
        while story.iteration < 11:
            await story.read(stub.watch(story.job_id, story.last), "progress")
        await asyncio.sleep(0.2)
    server.kill()
    async with server.stub() as stub:
        job = pb.Job()
        while job.state not in TERMINAL:
            if not server.is_alive:
                server.kill()
                server.start({"death": 15}, checkpoint_seconds=1e6)
            with contextlib.suppress(grpc.aio.AioRpcError):
                job = await stub.job(story.job_id)
            await asyncio.sleep(0.01)
        assert job.state == pb.JOB_STATE_SUCCEEDED
        assert job.completed.stop_reason == pb.STOP_REASON_SHUTDOWN
        assert 5 < job.completed.iterations < 15
        await told(stub, story.job_id)
        await stub.idle()
