"""Whatever breaks, and at whichever event: nothing of the job is lost, and nothing of it remains."""

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest
from nst.v1 import style_transfer_pb2 as pb
from nst_client import AsyncStyleTransferClient

from tests.reliability.serving import (
    ENDLESS,
    KINDS,
    TERMINAL,
    KillableServer,
    MakeRequest,
    Proxy,
    Story,
    Stub,
    Undisturbed,
    connected,
    told,
)

_KEEP = pb.DISCONNECT_POLICY_KEEP_RUNNING
_OF_THE_RESULT = KINDS[KINDS.index("result_header") :]
_SHORT_FORM = 3
"""The number of kinds of events at which each test breaks something."""


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "kind" in metafunc.fixturenames:
        kinds = list(KINDS)
        if not metafunc.config.getoption("chaos", False):
            random.Random(f"{metafunc.config.option.seed} {metafunc.function.__name__}").shuffle(kinds)
            del kinds[_SHORT_FORM:]
        metafunc.parametrize("kind", kinds)


@contextlib.asynccontextmanager
async def begun(stub: Stub, request: pb.StylizeRequest, kind: str) -> AsyncIterator[tuple[Any, Story]]:
    """Bring a job to an event of a kind. For a waiting job, another job runs, which is ended afterwards."""
    blocker = None
    if kind == "queued":
        other = pb.StylizeRequest(content=request.content, styles=request.styles, options=request.options)
        other.options.iterations = ENDLESS
        blocker = stub.stylize(other)
        await Story().read(blocker, "started")
    call, story = stub.stylize(request), Story()
    await story.read(call, kind)
    yield call, story
    if blocker:
        blocker.cancel()


def endless_before(kind: str) -> int:
    """Return a number of iterations with which a job does not end by itself before an event."""
    return 20 if kind in _OF_THE_RESULT else ENDLESS


async def check_that_it_stays(server: KillableServer, story: Story) -> None:
    """Check that the story of a job stays the same when it is read again, and after a restart."""
    stories = []
    for _ in range(2):
        async with server.stub() as stub:
            await stub.idle()
            stories += [await told(stub, story.job_id) for _ in range(2)]
        server.kill()
        await server.serve()
    assert all(other == stories[0] for other in stories)
    assert stories[0].data == story.data
    assert stories[0].completed == story.completed


async def test_a_job_of_a_server_that_is_killed_goes_on(
    server: KillableServer, named: MakeRequest, undisturbed: Undisturbed, kind: str
):
    request = named(disconnect_policy=_KEEP)
    expected = await undisturbed(request)
    await server.serve()
    async with server.stub() as stub, begun(stub, request, kind) as (_, story):
        server.kill()
    await server.serve()
    async with server.stub() as stub:
        await story.read(stub.watch(story.job_id, story.last))
        repeated = Story()
        await repeated.read(stub.stylize(request))
    assert story.data == repeated.data == expected
    assert repeated.job_id == story.job_id
    await check_that_it_stays(server, story)


async def test_a_job_whose_connection_is_cut_goes_on(
    server: KillableServer, named: MakeRequest, undisturbed: Undisturbed, kind: str
):
    request = named()
    expected = await undisturbed(request)
    await server.serve()
    async with server.stub() as direct, Proxy(server.port).listening() as proxy, connected(proxy.port) as stub:
        async with begun(stub, request, kind) as (call, story):
            proxy.cut()
            with contextlib.suppress(grpc.aio.AioRpcError):
                # Some may have come before.
                await story.read(call)
        await story.read(direct.watch(story.job_id, story.last))
        assert story.data == expected
        await direct.idle()


async def test_a_job_that_nobody_can_come_back_to_ends_with_its_connection(
    server: KillableServer, named: MakeRequest, kind: str
):
    await server.serve()
    async with server.stub() as direct, Proxy(server.port).listening() as proxy, connected(proxy.port) as stub:
        async with begun(stub, named(endless_before(kind), request_id=""), kind) as (_, story):
            proxy.cut()
        await direct.idle()
        job = await direct.job(story.job_id)
        assert job.state in TERMINAL
        # What there is of a picture is kept.
        assert job.HasField("result") or kind not in ("progress", "preview", *_OF_THE_RESULT)


async def test_a_job_that_is_cancelled_ends_for_good(server: KillableServer, named: MakeRequest, kind: str):
    request = named(endless_before(kind))
    await server.serve()
    async with server.stub() as stub, begun(stub, request, kind) as (call, story):
        await stub.cancel(story.job_id)
        if kind in ("progress", "preview", *_OF_THE_RESULT):
            await story.read(call)
        else:
            with contextlib.suppress(grpc.aio.AioRpcError):
                await story.read(call)
        server.kill()
    await server.serve()
    async with server.stub() as stub:
        await stub.idle()
        job = await stub.job(story.job_id)
        assert job.state == (pb.JOB_STATE_SUCCEEDED if kind in _OF_THE_RESULT else pb.JOB_STATE_CANCELLED)
        assert job.HasField("result") == bool(story.data)
    if story.data:
        await check_that_it_stays(server, story)


@pytest.mark.parametrize("event", ["accepted", "started", "preparing", "progress", "preview"])
async def test_a_job_whose_deadline_passes_ends(server: KillableServer, named: MakeRequest, event: str):
    # Nobody reads on.
    story = await server.serve_with_deadline(named, event)
    async with server.stub() as stub:
        await stub.idle()
        job = await stub.job(story.job_id)
        assert job.completed.stop_reason == pb.STOP_REASON_DEADLINE
        assert (await told(stub, story.job_id)).header == job.result


async def test_a_job_whose_client_vanishes_without_a_word_ends(server: KillableServer, named: MakeRequest):
    await server.serve({"keepalive": 2.0})
    async with server.stub() as direct, Proxy(server.port).listening() as proxy, connected(proxy.port) as stub:
        async with begun(stub, named(ENDLESS, request_id=""), "progress") as (_, story):
            proxy.freeze()
            await direct.idle()
        assert (await direct.job(story.job_id)).state == pb.JOB_STATE_CANCELLED


async def test_a_client_of_ours_reaches_a_server_that_is_far_away(server: KillableServer):
    await server.serve()
    async with Proxy(server.port).listening() as proxy:
        proxy.freeze()
        async with AsyncStyleTransferClient(f"127.0.0.1:{proxy.port}", retries=0, reconnect_seconds=0) as client:
            asking = asyncio.ensure_future(client.info())
            # Longer than any way on Earth.
            await asyncio.sleep(1.0)
            proxy.thaw()
            assert (await asking).devices == ("cpu",)
