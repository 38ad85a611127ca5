"""The order in which outcomes are stored and published, with a store that does what a test wants."""

import asyncio
from dataclasses import dataclass, field

import pytest
from nst_service.jobs.background import BackgroundTasks
from nst_service.jobs.errors import JobCancelledError, JobFailedError, MovedError, NotServingError
from nst_service.jobs.events import Completed, JobResult, ResultChunk, ResultHeader
from nst_service.jobs.job import Drained, End, Ended, Job, Moved
from nst_service.jobs.job_table import JobTable
from nst_service.jobs.observer import Fact, JobEnded, StoreFailed
from nst_service.jobs.settlement import Settlement
from nst_service.jobs.sink import Outcome, Requeued
from nst_service.lifecycle import JobState, StopReason
from nst_service.store.errors import LeaseLostError, StoreFullError, StoreUnavailableError

from tests.jobs.builders import FakeJobStore, make_job, make_result

_FULL = StoreFullError("the store is full")
_UNAVAILABLE = StoreUnavailableError("the store does not answer")


@dataclass
class Settling:
    """A settlement and what is around it."""

    store: FakeJobStore = field(default_factory=FakeJobStore)
    table: JobTable = field(default_factory=JobTable)
    storing: BackgroundTasks = field(default_factory=BackgroundTasks)
    facts: list[Fact] = field(default_factory=list)
    is_alone: bool = True

    def __post_init__(self) -> None:
        self.settlement = Settlement(self.store, self.table, self.storing, self, is_alone=self.is_alone)

    def notify(self, fact: Fact) -> None:
        self.facts.append(fact)

    def job(self) -> Job:
        job = make_job()
        self.table.add(job)
        return job

    async def settle(self, job: Job, outcome: Outcome) -> None:
        self.settlement.settle(job, outcome)
        await self.storing.wait()


@pytest.fixture
def settling() -> Settling:
    return Settling()


def kinds(job: Job) -> list[type]:
    return [type(logged.event) for logged in job.log._kept]


async def error_of(job: Job) -> Exception | None:
    """Return the error that the followers of a job get."""
    try:
        async for _ in job.log.follow():
            pass
    except Exception as error:
        return error
    return None


async def test_a_result_is_stored_before_it_is_published(settling: Settling):
    job, gate = settling.job(), asyncio.Event()
    settling.store.gates["save_result"] = gate
    settling.settlement.settle(job, make_result())
    while not settling.store.calls:
        await asyncio.sleep(0)
    assert job.end is None
    assert kinds(job) == []
    assert settling.facts == []
    gate.set()
    await settling.storing.wait()
    assert kinds(job) == [ResultHeader, ResultChunk, Completed]
    assert job.id not in settling.table


@pytest.mark.parametrize(
    ("outcome", "stored", "end"),
    [
        (make_result(), "save_result", Ended(JobState.SUCCEEDED, stop_reason=StopReason.ITERATIONS)),
        (
            make_result(StopReason.CANCELLED),
            "save_result",
            Ended(JobState.CANCELLED, stop_reason=StopReason.CANCELLED),
        ),
        (error := JobCancelledError(), "save_failure", Ended(JobState.CANCELLED, error)),
        (error := JobFailedError("INTERNAL", ""), "save_failure", Ended(JobState.FAILED, error)),
        (Requeued(None), "release", Drained()),
    ],
)
async def test_the_end_of_a_job_follows_from_its_outcome(settling: Settling, outcome: Outcome, stored: str, end: End):
    job = settling.job()
    await settling.settle(job, outcome)
    assert settling.store.calls == [stored]
    assert job.end == end
    assert settling.facts == [JobEnded(job, end)]


async def test_the_last_snapshot_is_stored_before_the_job_is_released(settling: Settling):
    await settling.settle(settling.job(), Requeued(object()))
    assert settling.store.calls == ["save_checkpoint", "release"]


async def test_a_job_whose_lease_is_lost_has_moved(settling: Settling):
    job = settling.job()
    settling.store.answers["save_result"] = LeaseLostError(job.id)
    await settling.settle(job, make_result())
    assert job.end == Moved()
    # The server that has the lease stores another result, which the followers get.
    assert kinds(job) == []
    assert isinstance(await error_of(job), MovedError)
    assert job.id not in settling.table


async def test_a_result_that_cannot_be_stored_is_published_and_the_job_stays_known(settling: Settling):
    job = settling.job()
    settling.store.answers["save_result"] = _FULL
    await settling.settle(job, make_result())
    assert kinds(job) == [ResultHeader, ResultChunk, Completed]
    assert await error_of(job) is None
    assert job.id in settling.table
    assert settling.facts == [StoreFailed("settle", _FULL), JobEnded(job, job.end)]


async def test_a_job_that_goes_on_elsewhere_is_not_stored_again_later(settling: Settling):
    job = settling.job()
    settling.store.answers["release"] = _FULL
    await settling.settle(job, Requeued(None))
    assert job.id not in settling.table
    await settling.settlement.retry()
    assert settling.store.calls == ["release"]


async def test_what_could_not_be_stored_is_stored_later_with_the_sequences_that_were_published(settling: Settling):
    job, sequences = settling.job(), list[int]()
    settling.store.answers["save_result"] = _FULL

    async def save_result(job: Job, state: JobState, outcome: Outcome, sequence: int) -> None:
        del job, state, outcome
        sequences.append(sequence)

    await settling.settle(job, make_result())
    settling.store.save_result = save_result
    await settling.settlement.retry()
    assert sequences == [job.log._kept[0].sequence]
    assert job.id not in settling.table


