"""Every fact of a job's life is notified, and no observer can end or lose a job."""

import asyncio
import contextlib
import dataclasses
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
import torch
from nst_service.engine.network.vgg import Vgg19
from nst_service.engine.options import Limits
from nst_service.engine.spec import TransferRequest
from nst_service.jobs import run as run_module
from nst_service.jobs.errors import JobCancelledError, JobFailedError, NotServingError, QueueFullError
from nst_service.jobs.job import Drained, Ended, Job, Moved
from nst_service.jobs.job_store import AsyncJobStore
from nst_service.jobs.observer import (
    DeviceFailed,
    DrainBegan,
    DrainEnded,
    Fact,
    JobAccepted,
    JobCheckpointed,
    JobEnded,
    JobRefused,
    JobResumed,
    JobShrunk,
    JobStarted,
    Observer,
    Observers,
    RecoveryFailed,
    StoreCalled,
    StoreFailed,
    StoreMeasured,
    guarded,
)
from nst_service.jobs.queue_limits import QueueLimits
from nst_service.jobs.quotas import Owner
from nst_service.jobs.scheduler import Scheduler
from nst_service.jobs.worker import DeviceWorker
from nst_service.lifecycle import JobState, StopReason
from nst_service.store.errors import StoreUnavailableError
from nst_service.store.records import DisconnectPolicy
from nst_service.store.store import Store

from tests.jobs.builders import DURABILITY, read_request, submit
from tests.limits import DECODER_LIMITS

MakeRequest = Callable[..., TransferRequest]
OpenJobStore = Callable[[], AsyncJobStore]

_ENDLESS = 5000
"""Iterations that no test waits for."""
_KEEP = DisconnectPolicy.KEEP_RUNNING


class Facts(list[Fact]):
    """An observer that remembers the facts, those of a drain and those of the size of the store apart."""

    def __init__(self) -> None:
        super().__init__()
        self.drain: list[Fact] = []
        self.sizes: list[StoreMeasured] = []

    def notify(self, fact: Fact) -> None:
        match fact:
            case DrainBegan() | DrainEnded():
                self.drain.append(fact)
            case StoreMeasured():
                self.sizes.append(fact)
            case _:
                self.append(fact)

    @property
    def kinds(self) -> list[type[Fact]]:
        return [type(fact) for fact in self]

    def of(self, kind: type[Any]) -> list[Any]:
        return [fact for fact in self if isinstance(fact, kind)]


@pytest.fixture
def facts() -> Facts:
    return Facts()


@pytest.fixture
def observing(model: Vgg19, limits: Limits, open_job_store: OpenJobStore, monkeypatch: pytest.MonkeyPatch):
    def warm_up(worker: DeviceWorker) -> None:
        worker.memory = 2**30

    monkeypatch.setattr(DeviceWorker, "warm_up", warm_up)

    @contextlib.asynccontextmanager
    async def observing(observer: Observer, *, max_queued: int = 8, **durability: Any) -> AsyncIterator[Scheduler]:
        scheduler = Scheduler(
            [DeviceWorker(model)],
            open_job_store(),
            limits=limits,
            queue_limits=QueueLimits(max_queued=max_queued, max_pending_bytes=2**30, max_running=1),
            decoder_limits=DECODER_LIMITS,
            durability=dataclasses.replace(DURABILITY, **durability),
            observer=observer,
        )
        await scheduler.start()
        try:
            yield scheduler
        finally:
            await scheduler.drain(0.0)
            await scheduler.close()

    return observing


async def followed(scheduler: Scheduler, job: Job) -> None:
    async with contextlib.aclosing(scheduler.follow(job.id)) as events:
        async for _ in events:
            pass


async def until_started(job: Job) -> None:
    async with contextlib.aclosing(job.log.follow()) as events:
        async for logged in events:
            if type(logged.event).__name__ == "Progress":
                return


async def test_the_life_of_a_job_is_told_from_its_acceptance_to_its_end(
    observing, make_request: MakeRequest, facts: Facts
):
    async with observing(facts, checkpoint_seconds=0.0) as scheduler:
        job = await submit(scheduler, make_request(iterations=6), request_id="one")
        await followed(scheduler, job)
    assert facts.kinds[:2] == [JobAccepted, JobStarted]
    assert facts.kinds[-1] is JobEnded
    assert JobCheckpointed in facts.kinds
    assert all(fact.job is job for fact in facts)
    assert facts.of(JobStarted)[0].device == "cpu"
    assert facts[-1] == JobEnded(job, Ended(JobState.SUCCEEDED, stop_reason=StopReason.ITERATIONS))


async def test_the_size_of_the_store_is_told_from_the_start(observing, facts: Facts):
    async with observing(facts):
        while not facts.sizes:
            await asyncio.sleep(0.01)
    usage = facts.sizes[0].usage
    assert usage.used_bytes == 0
    assert usage.free_bytes is not None
    assert usage.free_bytes > 0


