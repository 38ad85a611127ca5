"""Jobs that outlive calls, followers and servers."""

import asyncio
import contextlib
import dataclasses
import itertools
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest
import torch
from nst_service.engine.errors import InvalidRequestError
from nst_service.engine.network.vgg import Vgg19
from nst_service.engine.optim.transfer import Iterate, optimize
from nst_service.engine.options import Limits
from nst_service.engine.spec import TransferRequest, TransferSpec
from nst_service.jobs import run as run_module
from nst_service.jobs import scheduler as scheduler_module
from nst_service.jobs.errors import (
    JobCancelledError,
    NotServingError,
    StoredFailureError,
    UnknownJobError,
)
from nst_service.jobs.events import Progress, Reduced, ResultChunk, ResultHeader, SerializedEvent, Started
from nst_service.jobs.job import Job
from nst_service.jobs.job_store import AsyncJobStore
from nst_service.jobs.log import LoggedEvent
from nst_service.jobs.queue_limits import QueueLimits
from nst_service.jobs.quotas import Owner
from nst_service.jobs.scheduler import Scheduler
from nst_service.jobs.worker import DeviceWorker
from nst_service.lifecycle import JobState
from nst_service.store.errors import RequestConflictError, StoreFullError, StoreUnavailableError
from nst_service.store.records import DisconnectPolicy, StoredJob
from nst_service.store.store import Store

from tests.jobs.builders import DURABILITY, submit
from tests.limits import DECODER_LIMITS

MakeRequest = Callable[..., TransferRequest]
OpenJobStore = Callable[[], AsyncJobStore]

_HANG_SECONDS = 60
"""Seconds after which a test counts as hung. No test measures time."""
_ENDLESS = 5000
"""Iterations that no test waits for."""
_KEEP = DisconnectPolicy.KEEP_RUNNING


class Brake:
    """A brake that holds the device before a step."""

    def __init__(self) -> None:
        self.steps = 0
        self.before = _ENDLESS
        """The number of the step before which the device is held."""
        self.released = threading.Event()

    def transfer(self, *arguments: Any) -> Iterator[Iterate]:
        for iterate in optimize(*arguments):
            self.steps += 1
            yield iterate
            if self.steps == self.before:
                self.released.wait()


@pytest.fixture(autouse=True)
def brake(monkeypatch: pytest.MonkeyPatch) -> Iterator[Brake]:
    def warm_up(worker: DeviceWorker) -> None:
        worker.memory = 2**30

    monkeypatch.setattr(DeviceWorker, "warm_up", warm_up)
    brake = Brake()
    monkeypatch.setattr(run_module, "transfer", brake.transfer)
    yield brake
    brake.released.set()


@pytest.fixture
def serving(model: Vgg19, limits: Limits, open_job_store: OpenJobStore):
    """Return a context manager that runs a scheduler, with the same store every time."""

    @contextlib.asynccontextmanager
    async def serving(limits: Limits = limits, **durability: Any) -> AsyncIterator[Scheduler]:
        scheduler = Scheduler(
            [DeviceWorker(model)],
            open_job_store(),
            limits=limits,
            queue_limits=QueueLimits(max_queued=8, max_pending_bytes=2**30, max_running=1),
            decoder_limits=DECODER_LIMITS,
            durability=dataclasses.replace(DURABILITY, **durability),
        )
        await scheduler.start()
        try:
            async with asyncio.timeout(_HANG_SECONDS):
                yield scheduler
        finally:
            await scheduler.drain(0.0)
            await scheduler.close()

    return serving


async def events_of(scheduler: Scheduler, job_id: str, after: int = 0) -> list[LoggedEvent]:
    async with contextlib.aclosing(scheduler.follow(job_id, after=after)) as events:
        return [logged async for logged in events]


def picture_in(events: list[LoggedEvent]) -> bytes:
    return b"".join(logged.event.data for logged in events if isinstance(logged.event, ResultChunk))


async def until(condition: Callable[[], bool]) -> None:
    while not condition():
        await asyncio.sleep(0.01)


