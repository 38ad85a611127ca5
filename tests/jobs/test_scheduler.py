"""The jobs that run, the jobs that wait, and the events that tell it."""

import asyncio
import contextlib
import dataclasses
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest
from nst_service.engine.estimate import step_work
from nst_service.engine.network.vgg import Vgg19
from nst_service.engine.optim.transfer import Iterate, optimize
from nst_service.engine.options import Limits
from nst_service.engine.spec import TransferRequest, TransferSpec
from nst_service.jobs import run as run_module
from nst_service.jobs import scheduler as scheduler_module
from nst_service.jobs.errors import DeadlineTooShortError, DoesNotFitError, NotServingError, QueueFullError
from nst_service.jobs.events import Accepted, Completed, Event, Queued, ResultHeader, Started
from nst_service.jobs.job import Job
from nst_service.jobs.job_store import AsyncJobStore
from nst_service.jobs.queue_limits import QueueLimits
from nst_service.jobs.scheduler import Scheduler
from nst_service.jobs.stored_request import FindPicture, StoredRequest
from nst_service.jobs.worker import DeviceWorker
from nst_service.lifecycle import JobState, StopReason
from nst_service.store.errors import StoreUnavailableError
from nst_service.store.records import HeartbeatReply, StoredJob

from tests.jobs.builders import (
    DURABILITY,
    FakeJobStore,
    FakeWorker,
    make_job,
    make_stored_job,
    read_request,
    submit,
)
from tests.limits import DECODER_LIMITS

MakeRequest = Callable[..., TransferRequest]

_HANG_SECONDS = 60
"""Seconds after which a test counts as hung. No test measures time."""
_LONG, _SHORT = 5000, 5
"""Iterations of a job that no test waits for, and of a job that a test waits for."""
_LIMITS = {"max_queued": 8, "max_pending_bytes": 2**30, "max_running": 4}
_SECONDS_PER_OPERATION = 1e-3
"""The pretended throughput of the device. It is so low that the duration of the test itself does not count."""


class Gate:
    """A gate that holds every job before its step, so that the running and the waiting jobs stay the same."""

    def __init__(self) -> None:
        self.free = threading.Event()
        self.free.set()

    def transfer(self, spec: TransferSpec, model: Vgg19, tile: int | None, *rest: Any) -> Iterator[Iterate]:
        self.free.wait()
        for iterate in optimize(spec, model, tile, *rest):
            left = iterate.total_iterations - iterate.iteration
            yield dataclasses.replace(
                iterate, eta_seconds=left * step_work(spec.options, iterate.size, tile) * _SECONDS_PER_OPERATION
            )
            self.free.wait()


@pytest.fixture(autouse=True)
def _open_gate(monkeypatch: pytest.MonkeyPatch) -> Iterator[Gate]:
    """A device of a known throughput, so that placements do not depend on the machine."""

    def warm_up(worker: DeviceWorker) -> None:
        worker.memory = 2**30
        worker.throughput.observe(1.0, _SECONDS_PER_OPERATION)
        monkeypatch.setattr(worker.throughput, "observe", lambda *_: None)

    monkeypatch.setattr(DeviceWorker, "warm_up", warm_up)
    gate = Gate()
    monkeypatch.setattr(run_module, "transfer", gate.transfer)
    yield gate
    gate.free.set()


@pytest.fixture
def gate(_open_gate: Gate) -> Gate:
    _open_gate.free.clear()
    return _open_gate


@pytest.fixture
def scheduling(model: Vgg19, limits: Limits, job_store: AsyncJobStore):
    @contextlib.asynccontextmanager
    async def scheduling(max_job_bytes: int = 0, **settings) -> AsyncIterator[Scheduler]:
        scheduler = Scheduler(
            [DeviceWorker(model, max_job_bytes)],
            job_store,
            limits=limits,
            queue_limits=QueueLimits(**_LIMITS | settings),
            decoder_limits=DECODER_LIMITS,
            durability=DURABILITY,
        )
        await scheduler.start()
        try:
            async with asyncio.timeout(_HANG_SECONDS):
                yield scheduler
        finally:
            await scheduler.drain(0.0)
            await scheduler.close()

    return scheduling


