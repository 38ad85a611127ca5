"""The jobs of the store that go on, wait or fail, with a store and a planner that do what a test wants."""

import itertools
from collections import defaultdict
from typing import Any

import pytest
from nst_service.engine.errors import InvalidRequestError, PictureTooCostlyError, Violation
from nst_service.jobs import recovery as recovery_module
from nst_service.jobs.background import BackgroundTasks
from nst_service.jobs.errors import (
    DoesNotFitError,
    JobCancelledError,
    JobError,
    JobFailedError,
    NotServingError,
    Unavailability,
    UnknownPictureError,
)
from nst_service.jobs.followers import Followers
from nst_service.jobs.job import Job, Probation
from nst_service.jobs.job_table import JobTable
from nst_service.jobs.observer import NullObserver
from nst_service.jobs.recovery import Recovery
from nst_service.lifecycle import StopReason
from nst_service.store.errors import CorruptBlobError, StoreUnavailableError
from nst_service.store.records import DisconnectPolicy, StoredJob

from tests.jobs.builders import FakeJobStore, make_job, make_stored_job

_UNAVAILABLE = StoreUnavailableError("the store does not answer")
_UNWANTED = [{"cancel_requested": True}, {"request_id": None, "disconnect_policy": DisconnectPolicy.CANCEL}]
"""The fields of jobs that nobody waits for."""


class FakePlanner:
    """Resumes every job, or raises an error."""

    def __init__(self) -> None:
        self.error: Exception | None = None

    async def prepare_again(self, *arguments: Any, must_fit: bool) -> None:
        del arguments
        if self.error and (must_fit or not isinstance(self.error, DoesNotFitError)):
            raise self.error

    def resume(self, stored: StoredJob, *arguments: Any) -> Job:
        del arguments
        return make_job(id=stored.id, earlier_runs=stored.epoch)


class FailingJobStore(FakeJobStore):
    """Remembers which jobs are failed."""

    def __init__(self) -> None:
        super().__init__()
        self.failures: dict[str, JobError] = {}
        self.error: Exception | None = None

    async def fail_queued(self, job_id: str, error: JobError) -> None:
        if self.error:
            raise self.error
        self.failures[job_id] = error


class FakeClock:
    """A steady clock that stands still until it is moved."""

    now = 1000.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> FakeClock:
    clock = FakeClock()
    monkeypatch.setattr(recovery_module, "time", clock)
    return clock


@pytest.fixture
def store() -> FailingJobStore:
    store = FailingJobStore()
    store.answers |= {"request": object(), "events": [], "live_sequence": 0, "claim": True}
    store.answers["sizes"] = defaultdict(lambda: (8, 6))
    return store


@pytest.fixture
def planner() -> FakePlanner:
    return FakePlanner()


@pytest.fixture
def recovery(store: FailingJobStore, planner: FakePlanner) -> Recovery:
    return Recovery(store, JobTable(), planner, followers=followers_of(store, is_alone=True), observer=NullObserver())


@pytest.fixture
def recover(store: FailingJobStore, planner: FakePlanner):
    async def recover(*jobs: StoredJob, is_alone: bool = True, known: tuple[Job, ...] = ()) -> list[Job]:
        table = JobTable()
        for job in known:
            table.add(job)
        store.answers = {"unclaimed": list(jobs)} | store.answers
        recovery = Recovery(store, table, planner, followers=followers_of(store, is_alone), observer=NullObserver())
        return [job async for job in recovery.resumable()]

    return recover


def followers_of(store: FailingJobStore, is_alone: bool) -> Followers:
    return Followers(store, BackgroundTasks(), NullObserver(), reattach_seconds=3600, is_alone=is_alone)


def reason(error: JobError) -> str:
    assert isinstance(error, JobFailedError)
    return error.reason


async def test_queued_jobs_go_on_in_their_order(recover, store: FailingJobStore):
    jobs = await recover(make_stored_job("one"), make_stored_job("two"))
    assert [job.id for job in jobs] == ["one", "two"]
    assert not any(job.control.stop_requested or job.unfollowed_since for job in jobs)
    assert store.failures == {}


async def test_a_job_that_is_known_here_is_not_read_again(recover):
    known = make_job()
    assert await recover(make_stored_job(known.id), known=(known,)) == []


