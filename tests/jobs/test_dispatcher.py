"""Runs from their leases to their outcomes, with a store and workers that do what a test wants."""

import asyncio
import dataclasses
import gc
import sys
import time
import weakref
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field

import pytest
from nst_service.engine.errors import PictureError
from nst_service.engine.memory.footprint import picture_bytes
from nst_service.jobs import dispatcher as dispatcher_module
from nst_service.jobs import lost_runs as lost_runs_module
from nst_service.jobs.availability import Availability
from nst_service.jobs.background import BackgroundTasks
from nst_service.jobs.device_pool import DevicePool
from nst_service.jobs.dispatcher import Dispatcher
from nst_service.jobs.errors import JobFailedError, UnknownPictureError
from nst_service.jobs.events import Event, Queued, Started
from nst_service.jobs.job import Drained, End, Ended, Job, Moved, Probation, RequeueCause
from nst_service.jobs.job_store import LeasedJob
from nst_service.jobs.job_table import JobTable
from nst_service.jobs.observer import DeviceFailed, DeviceLost, Fact, JobEnded, JobRequeued, StoreFailed
from nst_service.jobs.queue_limits import PendingBytes
from nst_service.jobs.settlement import Settlement
from nst_service.jobs.sink import LoopSink, Outcome, Requeued
from nst_service.lifecycle import JobState, StopReason
from nst_service.store.errors import CorruptBlobError, LeaseLostError, StoreUnavailableError
from nst_service.store.records import Lease

from tests.jobs.builders import (
    FakeJobStore,
    FakePlanner,
    FakeRemoteDevice,
    FakeWorker,
    make_job,
    make_lease,
    make_result,
    make_stored_job,
)

_HANG_SECONDS = 60
"""Seconds after which a test has hung."""
_SUCCEEDED = Ended(JobState.SUCCEEDED, stop_reason=StopReason.ITERATIONS)
_UNAVAILABLE = StoreUnavailableError("the store does not answer")


class Snapshot:
    """Can be referenced weakly."""


@dataclass
class Dispatching:
    """A dispatcher and what is around it."""

    store: FakeJobStore = field(default_factory=FakeJobStore)
    table: JobTable = field(default_factory=JobTable)
    worker: FakeWorker = field(default_factory=FakeWorker)
    planner: FakePlanner = field(default_factory=FakePlanner)
    availability: Availability = field(default_factory=Availability)
    others: Sequence[FakeWorker] = ()
    """The devices beside the worker."""
    max_running: int = 1
    max_picture_bytes: int = sys.maxsize
    pending: PendingBytes = field(default_factory=lambda: PendingBytes(100))
    facts: list[Fact] = field(default_factory=list)

    def __post_init__(self) -> None:
        storing = BackgroundTasks()
        self.pool = DevicePool([self.worker, *self.others], self.max_running, self)
        self.settlement = Settlement(self.store, self.table, storing, self)
        self.dispatcher = Dispatcher(
            self.store,
            self.table,
            self.pool,
            self.settlement,
            self.availability,
            planner=self.planner,
            storing=storing,
            observer=self,
            checkpoint_seconds=3600,
            max_picture_bytes=self.max_picture_bytes,
            pending=self.pending,
        )
        self.availability.serve()
        self.store.answers |= {
            "job": make_stored_job(),
            "request": object(),
            "request_bytes": 10,
            "lease": LeasedJob(Lease(make_stored_job()), None),
            "claim": True,
        }

    def notify(self, fact: Fact) -> None:
        self.facts.append(fact)

    def queue(self, number: int = 1) -> list[Job]:
        """Queue jobs of the same length, which run one after the other."""
        jobs = [make_job() for _ in range(number)]
        for job in jobs:
            self.table.add(job)
            self.table.waiting.append(job)
        return jobs

    async def joined(self, number: int = 1) -> LoopSink:
        """Wait until runs have joined the worker, and return the sink of the last one."""
        async with asyncio.timeout(_HANG_SECONDS):
            while len(self.worker.joined) < number:
                await asyncio.sleep(0)
        sink: LoopSink = self.worker.joined[-1][2]
        return sink

    async def leave(self, sink: LoopSink, outcome: Outcome) -> None:
        await asyncio.to_thread(sink.leave, outcome)
        await until(lambda: sink._job.end is not None)