def told(job: Job, kind: type[Event]) -> list[Event]:
    return [logged.event for logged in (*job.log._kept, *job.log._latest.values()) if isinstance(logged.event, kind)]


async def ended(job: Job) -> Completed:
    async with contextlib.aclosing(job.log.follow()) as events:
        *_, last = [logged.event async for logged in events]
    assert isinstance(last, Completed)
    return last


async def started(job: Job) -> None:
    while not told(job, Started):
        await asyncio.sleep(0.01)


async def test_a_short_job_runs_beside_a_long_one_to_its_end(scheduling, make_request: MakeRequest):
    async with scheduling() as scheduler:
        long = await submit(scheduler, make_request(iterations=_LONG))
        short = await submit(scheduler, make_request(iterations=_SHORT))
        assert (await ended(short)).stop_reason is StopReason.ITERATIONS
        assert long.state is JobState.RUNNING
        assert scheduler.views.running_jobs == 1
        await scheduler.cancel(long.id)
        assert (await ended(long)).stop_reason is StopReason.CANCELLED


async def test_a_short_job_runs_before_a_long_one_that_waits(scheduling, make_request: MakeRequest, gate: Gate):
    async with scheduling() as scheduler:
        jobs = [await submit(scheduler, make_request(iterations=number)) for number in (_LONG, _LONG, _SHORT)]
        assert [job.state for job in jobs] == [JobState.RUNNING, JobState.QUEUED, JobState.RUNNING]
        assert (scheduler.views.running_jobs, scheduler.views.queued_jobs) == (2, 1)
        gate.free.set()


async def test_equal_jobs_run_one_after_the_other_and_know_when(scheduling, make_request: MakeRequest, gate: Gate):
    async with scheduling() as scheduler:
        jobs = [await submit(scheduler, make_request(iterations=_SHORT)) for _ in range(3)]
        assert [job.state for job in jobs] == [JobState.RUNNING, JobState.QUEUED, JobState.QUEUED]
        waits = [told(job, Queued)[-1] for job in jobs[1:]]
        assert [wait.position for wait in waits] == [0, 1]
        assert 0 < waits[0].eta_seconds < waits[1].eta_seconds
        gate.free.set()
        assert [(await ended(job)).iterations for job in jobs] == [_SHORT] * 3
        assert not scheduler.views.running_jobs


async def test_jobs_run_alone_where_only_one_may_run(scheduling, make_request: MakeRequest, gate: Gate):
    async with scheduling(max_running=1) as scheduler:
        await submit(scheduler, make_request(iterations=_LONG))
        short = await submit(scheduler, make_request(iterations=_SHORT))
        assert short.state is JobState.QUEUED
        gate.free.set()


async def test_a_job_waits_while_its_memory_does_not_fit_beside_the_others(
    scheduling, make_request: MakeRequest, gate: Gate
):
    async with scheduling() as scheduler:
        long = await submit(scheduler, make_request(iterations=_LONG))
        scheduler._pool._devices[0].worker.memory = 2 * long.run_state.cost.peak_bytes - 1
        # As many as there are steps in the history of L-BFGS.
        waiting = await submit(scheduler, make_request(iterations=20))
        joining = await submit(scheduler, make_request(iterations=_SHORT, lbfgs_history=1))
        assert (waiting.state, joining.state) == (JobState.QUEUED, JobState.RUNNING)
        gate.free.set()


async def test_a_job_that_leaves_makes_room_for_the_next(scheduling, make_request: MakeRequest, gate: Gate):
    async with scheduling() as scheduler:
        await submit(scheduler, make_request(iterations=_LONG))
        short, next_ = [await submit(scheduler, make_request(iterations=_SHORT)) for _ in range(2)]
        assert (short.state, next_.state) == (JobState.RUNNING, JobState.QUEUED)
        await scheduler.cancel(short.id)
        gate.free.set()
        await ended(next_)