async def test_a_cancelled_job_ends_as_cancelled(observing, make_request: MakeRequest, facts: Facts):
    async with observing(facts) as scheduler:
        running = await submit(scheduler, make_request(iterations=_ENDLESS), request_id="one")
        waiting = await submit(scheduler, make_request(iterations=_ENDLESS), request_id="two")
        await until_started(running)
        for job in (waiting, running):
            await scheduler.cancel(job.id)
        await followed(scheduler, running)
    ends = {fact.job: fact.end for fact in facts.of(JobEnded)}
    assert isinstance(ends[waiting].error, JobCancelledError)
    assert ends[waiting].state is JobState.CANCELLED
    assert ends[running] == Ended(JobState.CANCELLED, stop_reason=StopReason.CANCELLED)


async def test_a_job_that_a_drain_hands_back_has_not_failed(observing, make_request: MakeRequest, facts: Facts):
    async with observing(facts) as scheduler:
        names = ("running", "waiting")
        jobs = [
            await submit(scheduler, make_request(iterations=_ENDLESS), request_id=name, disconnect_policy=_KEEP)
            for name in names
        ]
        await until_started(jobs[0])
    assert {fact.job: fact.end for fact in facts.of(JobEnded)} == dict.fromkeys(jobs, Drained())
    assert facts.drain == [DrainBegan(running=1, waiting=1, grace=0.0), DrainEnded(is_idle=True)]
    assert {job.state for job in jobs} == {JobState.QUEUED}


async def test_a_job_that_goes_on_after_a_restart_is_resumed(observing, make_request: MakeRequest, facts: Facts):
    async with observing(Facts()) as scheduler:
        job = await submit(scheduler, make_request(iterations=_ENDLESS), request_id="one", disconnect_policy=_KEEP)
        await until_started(job)
    async with observing(facts) as scheduler:
        await scheduler.cancel(job.id)
        resumed = facts[0]
        assert isinstance(resumed, JobResumed)
        assert resumed.job.id == job.id
        assert resumed.job.plan.earlier_runs == 1


async def test_a_job_that_cannot_go_on_is_told(
    observing, make_request: MakeRequest, facts: Facts, monkeypatch: pytest.MonkeyPatch
):
    async with observing(Facts()) as scheduler:
        job = await submit(scheduler, make_request(iterations=_ENDLESS), request_id="one", disconnect_policy=_KEEP)
        await until_started(job)

    async def lost(*_: Any) -> None:
        return None

    monkeypatch.setattr(AsyncJobStore, "request", lost)
    async with observing(facts):
        pass
    (failed,) = facts
    assert isinstance(failed, RecoveryFailed)
    assert failed.job_id == job.id
    assert isinstance(failed.error, JobFailedError)
    assert failed.error.reason == "REQUEST_LOST"


async def test_a_job_that_waits_and_that_nobody_can_name_is_cancelled_by_a_drain(
    observing, make_request: MakeRequest, facts: Facts
):
    async with observing(facts) as scheduler:
        running = await submit(scheduler, make_request(iterations=_ENDLESS), request_id="one")
        waiting = await submit(scheduler, make_request(iterations=_ENDLESS))
        await until_started(running)
    ends = {fact.job: fact.end for fact in facts.of(JobEnded)}
    assert ends[running] == Drained()
    assert isinstance(ends[waiting], Ended)
    assert ends[waiting].state is JobState.CANCELLED
    assert isinstance(ends[waiting].error, NotServingError)


async def test_a_refusal_after_the_end_of_its_call_is_told(
    observing, make_request: MakeRequest, facts: Facts, monkeypatch: pytest.MonkeyPatch
):
    reached, go_on = asyncio.Event(), asyncio.Event()

    async def fail(*_: Any) -> None:
        reached.set()
        await go_on.wait()
        raise StoreUnavailableError("the store does not answer")

    async with observing(facts) as scheduler:
        monkeypatch.setattr(scheduler._store, "submit", fail)
        call = asyncio.create_task(submit(scheduler, make_request(iterations=3)))
        await reached.wait()
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        go_on.set()
        while not facts:
            await asyncio.sleep(0.01)
    (refused,) = facts
    assert isinstance(refused.error, StoreUnavailableError)


async def test_a_request_is_the_one_that_its_id_says(observing, make_request: MakeRequest, facts: Facts):
    async with observing(facts) as scheduler:
        with pytest.raises(ValueError, match="has the id None, and not 'one'"):
            await scheduler.submit(read_request(make_request(iterations=3)), request_id="one")


async def test_a_job_that_another_server_has_taken_has_moved(
    observing, make_request: MakeRequest, facts: Facts, monkeypatch: pytest.MonkeyPatch
):
    async def lease(*_: Any) -> None:
        return None

    async with observing(facts) as scheduler:
        monkeypatch.setattr(scheduler._store, "lease", lease)
        job = await submit(scheduler, make_request(iterations=3), request_id="one", disconnect_policy=_KEEP)
        async with contextlib.aclosing(job.log.follow()) as events:
            with pytest.raises(Exception, match="elsewhere"):
                async for _ in events:
                    pass
    assert facts.of(JobEnded) == [JobEnded(job, Moved())]