async def until(condition) -> None:
    async with asyncio.timeout(_HANG_SECONDS):
        while not condition():
            await asyncio.sleep(0)


@pytest.fixture
async def dispatching() -> Dispatching:
    return Dispatching()


def kinds(job: Job) -> list[type[Event]]:
    return [type(logged.event) for logged in (*job.log._kept, *job.log._latest.values())]


async def test_a_job_runs_from_its_lease_to_its_end(dispatching: Dispatching):
    (job,) = dispatching.queue()
    lease = make_lease(job, epoch=2)
    dispatching.store.answers["lease"] = LeasedJob(lease, None)
    dispatching.dispatcher.dispatch()
    assert job.state is JobState.RUNNING
    sink = await dispatching.joined()
    assert job.lease is lease
    assert job.log.next_sequence == lease.first_sequence
    await dispatching.leave(sink, make_result())
    assert dispatching.store.calls == ["job", "request_bytes", "request", "lease", "save_result"]
    assert job.end == _SUCCEEDED
    assert dispatching.pool.running == []


async def test_the_next_job_runs_when_one_has_left_and_before_its_outcome_is_stored(dispatching: Dispatching):
    first, second = dispatching.queue(2)
    dispatching.dispatcher.dispatch()
    assert kinds(second) == [Queued]
    sink = await dispatching.joined()
    gate = dispatching.store.gates["save_result"] = asyncio.Event()
    await asyncio.to_thread(sink.leave, make_result())
    await dispatching.joined(2)
    assert first.end is None
    gate.set()
    await until(lambda: first.end == _SUCCEEDED)


@pytest.mark.parametrize("error", [_UNAVAILABLE, MemoryError(), ZeroDivisionError()])
async def test_a_job_that_cannot_be_leased_waits_behind_the_others(dispatching: Dispatching, error: Exception):
    first, second = dispatching.queue(2)
    dispatching.store.answers["lease"] = error
    dispatching.dispatcher.dispatch()
    await until(lambda: dispatching.table.waiting == [second, first])
    assert first.state is JobState.QUEUED
    assert dispatching.pool.running == []
    assert dispatching.facts == ([StoreFailed("lease", error)] if error is _UNAVAILABLE else [])


async def test_a_job_that_cannot_be_leased_during_a_drain_is_drained(dispatching: Dispatching):
    (job,) = dispatching.queue()
    dispatching.store.answers["lease"] = _UNAVAILABLE
    dispatching.dispatcher.dispatch()
    dispatching.availability.drain()
    assert await dispatching.dispatcher.idle_within(_HANG_SECONDS)
    assert job.end == Drained()
    assert dispatching.table.waiting == []
    assert job.id not in dispatching.table


async def test_a_job_that_is_cancelled_while_it_cannot_be_leased_keeps_that_in_mind(dispatching: Dispatching):
    (job,) = dispatching.queue()
    dispatching.store.answers["lease"] = _UNAVAILABLE
    dispatching.dispatcher.dispatch()
    job.control.stop_requested = StopReason.CANCELLED
    await until(lambda: dispatching.table.waiting == [job])
    dispatching.store.answers["lease"] = LeasedJob(make_lease(job), None)
    dispatching.dispatcher.dispatch()
    await dispatching.joined()
    assert job.control.stop_requested is StopReason.CANCELLED


async def test_a_job_that_another_server_has_taken_has_moved_and_the_next_one_runs(dispatching: Dispatching):
    first, second = dispatching.queue(2)
    dispatching.store.answers["lease"] = None
    dispatching.dispatcher.dispatch()
    await until(lambda: first.end is not None and second.end is not None)
    assert (first.end, second.end) == (Moved(), Moved())
    assert dispatching.worker.joined == []
    assert dispatching.pool.running == []