async def test_a_queue_that_cannot_be_read_is_an_error(recover, store: FailingJobStore):
    store.answers["unclaimed"] = _UNAVAILABLE
    with pytest.raises(StoreUnavailableError):
        await recover()


@pytest.mark.parametrize("error", [_UNAVAILABLE, MemoryError()])
async def test_a_job_that_cannot_be_read_now_stays_in_the_store(recover, store: FailingJobStore, error: Exception):
    store.answers["request"] = error
    assert await recover(make_stored_job()) == []
    assert store.failures == {}


@pytest.mark.parametrize(
    "error", [PictureTooCostlyError("takes too long"), NotServingError(Unavailability.DRAINING), OSError()]
)
async def test_a_job_whose_pictures_cannot_be_read_now_stays_in_the_store(
    recover, store: FailingJobStore, planner: FakePlanner, error: Exception
):
    planner.error = error
    assert await recover(make_stored_job()) == []
    assert store.failures == {}


@pytest.mark.parametrize("answer", [CorruptBlobError("sha256"), UnknownPictureError("sha256"), None])
async def test_a_job_whose_request_is_lost_fails(recover, store: FailingJobStore, answer: Exception | None):
    store.answers["request"] = answer
    assert await recover(make_stored_job("one")) == []
    assert reason(store.failures["one"]) == "REQUEST_LOST"


@pytest.mark.parametrize(
    "error",
    [
        DoesNotFitError(2, 1, 1),
        InvalidRequestError([Violation("options.style_layers", "names a layer that the network does not have")]),
        ZeroDivisionError(),
    ],
)
async def test_a_job_that_this_server_cannot_run_now_stays_in_the_store(
    recover, store: FailingJobStore, planner: FakePlanner, caplog: pytest.LogCaptureFixture, error: Exception
):
    planner.error = error
    assert await recover(make_stored_job("one")) == []
    assert store.failures == {}
    assert "job one waits" in caplog.text


@pytest.mark.parametrize("fields", _UNWANTED)
async def test_a_job_that_nobody_waits_for_and_that_cannot_be_run_is_cancelled(
    recover, store: FailingJobStore, planner: FakePlanner, fields: dict[str, Any]
):
    planner.error = ZeroDivisionError()
    assert await recover(make_stored_job("one", **fields)) == []
    assert isinstance(store.failures["one"], JobCancelledError)


@pytest.mark.parametrize("fields", _UNWANTED)
async def test_a_job_that_nobody_waits_for_needs_no_memory_to_deliver_its_picture(
    recover, planner: FakePlanner, fields: dict[str, Any]
):
    planner.error = DoesNotFitError(2, 1, 1)
    (job,) = await recover(make_stored_job(**fields))
    assert job.control.stop_requested is StopReason.CANCELLED


async def test_a_job_that_cannot_be_read_back_is_tried_again_less_and_less_often_and_warned_about_once(
    recovery: Recovery, store: FailingJobStore, clock: FakeClock, caplog: pytest.LogCaptureFixture
):
    store.answers |= {"unclaimed": [make_stored_job("one")], "request": _UNAVAILABLE}
    tries = list[float]()
    for _ in range(300):
        before = store.calls.count("request")
        assert [job async for job in recovery.resumable(only_deferred=bool(tries))] == []
        if store.calls.count("request") > before:
            tries.append(clock.now)
            assert not recovery.has_due_jobs
        clock.now += 1.0
    pauses = [after - before for before, after in itertools.pairwise(tries)]
    assert pauses == [1, 2, 4, 8, 16, 32, 60, 60, 60]
    assert caplog.text.count("job one waits") == 1
    store.answers["request"] = object()
    clock.now += 60.0
    assert recovery.has_due_jobs
    assert [job.id async for job in recovery.resumable(only_deferred=True)] == ["one"]
    assert not recovery.has_due_jobs


async def test_a_deferred_job_that_is_cancelled_meanwhile_is_tried_at_once(
    recovery: Recovery, store: FailingJobStore, planner: FakePlanner
):
    planner.error = ZeroDivisionError()
    store.answers["unclaimed"] = [make_stored_job("one")]
    assert [job async for job in recovery.resumable()] == []
    store.answers["unclaimed"] = [make_stored_job("one", cancel_requested=True)]
    assert [job async for job in recovery.resumable()] == []
    assert isinstance(store.failures["one"], JobCancelledError)