async def test_a_waiting_job_that_is_cancelled_lets_the_others_move_up(
    scheduling, make_request: MakeRequest, gate: Gate
):
    async with scheduling() as scheduler:
        _, first, second = [await submit(scheduler, make_request(iterations=_SHORT)) for _ in range(3)]
        assert await scheduler.cancel(first.id) is JobState.QUEUED
        assert first.state is JobState.CANCELLED
        assert told(second, Queued)[-1].position == 0
        gate.free.set()
        await ended(second)


async def test_a_full_queue_refuses(scheduling, make_request: MakeRequest, gate: Gate):
    async with scheduling(max_queued=1) as scheduler:
        for _ in range(2):
            await submit(scheduler, make_request(iterations=_SHORT))
        with pytest.raises(QueueFullError) as caught:
            await submit(scheduler, make_request(iterations=_SHORT))
        assert caught.value.retry_after > 0
        gate.free.set()


async def test_requests_that_wait_to_be_read_are_bounded_by_their_bytes(scheduling, make_request: MakeRequest):
    request, may_be_read = make_request(iterations=_SHORT), threading.Event()

    def slow(picture: FindPicture) -> StoredRequest:
        may_be_read.wait()
        return read_request(request)(picture)

    async with scheduling(max_pending_bytes=100) as scheduler:
        # Larger than all that may wait, but alone.
        reading = asyncio.ensure_future(scheduler.estimate(slow, size=101))
        await asyncio.sleep(0)
        for refused in (
            scheduler.submit(read_request(request), size=1),
            scheduler.estimate(read_request(request), size=1),
        ):
            with pytest.raises(QueueFullError, match="101 bytes are waiting already"):
                await refused
        may_be_read.set()
        await reading
        await ended(await scheduler.submit(read_request(request), size=100))


async def test_a_job_that_would_make_another_miss_its_deadline_waits(scheduling, make_request: MakeRequest, gate: Gate):
    long, short = make_request(iterations=_LONG), make_request(iterations=50)
    async with scheduling() as scheduler:
        seconds = [(await scheduler.estimate(read_request(request))).estimate.seconds for request in (long, short)]
        await submit(scheduler, long, time.monotonic() + seconds[0] + 1.2 * seconds[1])
        # It would meet its deadline beside one of them, but not beside both.
        joining = await submit(scheduler, short)
        waiting = await submit(scheduler, make_request(iterations=20))
        assert (joining.state, waiting.state) == (JobState.RUNNING, JobState.QUEUED)
        gate.free.set()


async def test_a_deadline_is_judged_by_the_share_that_a_job_will_have(
    scheduling, make_request: MakeRequest, gate: Gate
):
    short = make_request(iterations=_SHORT)
    async with scheduling() as scheduler:
        alone = (await scheduler.estimate(read_request(short))).estimate.seconds
        await submit(scheduler, make_request(iterations=_LONG))
        with pytest.raises(DeadlineTooShortError) as caught:
            await submit(scheduler, short, time.monotonic() + 1.01 * alone)
        assert caught.value.estimated > 1.01 * alone
        assert (await submit(scheduler, short, time.monotonic() + 2 * alone)).state is JobState.RUNNING
        gate.free.set()


async def test_a_deadline_leaves_time_for_the_step_that_is_being_taken(
    scheduling, make_request: MakeRequest, gate: Gate
):
    short = make_request(iterations=_SHORT)
    async with scheduling() as scheduler:
        alone = (await scheduler.estimate(read_request(short))).estimate.seconds
        long = await submit(scheduler, make_request(iterations=_LONG))
        long.run_state = dataclasses.replace(long.run_state, next_seconds=2 * alone)
        with pytest.raises(DeadlineTooShortError):
            await submit(scheduler, short, time.monotonic() + 2 * alone)
        gate.free.set()


