import dataclasses
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest
from nst_service.lifecycle import JobState
from nst_service.store.errors import LeaseLostError, RequestConflictError, TransitionError
from nst_service.store.records import StoredEvent
from nst_service.store.store import Store

from tests.store.builders import Clock, Place, Sequences, lease_next, new_job, sha256


def test_an_accepted_job_is_found_with_everything_it_came_with(store: Store, clock: Clock) -> None:
    new = dataclasses.replace(new_job(request_id="r"), deadline=clock.now + 60.5)
    submission = store.submit(new)
    assert submission.created
    job = store.job(new.id)
    assert job == submission.job
    assert job is not None
    assert job.state is JobState.QUEUED
    assert (job.owner, job.request_id, job.accepted_event, job.deadline) == ("ada", "r", b"accepted", clock.now + 60.5)
    assert job.disconnect_policy is new.disconnect_policy
    assert (job.epoch, job.lost_runs, job.cancel_requested, job.outcome) == (0, 0, False, None)
    assert (job.created_at, job.finished_at) == (clock.now, None)
    assert job.size == new.size
    assert store.events(new.id) == []
    assert store.request(new.id) == b"paint this"
    assert store.picture("ada", sha256(b"a painting")) == b"a painting"


def test_an_accepted_job_is_there_after_the_store_was_closed_and_opened_again(place: Place) -> None:
    first = place.open()
    job = first.submit(new_job()).job
    first.close()
    second = place.open()
    assert second.job(job.id) == job
    assert second.request(job.id) == b"paint this"
    second.close()


def test_what_is_not_there_is_none(store: Store) -> None:
    assert store.job("nobody") is None
    assert store.request("nobody") is None
    assert store.cancel("nobody") is None
    assert store.lease("nobody") is None
    assert lease_next(store) is None
    assert store.events("nobody") == []
    assert store.picture("ada", sha256(b"a drawing")) is None
    job = store.submit(new_job()).job
    assert store.checkpoint(job.id) is None
    assert store.result(job.id) is None
    assert store.result_blob(job.id) is None
    assert store.picture_size("ada", sha256(b"a drawing")) is None


class TestIdempotency:
    def test_the_same_request_again_leads_to_the_same_job(self, store: Store) -> None:
        first = store.submit(new_job(request_id="r"))
        again = store.submit(new_job(request_id="r"))
        assert not again.created
        assert again.job == first.job
        assert len(store.queue()) == 1

    def test_another_request_under_the_same_id_is_refused_and_changes_nothing(self, store: Store) -> None:
        first = store.submit(new_job(request_id="r"))
        with pytest.raises(RequestConflictError) as caught:
            store.submit(new_job(request_id="r", request=b"paint that"))
        assert (caught.value.request_id, caught.value.job_id) == ("r", first.job.id)
        assert store.queue() == [first.job]

    def test_owners_do_not_share_request_ids(self, store: Store) -> None:
        jobs = [
            store.submit(new_job(owner="ada", request_id="r")),
            store.submit(new_job(owner="bob", request_id="r", request=b"paint that")),
        ]
        assert all(job.created for job in jobs)
        assert [store.job_of_request(owner, "r") for owner in ("ada", "bob", "eve")] == [
            *(job.job for job in jobs),
            None,
        ]
        assert store.job_of_request("ada", "s") is None

    def test_requests_without_an_id_are_jobs_of_their_own(self, store: Store) -> None:
        assert store.submit(new_job()).created
        assert store.submit(new_job()).created

    def test_a_call_whose_answer_was_lost_can_be_made_again_even_without_a_request_id(self, store: Store) -> None:
        new = new_job()
        first = store.submit(new)
        again = store.submit(new)
        assert (again.created, again.job) == (False, first.job)

    def test_of_many_equal_requests_at_once_one_becomes_a_job(self, open_store: Callable[..., Store]) -> None:
        stores = [open_store(), open_store()]
        together = threading.Barrier(8)

        def submit(index: int) -> bool:
            together.wait()
            return stores[index % 2].submit(new_job(request_id="r")).created

        with ThreadPoolExecutor(8) as threads:
            created = list(threads.map(submit, range(8)))
        assert created.count(True) == 1
        assert len(stores[0].queue()) == 1


