"""Servers that die and connections that are cut at any moment: no job is lost, and none runs twice."""

import asyncio
import random
import signal

import grpc
import pytest
from grpc_status import rpc_status
from nst.v1 import style_transfer_pb2 as pb
from nst_client import AsyncStyleTransferClient, Init, TransferOptions

from tests.reliability.serving import (
    HANG_SECONDS,
    KillableServer,
    MakeRequest,
    Proxy,
    Story,
    Stub,
    Undisturbed,
    connected,
    told,
)

_LONGEST_LIFE = 1.0
"""Seconds that a server lives, including its start."""
_CLIENTS = 3
_ITERATIONS = (5, 20, 60)
_POLICIES = (pb.DISCONNECT_POLICY_CANCEL, pb.DISCONNECT_POLICY_KEEP_RUNNING)

_INNOCENT = {"forgiven_deaths": 10**6}
"""The number of servers that may die with a job, which is more than the tests kill."""


async def followed(stub: Stub, request: pb.StylizeRequest, rng: random.Random) -> Story:
    """Follow a job to its end, whatever breaks, with both ways to reattach."""
    ids, story = set(), Story()
    while story.completed is None:
        if story.job_id and rng.random() < 0.5:
            call = stub.watch(story.job_id, story.last)
        else:
            story, call = Story(), stub.stylize(request, wait_for_ready=True)
        try:
            await story.read(call)
        except grpc.aio.AioRpcError as error:
            # What gRPC makes up for a call that comes while a server leaves says CANCELLED, without details.
            if error.code() is not grpc.StatusCode.UNAVAILABLE and rpc_status.from_call(error):
                raise
            await asyncio.sleep(0.01)
        if story.job_id:
            ids.add(story.job_id)
    assert len(ids) == 1
    return story


@pytest.fixture(params=["SIGKILL", "SIGTERM"])
def ends(request: pytest.FixtureRequest, chaos: bool) -> list[signal.Signals]:
    """The signals that end the servers."""
    often, seldom = {"SIGKILL": (200, 8), "SIGTERM": (100, 4)}[request.param]
    return [signal.Signals[request.param]] * (often if chaos else seldom)


async def test_no_job_is_lost_and_none_is_run_twice_whenever_its_servers_end(
    server: KillableServer,
    named: MakeRequest,
    undisturbed: Undisturbed,
    rng: random.Random,
    ends: list[signal.Signals],
):
    kinds = [named(iterations, seed) for iterations in _ITERATIONS for seed in range(3)]
    expected = {kind.options.SerializeToString(): await undisturbed(kind) for kind in kinds}
    stories: dict[str, Story] = {}
    is_over = False

    async def work() -> None:
        async with connected(server.port, patience=None) as stub:
            while not is_over:
                options = rng.choice(kinds).options
                request = named(options.iterations, options.seed, disconnect_policy=rng.choice(_POLICIES))
                story = await followed(stub, request, rng)
                assert story.data == expected[request.options.SerializeToString()]
                stories[request.request_id] = story

    async with asyncio.TaskGroup() as group:
        for _ in range(_CLIENTS):
            group.create_task(work())
        for end in ends:
            server.start(_INNOCENT, max_running=rng.choice((1, _CLIENTS)))
            await asyncio.sleep(rng.uniform(0, _LONGEST_LIFE))
            # One that is only asked to leave still answers.
            await asyncio.to_thread(server.kill, end)
        is_over = True
        await server.serve(_INNOCENT)
    server.kill()
    await server.serve(_INNOCENT)
    async with server.stub() as stub:
        await stub.idle()
        jobs = await stub.jobs()
        assert {job.request_id: job.job_id for job in jobs} == {name: story.job_id for name, story in stories.items()}
        assert len(jobs) == len(stories)
        for job in jobs:
            assert job.state == pb.JOB_STATE_SUCCEEDED
            assert (await told(stub, job.job_id)).data == stories[job.request_id].data
    print(f"{len(ends)} times {ends[0].name}, {len(stories)} jobs")


async def test_a_client_of_ours_gets_its_pictures_whatever_breaks(
    server: KillableServer, named: MakeRequest, undisturbed: Undisturbed, rng: random.Random, chaos: bool
):
    request = named(60)
    content, (style,), like = request.content.data, request.styles, request.options
    expected = await undisturbed(request)
    options = TransferOptions(
        image_size=like.image_size,
        iterations=like.iterations,
        preview_every=like.preview_every,
        scales=like.scales,
        seed=like.seed,
        init=Init.RANDOM,
        content_layers=[layer.layer for layer in like.content_layers],
        style_layers=[layer.layer for layer in like.style_layers],
    )
    server.start(_INNOCENT)
    async with (
        Proxy(server.port).listening() as proxy,
        AsyncStyleTransferClient(f"127.0.0.1:{proxy.port}", reconnect_seconds=HANG_SECONDS) as client,
    ):
        is_over, pictures = False, 0

        async def work() -> None:
            nonlocal pictures
            while not (is_over and pictures):
                assert (await client.stylize(content, style.picture.data, options=options)).data == expected
                pictures += 1

        async with asyncio.TaskGroup() as group:
            group.create_task(work())
            for _ in range(40 if chaos else 4):
                await asyncio.sleep(rng.uniform(0, _LONGEST_LIFE))
                if rng.random() < 0.5:
                    proxy.cut()
                else:
                    await asyncio.to_thread(server.kill, rng.choice((signal.SIGKILL, signal.SIGTERM)))
                    server.start(_INNOCENT)
            is_over = True
    async with server.stub() as stub:
        await stub.idle()
        jobs = await stub.jobs()
        assert len(jobs) == pictures
        assert {job.state for job in jobs} == {pb.JOB_STATE_SUCCEEDED}


async def test_no_job_is_blamed_for_servers_that_die_at_their_start(
    server: KillableServer, named: MakeRequest, undisturbed: Undisturbed, rng: random.Random
):
    requests = [named(10, seed, disconnect_policy=pb.DISCONNECT_POLICY_KEEP_RUNNING) for seed in range(6)]
    stories = [Story() for _ in requests]
    await server.serve({"stall": 1})
    async with server.stub() as stub:
        for request, story in zip(requests, stories, strict=True):
            await story.read(stub.stylize(request), "accepted")
    server.kill()
    for _ in range(12):
        await server.serve({"stall": 1}, checkpoint_seconds=1e6)
        await asyncio.sleep(rng.uniform(0, _LONGEST_LIFE))
        server.kill()
    await server.serve()
    async with server.stub() as stub:
        for request, story in zip(requests, stories, strict=True):
            await story.read(stub.watch(story.job_id, story.last))
            assert story.data == await undisturbed(request)
