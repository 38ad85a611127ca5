"""The jobs of the store that go on, wait or fail, with a store and a planner that do what a test wants."""

import dataclasses
from collections.abc import Callable
from typing import Any

import pytest
from nst_service.jobs.errors import DoesNotFitError, JobError, JobFailedError
from nst_service.jobs.job import Job
from nst_service.jobs.job_table import JobTable
from nst_service.jobs.observer import NullObserver
from nst_service.jobs.recovery import Recovery
from nst_service.lifecycle import StopReason
from nst_service.store.errors import CorruptBlobError, StoreUnavailableError
from nst_service.store.records import DisconnectPolicy, StoredJob

from tests.jobs.builders import DURABILITY, FakeJobStore, make_job, make_stored_job

_UNAVAILABLE = StoreUnavailableError("the store does not answer")


class FakePlanner:
    """Resumes every job, or raises an error."""

    def __init__(self) -> None:
        self.error: Exception | None = None

    async def in_thread(self, call: Callable[..., Any], *arguments: Any) -> Any:
        return call(*arguments)

    def prepare_again(self, *arguments: Any) -> None:
        del arguments
        if self.error:
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


@pytest.fixture
def store() -> FailingJobStore:
    store = FailingJobStore()
    store.answers |= {"request": object(), "events": []}
    return store


@pytest.fixture
def planner() -> FakePlanner:
    return FakePlanner()


@pytest.fixture
def recover(store: FailingJobStore, planner: FakePlanner):
    async def recover(*jobs: StoredJob, is_alone: bool = True, known: tuple[Job, ...] = ()) -> list[Job]:
        table = JobTable()
        for job in known:
            table.add(job)
        store.answers = {"queue": list(jobs), "sizes": {job.id: job.size for job in jobs}} | store.answers
        recovery = Recovery(
            store,
            table,
            planner,
            durability=dataclasses.replace(DURABILITY, is_alone=is_alone),
            observer=NullObserver(),
        )
        return [job async for job in recovery.resumable()]

    return recover


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
    store.answers["queue"] = _UNAVAILABLE
    with pytest.raises(StoreUnavailableError):
        await recover()


@pytest.mark.parametrize("error", [_UNAVAILABLE, MemoryError()])
async def test_a_job_that_cannot_be_read_now_stays_in_the_store(recover, store: FailingJobStore, error: Exception):
    store.answers["request"] = error
    assert await recover(make_stored_job()) == []
    assert store.failures == {}


@pytest.mark.parametrize("answer", [CorruptBlobError("sha256"), ZeroDivisionError(), None])
async def test_a_job_whose_request_is_lost_fails(recover, store: FailingJobStore, answer: Exception | None):
    store.answers["request"] = answer
    assert await recover(make_stored_job("one")) == []
    assert reason(store.failures["one"]) == "REQUEST_LOST"


async def test_a_job_that_no_longer_fits_fails_with_that_error(recover, store: FailingJobStore, planner: FakePlanner):
    planner.error = DoesNotFitError(2, 1, 1)
    assert await recover(make_stored_job("one")) == []
    assert store.failures["one"] is planner.error


async def test_a_job_that_has_killed_its_servers_fails(recover, store: FailingJobStore):
    (job,) = await recover(make_stored_job("lucky", lost_runs=2), make_stored_job("killer", lost_runs=3))
    assert job.id == "lucky"
    assert reason(store.failures["killer"]) == "KEEPS_CRASHING"


async def test_a_failure_that_cannot_be_stored_keeps_no_other_job_from_going_on(recover, store: FailingJobStore):
    store.error = _UNAVAILABLE
    jobs = await recover(make_stored_job("killer", lost_runs=3), make_stored_job("other"))
    assert [job.id for job in jobs] == ["other"]


@pytest.mark.parametrize(
    "fields", [{"cancel_requested": True}, {"request_id": None, "disconnect_policy": DisconnectPolicy.CANCEL}]
)
async def test_a_job_that_nobody_waits_for_is_cancelled(recover, fields: dict[str, Any]):
    (job,) = await recover(make_stored_job(**fields))
    assert job.control.stop_requested is StopReason.CANCELLED


@pytest.mark.parametrize("is_alone", [False, True])
async def test_the_followers_of_a_job_have_time_to_come_back_if_they_can_only_come_here(recover, is_alone: bool):
    (job,) = await recover(make_stored_job(disconnect_policy=DisconnectPolicy.CANCEL), is_alone=is_alone)
    assert (job.unfollowed_since is not None) == is_alone
    assert job.control.stop_requested is None