class TestLeases:
    def test_a_job_is_leased_once(self, store: Store) -> None:
        job = store.submit(new_job()).job
        lease = store.lease(job.id)
        assert lease is not None
        assert lease.job.state is JobState.RUNNING
        assert store.lease(job.id) is None
        assert lease_next(store) is None

    def test_the_queue_is_in_the_order_of_acceptance_whatever_the_clock_does(
        self, open_store: Callable[..., Store], clock: Clock
    ) -> None:
        store = open_store()
        accepted = []
        for step in (0, -3600, 7200, -86400):
            clock.now += step
            accepted.append(store.submit(new_job()).job.id)
        assert [job.id for job in store.queue()] == accepted
        leased = []
        while lease := lease_next(store):
            leased.append(lease.job.id)
        assert leased == accepted

    def test_a_released_job_keeps_its_place_in_the_queue(self, store: Store) -> None:
        first, second = (store.submit(new_job()).job.id for _ in range(2))
        lease = lease_next(store)
        assert lease is not None
        store.release(lease)
        assert [job.id for job in store.queue()] == [first, second]

    def test_whose_lease_has_ended_can_write_nothing(self, store: Store) -> None:
        job = store.submit(new_job()).job
        old = store.lease(job.id)
        assert old is not None
        store.release(old)
        new = store.lease(job.id)
        assert new is not None
        before = store.job(job.id)
        for write in (
            lambda: store.append(old, [StoredEvent(sequence=old.first_sequence, data=b"late")]),
            lambda: store.save_checkpoint(old, b"late"),
            lambda: store.release(old),
            lambda: store.finish(old, JobState.SUCCEEDED, outcome=b"late", result=b"late"),
        ):
            with pytest.raises(LeaseLostError):
                write()
        assert store.job(job.id) == before
        assert store.events(job.id) == []
        assert store.checkpoint(job.id) is None
        store.finish(new, JobState.SUCCEEDED, outcome=b"well")

    def test_every_job_is_leased_by_one_of_many_threads(self, open_store: Callable[..., Store]) -> None:
        stores = [open_store(lease_seconds=60), open_store(lease_seconds=60)]
        jobs = {stores[0].submit(new_job()).job.id for _ in range(20)}

        def lease_all(index: int) -> list[str]:
            leased = []
            while lease := lease_next(stores[index % 2]):
                leased.append(lease.job.id)
            return leased

        with ThreadPoolExecutor(4) as threads:
            leased = [job_id for ids in threads.map(lease_all, range(4)) for job_id in ids]
        assert len(leased) == len(jobs)
        assert set(leased) == jobs


class TestEvents:
    def test_the_log_has_the_events_of_every_call_in_their_order(self, store: Store) -> None:
        job = store.submit(new_job()).job
        lease = store.lease(job.id)
        assert lease is not None
        started, *progress = Sequences(lease.first_sequence).events(b"started", b"1", b"2", b"3")
        store.append(lease, [started])
        store.append(lease, progress)
        store.append(lease, [])
        assert store.events(job.id) == [started, *progress]

    def test_the_logs_of_several_jobs_are_read_at_once(self, store: Store) -> None:
        jobs = [store.submit(new_job()).job for _ in range(3)]
        for job, log in zip(jobs, ([1, 2], [], [3]), strict=True):
            lease = store.lease(job.id)
            assert lease is not None
            store.append(lease, [StoredEvent(sequence=sequence, data=b"%d" % sequence) for sequence in log])
        read = store.all_events([jobs[2], *jobs[:2]])
        assert {job_id: [event.data for event in events] for job_id, events in read.items()} == {
            jobs[0].id: [b"1", b"2"],
            jobs[1].id: [],
            jobs[2].id: [b"3"],
        }
        assert store.all_events([]) == {}

    def test_a_batch_whose_answer_was_lost_can_be_appended_again(self, store: Store) -> None:
        job = store.submit(new_job()).job
        lease = store.lease(job.id)
        assert lease is not None
        batch = Sequences(lease.first_sequence).events(b"1", b"2")
        store.append(lease, batch[:1])
        store.append(lease, batch)
        assert store.events(job.id) == batch

    def test_the_events_of_a_run_come_after_all_that_a_run_before_may_have_sent(self, store: Store) -> None:
        job = store.submit(new_job()).job
        first = store.lease(job.id)
        assert first is not None
        sent_but_not_stored = Sequences(first.first_sequence).events(*[b"progress"] * 1000)[-1].sequence
        store.release(first)
        second = store.lease(job.id)
        assert second is not None
        assert second.first_sequence > sent_but_not_stored


class TestCheckpoints:
    def test_the_last_one_is_kept_and_those_before_are_gone(self, place: Place, store: Store) -> None:
        job = store.submit(new_job()).job
        lease = store.lease(job.id)
        assert lease is not None
        for checkpoint in (b"one", b"two", b"two", b"three"):
            store.save_checkpoint(lease, checkpoint)
            assert store.checkpoint(job.id) == checkpoint
        kept = {path.name for path in place.blobs.iterdir()}
        assert sha256(b"three") in kept
        assert kept.isdisjoint({sha256(b"one"), sha256(b"two")})

    def test_it_outlives_its_run(self, store: Store) -> None:
        job = store.submit(new_job()).job
        lease = store.lease(job.id)
        assert lease is not None
        store.save_checkpoint(lease, memoryview(b"half"))
        store.release(lease)
        assert store.lease(job.id) is not None
        assert store.checkpoint(job.id) == b"half"

    def test_it_is_gone_once_the_job_has_ended(self, place: Place, store: Store) -> None:
        job = store.submit(new_job()).job
        lease = store.lease(job.id)
        assert lease is not None
        store.save_checkpoint(lease, b"half")
        store.finish(lease, JobState.SUCCEEDED, outcome=b"", result=b"whole")
        assert store.checkpoint(job.id) is None
        assert not (place.blobs / sha256(b"half")).exists()


