"""This release and 0.1.0 on one database: after one another, or at the same time on PostgreSQL."""

from collections.abc import Iterator

import pytest
from nst_service.lifecycle import JobState
from nst_service.store.database import Database
from nst_service.store.records import StoredEvent
from nst_service.store.store import Store
from nst_service.store.versions import UPGRADES, Upgrade, migrate

from tests.store.builders import Place, new_job
from tests.store.release_0_1_0 import RefusedError, Release010


@pytest.fixture
def database(place: Place) -> Iterator[Database]:
    database = place.database()
    yield database
    database.close()


def _size(store: Store, job_id: str) -> tuple[int, int] | None:
    job = store.job(job_id)
    assert job is not None
    return job.size


def test_0_1_0_runs_jobs_of_this_release_to_their_end(store: Store, database: Database) -> None:
    job = store.submit(new_job()).job
    older = Release010(database)
    row = older.lease(job.id)
    assert (row.id, row.options, row.state, row.epoch) == (job.id, b"accepted", "running", 1)
    older.append(row, b"started")
    older.finish(row)
    ended = store.job(job.id)
    assert ended is not None
    assert (ended.state, ended.outcome) == (JobState.SUCCEEDED, b"well")
    assert [event.data for event in store.events(job.id)] == [b"started"]


def test_0_1_0_refuses_a_database_that_requires_a_later_version(database: Database) -> None:
    migrate(database, [*UPGRADES, Upgrade(lambda _: None, oldest_compatible=2)])
    with pytest.raises(RefusedError):
        Release010(database)


def test_0_1_0_leaves_the_version_of_the_tables_as_it_is(store: Store, place: Place, database: Database) -> None:
    job = store.submit(new_job()).job
    Release010(database)
    again = place.open()
    assert again.job(job.id) == job, "the upgrade is not made a second time"
    again.close()


def test_the_size_of_a_job_is_known_as_long_as_this_release_runs_it(store: Store) -> None:
    job_id = store.submit(new_job(size=(512, 384))).job.id
    assert _size(store, job_id) == (512, 384)
    first = store.lease(job_id)
    assert first is not None
    assert first.job.size == (512, 384)
    store.append(first, [StoredEvent(sequence=first.first_sequence, data=b"reduced")], size=(256, 192))
    store.append(first, [StoredEvent(sequence=first.first_sequence + 1, data=b"started")])
    assert _size(store, job_id) == (256, 192)
    store.release(first)
    second = store.lease(job_id)
    assert second is not None
    assert second.job.size == (256, 192)
    store.finish(second, JobState.SUCCEEDED, outcome=b"")
    assert _size(store, job_id) == (256, 192)


def test_the_size_of_a_job_that_0_1_0_has_accepted_is_unknown_whoever_runs_it(store: Store, database: Database) -> None:
    Release010(database).submit("old", b"accepted")
    assert _size(store, "old") is None
    lease = store.lease("old")
    assert lease is not None
    assert lease.job.size is None
    store.finish(lease, JobState.SUCCEEDED, outcome=b"")
    assert _size(store, "old") is None


def test_a_size_is_unknown_from_the_moment_on_when_0_1_0_may_change_it(store: Store, database: Database) -> None:
    job_id = store.submit(new_job()).job.id
    older = Release010(database)
    row = older.lease(job_id)
    assert _size(store, job_id) is None
    older.append(row, b"reduced")
    older.release(row)
    assert _size(store, job_id) is None
    lease = store.lease(job_id)
    assert lease is not None
    assert lease.job.size is None, "the size of the row is that of before"
    store.finish(lease, JobState.SUCCEEDED, outcome=b"")
    assert _size(store, job_id) is None


def test_a_size_that_this_release_changes_is_known_again(store: Store, database: Database) -> None:
    older = Release010(database)
    older.submit("old", b"accepted")
    older.release(older.lease("old"))
    lease = store.lease("old")
    assert lease is not None
    store.append(lease, [StoredEvent(sequence=lease.first_sequence, data=b"reduced")], size=(256, 192))
    assert _size(store, "old") == (256, 192)
    store.release(lease)
    older.finish(older.lease("old"))
    assert _size(store, "old") is None