async def test_only_the_jobs_that_were_deferred_are_tried_again_while_there_is_no_room_for_others(
    recovery: Recovery, store: FailingJobStore, clock: FakeClock
):
    store.answers |= {"unclaimed": [make_stored_job("one")], "request": _UNAVAILABLE}
    assert [job async for job in recovery.resumable()] == []
    store.answers |= {"unclaimed": [make_stored_job("one"), make_stored_job("two")], "request": object()}
    clock.now += 1.0
    assert [job.id async for job in recovery.resumable(only_deferred=True)] == ["one"]


async def test_a_job_that_is_read_back_when_a_drain_begins_stays_in_the_store(
    recover, store: FailingJobStore, planner: FakePlanner
):
    planner.error = NotServingError(Unavailability.DRAINING)
    assert await recover(make_stored_job("one", cancel_requested=True)) == []
    assert store.failures == {}


async def test_a_job_that_has_killed_its_servers_fails(recover, store: FailingJobStore):
    (job,) = await recover(make_stored_job("lucky", lost_runs=2), make_stored_job("killer", lost_runs=3))
    assert job.id == "lucky"
    assert reason(store.failures["killer"]) == "KEEPS_CRASHING"


async def test_a_job_that_may_have_killed_two_servers_waits_and_runs_alone(recover, clock: FakeClock):
    above_suspicion, suspect = await recover(make_stored_job("one", lost_runs=1), make_stored_job("two", lost_runs=2))
    assert above_suspicion.probation is None
    assert suspect.probation == Probation(begins_at=clock.now + 10.0)


async def test_a_job_that_has_killed_its_servers_ends_with_the_picture_that_it_has(
    recover, store: FailingJobStore, planner: FakePlanner
):
    store.answers["has_checkpoint"] = True
    planner.error = DoesNotFitError(2, 1, 1)
    (job,) = await recover(make_stored_job("killer", lost_runs=3))
    assert job.control.stop_requested is StopReason.SHUTDOWN
    assert job.probation
    assert store.failures == {}


async def test_a_job_whose_picture_kills_its_server_too_fails(recover, store: FailingJobStore):
    store.answers["has_checkpoint"] = True
    assert await recover(make_stored_job("killer", lost_runs=4)) == []
    assert reason(store.failures["killer"]) == "KEEPS_CRASHING"


async def test_a_failure_that_cannot_be_stored_keeps_no_other_job_from_going_on(recover, store: FailingJobStore):
    store.error = _UNAVAILABLE
    jobs = await recover(make_stored_job("killer", lost_runs=3), make_stored_job("other"))
    assert [job.id for job in jobs] == ["other"]


@pytest.mark.parametrize("fields", _UNWANTED)
async def test_a_job_that_nobody_waits_for_is_cancelled(recover, fields: dict[str, Any]):
    (job,) = await recover(make_stored_job(**fields))
    assert job.control.stop_requested is StopReason.CANCELLED


@pytest.mark.parametrize("is_alone", [False, True])
async def test_the_followers_of_a_job_have_time_to_come_back(recover, is_alone: bool):
    (job,) = await recover(make_stored_job(disconnect_policy=DisconnectPolicy.CANCEL), is_alone=is_alone)
    assert job.unfollowed_since is not None
    assert job.control.stop_requested is None


async def test_a_job_without_a_request_id_goes_on_where_a_call_on_another_server_may_follow_it(recover):
    job = make_stored_job(request_id=None, disconnect_policy=DisconnectPolicy.CANCEL)
    (job,) = await recover(job, is_alone=False)
    assert job.control.stop_requested is None
    assert job.unfollowed_since is not None


async def test_a_job_that_another_server_has_claimed_stays_with_it(recover, store: FailingJobStore):
    store.answers["claim"] = False
    assert await recover(make_stored_job()) == []


async def test_a_job_that_waits_can_be_claimed_by_another_server(recover, store: FailingJobStore):
    store.answers["request"] = _UNAVAILABLE
    assert await recover(make_stored_job("one"), is_alone=False) == []
    assert store.calls[-1] == "disclaim"