async def test_no_job_runs_after_a_device_has_failed(dispatching: Dispatching):
    first, second = dispatching.queue(2)
    dispatching.dispatcher.dispatch()
    sink = await dispatching.joined()
    await dispatching.leave(sink, Requeued(None, is_lost=True))
    assert dispatching.facts == [DeviceFailed("cpu"), JobEnded(first, Drained())]
    assert second.state is JobState.QUEUED
    assert dispatching.table.waiting == [second]


async def test_no_job_starts_during_a_drain(dispatching: Dispatching):
    first, second = dispatching.queue(2)
    dispatching.dispatcher.dispatch()
    sink = await dispatching.joined()
    dispatching.availability.drain()
    await dispatching.leave(sink, make_result())
    assert first.end == _SUCCEEDED
    assert dispatching.table.waiting == [second]


async def test_the_dispatcher_does_not_hold_the_snapshot_that_a_run_begins_with(dispatching: Dispatching):
    dispatching.queue()
    snapshot = Snapshot()
    held = weakref.ref(snapshot)
    dispatching.store.answers["lease"] = LeasedJob(Lease(make_stored_job()), snapshot)
    del snapshot
    dispatching.dispatcher.dispatch()
    await dispatching.joined()
    dispatching.store.answers.clear()
    dispatching.worker.joined[-1] = (*dispatching.worker.joined[-1][:1], None, dispatching.worker.joined[-1][2])
    gc.collect()
    assert held() is None


async def test_a_server_is_idle_when_everything_is_stored(dispatching: Dispatching):
    dispatching.queue()
    gate = dispatching.store.gates["save_result"] = asyncio.Event()
    dispatching.dispatcher.dispatch()
    await asyncio.to_thread((await dispatching.joined()).leave, make_result())
    idle = asyncio.create_task(dispatching.dispatcher.idle_within(_HANG_SECONDS))
    await until(lambda: "save_result" in dispatching.store.calls)
    await asyncio.sleep(0.01)
    assert not idle.done()
    gate.set()
    assert await idle


async def test_a_server_is_not_idle_while_a_job_runs(dispatching: Dispatching):
    dispatching.queue()
    dispatching.dispatcher.dispatch()
    await dispatching.joined()
    assert not await dispatching.dispatcher.idle_within(0.0)


async def test_closing_abandons_the_jobs_that_still_run(dispatching: Dispatching):
    (job,) = dispatching.queue()
    dispatching.dispatcher.dispatch()
    sink = await dispatching.joined()
    await dispatching.dispatcher.close(10.0)
    assert job.end == Drained()
    assert job.control.is_abandoned
    assert dispatching.worker.is_closed
    assert job.id not in dispatching.table
    # The step ends at last.
    await asyncio.to_thread(sink.publish, Started(device="cpu", queued_seconds=0.0))
    await asyncio.to_thread(sink.leave, make_result())
    await asyncio.sleep(0.01)
    assert kinds(job) == []
    assert dispatching.store.calls == ["job", "request_bytes", "request", "lease"]


@pytest.mark.parametrize("is_held", [False, True])
async def test_closing_abandons_the_jobs_that_are_being_leased(dispatching: Dispatching, is_held: bool):
    (job,) = dispatching.queue()
    if is_held:
        dispatching.store.gates["lease"] = asyncio.Event()
    dispatching.dispatcher.dispatch()
    if is_held:
        await until(lambda: dispatching.store.calls == ["job", "request_bytes", "request", "lease"])
    await dispatching.dispatcher.close(10.0)
    assert job.end == Drained()
    assert job.control.is_abandoned
    assert dispatching.worker.joined == []


async def test_closing_does_not_wait_for_a_store_that_hangs(dispatching: Dispatching):
    dispatching.queue()
    dispatching.dispatcher.dispatch()
    sink = await dispatching.joined()
    dispatching.store.gates["save_result"] = asyncio.Event()
    sink._resolve(make_result())
    assert not await dispatching.dispatcher.close(0.01)
    assert dispatching.store.calls[-1] == "save_result"