async def test_the_same_request_leads_to_one_job_while_it_runs_and_afterwards(
    serving, make_request: MakeRequest, brake: Brake
):
    request = make_request(iterations=5)
    brake.before = 2
    async with serving() as scheduler:
        first = await submit(scheduler, request, request_id="one")
        await until(lambda: brake.steps == 2)
        assert (await submit(scheduler, request, request_id="one")).id == first.id
        brake.released.set()
        picture = picture_in(await events_of(scheduler, first.id))
        again = await submit(scheduler, request, request_id="one")
        assert again.id == first.id
        assert again.state is JobState.SUCCEEDED
        assert picture_in(await events_of(scheduler, again.id)) == picture
    assert brake.steps == 5


async def test_requests_that_come_at_the_same_time_lead_to_one_job(serving, make_request: MakeRequest, brake: Brake):
    request = make_request(iterations=3)
    async with serving() as scheduler:
        jobs = await asyncio.gather(*(submit(scheduler, request, request_id="one") for _ in range(4)))
        assert len({job.id for job in jobs}) == 1
        await events_of(scheduler, jobs[0].id)
    assert brake.steps == 3


async def test_a_request_id_belongs_to_its_request(serving, make_request: MakeRequest):
    async with serving() as scheduler:
        await submit(scheduler, make_request(iterations=3), request_id="one")
        with pytest.raises(RequestConflictError):
            await submit(scheduler, make_request(iterations=4), request_id="one")


async def test_a_repeated_request_finds_its_job_where_the_queue_is_full(
    serving, make_request: MakeRequest, brake: Brake
):
    brake.before = 1
    async with serving() as scheduler:
        scheduler._admission._max_queued = 0
        first = await submit(scheduler, make_request(iterations=3), request_id="one")
        assert (await submit(scheduler, make_request(iterations=3), request_id="one")).id == first.id
        brake.released.set()


async def test_whoever_comes_later_reads_the_same_events_that_cannot_be_outdated(serving, make_request: MakeRequest):
    async with serving() as scheduler:
        job = await submit(scheduler, make_request(iterations=3), request_id="one")
        live = await events_of(scheduler, job.id)
        later = await events_of(scheduler, job.id)
        sequences = [logged.sequence for logged in later]
        assert sequences == sorted(set(sequences))
        kept = {logged.sequence: logged for logged in live}
        assert set(sequences) <= set(kept)
        assert picture_in(later) == picture_in(live) != b""
        assert later[-1].sequence == live[-1].sequence
        rest = await events_of(scheduler, job.id, after=later[2].sequence)
        assert [logged.sequence for logged in rest] == sequences[3:]


async def undisturbed(serving, request: TransferRequest) -> list[LoggedEvent]:
    async with serving() as scheduler:
        job = await submit(scheduler, request)
        return await events_of(scheduler, job.id)


async def test_a_job_goes_on_after_a_restart_and_its_picture_is_the_same_to_the_last_bit(
    serving, make_request: MakeRequest, brake: Brake
):
    request = make_request(iterations=12)
    expected = picture_in(await undisturbed(serving, request))
    brake.steps, brake.before = 0, 7
    async with serving() as scheduler:
        job = await submit(scheduler, request, request_id="one")
        following = asyncio.create_task(events_of(scheduler, job.id))
        await until(lambda: brake.steps == 7)
        draining = asyncio.create_task(scheduler.drain(0.0))
        await asyncio.sleep(0.1)
        brake.released.set()
        assert await draining
        with pytest.raises(NotServingError):
            await following
    async with serving() as scheduler:
        events = await events_of(scheduler, job.id)
    assert picture_in(events) == expected
    # The step that the checkpoint was taken after is shown once more, and not taken.
    assert brake.steps == 12 + 1
    assert sum(isinstance(logged.event, Started | SerializedEvent) for logged in events) >= 3
    sequences = [logged.sequence for logged in events]
    assert sequences == sorted(set(sequences))


async def leave(scheduler: Scheduler, brake: Brake, step: int) -> None:
    """Drain a server before a step of its job, which leaves with a checkpoint."""
    await until(lambda: brake.steps == step)
    draining = asyncio.create_task(scheduler.drain(0.0))
    await asyncio.sleep(0.1)
    brake.released.set()
    assert await draining


async def left_at_step_3(serving, request: TransferRequest, brake: Brake) -> str:
    """Drain a server while it runs a job, and return the id of the job."""
    brake.steps, brake.before = 0, 3
    async with serving() as scheduler:
        job = await submit(scheduler, request, request_id="one")
        await leave(scheduler, brake, 3)
    return job.id


