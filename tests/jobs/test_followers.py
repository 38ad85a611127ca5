"""The calls that follow jobs, with a store that answers as a test wants."""

import time

import pytest
from nst_service.jobs.background import BackgroundTasks
from nst_service.jobs.followers import Followers
from nst_service.jobs.job import Drained, Job
from nst_service.jobs.observer import NullObserver
from nst_service.store.errors import StoreUnavailableError

from tests.jobs.builders import FakeJobStore, make_job

_REATTACH_SECONDS = 10.0


class Following:
    """Followers, and the store that they tell of the jobs that they follow."""

    def __init__(self, *, is_alone: bool):
        self.store, self.tasks = FakeJobStore(), BackgroundTasks()
        self.followers = Followers(
            self.store, self.tasks, NullObserver(), reattach_seconds=_REATTACH_SECONDS, is_alone=is_alone
        )


@pytest.fixture
def shared() -> Following:
    return Following(is_alone=False)


@pytest.fixture
def alone() -> Following:
    return Following(is_alone=True)


def unfollowed_for(seconds: float) -> Job:
    job = make_job()
    job.unfollowed_since = time.monotonic() - seconds
    return job


async def test_the_first_follower_and_the_end_of_the_last_one_are_recorded(shared: Following):
    async with shared.followers.following("job"):
        async with shared.followers.following("job"):
            assert list(shared.followers.job_ids) == ["job"]
        await shared.tasks.wait()
        assert "job" in shared.followers
        assert shared.store.calls == ["follow"]
    await shared.tasks.wait()
    assert "job" not in shared.followers
    assert shared.store.calls == ["follow", "unfollow"]


async def test_a_server_that_is_alone_records_no_followers(alone: Following):
    async with alone.followers.following("job"):
        assert "job" in alone.followers
    await alone.tasks.wait()
    assert alone.store.calls == []
    assert not await alone.followers.is_followed("job")


async def test_a_job_that_is_followed_again_before_its_record_is_removed_keeps_it(shared: Following):
    async with shared.followers.following("job"):
        pass
    async with shared.followers.following("job", is_recorded=True):
        await shared.tasks.wait()
    assert shared.store.calls == ["follow"]


async def test_a_call_follows_its_job_while_the_store_does_not_answer(shared: Following):
    shared.store.answers["follow"] = StoreUnavailableError("the store does not answer")
    async with shared.followers.following("job"):
        assert list(shared.followers.job_ids) == ["job"]


def test_a_job_is_abandoned_if_it_has_had_no_follower_for_long_enough(alone: Following):
    recent, long_ago, never = unfollowed_for(5), unfollowed_for(15), make_job()
    assert alone.followers.abandoned([recent, long_ago, never], None) == [long_ago]


async def test_a_job_that_is_followed_here_is_not_abandoned(alone: Following):
    job = unfollowed_for(15)
    async with alone.followers.following(job.id):
        assert alone.followers.abandoned([job], None) == []
    assert alone.followers.abandoned([job], None) == []


def test_the_time_without_a_follower_begins_when_the_last_call_on_another_server_ends(shared: Following):
    job = unfollowed_for(15)
    assert shared.followers.abandoned([job], [job.id]) == []
    assert shared.followers.abandoned([job], []) == []
    assert job.unfollowed_since is not None
    job.unfollowed_since -= _REATTACH_SECONDS
    assert shared.followers.abandoned([job], []) == [job]


def test_a_job_is_not_abandoned_while_nobody_knows_whether_it_is_followed_elsewhere(shared: Following):
    job = unfollowed_for(15)
    assert shared.followers.abandoned([job], None) == []
    assert shared.followers.abandoned([job], []) == [], "the time begins anew"


def test_a_job_that_has_ended_is_not_abandoned(shared: Following):
    job = unfollowed_for(15)
    job.end = Drained()
    assert shared.followers.abandoned([job], []) == []