async def test_an_outcome_that_comes_at_the_moment_of_closing_is_stored(dispatching: Dispatching):
    (job,) = dispatching.queue()
    dispatching.dispatcher.dispatch()
    sink = await dispatching.joined()
    # As the report of the worker does, in the same iteration of the event loop.
    sink._resolve(make_result())
    assert await dispatching.dispatcher.close(10.0)
    assert dispatching.store.calls == ["job", "request_bytes", "request", "lease", "save_result"]
    assert job.end == _SUCCEEDED


async def test_a_job_that_cannot_join_its_device_is_released_and_waits(
    dispatching: Dispatching, monkeypatch: pytest.MonkeyPatch
):
    (job,) = dispatching.queue()
    monkeypatch.setattr(dispatching.worker, "join", lambda *_: 1 / 0)
    dispatching.dispatcher.dispatch()
    await until(lambda: dispatching.table.waiting == [job])
    assert dispatching.store.calls == ["job", "request_bytes", "request", "lease", "release"]
    assert dispatching.pool.running == []


async def test_a_drain_waits_until_the_ends_that_could_not_be_stored_are_stored(dispatching: Dispatching):
    dispatching.queue()
    dispatching.store.answers["save_result"] = _UNAVAILABLE
    dispatching.dispatcher.dispatch()
    await dispatching.leave(await dispatching.joined(), make_result())
    idle = asyncio.create_task(dispatching.dispatcher.idle_within(_HANG_SECONDS))
    await asyncio.sleep(0.01)
    assert not idle.done()
    del dispatching.store.answers["save_result"]
    await dispatching.settlement.retry()
    assert await idle


def suspect(job: Job, begins_in: float = 0.0) -> Job:
    job.probation = Probation(begins_at=time.monotonic() + begins_in)
    return job


async def test_a_suspect_runs_alone(dispatching: Dispatching):
    dispatching.pool._max_running = 2
    (job,) = dispatching.queue()
    (short,) = dispatching.queue()
    short.run_state = dataclasses.replace(short.run_state, remaining_seconds=0.1)
    suspect(job)
    dispatching.dispatcher.dispatch()
    await dispatching.joined()
    dispatching.dispatcher.dispatch()
    assert dispatching.pool.running == [job]
    assert dispatching.table.waiting == [short]


async def test_others_join_a_suspect_that_has_stored_a_checkpoint(dispatching: Dispatching):
    dispatching.pool._max_running = 2
    (job,) = dispatching.queue()
    suspect(job)
    dispatching.dispatcher.dispatch()
    sink = await dispatching.joined()
    (short,) = dispatching.queue()
    short.run_state = dataclasses.replace(short.run_state, remaining_seconds=0.1)
    dispatching.dispatcher.dispatch()
    assert dispatching.pool.running == [job]
    await asyncio.to_thread(sink.save, Snapshot())
    await until(lambda: "save_checkpoint" in dispatching.store.calls and job.probation is None)
    dispatching.dispatcher.dispatch()
    assert dispatching.pool.running == [job, short]


async def test_a_suspect_waits_until_nothing_runs_and_those_behind_it_wait_for_it(dispatching: Dispatching):
    dispatching.pool._max_running = 2
    first, second, third = dispatching.queue(3)
    suspect(second)
    third.run_state = dataclasses.replace(third.run_state, remaining_seconds=0.1)
    dispatching.dispatcher.dispatch()
    sink = await dispatching.joined()
    assert dispatching.pool.running == [first]
    await asyncio.to_thread(sink.leave, make_result())
    await dispatching.joined(2)
    assert dispatching.pool.running == [second]
    assert dispatching.table.waiting == [third]


async def test_others_overtake_a_suspect_whose_time_has_not_come(dispatching: Dispatching):
    first, second = dispatching.queue(2)
    suspect(first, begins_in=3600.0)
    dispatching.dispatcher.dispatch()
    await dispatching.joined()
    assert dispatching.pool.running == [second]
    assert dispatching.table.waiting == [first]


