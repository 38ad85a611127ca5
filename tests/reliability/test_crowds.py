"""Many jobs, and many clients that vanish or never read. The server holds no more afterwards than before."""

import asyncio
import contextlib
import os
import time
from collections import Counter
from dataclasses import dataclass

import grpc
from nst_service.jobs import log as log_module

from tests.reliability.serving import ENDLESS, OUTDATED, KillableServer, MakeRequest, Proxy, Story, Stub, connected

_MIB = 2**20
_SPARE_FILES = 8
"""The number of files that a server opens when it first needs one more."""
_SPARE_THREADS = 4 + min(32, (os.cpu_count() or 1) + 4)
"""The number of threads that a server starts when it first needs one more. Those of asyncio read results."""


@dataclass(frozen=True)
class Resources:
    """The resources that a server holds."""

    memory: int
    """Memory in bytes."""
    files: int
    threads: int

    @classmethod
    def by(cls, server: KillableServer) -> "Resources":
        process = server.process
        return cls(process.memory_info().rss, process.num_fds(), process.num_threads())


async def iterations_per_second(stub: Stub, job_id: str, seconds: float) -> float:
    """Return the iterations per second of a job."""
    first, started = (await stub.job(job_id)).progress.iteration, time.monotonic()
    await asyncio.sleep(seconds)
    last = (await stub.job(job_id)).progress.iteration
    return (last - first) / (time.monotonic() - started)


async def test_a_crowd_of_whom_half_vanish_leaves_nothing_behind(
    server: KillableServer, named: MakeRequest, chaos: bool
):
    clients = 1000 if chaos else 60
    await server.serve(max_connections=2 * clients)
    async with server.stub() as stub, Proxy(server.port).listening() as proxy:
        call, story = stub.stylize(named(ENDLESS)), Story()
        await story.read(call, "progress")
        before = Resources.by(server)
        watching, go_on = 0, asyncio.Event()

        async def watch(port: int) -> Story:
            nonlocal watching
            watched = Story()
            async with connected(port) as other:
                call = other.watch(story.job_id)
                await watched.read(call, "progress")
                watching += 1
                await go_on.wait()
                with contextlib.suppress(grpc.aio.AioRpcError):
                    await watched.read(call)
            return watched

        crowd = [asyncio.ensure_future(watch(port)) for port in (server.port, proxy.port) for _ in range(clients // 2)]
        while watching < clients:
            await asyncio.sleep(0.05)
        most = Resources.by(server)
        proxy.cut()
        await stub.cancel(story.job_id)
        go_on.set()
        await story.read(call)
        stories = await asyncio.gather(*crowd)
        assert all(watched.data == story.data for watched in stories[: clients // 2])
        assert not any(watched.completed for watched in stories[clients // 2 :])
        await stub.idle()
        while Resources.by(server).files > before.files + _SPARE_FILES:
            await asyncio.sleep(0.05)
        after = Resources.by(server)
    print(f"{clients} clients: {before} before, {most} at most, {after} after")
    assert most.memory - before.memory < 64 * _MIB + clients * _MIB / 4
    assert after.threads <= before.threads + _SPARE_THREADS


async def test_watchers_who_never_read_neither_slow_the_device_nor_fill_the_memory(
    server: KillableServer, named: MakeRequest, chaos: bool
):
    watchers, steps, seconds = (200, 2000, 5.0) if chaos else (20, 100, 0.0)
    request = named(ENDLESS)
    request.options.preview_every = 1
    await server.serve()
    async with server.stub() as stub, contextlib.AsyncExitStack() as stack:
        story = Story()
        call = stub.stylize(request)
        await story.read(call, "progress")
        reading = asyncio.ensure_future(story.read(call))
        alone = await iterations_per_second(stub, story.job_id, seconds) if chaos else 0.0
        before = Resources.by(server)
        idle = [(await stack.enter_async_context(connected(server.port))).watch(story.job_id) for _ in range(watchers)]
        first = (await stub.job(story.job_id)).progress.iteration
        while (await stub.job(story.job_id)).progress.iteration < first + steps:
            await asyncio.sleep(0.02)
        after = Resources.by(server)
        beside = await iterations_per_second(stub, story.job_id, seconds) if chaos else 0.0
        await stub.cancel(story.job_id)
        await reading
        assert story.completed
        await stub.idle()
        # They may still read what nobody may miss.
        late = Story()
        await late.read(idle[0])
        assert late.data == story.data
    print(
        f"{watchers} who never read: {alone:.0f} iterations/s without them, {beside:.0f} with; {before}, then {after}"
    )
    assert after.memory - before.memory < 64 * _MIB
    if chaos:
        assert beside > 0.7 * alone


async def test_a_crowd_of_watchers_is_told_of_no_more_progress_than_a_few(
    server: KillableServer, named: MakeRequest, chaos: bool
):
    watchers, steps = (300, 2000) if chaos else (30, 300)
    await server.serve()
    async with server.stub() as stub, contextlib.AsyncExitStack() as stack:
        call, story = stub.stylize(named(ENDLESS)), Story()
        await story.read(call, "progress")
        others = [await stack.enter_async_context(connected(server.port)) for _ in range(watchers)]
        told_of: Counter[str] = Counter()

        async def watch(other: Stub) -> None:
            async for response in other.watch(story.job_id):
                told_of[response.event.WhichOneof("event")] += 1

        started = time.monotonic()
        crowd = [asyncio.ensure_future(watch(other)) for other in others]
        first = (await stub.job(story.job_id)).progress.iteration
        while (await stub.job(story.job_id)).progress.iteration < first + steps:
            await asyncio.sleep(0.02)
        await stub.cancel(story.job_id)
        await story.read(call)
        await asyncio.gather(*crowd)
        turns = (time.monotonic() - started) / log_module._TURN_SECONDS
        assert story.completed
    outdated = sum(told_of[kind] for kind in OUTDATED)
    print(f"{watchers} watchers, {steps} steps: {dict(told_of)} in {turns:.0f} turns")
    assert told_of["completed"] == watchers
    # What there was when they came, and what comes before the picture, each gets at once.
    assert outdated <= turns + 2 * watchers * len(OUTDATED)


async def test_jobs_one_after_the_other_leave_nothing_behind(server: KillableServer, named: MakeRequest, chaos: bool):
    jobs = 500 if chaos else 30
    await server.serve()
    async with server.stub() as stub:
        for number in range(jobs):
            story = Story()
            await story.read(stub.stylize(named(3, number)))
            assert story.completed
            if number == jobs // 5:
                before = Resources.by(server)
        await stub.idle()
        after = Resources.by(server)
        assert len(await stub.jobs()) == jobs
    print(f"{jobs} jobs: {before} after a fifth of them, {after} after all")
    assert after.memory - before.memory < 100 * _MIB
    assert after.files <= before.files + _SPARE_FILES
    assert after.threads <= before.threads + _SPARE_THREADS