def sizes_in(events: list[LoggedEvent]) -> list[tuple[int, int]]:
    return [(event.width, event.height) for logged in events if isinstance(event := logged.event, ResultHeader)]


async def test_a_job_that_was_made_smaller_on_acceptance_keeps_its_size_where_another_server_has_more_memory(
    serving, make_request: MakeRequest, brake: Brake, monkeypatch: pytest.MonkeyPatch
):
    request = make_request(iterations=8, image_size=400, min_image_size=100)
    memory = 120 * 2**20
    monkeypatch.setattr(DeviceWorker, "warm_up", lambda worker: setattr(worker, "memory", memory))
    expected = await undisturbed(serving, request)
    job_id = await left_at_step_3(serving, request, brake)
    memory = 2**33
    async with serving() as scheduler:
        events = await events_of(scheduler, job_id)
    assert sizes_in(events) == sizes_in(expected) != [(400, 308)]
    assert picture_in(events) == picture_in(expected)


@pytest.fixture
def little_memory(brake: Brake, monkeypatch: pytest.MonkeyPatch) -> None:
    """Memory that runs out in the third step of every picture that is 256 px wide."""

    def run_out(spec: TransferSpec, *arguments: Any) -> Iterator[Iterate]:
        if spec.content.width == 256:
            yield from itertools.islice(optimize(spec, *arguments), 2)
            raise MemoryError
        yield from brake.transfer(spec, *arguments)

    monkeypatch.setattr(run_module, "transfer", run_out)


@pytest.mark.usefixtures("little_memory")
async def test_a_view_tells_the_size_that_a_job_has_come_down_to(serving, make_request: MakeRequest, brake: Brake):
    brake.before = 1
    async with serving() as scheduler:
        waiting_for = await submit(scheduler, make_request(iterations=1), request_id="other")
        await until(lambda: brake.steps == 1)
        job = await submit(scheduler, make_request(iterations=8, image_size=256, min_image_size=100), request_id="one")
        assert (await scheduler.views.view(job.id)).size == (256, 197)
        brake.before = 3
        brake.released.set()
        await events_of(scheduler, waiting_for.id)
        events = await events_of(scheduler, job.id)
        views = await scheduler.views.page(Owner(name=""), states=(), before=None, limit=9)
        assert [view.size for view in views] == [*sizes_in(events), (48, 37)]


@pytest.mark.usefixtures("little_memory")
async def test_a_smaller_size_is_kept_before_it_is_told(
    serving, make_request: MakeRequest, monkeypatch: pytest.MonkeyPatch
):
    note, told = AsyncJobStore.append, []

    async def slowly(job_store: AsyncJobStore, job: Job, logged: LoggedEvent) -> None:
        await note(job_store, job, logged)
        await asyncio.sleep(0.1)
        if isinstance(logged.event, Reduced):
            told.extend(each for each in seen if each.sequence >= logged.sequence)

    monkeypatch.setattr(AsyncJobStore, "append", slowly)
    async with serving() as scheduler:
        request = make_request(iterations=4, image_size=256, min_image_size=100)
        job, seen = await submit(scheduler, request, request_id="one"), list[LoggedEvent]()
        async with contextlib.aclosing(scheduler.follow(job.id)) as events:
            async for logged in events:
                seen.append(logged)
        kept = [event.sequence for event in await scheduler._store.events(job.id)]
    assert told == []
    (reduced,) = [logged for logged in seen if isinstance(logged.event, Reduced)]
    assert reduced.sequence in kept


@pytest.mark.usefixtures("little_memory")
async def test_a_job_for_which_memory_ran_out_stays_as_small_after_a_restart(
    serving, make_request: MakeRequest, brake: Brake, monkeypatch: pytest.MonkeyPatch
):
    request = make_request(iterations=8, image_size=256, min_image_size=100)
    expected = await undisturbed(serving, request)
    job_id = await left_at_step_3(serving, request, brake)
    # Memory is there again, which is no reason to make another picture.
    monkeypatch.setattr(run_module, "transfer", brake.transfer)
    async with serving() as scheduler:
        events = await events_of(scheduler, job_id)
    assert sizes_in(events) == sizes_in(expected) != [(256, 197)]
    assert picture_in(events) == picture_in(expected)
    # It had come to its third step as it was, and in tiles; the last one before the restart is shown once more.
    assert brake.steps == 8 - 3 + 1


