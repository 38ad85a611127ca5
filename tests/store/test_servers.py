import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from nst_service.lifecycle import JobState
from nst_service.store import database as database_module
from nst_service.store import store as store_module
from nst_service.store.errors import LeaseLostError, StoreInUseError, StoreUnavailableError
from nst_service.store.failure_detector import FailureDetector
from nst_service.store.records import StoredEvent
from nst_service.store.schema import JOBS
from nst_service.store.store import Store
from sqlalchemy import select

from tests.store.builders import ENDLESS, Clock, Place, new_job
from tests.store.postgres import Postgres

_LEASE_ALL = """
import sys
from pathlib import Path
from tests.store.builders import Place, lease_next
store = Place(Path(sys.argv[1]), sys.argv[2]).open(lease_seconds=60)
print("ready", flush=True)
sys.stdin.readline()
while lease := lease_next(store):
    print(lease.job.id, flush=True)
"""


class TestFailureDetector:
    def test_a_server_whose_count_grows_is_alive(self) -> None:
        clock = Clock()
        detector = FailureDetector(10, clock)
        for look in range(15):
            assert detector.suspected({"a": look // 3}) == []
            clock.now += 3

    def test_a_server_whose_count_stands_still_for_long_enough_is_dead(self) -> None:
        clock = Clock()
        detector = FailureDetector(10, clock)
        assert detector.suspected({"a": 7, "b": 7}) == [], "nothing is known of what was before"
        for _ in range(3):
            clock.now += 3.25
            assert detector.suspected({"a": 7, "b": 8}) == []
        clock.now += 0.25
        assert detector.suspected({"a": 7, "b": 8}) == ["a"]

    def test_the_timeout_begins_anew_after_a_look_that_failed(self) -> None:
        clock = Clock()
        detector = FailureDetector(10, clock)
        detector.suspected({"a": 7})
        for _ in range(20):
            clock.now += 3
            detector.forget()
        for _ in range(4):
            assert detector.suspected({"a": 7}) == []
            clock.now += 3
        assert detector.suspected({"a": 7}) == ["a"]

    def test_the_timeout_begins_anew_after_a_pause_in_which_nobody_looked(self) -> None:
        clock = Clock()
        detector = FailureDetector(10, clock)
        detector.suspected({"a": 7})
        clock.now += 1000
        for _ in range(4):
            assert detector.suspected({"a": 7}) == []
            clock.now += 3
        assert detector.suspected({"a": 7}) == ["a"]

    def test_a_server_that_comes_back_is_watched_from_then_on(self) -> None:
        clock = Clock()
        detector = FailureDetector(10, clock)
        detector.suspected({"a": 7})
        detector.suspected({})
        clock.now += 20
        assert detector.suspected({"a": 7}) == []

    def test_who_has_no_patience_takes_every_other_server_for_dead(self) -> None:
        assert FailureDetector(0).suspected({"a": 7}) == ["a"]


def test_the_jobs_of_a_dead_server_go_back_into_the_queue(open_store: Callable[..., Store]) -> None:
    dead = open_store()
    waiting, running, ended = (dead.submit(new_job()).job.id for _ in range(3))
    assert dead.lease(running)
    lease = dead.lease(ended)
    assert lease is not None
    dead.finish(lease, JobState.SUCCEEDED, outcome=b"")
    survivor = open_store()
    assert survivor.heartbeat().requeued == (running,)
    assert [job.id for job in survivor.queue()] == [waiting, running]
    job = survivor.job(running)
    assert job is not None
    assert (job.lost_runs, job.epoch) == (1, 1)
    assert survivor.heartbeat().requeued == (), "it is struck off"


def test_a_server_that_lives_keeps_its_jobs(open_store: Callable[..., Store]) -> None:
    one, other = open_store(lease_seconds=60), open_store(lease_seconds=60)
    job = one.submit(new_job()).job
    lease = one.lease(job.id)
    assert lease is not None
    for _ in range(3):
        assert one.heartbeat().requeued == ()
        assert other.heartbeat().requeued == ()
    one.finish(lease, JobState.SUCCEEDED, outcome=b"")


def test_a_server_that_shows_life_at_the_last_moment_keeps_its_jobs(
    open_store: Callable[..., Store], monkeypatch: pytest.MonkeyPatch
) -> None:
    late, judge = open_store(lease_seconds=60), open_store()
    job = late.submit(new_job()).job
    lease = late.lease(job.id)
    assert lease is not None

    def suspect_all(heartbeats: dict[str, int]) -> list[str]:
        late.heartbeat()
        return list(heartbeats)

    monkeypatch.setattr(judge._failure_detector, "suspected", suspect_all)
    assert judge.heartbeat().requeued == ()
    late.finish(lease, JobState.SUCCEEDED, outcome=b"")


def test_a_server_taken_for_dead_by_mistake_is_kept_out_of_its_old_jobs_and_goes_on(
    open_store: Callable[..., Store],
) -> None:
    stopped = open_store(lease_seconds=60)
    job = stopped.submit(new_job()).job
    old = stopped.lease(job.id)
    assert old is not None
    other = open_store()
    assert other.heartbeat().requeued == (job.id,)
    new = other.lease(job.id)
    assert new is not None
    with pytest.raises(LeaseLostError):
        stopped.append(old, [StoredEvent(sequence=old.first_sequence, data=b"late")])
    with pytest.raises(LeaseLostError):
        stopped.finish(old, JobState.SUCCEEDED, outcome=b"late")
    # Even before its next heartbeat, what it leases is watched over.
    second = stopped.submit(new_job()).job
    assert stopped.lease(second.id)
    assert other.heartbeat().requeued == (second.id,)


def test_only_the_servers_that_have_died_since_a_job_came_further_count(open_store: Callable[..., Store]) -> None:
    job_id = open_store().submit(new_job()).job.id
    for lost_runs, checkpoint in ((0, None), (1, None), (2, b"half"), (1, None)):
        server = open_store()
        server.heartbeat()
        lease = server.lease(job_id)
        assert lease is not None
        assert lease.job.lost_runs == lost_runs
        if checkpoint:
            server.save_checkpoint(lease, checkpoint)


def test_a_server_that_leaves_hands_its_jobs_back_and_loses_no_run(place: Place) -> None:
    leaving = place.open()
    job = leaving.submit(new_job()).job
    assert leaving.lease(job.id)
    leaving.close()
    staying = place.open()
    handed_back = staying.job(job.id)
    assert handed_back is not None
    assert (handed_back.state, handed_back.lost_runs) == (JobState.QUEUED, 0)
    assert staying.heartbeat().requeued == ()
    staying.close()


def test_a_server_that_waits_for_its_folder_does_not_keep_a_job_from_the_others(
    postgres: Postgres, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(database_module, "_IDLE_SECONDS", 1)
    url = postgres.new_database()
    hung, other = (Place(tmp_path, url).open(lease_seconds=60) for _ in range(2))
    job, hangs, is_back = hung.submit(new_job()).job, threading.Event(), threading.Event()
    lease = hung.lease(job.id)
    assert lease is not None
    with monkeypatch.context() as patch, ThreadPoolExecutor(1) as threads:
        patch.setattr(hung._folder, "has", lambda _: hangs.set() or is_back.wait())
        finishing = threads.submit(hung.finish, lease, JobState.SUCCEEDED, outcome=b"", result=b"picture")
        hangs.wait()
        try:
            assert other.cancel(job.id) is JobState.RUNNING
        finally:
            is_back.set()
        with pytest.raises(StoreUnavailableError):
            finishing.result()
    hung.finish(lease, JobState.SUCCEEDED, outcome=b"", result=b"picture")
    assert other.result(job.id) == b"picture"
    for store in (hung, other):
        store.close()


def test_a_heartbeat_does_not_wait_for_the_locks_of_a_server_that_has_died(
    postgres: Postgres, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store_module, "_TAKEOVER_PATIENCE", 0.1)
    url = postgres.new_database()
    # The process of the one that "dies" does not beat, and lives.
    dead, other = Place(tmp_path, url).open(lease_seconds=60), Place(tmp_path, url).open(lease_seconds=0)
    job = dead.submit(new_job()).job
    assert dead.lease(job.id) is not None
    with dead._database.write(may_idle=True) as connection:
        connection.execute(select(JOBS.c.id).where(JOBS.c.id == job.id).with_for_update())
        assert other.heartbeat().requeued == ()
    while other.heartbeat().requeued != (job.id,):
        pass
    other.close()


def test_two_processes_on_one_postgresql_never_lease_the_same_job(postgres: Postgres, tmp_path: Path) -> None:
    url = postgres.new_database()
    store = Place(tmp_path, url).open(lease_seconds=60)
    jobs = {store.submit(new_job()).job.id for _ in range(60)}
    command = [sys.executable, "-c", _LEASE_ALL, str(tmp_path), url]
    processes = [subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    for process in processes:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    leased = [process.communicate()[0].split() for process in processes]
    assert all(process.returncode == 0 for process in processes)
    assert sorted(leased[0] + leased[1]) == sorted(jobs)
    store.close()


class TestDirectory:
    def test_one_server_works_in_it(self, tmp_path: Path) -> None:
        first = Store.open(tmp_path / "data", retention=ENDLESS, lease_seconds=60)
        with pytest.raises(StoreInUseError):
            Store.open(tmp_path / "data", retention=ENDLESS, lease_seconds=60)
        first.close()
        Store.open(tmp_path / "data", retention=ENDLESS, lease_seconds=60).close()

    def test_a_server_whose_schema_could_not_be_made_gives_it_free(self, tmp_path: Path) -> None:
        with pytest.raises(ValueError, match="postgresql://USER:PASSWORD"):
            Store.open(tmp_path, database_url="mysql://ada:secret@host/nst", retention=ENDLESS, lease_seconds=60)
        Store.open(tmp_path, retention=ENDLESS, lease_seconds=60).close()

    def test_it_is_closed_to_other_users(self, tmp_path: Path) -> None:
        Store.open(tmp_path / "data", retention=ENDLESS, lease_seconds=60).close()
        assert (tmp_path / "data").stat().st_mode & 0o077 == 0


@pytest.mark.parametrize("url", ["mysql://ada:secret@host/nst", "secret", "sqlite:///secret"])
def test_what_is_no_url_of_postgresql_is_refused_without_being_quoted(tmp_path: Path, url: str) -> None:
    with pytest.raises(ValueError, match="postgresql://USER:PASSWORD") as caught:
        Store.open(tmp_path, database_url=url, retention=ENDLESS, lease_seconds=60)
    assert "secret" not in str(caught.value)


def test_postgresql_and_blobs_elsewhere_leave_no_trace_in_the_directory(postgres: Postgres, tmp_path: Path) -> None:
    data = tmp_path / "data"
    store = Store.open(
        data,
        database_url=postgres.new_database(),
        blobs_url=f"file://{tmp_path / 'elsewhere'}",
        retention=ENDLESS,
        lease_seconds=60,
    )
    job = store.submit(new_job()).job
    assert store.request(job.id) == b"paint this"
    store.close()
    assert not data.exists()