async def test_the_pictures_of_a_job_are_decoded_when_it_has_a_place_and_not_before(dispatching: Dispatching):
    dispatching.queue(2)
    dispatching.planner.gate.clear()
    dispatching.dispatcher.dispatch()
    await until(lambda: dispatching.store.calls == ["job", "request_bytes", "request"])
    assert dispatching.worker.joined == []
    dispatching.planner.gate.set()
    sink = await dispatching.joined()
    assert dispatching.store.calls == ["job", "request_bytes", "request", "lease"]
    await dispatching.leave(sink, make_result())
    await dispatching.joined(2)


@pytest.mark.parametrize("error", [_UNAVAILABLE, MemoryError(), PictureError("is damaged"), ZeroDivisionError()])
async def test_a_job_that_cannot_be_decoded_now_waits_behind_the_others(dispatching: Dispatching, error: Exception):
    first, second = dispatching.queue(2)
    dispatching.planner.error = error
    dispatching.dispatcher.dispatch()
    await until(lambda: dispatching.table.waiting == [second, first])
    # It is not tried again at once, which would keep the decoders busy.
    dispatching.planner.error = None
    dispatching.dispatcher.dispatch()
    sink = await dispatching.joined()
    assert sink._job is second
    await dispatching.leave(sink, make_result())
    assert (first.state, first.end) == (JobState.QUEUED, None)
    first.not_before = 0.0
    dispatching.dispatcher.dispatch()
    assert (await dispatching.joined(2))._job is first


@pytest.mark.parametrize("error", [CorruptBlobError("sha256"), UnknownPictureError("sha256")])
async def test_a_job_that_can_never_be_decoded_fails_and_the_next_one_runs(dispatching: Dispatching, error: Exception):
    first, second = dispatching.queue(2)
    dispatching.planner.error = error
    dispatching.dispatcher.dispatch()
    await until(lambda: first.is_running)
    await until(lambda: first.end is not None)
    assert isinstance(first.end, Ended)
    assert isinstance(first.end.error, JobFailedError)
    assert first.end.error.reason == "REQUEST_LOST"
    await until(lambda: second.end is not None)


@pytest.mark.parametrize(
    ("stop", "must_leave", "end"),
    [
        (StopReason.CANCELLED, False, Ended(JobState.CANCELLED)),
        (StopReason.SHUTDOWN, False, Ended(JobState.CANCELLED)),
        (None, True, Drained()),
    ],
)
async def test_a_job_that_is_stopped_while_it_is_decoded_ends_at_once(
    dispatching: Dispatching, stop: StopReason | None, must_leave: bool, end: End
):
    (job,) = dispatching.queue()
    dispatching.planner.gate.clear()
    dispatching.dispatcher.dispatch()
    await until(lambda: dispatching.store.calls == ["job", "request_bytes", "request"])
    job.control.stop_requested, job.control.must_leave = stop, must_leave
    assert job.rendering
    job.rendering.cancel()
    await until(lambda: job.end is not None)
    assert dispatching.planner.cancelled == 1
    assert type(job.end) is type(end)
    assert job.state is (end.state if isinstance(end, Ended) else JobState.QUEUED)
    assert dispatching.pool.running == []
    assert dispatching.worker.joined == []


# Devices that are lost or removed


@pytest.fixture
async def cluster() -> AsyncIterator[Dispatching]:
    """Return a dispatcher with two devices of a cluster, which are ready. Only the first one is the `worker`."""
    cluster = Dispatching(worker=FakeRemoteDevice("ray-1"), others=[FakeRemoteDevice("ray-2")], max_running=2)
    await cluster.pool.start()
    await until(lambda: cluster.pool.idle_devices == 2)
    cluster.facts.clear()
    yield cluster
    await cluster.dispatcher.close(10.0)


def lose(device: FakeWorker) -> None:
    assert isinstance(device, FakeRemoteDevice)
    device.allowed.clear()
    device.lose()