async def test_a_job_that_no_longer_fits_after_a_restart_waits_for_a_server_with_more_memory(
    serving, make_request: MakeRequest, brake: Brake, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    request, memory = make_request(iterations=8), 2**20
    expected = picture_in(await undisturbed(serving, request))
    job_id = await left_at_step_3(serving, request, brake)
    warm_up = DeviceWorker.warm_up
    monkeypatch.setattr(DeviceWorker, "warm_up", lambda worker: setattr(worker, "memory", memory))
    async with serving() as scheduler:
        view = await scheduler.views.view(job_id)
    assert view.stored.state is JobState.QUEUED
    assert "MiB are available" in caplog.text
    monkeypatch.setattr(DeviceWorker, "warm_up", warm_up)
    async with serving() as scheduler:
        assert picture_in(await events_of(scheduler, job_id)) == expected


@pytest.mark.parametrize(
    "limits_then",
    [{"max_input_pixels": 100}, {"max_image_size": 32}, {"max_iterations": 5}, {"max_styles": 0}],
    ids=lambda limits: next(iter(limits)),
)
async def test_a_lower_limit_of_a_later_server_does_not_concern_jobs_that_were_accepted(
    serving, make_request: MakeRequest, brake: Brake, limits: Limits, limits_then: dict[str, int]
):
    request = make_request(iterations=8)
    expected = picture_in(await undisturbed(serving, request))
    job_id = await left_at_step_3(serving, request, brake)
    async with serving(limits=dataclasses.replace(limits, **limits_then)) as scheduler:
        with pytest.raises(InvalidRequestError):
            await submit(scheduler, request)
        assert picture_in(await events_of(scheduler, job_id)) == expected


async def test_jobs_that_wait_when_the_server_leaves_run_in_their_order_when_it_is_back(
    serving, make_request: MakeRequest, brake: Brake
):
    brake.before = 1
    async with serving() as scheduler:
        jobs = [await submit(scheduler, make_request(iterations=3, seed=n), request_id=f"{n}") for n in range(3)]
        await until(lambda: brake.steps == 1)
        draining = asyncio.create_task(scheduler.drain(0.0))
        await asyncio.sleep(0.1)
        brake.released.set()
        await draining
    async with serving() as scheduler:
        ends = [await events_of(scheduler, job.id) for job in jobs]
        views = [await scheduler.views.view(job.id) for job in jobs]
    assert all(picture_in(events) for events in ends)
    assert [view.stored.state for view in views] == [JobState.SUCCEEDED] * 3
    finished = [view.stored.finished_at for view in views]
    assert finished == sorted(finished)


class HeldMethod:
    """A method of the store that does not return before it is released."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, name: str):
        self.is_called = False
        self.released = threading.Event()
        method = getattr(Store, name)

        def held(*arguments: Any) -> Any:
            self.is_called = True
            self.released.wait(_HANG_SECONDS)
            return method(*arguments)

        monkeypatch.setattr(Store, name, held)


async def test_who_reads_while_the_server_leaves_reads_to_the_end(
    serving, make_request: MakeRequest, monkeypatch: pytest.MonkeyPatch
):
    async with serving() as scheduler:
        job = await submit(scheduler, make_request(iterations=2))
        expected = picture_in(await events_of(scheduler, job.id))
        held = HeldMethod(monkeypatch, "job")
        reading = asyncio.create_task(events_of(scheduler, job.id))
        await until(lambda: held.is_called)
        await scheduler.drain(0.0)
        held.released.set()
        assert picture_in(await reading) == expected


async def test_a_request_that_is_looked_for_while_the_server_leaves_is_refused(
    serving, make_request: MakeRequest, monkeypatch: pytest.MonkeyPatch
):
    async with serving() as scheduler:
        held = HeldMethod(monkeypatch, "find")
        submitting = asyncio.create_task(submit(scheduler, make_request(iterations=2), request_id="one"))
        await until(lambda: held.is_called)
        await scheduler.drain(0.0)
        held.released.set()
        with pytest.raises(NotServingError):
            await submitting


async def test_a_job_that_nobody_can_name_does_not_outlive_its_server(serving, make_request: MakeRequest, brake: Brake):
    brake.before = 1
    async with serving() as scheduler:
        running = await submit(scheduler, make_request(iterations=_ENDLESS))
        waiting = await submit(scheduler, make_request(iterations=_ENDLESS))
        await until(lambda: brake.steps == 1)
        draining = asyncio.create_task(scheduler.drain(0.0))
        await asyncio.sleep(0.1)
        brake.released.set()
        await draining
    async with serving() as scheduler:
        assert not scheduler.views.running_jobs + scheduler.views.queued_jobs
        assert picture_in(await events_of(scheduler, running.id))
        with pytest.raises(JobCancelledError):
            await events_of(scheduler, waiting.id)


async def test_checkpoints_are_kept_while_a_job_runs(serving, make_request: MakeRequest):
    async with serving(checkpoint_seconds=0.0) as scheduler:
        job = await submit(scheduler, make_request(iterations=_ENDLESS), request_id="one")
        while (await scheduler._store._read(scheduler._store._store.checkpoint, job.id)) is None:
            await asyncio.sleep(0.01)
        await scheduler.cancel(job.id)
        assert picture_in(await events_of(scheduler, job.id))


@pytest.mark.parametrize("steps", [0, 2])
async def test_a_job_without_a_follower_is_cancelled_when_nobody_comes_back(
    serving, make_request: MakeRequest, brake: Brake, steps: int
):
    async with serving(reattach_seconds=0.2) as scheduler:
        brake.before = 1 if steps == 0 else _ENDLESS
        if steps == 0:
            await submit(scheduler, make_request(iterations=_ENDLESS), request_id="first", disconnect_policy=_KEEP)
        job = await submit(scheduler, make_request(iterations=_ENDLESS), request_id="one")
        events = scheduler.follow(job.id)
        await anext(events)
        await events.aclose()
        assert job.state is not JobState.CANCELLED
        await until(lambda: job.state is JobState.CANCELLED)
        brake.released.set()


async def test_a_job_that_is_followed_again_in_time_goes_on(serving, make_request: MakeRequest):
    async with serving() as scheduler:
        job = await submit(scheduler, make_request(iterations=40), request_id="one")
        events = scheduler.follow(job.id)
        first = await anext(events)
        await events.aclose()
        assert picture_in(await events_of(scheduler, job.id, first.sequence))


async def test_a_job_that_is_to_keep_running_does_so_without_a_follower(serving, make_request: MakeRequest):
    async with serving(reattach_seconds=0.0) as scheduler:
        job = await submit(scheduler, make_request(iterations=10), request_id="one", disconnect_policy=_KEEP)
        await until(lambda: job.state.is_terminal)
        assert (await scheduler.views.view(job.id)).stored.state is JobState.SUCCEEDED


async def test_a_call_that_ends_while_its_job_is_kept_leaves_none_behind(
    serving, make_request: MakeRequest, monkeypatch: pytest.MonkeyPatch
):
    async with serving() as scheduler:
        accept, reached, go_on = scheduler._store.submit, asyncio.Event(), asyncio.Event()

        async def slowly(*arguments: Any) -> Any:
            submission = await accept(*arguments)
            reached.set()
            await go_on.wait()
            return submission

        monkeypatch.setattr(scheduler._store, "submit", slowly)
        submitting = asyncio.create_task(submit(scheduler, make_request(iterations=_ENDLESS)))
        await reached.wait()
        submitting.cancel()
        go_on.set()
        with pytest.raises(asyncio.CancelledError):
            await submitting
        await until(lambda: not scheduler._table._jobs)
        (view,) = await scheduler.views.page(Owner(name=""), states=(), before=None, limit=9)
        assert view.stored.state is JobState.CANCELLED


@pytest.mark.parametrize("is_busy", [False, True])
async def test_a_job_is_cancelled_by_its_request_while_it_is_kept(
    serving, make_request: MakeRequest, brake: Brake, monkeypatch: pytest.MonkeyPatch, is_busy: bool
):
    async with serving() as scheduler:
        if is_busy:
            brake.before = 1
            await submit(scheduler, make_request(iterations=_ENDLESS), request_id="other")
        accept, reached, go_on = scheduler._store.submit, asyncio.Event(), asyncio.Event()

        async def slowly(*arguments: Any) -> Any:
            reached.set()
            await go_on.wait()
            return await accept(*arguments)

        monkeypatch.setattr(scheduler._store, "submit", slowly)
        request = make_request(iterations=_ENDLESS)
        submitting = asyncio.create_task(submit(scheduler, request, request_id="one", disconnect_policy=_KEEP))
        await reached.wait()
        with pytest.raises(UnknownJobError):
            await scheduler.views.job_id("one", Owner(name="another"))
        assert await scheduler.cancel(await scheduler.views.job_id("one")) is JobState.QUEUED
        go_on.set()
        job = await submitting
        await until(lambda: job.state is JobState.CANCELLED)
        await until(lambda: job.id not in scheduler._table._jobs)
        assert scheduler.views.queued_jobs == 0
        with pytest.raises(JobCancelledError):
            await events_of(scheduler, job.id)
        assert (await scheduler.views.view(job.id)).stored.state is JobState.CANCELLED
        brake.released.set()


async def test_a_job_is_found_by_its_request_wherever_it_is(serving, make_request: MakeRequest):
    async with serving() as scheduler:
        job = await submit(scheduler, make_request(iterations=3), request_id="one")
        assert await scheduler.views.job_id("one") == job.id
        await events_of(scheduler, job.id)
        await until(lambda: job.id not in scheduler._table._jobs)
        assert await scheduler.views.job_id("one") == job.id
        for request_id, owner in (("two", Owner(name="")), ("one", Owner(name="another")), ("", Owner(name=""))):
            with pytest.raises(UnknownJobError):
                await scheduler.views.job_id(request_id, owner)


async def test_a_failure_is_told_to_whoever_comes_later(
    serving, make_request: MakeRequest, monkeypatch: pytest.MonkeyPatch
):
    def fail(*_: Any) -> Iterator[Iterate]:
        raise ZeroDivisionError
        yield

    monkeypatch.setattr(run_module, "transfer", fail)
    async with serving() as scheduler:
        job = await submit(scheduler, make_request(iterations=3), request_id="one")
        await until(lambda: job.state is JobState.FAILED)
        with pytest.raises(StoredFailureError):
            await events_of(scheduler, job.id)


async def test_a_job_is_nobody_elses(serving, make_request: MakeRequest):
    other = Owner(name="other")
    async with serving() as scheduler:
        job = await submit(scheduler, make_request(iterations=3), request_id="one")
        for _ in range(2):
            with pytest.raises(UnknownJobError):
                await anext(scheduler.follow(job.id, other))
            for ask in (scheduler.views.view, scheduler.cancel):
                with pytest.raises(UnknownJobError):
                    await ask(job.id, other)
            assert await scheduler.views.page(other, states=(), before=None, limit=9) == []
            await events_of(scheduler, job.id)


async def test_a_result_that_the_store_cannot_take_is_delivered_and_kept_later(
    serving, make_request: MakeRequest, monkeypatch: pytest.MonkeyPatch
):
    async with serving() as scheduler:
        deliver, is_full = scheduler._store.save_result, True

        async def deliver_if_there_is_room(*arguments: Any) -> None:
            if is_full:
                raise StoreFullError("the store is full")
            await deliver(*arguments)

        monkeypatch.setattr(scheduler._store, "save_result", deliver_if_there_is_room)
        job = await submit(scheduler, make_request(iterations=3), request_id="one")
        picture = picture_in(await events_of(scheduler, job.id))
        assert picture
        # From memory, for as long as it is nowhere else.
        from_memory = await events_of(scheduler, job.id)
        assert picture_in(from_memory) == picture
        is_full = False
        await until(lambda: not scheduler._settlement._unsaved)
        kept = await events_of(scheduler, job.id)
        assert picture_in(kept) == picture
        # Who has read a part of it goes on.
        length = 1 + sum(isinstance(logged.event, ResultChunk) for logged in kept)
        assert [logged.sequence for logged in kept[-length:]] == [logged.sequence for logged in from_memory[-length:]]


async def test_a_job_that_is_cancelled_while_the_store_is_full_stays_so(
    serving, make_request: MakeRequest, monkeypatch: pytest.MonkeyPatch, brake: Brake
):
    monkeypatch.setattr(scheduler_module, "_HOUSEKEEPING_SECONDS", 0.01)
    brake.before = 1
    async with serving() as scheduler:
        cancel, is_full = scheduler._store.cancel, True

        async def cancel_if_there_is_room(job_id: str) -> Any:
            if is_full:
                raise StoreFullError("the store is full")
            return await cancel(job_id)

        monkeypatch.setattr(scheduler._store, "cancel", cancel_if_there_is_room)
        running = await submit(scheduler, make_request(iterations=2), request_id="running")
        waiting = await submit(scheduler, make_request(iterations=2), request_id="waiting")
        with pytest.raises(StoreFullError):
            await scheduler.cancel(waiting.id)
        brake.released.set()
        await events_of(scheduler, running.id)
        await asyncio.sleep(0.1)
        assert brake.steps == 2
        with pytest.raises(JobCancelledError):
            await events_of(scheduler, waiting.id)
        is_full = False
        await until(lambda: not scheduler._table._jobs)
        assert (await scheduler.views.view(waiting.id)).stored.state is JobState.CANCELLED


@pytest.mark.parametrize("error", [StoreUnavailableError("the store does not answer"), MemoryError()])
async def test_a_job_that_cannot_be_read_back_now_goes_on_later(
    serving, make_request: MakeRequest, monkeypatch: pytest.MonkeyPatch, error: Exception
):
    monkeypatch.setattr(scheduler_module, "_HOUSEKEEPING_SECONDS", 0.01)
    request, failures = AsyncJobStore.request, 0

    async def request_at_the_third_time(*arguments: Any) -> Any:
        nonlocal failures
        if failures < 2:
            failures += 1
            raise error
        return await request(*arguments)

    async with serving() as scheduler:
        job = await submit(scheduler, make_request(iterations=_ENDLESS), request_id="one", disconnect_policy=_KEEP)
    monkeypatch.setattr(AsyncJobStore, "request", request_at_the_third_time)
    async with serving() as scheduler:
        await until(lambda: job.id in scheduler._table._jobs)
        assert failures == 2
        await scheduler.cancel(job.id)


async def test_a_job_that_cannot_be_read_back_at_all_keeps_no_server_from_the_others(
    serving, make_request: MakeRequest, monkeypatch: pytest.MonkeyPatch
):
    request = AsyncJobStore.request

    async def request_of_the_other(job_store: AsyncJobStore, job: StoredJob) -> Any:
        if job.request_id == "broken":
            raise ZeroDivisionError
        return await request(job_store, job)

    async with serving() as scheduler:
        jobs = [
            await submit(scheduler, make_request(iterations=_ENDLESS), request_id=name, disconnect_policy=_KEEP)
            for name in ("broken", "whole")
        ]
    monkeypatch.setattr(AsyncJobStore, "request", request_of_the_other)
    async with serving() as scheduler:
        assert (await scheduler.views.view(jobs[0].id)).stored.state is JobState.QUEUED
        await scheduler.cancel(jobs[1].id)
        with contextlib.suppress(JobCancelledError):
            await events_of(scheduler, jobs[1].id)


async def test_a_view_tells_how_far_a_running_job_is(serving, make_request: MakeRequest, brake: Brake):
    brake.before = 3
    async with serving() as scheduler:
        job = await submit(scheduler, make_request(iterations=_ENDLESS), request_id="one")
        await until(lambda: brake.steps == 3)
        view = await scheduler.views.view(job.id)
        assert view.stored.state is JobState.RUNNING
        assert isinstance(view.progress, Progress)
        brake.released.set()


@pytest.mark.parametrize("error", [torch.AcceleratorError("an illegal memory access was encountered"), None])
async def test_nothing_runs_on_a_device_any_more_that_has_failed(
    serving, make_request: MakeRequest, monkeypatch: pytest.MonkeyPatch, error: Exception | None
):
    def fail(*_: Any) -> Iterator[Iterate]:
        assert error
        raise error
        yield

    if error:
        monkeypatch.setattr(run_module, "transfer", fail)
    else:
        # What its thread has no answer to: what it ran does not even leave.
        monkeypatch.setattr(DeviceWorker, "_turn", lambda _: 1 / 0)
        monkeypatch.setattr(scheduler_module, "_LAST_STEP_SECONDS", 0.1)
    async with serving() as scheduler:
        jobs = [await submit(scheduler, make_request(iterations=3), request_id=f"{n}") for n in range(2)]
        await scheduler.device_failed.wait()
        await asyncio.sleep(0.05)
        assert [job.plan.earlier_runs for job in jobs] == [0, 0]
        assert jobs[1].state is JobState.QUEUED
