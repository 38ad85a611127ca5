from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest
from nst_service.lifecycle import JobState
from nst_service.store.errors import StoreFullError, StoreUnavailableError
from nst_service.store.records import StoredEvent
from nst_service.store.store import Store

from tests.store.builders import ENDLESS, Clock, Place, new_job, sha256
from tests.store.release_0_1_0 import Release010


def _ended(store: Store, *, size: int = 1000, picture: bytes = b"a painting") -> str:
    """Run a job of about so many bytes and return its id."""
    job = store.submit(new_job(pictures=[picture])).job
    lease = store.lease(job.id)
    assert lease is not None
    result = job.id.encode() * (size // len(job.id))
    store.finish(lease, JobState.SUCCEEDED, outcome=b"", result=result)
    return job.id


def test_a_job_is_kept_for_its_time_from_its_end_on(open_store: Callable[..., Store], clock: Clock) -> None:
    store = open_store(retention=replace(ENDLESS, max_age_seconds=60))
    waiting = store.submit(new_job()).job.id
    clock.now += 1000
    ended = _ended(store)
    clock.now += 60
    assert store.clean().jobs == 0
    clock.now += 0.5
    assert store.clean().jobs == 1
    assert store.job(ended) is None
    assert store.result(ended) is None
    assert store.job(waiting), "it has not ended, however old it is"


def test_a_clock_that_steps_back_removes_nothing(open_store: Callable[..., Store], clock: Clock) -> None:
    store = open_store(retention=replace(ENDLESS, max_age_seconds=60))
    ended = _ended(store)
    clock.now -= 1e6
    assert store.clean().jobs == 0
    assert store.job(ended)


def test_the_oldest_jobs_go_first_where_all_take_too_much(
    open_store: Callable[..., Store], clock: Clock, place: Place
) -> None:
    jobs = []
    store = open_store()
    for step in (0, -5000, 5000, -9000):
        clock.now += step
        jobs.append(_ended(store, size=10_000))
    store = open_store(retention=replace(ENDLESS, max_bytes=25_000))
    assert store.clean().jobs == 2
    assert [job.id for job in store.jobs("ada", limit=9)] == [jobs[3], jobs[2]]
    kept = sum(path.stat().st_size for path in place.blob_files())
    assert kept <= 25_000


def test_events_count_too(open_store: Callable[..., Store]) -> None:
    store = open_store(retention=replace(ENDLESS, max_bytes=20_000))
    job = store.submit(new_job()).job
    lease = store.lease(job.id)
    assert lease is not None
    store.append(lease, [StoredEvent(sequence=lease.first_sequence, data=bytes(30_000))])
    store.finish(lease, JobState.SUCCEEDED, outcome=b"")
    assert store.clean().jobs == 1
    assert store.events(job.id) == []


def test_a_picture_goes_with_the_last_job_that_uses_it(open_store: Callable[..., Store], clock: Clock) -> None:
    store = open_store(retention=replace(ENDLESS, max_age_seconds=60))
    _ended(store, picture=b"shared")
    clock.now += 40
    _ended(store, picture=b"shared")
    clock.now += 40
    assert store.clean().jobs == 1
    assert store.picture("ada", sha256(b"shared")) == b"shared"
    clock.now += 40
    assert store.clean().jobs == 1
    assert store.picture("ada", sha256(b"shared")) is None


def test_what_a_live_job_needs_is_never_removed(open_store: Callable[..., Store], clock: Clock) -> None:
    store = open_store(retention=replace(ENDLESS, max_age_seconds=0))
    waiting, running = store.submit(new_job()).job, store.submit(new_job()).job
    lease = store.lease(running.id)
    assert lease is not None
    store.save_checkpoint(lease, b"half")
    ended = _ended(store)
    clock.now += 1e6
    tight = open_store(retention=replace(ENDLESS, max_age_seconds=0, max_bytes=1), lease_seconds=60)
    assert tight.clean().jobs == 1
    assert store.job(ended) is None
    for job in (waiting, running):
        assert store.request(job.id) == b"paint this"
    assert store.checkpoint(running.id) == b"half"
    store.finish(lease, JobState.SUCCEEDED, outcome=b"", result=b"whole")
    assert store.result(running.id) == b"whole"


def test_a_new_job_makes_room_for_itself_by_removing_ended_ones(open_store: Callable[..., Store]) -> None:
    store = open_store(retention=replace(ENDLESS, max_bytes=25_000))
    first, second = _ended(store, size=10_000), _ended(store, size=10_000)
    assert store.submit(new_job(request=bytes(10_000))).created
    assert store.job(first) is None
    assert store.job(second)


def test_a_new_job_for_which_no_room_can_be_made_is_refused_and_running_ones_go_on(
    open_store: Callable[..., Store], place: Place
) -> None:
    store = open_store(retention=replace(ENDLESS, max_bytes=25_000))
    job = store.submit(new_job(request=bytes(20_000), request_id="r")).job
    lease = store.lease(job.id)
    assert lease is not None
    with pytest.raises(StoreFullError):
        store.submit(new_job(request=bytes(10_000)))
    assert len(place.blob_files()) == 3, "nothing of it is left"
    store.save_checkpoint(lease, bytes(9_000))
    store.append(lease, [StoredEvent(sequence=lease.first_sequence, data=bytes(9_000))])
    assert not store.submit(new_job(request=bytes(20_000), request_id="r")).created, "what is accepted stays accepted"
    store.finish(lease, JobState.SUCCEEDED, outcome=b"", result=bytes(9_000))
    assert store.submit(new_job(request=bytes(10_000))).created


def test_new_jobs_leave_some_of_the_disk_to_those_that_run(open_store: Callable[..., Store]) -> None:
    lavish, careful = open_store(), open_store(retention=replace(ENDLESS, min_free_bytes=2**60))
    job = lavish.submit(new_job()).job
    with pytest.raises(StoreFullError, match="nearly full"):
        careful.submit(new_job())
    lease = careful.lease(job.id)
    assert lease is not None
    careful.finish(lease, JobState.SUCCEEDED, outcome=b"", result=b"whole")


def test_jobs_that_come_while_others_go_never_lose_a_picture(open_store: Callable[..., Store]) -> None:
    at_once = {"retention": replace(ENDLESS, max_age_seconds=-1), "lease_seconds": 60}
    pictures = [b"cat", b"dog", b"sea"]

    def come_and_go(store: Store) -> None:
        for _ in range(8):
            job = store.submit(new_job(pictures=pictures)).job
            for picture in pictures:
                assert store.picture("ada", sha256(picture)) == picture
            assert store.request(job.id) == b"paint this"
            store.cancel(job.id)
            store.clean()

    with ThreadPoolExecutor(4) as threads:
        list(threads.map(come_and_go, [open_store(**at_once) for _ in range(4)]))


def test_the_numbers_of_removed_jobs_are_not_used_again(open_store: Callable[..., Store], clock: Clock) -> None:
    store = open_store(retention=replace(ENDLESS, max_age_seconds=0))
    before = store.submit(new_job()).job
    store.cancel(before.id)
    clock.now += 1
    assert store.clean().jobs == 1
    assert store.submit(new_job()).job.number > before.number


@pytest.mark.parametrize("is_restarted", [False, True])
def test_a_clock_that_steps_forward_removes_nothing(
    open_store: Callable[..., Store], clock: Clock, is_restarted: bool
) -> None:
    retention = {"retention": replace(ENDLESS, max_age_seconds=60)}
    store = open_store(**retention)
    ended, cancelled = _ended(store), store.submit(new_job()).job.id
    store.cancel(cancelled)
    clock.set_forward(8 * 86400.0)
    if is_restarted:
        store = open_store(**retention)
    for _ in range(10):
        clock.now += 5.9
        assert store.clean().jobs == 0
    assert store.result(ended)
    clock.now += 2.0
    assert store.clean().jobs == 2


def test_the_time_in_which_no_server_runs_does_not_count(open_store: Callable[..., Store], clock: Clock) -> None:
    retention = {"retention": replace(ENDLESS, max_age_seconds=60)}
    store = open_store(**retention)
    ended = _ended(store)
    clock.now += 40
    store.clean()
    clock.now += 1e6
    store = open_store(**retention)
    assert store.clean().jobs == 0
    assert store.result(ended)
    clock.now += 21
    assert store.clean().jobs == 1


def test_servers_that_serve_at_the_same_time_count_it_once(open_store: Callable[..., Store], clock: Clock) -> None:
    retention = {"retention": replace(ENDLESS, max_age_seconds=60), "lease_seconds": 60}
    stores = [open_store(**retention) for _ in range(3)]
    _ended(stores[0])
    for _ in range(6):
        clock.now += 9.9
        assert [store.clean().jobs for store in stores] == [0, 0, 0]
    clock.now += 1.0
    assert sum(store.clean().jobs for store in stores) == 1


def test_a_job_that_0_1_0_has_ended_is_kept_from_the_next_cleaning_on(
    open_store: Callable[..., Store], clock: Clock
) -> None:
    store = open_store(retention=replace(ENDLESS, max_age_seconds=60))
    store.clean()
    older = Release010(store._database)
    older.submit("old", b"accepted")
    older.finish(older.lease("old"))
    assert store.clean().jobs == 0
    clock.now += 61
    assert store.clean().jobs == 1


def test_a_request_that_is_too_large_for_the_store_removes_nothing(open_store: Callable[..., Store]) -> None:
    store = open_store(retention=replace(ENDLESS, max_bytes=25_000))
    ended = [_ended(store, size=8_000), _ended(store, size=8_000)]
    with pytest.raises(StoreFullError):
        store.submit(new_job(request=bytes(30_000)))
    store.submit(new_job(request=bytes(8_000)))
    with pytest.raises(StoreFullError):
        store.submit(new_job(request=bytes(20_000)))
    assert store.job(ended[1]), "only the job that was accepted has made room for itself"


def test_a_request_that_cannot_be_stored_removes_nothing(
    open_store: Callable[..., Store], monkeypatch: pytest.MonkeyPatch
) -> None:
    store = open_store(retention=replace(ENDLESS, max_bytes=25_000))
    ended = [_ended(store, size=10_000), _ended(store, size=10_000)]

    def fail(_: object) -> None:
        raise StoreUnavailableError("the store does not answer")

    monkeypatch.setattr(store._folder, "put", fail)
    with pytest.raises(StoreUnavailableError):
        store.submit(new_job(request=bytes(10_000)))
    assert all(store.job(job_id) for job_id in ended)


def test_pictures_that_live_jobs_share_count_once(open_store: Callable[..., Store]) -> None:
    store = open_store(retention=replace(ENDLESS, max_bytes=25_000))
    picture = bytes(20_000)
    for number in range(3):
        assert store.submit(new_job(request=b"%d" % number, pictures=[picture])).created