async def test_a_refusal_is_told_with_its_reason(observing, make_request: MakeRequest, facts: Facts):
    async with observing(facts, max_queued=0) as scheduler:
        await submit(scheduler, make_request(iterations=_ENDLESS), request_id="one")
        with pytest.raises(QueueFullError):
            await scheduler.submit(read_request(make_request(iterations=3)), owner=Owner(name="ann"))
    (refused,) = facts.of(JobRefused)
    assert refused.owner == "ann"
    assert isinstance(refused.error, QueueFullError)


async def test_a_job_that_goes_on_with_less_memory_is_told(
    observing, make_request: MakeRequest, facts: Facts, monkeypatch: pytest.MonkeyPatch
):
    transfer = run_module.transfer

    def run_out(spec: Any, model: Any, tile: int | None, *rest: Any) -> Any:
        if tile is None:
            raise MemoryError
        return transfer(spec, model, tile, *rest)

    monkeypatch.setattr(run_module, "transfer", run_out)
    async with observing(facts) as scheduler:
        job = await submit(scheduler, make_request(iterations=3, image_size=400), request_id="one")
        await followed(scheduler, job)
    assert facts.kinds == [JobAccepted, JobStarted, JobShrunk, JobEnded]


async def test_a_store_that_fails_is_told(
    observing, make_request: MakeRequest, facts: Facts, monkeypatch: pytest.MonkeyPatch
):
    async def fail(*_: Any) -> None:
        raise StoreUnavailableError("the store does not answer")

    async with observing(facts, checkpoint_seconds=0.0) as scheduler:
        monkeypatch.setattr(scheduler._store, "save_checkpoint", fail)
        job = await submit(scheduler, make_request(iterations=6), request_id="one")
        await followed(scheduler, job)
    assert {fact.operation for fact in facts.of(StoreFailed)} == {"save_checkpoint"}
    assert JobCheckpointed not in facts.kinds


async def test_a_device_that_fails_is_told_once(
    observing, make_request: MakeRequest, facts: Facts, monkeypatch: pytest.MonkeyPatch
):
    def fail(*_: Any) -> Any:
        raise torch.AcceleratorError("an illegal memory access was encountered")
        yield

    monkeypatch.setattr(run_module, "transfer", fail)
    async with observing(facts) as scheduler:
        await submit(scheduler, make_request(iterations=3), request_id="one", disconnect_policy=_KEEP)
        await scheduler.device_failed.wait()
    assert facts.of(DeviceFailed) == [DeviceFailed("cpu")]
    assert facts.of(JobEnded)[0].end == Drained()


async def test_an_observer_that_fails_costs_no_job(
    observing, make_request: MakeRequest, caplog: pytest.LogCaptureFixture
):
    class Failing:
        def notify(self, _: Fact) -> None:
            raise ZeroDivisionError

    async with observing(Failing()) as scheduler:
        job = await submit(scheduler, make_request(iterations=3), request_id="one")
        await followed(scheduler, job)
        assert job.state is JobState.SUCCEEDED
    # It is said once, not for each fact.
    assert sum("an observer failed" in record.message for record in caplog.records) == 1


def test_a_guarded_observer_hears_what_is_told(facts: Facts):
    fact = DeviceFailed("cpu")
    guarded(facts).notify(fact)
    assert facts == [fact]


def test_an_observer_that_fails_keeps_no_fact_from_the_others(facts: Facts):
    class Failing:
        def notify(self, _: Fact) -> None:
            raise ZeroDivisionError

    fact = DeviceFailed("cpu")
    Observers(Failing(), facts, Failing()).notify(fact)
    assert facts == [fact]


class TestStore:
    async def test_every_operation_is_told_with_its_seconds(self, open_observed_store, facts: Facts):
        store = open_observed_store(facts)
        await store.heartbeat()
        await store.clean()
        await store.close()
        assert [(fact.operation, fact.error) for fact in facts.of(StoreCalled)] == [
            ("heartbeat", None),
            ("clean", None),
            ("close", None),
        ]
        assert all(fact.seconds >= 0 for fact in facts.of(StoreCalled))

    async def test_an_operation_that_fails_is_told_with_its_error(
        self, open_observed_store, facts: Facts, monkeypatch: pytest.MonkeyPatch
    ):
        away = StoreUnavailableError("the store does not answer")

        def heartbeat(*_: Any) -> None:
            raise away

        monkeypatch.setattr(Store, "heartbeat", heartbeat)
        store = open_observed_store(facts)
        with pytest.raises(StoreUnavailableError):
            await store.heartbeat()
        await store.close()
        assert facts.of(StoreCalled)[0].operation == "heartbeat"
        assert facts.of(StoreCalled)[0].error is away

    async def test_an_observer_that_fails_costs_no_operation(self, open_observed_store):
        class Failing:
            def notify(self, _: Fact) -> None:
                raise ZeroDivisionError

        store = open_observed_store(Failing())
        await store.heartbeat()
        await store.close()