async def test_a_job_whose_device_is_lost_goes_on_on_another_one_and_its_followers_stay(cluster: Dispatching):
    (job,) = cluster.queue()
    cluster.store.answers["job"] = make_stored_job(lost_runs=1)
    followed: list[Event] = []

    async def follow() -> None:
        followed.extend([logged.event async for logged in job.log.follow()])

    following = asyncio.create_task(follow())
    cluster.dispatcher.dispatch()
    await cluster.joined()
    cluster.store.answers["lease"] = LeasedJob(make_lease(job, epoch=2), None)
    lose(cluster.worker)
    (other,) = cluster.others
    await until(lambda: other.joined)
    assert job.state is JobState.RUNNING
    assert (job.plan.earlier_runs, job.probation) == (1, None)
    assert cluster.facts == [DeviceLost("ray-1", 1), JobRequeued(job, RequeueCause.DEVICE_LOST)]
    assert "release" in cluster.store.calls
    *_, sink = other.joined[0]
    await cluster.leave(sink, make_result())
    await following
    assert [type(event).__name__ for event in followed][-3:] == ["ResultHeader", "ResultChunk", "Completed"]
    assert job.end == _SUCCEEDED


async def test_jobs_wait_for_a_device_that_comes_back_in_the_order_of_their_arrival(cluster: Dispatching):
    jobs = cluster.queue(4)
    cluster.dispatcher.dispatch()
    (other,) = cluster.others
    await until(lambda: cluster.worker.joined and other.joined)
    for device in (cluster.worker, other):
        lose(device)
    await until(lambda: len(cluster.table.waiting) == 4)
    assert cluster.table.waiting == jobs
    assert [kinds(job)[-1] for job in jobs] == [Queued] * 4
    assert cluster.pool.lost.is_set()
    assert not cluster.pool.failed.is_set()


@pytest.mark.parametrize(("lost_runs", "is_suspect"), [(1, False), (2, True), (3, True)])
async def test_a_job_that_keeps_losing_its_devices_shares_its_device_with_no_other_one(
    cluster: Dispatching, monkeypatch: pytest.MonkeyPatch, lost_runs: int, is_suspect: bool
):
    monkeypatch.setattr(lost_runs_module, "_SUSPECT_SECONDS", 0.0)
    cluster.store.answers |= {"has_checkpoint": True, "job": make_stored_job(lost_runs=lost_runs)}
    (suspect,) = cluster.queue()
    cluster.dispatcher.dispatch()
    await cluster.joined()
    lose(cluster.worker)
    await until(lambda: len(cluster.others[0].joined) == 1)
    assert suspect.control.stop_requested is (StopReason.SHUTDOWN if lost_runs == 3 else None)
    (short,) = cluster.queue()
    short.run_state = dataclasses.replace(short.run_state, remaining_seconds=0.01)
    cluster.dispatcher.dispatch()
    assert short.is_running is not is_suspect
    assert isinstance(cluster.worker, FakeRemoteDevice)
    cluster.worker.allowed.set()
    await until(lambda: cluster.pool.idle_devices == 1)
    cluster.dispatcher.dispatch()
    assert short.is_running


@pytest.mark.parametrize(("lost_runs", "has_checkpoint"), [(3, False), (4, True)])
async def test_a_job_is_given_up_that_has_lost_too_many_devices(
    cluster: Dispatching, lost_runs: int, has_checkpoint: bool
):
    cluster.store.answers |= {"has_checkpoint": has_checkpoint, "job": make_stored_job(lost_runs=lost_runs)}
    (job,) = cluster.queue()
    cluster.dispatcher.dispatch()
    await cluster.joined()
    lose(cluster.worker)
    await until(lambda: job.end is not None)
    assert isinstance(job.end, Ended)
    assert isinstance(job.end.error, JobFailedError)
    assert job.end.error.reason == "KEEPS_CRASHING"
    assert "fail_queued" in cluster.store.calls
    assert job.id not in cluster.table


async def test_a_job_leaves_a_removed_device_with_its_snapshot_and_loses_no_run(cluster: Dispatching):
    (job,) = cluster.queue()
    cluster.dispatcher.dispatch()
    sink = await cluster.joined()
    cluster.store.answers["lease"] = LeasedJob(make_lease(job, epoch=2), None)
    removing = asyncio.create_task(cluster.pool.remove("ray-1"))
    await until(lambda: job.control.must_leave)
    await asyncio.to_thread(sink.leave, Requeued(Snapshot()))
    await removing
    await until(lambda: cluster.others[0].joined)
    assert not job.control.must_leave
    assert cluster.store.calls[4:7] == ["save_checkpoint", "release", "claim"]
    assert JobRequeued(job, RequeueCause.DEVICE_REMOVED) in cluster.facts


