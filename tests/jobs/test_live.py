"""The live events that are published to other servers, with a store that answers as a test wants."""

from typing import Any

import pytest
from nst_service.jobs.events import Preparing, Preview, Progress, Queued, Started
from nst_service.jobs.job import Drained, Job
from nst_service.jobs.job_table import JobTable
from nst_service.jobs.live import LivePublisher
from nst_service.store.errors import StoreUnavailableError

from tests.jobs.builders import FakeJobStore, make_job

_PREPARING = Preparing(scale=0, scales=1, part=1, parts=2)
_PREVIEW = Preview(iteration=1, media_type="image/jpeg", width=8, height=6, data=b"preview")


def progress(iteration: int) -> Progress:
    return Progress(
        scale=0,
        scales=1,
        iteration=iteration,
        total_iterations=100,
        total_loss=1.0,
        terms={},
        elapsed_seconds=1.0,
        eta_seconds=1.0,
    )


class PublishingStore(FakeJobStore):
    """Keeps the live events."""

    def __init__(self) -> None:
        super().__init__()
        self.answers["followed_elsewhere"] = frozenset()
        self.rounds: list[list[Any]] = []

    async def publish_live(self, events: list[Any]) -> None:
        self.rounds.append([live.logged.event for live in events])


class Publishing:
    def __init__(self) -> None:
        self.store, self.table = PublishingStore(), JobTable()
        self.publisher = LivePublisher(self.store, self.table)

    def job(self, *, is_followed_elsewhere: bool) -> Job:
        job = make_job()
        self.table.add(job)
        if is_followed_elsewhere:
            self.store.answers["followed_elsewhere"] |= {job.id}
        return job


@pytest.fixture
def publishing() -> Publishing:
    return Publishing()


async def test_a_job_that_is_followed_elsewhere_publishes_the_latest_event_of_each_kind(publishing: Publishing):
    job, queued = publishing.job(is_followed_elsewhere=True), Queued(position=1, eta_seconds=9.0)
    for event in (queued, Started(device="cpu", queued_seconds=1.0), _PREPARING, progress(1), _PREVIEW):
        job.log.append(event)
    for iteration in range(2, 1000):
        job.log.append(progress(iteration))
    await publishing.publisher.publish()
    assert publishing.store.rounds == [[queued, _PREPARING, progress(999), _PREVIEW]]


async def test_what_is_not_new_is_not_published_again(publishing: Publishing):
    job = publishing.job(is_followed_elsewhere=True)
    for event in (_PREVIEW, progress(1)):
        job.log.append(event)
    await publishing.publisher.publish()
    await publishing.publisher.publish()
    job.log.append(progress(2))
    await publishing.publisher.publish()
    assert publishing.store.rounds == [[_PREVIEW, progress(1)], [progress(2)]]


async def test_a_job_that_nobody_follows_elsewhere_publishes_only_its_progress(publishing: Publishing):
    job = publishing.job(is_followed_elsewhere=False)
    for event in (Queued(position=1, eta_seconds=9.0), _PREVIEW, progress(1)):
        job.log.append(event)
    await publishing.publisher.publish()
    assert publishing.store.rounds == [[progress(1)]]


async def test_a_call_that_begins_to_follow_a_job_elsewhere_gets_events_that_were_not_published_before(
    publishing: Publishing,
):
    job = publishing.job(is_followed_elsewhere=False)
    job.log.append(_PREVIEW)
    await publishing.publisher.publish()
    publishing.store.answers["followed_elsewhere"] = {job.id}
    await publishing.publisher.publish()
    assert publishing.store.rounds == [[_PREVIEW]]


async def test_nothing_is_asked_or_published_without_a_job(publishing: Publishing):
    job = publishing.job(is_followed_elsewhere=True)
    job.log.append(progress(1))
    job.end = Drained()
    await publishing.publisher.publish()
    assert publishing.store.calls == []
    assert publishing.store.rounds == []


async def test_what_could_not_be_published_is_published_later(publishing: Publishing):
    job, publish_live = publishing.job(is_followed_elsewhere=True), publishing.store.publish_live
    job.log.append(progress(1))

    async def fail(_: list[Any]) -> None:
        raise StoreUnavailableError("the store does not answer")

    publishing.store.publish_live = fail  # type: ignore[method-assign]
    with pytest.raises(StoreUnavailableError):
        await publishing.publisher.publish()
    publishing.store.publish_live = publish_live  # type: ignore[method-assign]
    await publishing.publisher.publish()
    assert publishing.store.rounds == [[progress(1)]]