async def test_an_estimate_takes_no_job_on(scheduling, make_request: MakeRequest):
    async with scheduling() as scheduler:
        accepted = await scheduler.estimate(read_request(make_request(iterations=_SHORT)))
        assert isinstance(accepted, Accepted)
        assert not accepted.job_id
        assert accepted.estimate.seconds > 0
        assert not scheduler.views.running_jobs + scheduler.views.queued_jobs


async def test_a_job_over_the_limit_of_memory_is_refused_by_it(scheduling, make_request: MakeRequest):
    async with scheduling(max_job_bytes=2**20) as scheduler:
        with pytest.raises(DoesNotFitError) as caught:
            await submit(scheduler, make_request(iterations=_SHORT))
    assert caught.value.available == 2**20


async def test_a_job_over_the_limit_of_memory_is_made_smaller_where_the_request_allows_it(
    scheduling, make_request: MakeRequest
):
    request = make_request(iterations=_SHORT, image_size=400, min_image_size=100)
    async with scheduling(max_job_bytes=120 * 2**20) as scheduler:
        estimated = await scheduler.estimate(read_request(request))
        job = await submit(scheduler, request)
        (accepted,) = told(job, Accepted)
        await ended(job)
        (header,) = told(job, ResultHeader)
        with pytest.raises(DoesNotFitError) as caught:
            await submit(scheduler, make_request(iterations=_SHORT, image_size=400, min_image_size=accepted.width + 1))
    assert dataclasses.replace(accepted, job_id="", estimate=estimated.estimate) == estimated
    assert accepted.estimate.reduced_from == 400
    assert accepted.estimate.peak_memory_bytes <= 120 * 2**20
    assert 100 <= accepted.width == accepted.options.image_size == caught.value.largest_size < 400
    assert (header.width, header.height) == (accepted.width, accepted.height)


async def test_a_job_that_fits_has_the_size_that_was_asked_for(scheduling, make_request: MakeRequest):
    async with scheduling() as scheduler:
        accepted = await scheduler.estimate(read_request(make_request(iterations=_SHORT, min_image_size=30)))
    assert (accepted.width, accepted.estimate.reduced_from) == (48, 0)