class TestEnding:
    @pytest.mark.parametrize("state", [state for state in JobState if state.is_terminal])
    def test_an_ended_job_has_its_outcome_its_last_events_and_its_picture(
        self, store: Store, clock: Clock, state: JobState
    ) -> None:
        job = store.submit(new_job()).job
        lease = store.lease(job.id)
        assert lease is not None
        clock.now += 5
        last = Sequences(lease.first_sequence).events(b"completed")
        store.finish(lease, state, outcome=b"outcome", events=last, result=b"a result")
        ended = store.job(job.id)
        assert ended is not None
        assert (ended.state, ended.outcome, ended.finished_at) == (state, b"outcome", clock.now)
        assert store.events(job.id) == last
        assert store.result(job.id) == b"a result"
        assert store.picture("ada", sha256(b"a result")) == b"a result"
        assert store.picture_size("ada", sha256(b"a result")) == 8
        assert store.picture_size("bob", sha256(b"a result")) is None
        blob = store.result_blob(job.id)
        assert blob is not None
        assert store.blob_part(blob, 2, 100) == b"result"
        assert store.lease(job.id) is None

    @pytest.mark.parametrize("state", [state for state in JobState if not state.is_terminal])
    def test_a_job_does_not_end_in_a_state_that_goes_on(self, store: Store, state: JobState) -> None:
        job = store.submit(new_job()).job
        lease = store.lease(job.id)
        assert lease is not None
        with pytest.raises(TransitionError):
            store.finish(lease, state, outcome=b"")
        assert store.job(job.id) == lease.job

    def test_a_job_ends_once(self, store: Store) -> None:
        job = store.submit(new_job()).job
        lease = store.lease(job.id)
        assert lease is not None
        store.finish(lease, JobState.SUCCEEDED, outcome=b"first", result=b"first")
        with pytest.raises(LeaseLostError):
            store.finish(lease, JobState.FAILED, outcome=b"second")
        with pytest.raises(LeaseLostError):
            store.append(lease, [StoredEvent(sequence=lease.first_sequence, data=b"late")])
        # The same end again: the answer to the first call may have been lost.
        store.finish(lease, JobState.SUCCEEDED, outcome=b"second", result=b"second")
        assert store.result(job.id) == b"first"

    def test_the_pictures_of_an_owner_are_not_shown_to_another(self, store: Store) -> None:
        store.submit(new_job(owner="ada"))
        assert store.picture("bob", sha256(b"a painting")) is None
        assert store.picture("ada", sha256(b"paint this")) is None, "a request is no picture"


class TestCancelling:
    def test_a_job_that_never_ran_is_cancelled_at_once(self, store: Store, clock: Clock) -> None:
        job = store.submit(new_job()).job
        assert store.cancel(job.id) is JobState.CANCELLED
        cancelled = store.job(job.id)
        assert cancelled is not None
        assert (cancelled.state, cancelled.finished_at) == (JobState.CANCELLED, clock.now)
        assert store.lease(job.id) is None

    def test_who_runs_a_job_hears_of_its_cancelling_with_the_next_heartbeat(
        self, open_store: Callable[..., Store]
    ) -> None:
        one, other = open_store(lease_seconds=60), open_store(lease_seconds=60)
        job = one.submit(new_job()).job
        lease = one.lease(job.id)
        assert lease is not None
        assert one.heartbeat().cancelled == frozenset()
        assert other.cancel(job.id) is JobState.RUNNING
        assert other.heartbeat().cancelled == frozenset()
        assert one.heartbeat().cancelled == {job.id}
        one.finish(lease, JobState.CANCELLED, outcome=b"", result=b"the best so far")
        assert one.heartbeat().cancelled == frozenset()

    def test_a_waiting_job_that_has_run_is_left_to_whoever_delivers_its_best_picture(self, store: Store) -> None:
        job = store.submit(new_job()).job
        lease = store.lease(job.id)
        assert lease is not None
        store.save_checkpoint(lease, b"the best so far")
        store.release(lease)
        assert store.cancel(job.id) is JobState.QUEUED
        again = store.lease(job.id)
        assert again is not None
        assert again.job.cancel_requested
        assert store.checkpoint(job.id) == b"the best so far"

    def test_an_ended_job_stays_as_it_is(self, store: Store) -> None:
        job = store.submit(new_job()).job
        lease = store.lease(job.id)
        assert lease is not None
        store.finish(lease, JobState.SUCCEEDED, outcome=b"")
        ended = store.job(job.id)
        assert store.cancel(job.id) is JobState.SUCCEEDED
        assert store.job(job.id) == ended


def test_an_owner_sees_their_jobs_newest_first_page_by_page(store: Store) -> None:
    ada = [store.submit(new_job(owner="ada")).job.id for _ in range(5)]
    store.submit(new_job(owner="bob"))
    store.cancel(ada[2])
    first = store.jobs("ada", limit=3)
    rest = store.jobs("ada", before=first[-1].number, limit=3)
    assert [job.id for job in first + rest] == ada[::-1]
    cancelled = store.jobs("ada", states=[JobState.CANCELLED, JobState.FAILED], limit=3)
    assert [job.id for job in cancelled] == [ada[2]]