async def test_a_job_whose_device_is_lost_is_not_lost_while_the_store_does_not_answer(
    cluster: Dispatching, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(dispatcher_module, "_STORE_RETRY_SECONDS", 0.001)
    (job,) = cluster.queue()
    cluster.dispatcher.dispatch()
    await cluster.joined()
    cluster.store.answers |= {"release": _UNAVAILABLE, "lease": LeasedJob(make_lease(job, epoch=2), None)}
    lose(cluster.worker)
    await until(lambda: cluster.store.calls.count("release") > 2)
    assert StoreFailed("release", _UNAVAILABLE) in cluster.facts
    assert job.end is None
    cluster.store.answers["release"] = None
    await until(lambda: cluster.others[0].joined)


async def test_a_job_whose_device_and_lease_are_lost_has_moved(cluster: Dispatching):
    (job,) = cluster.queue()
    cluster.dispatcher.dispatch()
    await cluster.joined()
    cluster.store.answers["release"] = LeaseLostError("job")
    lose(cluster.worker)
    await until(lambda: job.end is not None)
    assert job.end == Moved()
    assert cluster.table.waiting == []


async def test_a_job_whose_device_is_lost_and_that_another_server_takes_has_moved(cluster: Dispatching):
    (job,) = cluster.queue()
    cluster.dispatcher.dispatch()
    await cluster.joined()
    cluster.store.answers["claim"] = False
    lose(cluster.worker)
    await until(lambda: job.end is not None)
    assert job.end == Moved()
    assert cluster.table.waiting == []


async def test_a_job_that_loses_its_device_during_a_drain_is_stored(cluster: Dispatching):
    (job,) = cluster.queue()
    cluster.dispatcher.dispatch()
    await cluster.joined()
    cluster.availability.drain()
    lose(cluster.worker)
    await until(lambda: job.end is not None)
    assert job.end == Drained()


async def test_a_server_goes_on_with_the_devices_that_have_not_failed():
    dispatching = Dispatching(others=[FakeWorker("cuda:1")])
    (job,) = dispatching.queue()
    dispatching.dispatcher.dispatch()
    sink = await dispatching.joined()
    dispatching.store.answers["lease"] = LeasedJob(make_lease(job, epoch=2), None)
    await asyncio.to_thread(sink.leave, Requeued(None, is_lost=True))
    await until(lambda: dispatching.others[0].joined)
    assert dispatching.facts == [DeviceFailed("cpu"), JobRequeued(job, RequeueCause.DEVICE_LOST)]
    assert not dispatching.pool.failed.is_set()


async def test_jobs_start_while_their_pictures_fit_into_memory():
    outline = make_job().run_state.outline
    size = picture_bytes(outline.size, outline.styles)
    dispatching = Dispatching(max_picture_bytes=2 * size, others=[FakeWorker(), FakeWorker()])
    jobs = dispatching.queue(3)
    dispatching.dispatcher.dispatch()
    assert [job.state for job in jobs] == [JobState.RUNNING, JobState.RUNNING, JobState.QUEUED]


async def test_a_single_job_starts_whatever_its_pictures_take():
    dispatching = Dispatching(max_picture_bytes=1)
    first, second = dispatching.queue(2)
    dispatching.dispatcher.dispatch()
    assert (first.state, second.state) == (JobState.RUNNING, JobState.QUEUED)


async def test_the_pictures_of_a_job_are_read_when_there_is_room_for_them(dispatching: Dispatching):
    (job,) = dispatching.queue()
    dispatching.store.answers["request_bytes"] = 60
    with dispatching.pending.hold(50):
        dispatching.dispatcher.dispatch()
        await until(lambda: dispatching.pending.shared.waiting)
        assert "request" not in dispatching.store.calls
    await dispatching.joined()
    assert job.state is JobState.RUNNING
    assert dispatching.pending.shared.held == 0