async def test_a_drain_ends_every_job_that_shares_the_device_with_its_picture(scheduling, make_request: MakeRequest):
    async with scheduling() as scheduler:
        jobs = [await submit(scheduler, make_request(iterations=number)) for number in (_LONG, _LONG // 10)]
        for job in jobs:
            await started(job)
        assert await scheduler.drain(0.0)
        assert [(await ended(job)).stop_reason for job in jobs] == [StopReason.SHUTDOWN] * 2


async def test_a_job_that_is_read_back_while_the_server_leaves_stays_in_the_store(
    limits: Limits, monkeypatch: pytest.MonkeyPatch
):
    async def resume(_: StoredJob) -> Job:
        reading.set()
        await go_on.wait()
        return job

    reading, go_on = asyncio.Event(), asyncio.Event()
    job, store, worker = make_job(request_id="one"), FakeJobStore(), FakeWorker()
    store.answers |= {"heartbeat": HeartbeatReply(cancelled=frozenset(), requeued=()), "unclaimed": [], "claim": True}
    scheduler = Scheduler(
        [worker],
        store,
        limits=limits,
        queue_limits=QueueLimits(**_LIMITS),
        decoder_limits=DECODER_LIMITS,
        durability=DURABILITY,
    )
    await scheduler.start()
    monkeypatch.setattr(scheduler._recovery, "_resume", resume)
    store.answers["unclaimed"] = [make_stored_job(job.id)]
    recovering = asyncio.create_task(scheduler._recover())
    await reading.wait()
    draining = asyncio.create_task(scheduler.drain(0.0))
    await asyncio.sleep(0)
    go_on.set()
    await asyncio.gather(recovering, draining)
    assert scheduler.views.queued_jobs == scheduler.views.running_jobs == 0
    assert job.id not in scheduler._table
    assert worker.joined == []


def idle_store() -> FakeJobStore:
    store = FakeJobStore()
    store.answers |= {"heartbeat": HeartbeatReply(cancelled=frozenset(), requeued=()), "unclaimed": []}
    return store


async def called(store: FakeJobStore, name: str, times: int) -> None:
    async with asyncio.timeout(_HANG_SECONDS):
        while store.calls.count(name) < times:
            await asyncio.sleep(0.001)


@pytest.mark.parametrize("error", [StoreUnavailableError("the store does not answer"), ZeroDivisionError()])
async def test_no_failure_of_the_store_ends_the_housekeeping(
    limits: Limits, monkeypatch: pytest.MonkeyPatch, error: Exception
):
    monkeypatch.setattr(scheduler_module, "_HOUSEKEEPING_SECONDS", 0.001)
    monkeypatch.setattr(scheduler_module, "_CLEANING_SECONDS", 0.001)
    store = idle_store()
    store.answers = dict.fromkeys(("heartbeat", "unclaimed", "clean"), error)
    scheduler = Scheduler(
        [FakeWorker()],
        store,
        limits=limits,
        decoder_limits=DECODER_LIMITS,
        queue_limits=QueueLimits(**_LIMITS),
        durability=DURABILITY,
    )
    await scheduler.start()
    for name in store.answers:
        await called(store, name, times=3)
    await scheduler.drain(0.0)


@pytest.mark.parametrize("name", ["clean", "unclaimed"])
async def test_the_heartbeats_go_on_while_the_store_takes_long_for_something_else(
    limits: Limits, monkeypatch: pytest.MonkeyPatch, name: str
):
    monkeypatch.setattr(scheduler_module, "_HOUSEKEEPING_SECONDS", 0.001)
    monkeypatch.setattr(scheduler_module, "_CLEANING_SECONDS", 0.001)
    store = idle_store()
    scheduler = Scheduler(
        [FakeWorker()],
        store,
        limits=limits,
        decoder_limits=DECODER_LIMITS,
        queue_limits=QueueLimits(**_LIMITS),
        durability=DURABILITY,
    )
    await scheduler.start()
    store.gates[name] = asyncio.Event()
    await called(store, name, times=store.calls.count(name) + 1)
    await called(store, "heartbeat", times=store.calls.count("heartbeat") + 3)
    await scheduler.drain(0.0)


async def test_a_drain_ends_a_start_that_still_reads_jobs_back_and_the_jobs_stay_in_the_store(limits: Limits):
    store = idle_store()
    store.answers |= {"unclaimed": [make_stored_job("one"), make_stored_job("two")], "request": object(), "claim": True}
    store.gates["request"] = asyncio.Event()
    scheduler = Scheduler(
        [FakeWorker()],
        store,
        limits=limits,
        decoder_limits=DECODER_LIMITS,
        queue_limits=QueueLimits(**_LIMITS),
        durability=DURABILITY,
    )
    starting = asyncio.create_task(scheduler.start())
    await called(store, "request", times=1)
    assert await scheduler.drain(0.0)
    store.gates["request"].set()
    await starting
    await scheduler.close()
    assert store.calls == ["heartbeat", "unclaimed", "claim", "request", "close"]
    with pytest.raises(NotServingError):
        await scheduler.estimate(lambda _: None)


async def test_a_drain_during_the_warm_up_ends_the_start(limits: Limits, monkeypatch: pytest.MonkeyPatch):
    is_warm, worker = threading.Event(), FakeWorker()
    monkeypatch.setattr(worker, "warm_up", lambda: is_warm.wait(_HANG_SECONDS))
    store = idle_store()
    scheduler = Scheduler(
        [worker],
        store,
        decoder_limits=DECODER_LIMITS,
        limits=limits,
        queue_limits=QueueLimits(**_LIMITS),
        durability=DURABILITY,
    )
    starting = asyncio.create_task(scheduler.start())
    await asyncio.sleep(0.01)
    assert await scheduler.drain(0.0)
    is_warm.set()
    await starting
    assert store.calls == []