async def test_one_end_that_cannot_be_stored_does_not_keep_others_from_the_store(settling: Settling):
    large, small = settling.job(), settling.job()
    settling.store.answers |= {"save_result": _FULL, "save_failure": _FULL}
    await settling.settle(large, make_result())
    await settling.settle(small, JobFailedError("INTERNAL", ""))
    del settling.store.answers["save_failure"]
    with pytest.raises(StoreFullError):
        await settling.settlement.retry()
    assert large.id in settling.table
    assert small.id not in settling.table


async def test_an_end_whose_lease_is_lost_meanwhile_is_not_stored_again(settling: Settling):
    job = settling.job()
    settling.store.answers["save_result"] = _FULL
    await settling.settle(job, make_result())
    settling.store.answers["save_result"] = LeaseLostError(job.id)
    await settling.settlement.retry()
    assert job.id not in settling.table


async def test_a_waiting_job_ends_at_once_and_is_known_until_that_is_stored(settling: Settling):
    job, end = settling.job(), Ended(JobState.CANCELLED, JobCancelledError())
    settling.store.answers["cancel"] = StoreUnavailableError("the store does not answer")
    settling.settlement.cancel(job, end)
    assert job.end == end
    await settling.storing.wait()
    assert job.id in settling.table
    del settling.store.answers["cancel"]
    await settling.settlement.retry()
    assert job.id not in settling.table


async def test_the_followers_of_a_drained_job_are_sent_away(settling: Settling):
    job = settling.job()
    settling.settlement.retire(job, Drained())
    assert isinstance(await error_of(job), NotServingError)
    assert job.state is JobState.QUEUED


@pytest.mark.parametrize("error", [ZeroDivisionError(), MemoryError()])
async def test_an_end_whose_storing_fails_in_an_unexpected_way_is_published_and_stored_later(
    settling: Settling, error: Exception
):
    job, other = settling.job(), settling.job()
    settling.store.answers |= {"save_result": error, "save_failure": _FULL}
    await settling.settle(job, make_result())
    await settling.settle(other, JobFailedError("INTERNAL", ""))
    assert kinds(job) == [ResultHeader, ResultChunk, Completed]
    assert job.id in settling.table
    del settling.store.answers["save_failure"]
    with pytest.raises(type(error)):
        await settling.settlement.retry()
    assert other.id not in settling.table
    del settling.store.answers["save_result"]
    await settling.settlement.retry()
    assert job.id not in settling.table


async def test_a_cancellation_whose_storing_fails_in_an_unexpected_way_is_stored_later(settling: Settling):
    job = settling.job()
    settling.store.answers["cancel"] = ZeroDivisionError()
    settling.settlement.cancel(job, Ended(JobState.CANCELLED, JobCancelledError()))
    await settling.storing.wait()
    assert job.id in settling.table
    del settling.store.answers["cancel"]
    await settling.settlement.retry()
    assert job.id not in settling.table


async def test_whoever_waits_for_the_store_waits_until_it_has_every_end(settling: Settling):
    await settling.settlement.all_saved()
    settling.store.answers["save_result"] = _FULL
    await settling.settle(settling.job(), make_result())
    waiting = asyncio.create_task(settling.settlement.all_saved())
    await asyncio.sleep(0.01)
    assert not waiting.done()
    del settling.store.answers["save_result"]
    await settling.settlement.retry()
    await waiting


@pytest.fixture
def shared() -> Settling:
    """A settlement whose store other servers share."""
    return Settling(is_alone=False)


@pytest.mark.parametrize("outcome", [make_result(), JobFailedError("INTERNAL", ""), JobCancelledError()])
async def test_an_outcome_that_another_server_could_contradict_is_told_when_it_is_stored(
    shared: Settling, outcome: Outcome
):
    job = shared.job()
    shared.store.answers |= {"save_result": _UNAVAILABLE, "save_failure": _UNAVAILABLE}
    await shared.settle(job, outcome)
    with pytest.raises(StoreUnavailableError):
        await shared.settlement.retry()
    assert job.end is None
    assert kinds(job) == []
    shared.store.answers.clear()
    await shared.settlement.retry()
    assert isinstance(job.end, Ended)
    assert kinds(job) == ([ResultHeader, ResultChunk, Completed] if isinstance(outcome, JobResult) else [])
    assert job.id not in shared.table


async def test_an_outcome_is_never_told_if_another_server_has_taken_the_job_over_meanwhile(shared: Settling):
    job = shared.job()
    shared.store.answers["save_result"] = _UNAVAILABLE
    await shared.settle(job, make_result())
    shared.store.answers["save_result"] = LeaseLostError(job.id)
    await shared.settlement.retry()
    assert job.end == Moved()
    assert kinds(job) == []
    assert job.id not in shared.table


async def test_the_followers_of_an_outcome_that_was_never_stored_are_sent_away_when_the_server_leaves(
    shared: Settling,
):
    job = shared.job()
    shared.store.answers["save_result"] = _UNAVAILABLE
    await shared.settle(job, make_result())
    shared.settlement.close()
    assert isinstance(await error_of(job), NotServingError)
    assert kinds(job) == []


@pytest.mark.parametrize(
    ("answer", "end"),
    [
        (JobState.CANCELLED, Ended(JobState.CANCELLED, error := JobCancelledError())),
        (JobState.RUNNING, Moved()),
    ],
)
async def test_a_waiting_job_is_told_to_be_cancelled_only_if_no_other_server_runs_it(
    shared: Settling, answer: JobState, end: End
):
    job = shared.job()
    shared.store.answers["cancel"] = _UNAVAILABLE
    shared.settlement.cancel(job, Ended(JobState.CANCELLED, error))
    await shared.storing.wait()
    assert job.end is None
    shared.store.answers["cancel"] = answer
    await shared.settlement.retry()
    assert job.end == end
    assert job.id not in shared.table
