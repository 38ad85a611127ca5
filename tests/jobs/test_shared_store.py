"""Jobs of several servers that share a PostgreSQL database."""

import asyncio
import pickle
from collections.abc import AsyncIterator, Callable

import pytest
from nst_service.engine.spec import TransferRequest
from nst_service.jobs import run as run_module
from nst_service.jobs.errors import DoesNotFitError, NotServingError, QuotaExceededError
from nst_service.jobs.events import Queued, SerializedEvent, Started
from nst_service.jobs.job import Job
from nst_service.jobs.quotas import Owner, Quota
from nst_service.lifecycle import JobState
from nst_service.store.errors import StoreUnavailableError
from nst_service.store.records import DisconnectPolicy

from tests.jobs.builders import PlainCodec, read_request, submit
from tests.jobs.cluster import Cluster, Server, Watcher, rounds, until
from tests.store.postgres import Postgres

MakeRequest = Callable[..., TransferRequest]

_ENDLESS = 5000
"""Iterations that no test waits for."""
_KEEP = DisconnectPolicy.KEEP_RUNNING


@pytest.fixture
async def one(cluster: Cluster) -> AsyncIterator[Server]:
    async with cluster.serving() as server:
        yield server


@pytest.fixture
async def other(cluster: Cluster) -> AsyncIterator[Server]:
    async with cluster.serving() as server:
        yield server


async def state(server: Server, job_id: str) -> JobState:
    return (await server.scheduler.views.view(job_id)).stored.state


async def end_of(server: Server, job_id: str) -> JobState:
    """Wait until a job has ended, and return its state."""
    while not (ended := await state(server, job_id)).is_terminal:
        await asyncio.sleep(0.01)
    return ended


async def occupied(server: Server, request: TransferRequest, request_id: str = "busy") -> str:
    """Make a server busy with a job that takes no step, and return the id of the job."""
    server.device.hold()
    job = await submit(server.scheduler, request, request_id=request_id, disconnect_policy=_KEEP)
    assert isinstance(job, Job)
    await until(lambda: job.lease)
    return job.id


async def test_a_job_without_a_request_id_that_waits_for_one_server_runs_on_an_idle_one(
    one: Server, other: Server, make_request: MakeRequest
):
    await occupied(one, make_request(iterations=_ENDLESS))
    waiting = [await submit(one.scheduler, make_request(iterations=2, seed=seed)) for seed in range(3)]
    watchers = [Watcher(one, job.id) for job in waiting]
    for watcher in watchers:
        assert (await watcher.ended()).picture
    assert [await state(one, job.id) for job in waiting] == [JobState.SUCCEEDED] * 3
    assert other.device.steps == 3 * 2


async def test_a_job_without_a_request_id_that_runs_elsewhere_is_cancelled_when_its_call_ends(
    one: Server, other: Server, make_request: MakeRequest
):
    await occupied(one, make_request(iterations=_ENDLESS))
    job = await submit(one.scheduler, make_request(iterations=_ENDLESS))
    watcher = await Watcher(one, job.id).begun()
    await until(lambda: other.device.steps)
    await rounds()
    assert await state(one, job.id) is JobState.RUNNING
    await watcher.leave()
    assert await end_of(one, job.id) is JobState.CANCELLED


async def test_a_job_without_a_request_id_goes_on_while_a_call_on_another_server_follows_it(
    one: Server, other: Server, make_request: MakeRequest
):
    job = await submit(one.scheduler, make_request(iterations=_ENDLESS))
    first = await Watcher(one, job.id).begun()
    second = await Watcher(other, job.id).begun()
    await first.leave()
    await rounds()
    assert await state(one, job.id) is JobState.RUNNING
    await second.leave()
    assert await end_of(one, job.id) is JobState.CANCELLED


async def test_a_job_that_is_followed_through_another_server_goes_on(cluster: Cluster, make_request: MakeRequest):
    async with cluster.serving(reattach_seconds=0.5) as one, cluster.serving() as other:
        job = await submit(one.scheduler, make_request(iterations=_ENDLESS), request_id="one")
        first = await Watcher(one, job.id).begun()
        second = await Watcher(other, job.id).begun()
        await first.leave()
        await rounds(40)
        assert await state(one, job.id) is JobState.RUNNING
        await second.leave()
        assert await end_of(one, job.id) is JobState.CANCELLED


async def test_a_follower_counts_again_after_its_server_was_taken_for_dead(cluster: Cluster, make_request: MakeRequest):
    async with cluster.serving() as one, cluster.serving() as other:
        job = await submit(one.scheduler, make_request(iterations=_ENDLESS), request_id="one")
        await Watcher(other, job.id).begun()
        with other.store._store._database.write() as connection:
            one.store._store._remove_server(connection, other.store._store._server_id)
        while not await one.store.is_followed_elsewhere(job.id):
            await asyncio.sleep(0.01)


@pytest.mark.parametrize("request_id", ["one", None])
async def test_a_job_of_a_dead_server_that_nobody_follows_is_cancelled(
    cluster: Cluster, make_request: MakeRequest, request_id: str | None
):
    async with cluster.serving(lease_seconds=1.0, reattach_seconds=0.5) as survivor, cluster.serving() as dying:
        job = await submit(dying.scheduler, make_request(iterations=_ENDLESS), request_id=request_id)
        await Watcher(dying, job.id).begun()
        await until(lambda: dying.device.steps)
        dying.device.hold()
        die(dying)
        assert await end_of(survivor, job.id) is JobState.CANCELLED


def die(server: Server) -> None:
    """Let the others see a server as if its process had died."""
    server.scheduler._housekeeping.cancel()


async def test_a_job_of_a_dead_server_goes_on_for_a_client_that_reattaches_to_another_server(
    cluster: Cluster, make_request: MakeRequest
):
    async with (
        cluster.serving(lease_seconds=1.0, reattach_seconds=0.5) as survivor,
        cluster.serving() as dying,
    ):
        job = await submit(dying.scheduler, make_request(iterations=40), request_id="one")
        await Watcher(dying, job.id).begun()
        await until(lambda: dying.device.steps)
        dying.device.hold()
        die(dying)
        watcher = await Watcher(survivor, job.id).begun()
        assert (await watcher.ended()).picture
        assert await state(survivor, job.id) is JobState.SUCCEEDED


async def test_the_jobs_that_wait_for_a_server_that_leaves_run_on_one_that_is_busy(
    one: Server, cluster: Cluster, make_request: MakeRequest
):
    busy = await occupied(one, make_request(iterations=3))
    async with cluster.serving() as leaving:
        await occupied(leaving, make_request(iterations=_ENDLESS), "leaving")
        job = await submit(leaving.scheduler, make_request(iterations=3), request_id="waiting", disconnect_policy=_KEEP)
        await leaving.scheduler.drain(0.0)
        await until(lambda: one.scheduler._table.get(job.id))
        leaving.device.release()
    one.device.release()
    for job_id in (busy, job.id):
        assert (await Watcher(one, job_id).ended()).picture


async def test_a_waiting_job_that_is_cancelled_through_another_server_leaves_the_queue(
    one: Server, other: Server, make_request: MakeRequest
):
    for name, server in (("one", one), ("other", other)):
        await occupied(server, make_request(iterations=_ENDLESS), name)
    job = await submit(one.scheduler, make_request(iterations=3), request_id="waiting", disconnect_policy=_KEEP)
    await other.scheduler.cancel(job.id)
    await until(lambda: not one.scheduler.views.queued_jobs)
    assert await state(one, job.id) is JobState.CANCELLED


async def test_a_job_whose_lease_was_given_in_an_answer_that_was_lost_still_runs(
    one: Server, other: Server, make_request: MakeRequest, monkeypatch: pytest.MonkeyPatch
):
    lease, is_lost = one.store._store.lease, False

    def lose_first_answer(job_id: str, **options: bool):
        nonlocal is_lost
        answer = lease(job_id, **options)
        if not is_lost:
            is_lost = True
            raise StoreUnavailableError("the store does not answer")
        return answer

    monkeypatch.setattr(one.store._store, "lease", lose_first_answer)
    job = await submit(one.scheduler, make_request(iterations=3), request_id="one", disconnect_policy=_KEEP)
    watcher = await Watcher(other, job.id).ended()
    assert watcher.picture
    assert sum(isinstance(logged.event, Started) for logged in watcher.events) <= 1


async def test_a_job_that_ends_during_an_outage_of_the_database_runs_once_and_is_delivered_when_it_is_kept(
    cluster: Cluster, postgres: Postgres, make_request: MakeRequest
):
    lease_seconds = 2.0
    async with (
        cluster.serving(lease_seconds=lease_seconds) as one,
        cluster.serving(lease_seconds=lease_seconds) as other,
    ):
        await occupied(one, make_request(iterations=5))
        job = await one.scheduler.views.job_id("busy")
        watcher = await Watcher(one, job).begun()
        postgres.stop()
        one.device.release()
        await until(lambda: one.scheduler._settlement._unsaved)
        await asyncio.sleep(1.5 * lease_seconds)
        assert watcher.picture == b""
        postgres.start()
        assert (await watcher.ended()).picture
        await rounds()
        assert await state(other, job) is JobState.SUCCEEDED
        assert (one.device.steps, other.device.steps) == (5, 0)


async def test_a_server_that_alone_loses_the_database_delivers_what_the_others_have_made_of_its_job(
    cluster: Cluster, make_request: MakeRequest, monkeypatch: pytest.MonkeyPatch
):
    async with cluster.serving() as cut_off, cluster.serving(lease_seconds=1.0) as other:
        job_id = await occupied(cut_off, make_request(iterations=5))
        watcher = await Watcher(cut_off, job_id).begun()
        with monkeypatch.context() as patch:
            for name in ("heartbeat", "finish", "append", "save_checkpoint"):
                patch.setattr(cut_off.store._store, name, fail)
            cut_off.device.release()
            await until(lambda: cut_off.scheduler._settlement._unsaved)
            assert await end_of(other, job_id) is JobState.SUCCEEDED
            assert watcher.picture == b""
        assert (await watcher.ended()).picture == (await Watcher(other, job_id).ended()).picture != b""


def fail(*_: object, **__: object) -> None:
    raise StoreUnavailableError("the store does not answer")


async def test_of_two_requests_at_once_on_two_servers_a_quota_for_one_job_accepts_one(
    one: Server, other: Server, make_request: MakeRequest
):
    one.device.hold()
    other.device.hold()
    for number in range(5):
        owner = Owner(name=f"ann{number}", quota=Quota(jobs=1))
        answers = await asyncio.gather(
            *(
                server.scheduler.submit(
                    read_request(make_request(iterations=2), request_id=name, disconnect_policy=_KEEP),
                    owner=owner,
                    request_id=name,
                )
                for name, server in (("one", one), ("other", other))
            ),
            return_exceptions=True,
        )
        assert {type(answer) for answer in answers} == {Job, QuotaExceededError}, answers


async def test_a_quota_counts_the_jobs_on_every_server_until_they_have_ended(
    one: Server, other: Server, make_request: MakeRequest
):
    owner = Owner(name="ann", quota=Quota(jobs=1))

    async def ask(server: Server, request_id: str) -> str:
        read = read_request(make_request(iterations=2), request_id=request_id, disconnect_policy=_KEEP)
        return (await server.scheduler.submit(read, owner=owner, request_id=request_id)).id

    one.device.hold()
    job_id = await ask(one, "first")
    with pytest.raises(QuotaExceededError) as caught:
        await ask(other, "second")
    assert [str(violation) for violation in caught.value.violations] == ["2 jobs requested, at most 1 accepted"]
    assert await ask(other, "first") == job_id, "a repeated request needs no room"
    one.device.release()
    await Watcher(one, job_id, owner).ended()
    await Watcher(other, await ask(other, "second"), owner).ended()


def kinds(watcher: Watcher) -> set[str]:
    """Return the kinds of the live events that a watcher has got, which the codec of the tests leaves in them."""
    return {pickle.loads(each.event.data) for each in watcher.events[1:] if isinstance(each.event, SerializedEvent)}


async def test_a_call_on_another_server_gets_the_live_events_of_a_running_job(
    one: Server, other: Server, make_request: MakeRequest, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(run_module, "PROGRESS_INTERVAL", 0.0)
    monkeypatch.setattr(PlainCodec, "event", lambda _, logged: pickle.dumps(type(logged.event).__name__))
    request = make_request(iterations=_ENDLESS, preview_every=1)
    job = await submit(one.scheduler, request, request_id="one", disconnect_policy=_KEEP)
    watcher = Watcher(other, job.id)
    await until(lambda: kinds(watcher) >= {"Started", "Progress", "Preview"})
    seen = len(watcher.events)
    await until(lambda: len(watcher.events) > seen + 3)
    sequences = [logged.sequence for logged in watcher.events]
    assert sequences == sorted(set(sequences))
    assert (await other.scheduler.views.view(job.id)).progress is not None
    await one.scheduler.cancel(job.id)
    await watcher.ended()


async def test_calls_that_follow_the_same_job_elsewhere_share_the_reads_of_its_events(
    one: Server, other: Server, make_request: MakeRequest, monkeypatch: pytest.MonkeyPatch
):
    job_id = await occupied(one, make_request(iterations=_ENDLESS))
    watchers = [Watcher(other, job_id) for _ in range(20)]
    for watcher in watchers:
        await watcher.begun()
    history, reads = other.store._store.history, []

    def counted(*arguments: str):
        reads.append(None)
        return history(*arguments)

    monkeypatch.setattr(other.store._store, "history", counted)
    await rounds(20)
    assert 0 < len(reads) < 5 * 20
    for watcher in watchers:
        await watcher.leave()


async def test_a_call_on_another_server_gets_the_place_of_a_waiting_job_in_its_queue(
    one: Server, other: Server, make_request: MakeRequest, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(
        PlainCodec,
        "event",
        lambda _, logged: pickle.dumps(
            logged.event.position if isinstance(logged.event, Queued) else type(logged.event).__name__
        ),
    )
    for name, server in (("one", one), ("other", other)):
        await occupied(server, make_request(iterations=2), name)
    jobs = [
        await submit(one.scheduler, make_request(iterations=2), request_id=f"{n}", disconnect_policy=_KEEP)
        for n in range(3)
    ]
    watcher = Watcher(other, jobs[2].id)
    await until(lambda: 2 in kinds(watcher))
    assert [server.scheduler.views.queued_jobs for server in (one, other)] == [3, 0]
    assert [server.scheduler.views.running_jobs for server in (one, other)] == [1, 1]
    one.device.release()
    await until(lambda: kinds(watcher) >= {0, 1, 2})
    assert (await watcher.ended()).picture


async def test_a_job_that_does_not_fit_an_idle_server_keeps_its_place_in_the_queue_of_another(
    one: Server, other: Server, make_request: MakeRequest, monkeypatch: pytest.MonkeyPatch
):
    attempts = []

    async def refuse(*_: object, **__: object) -> None:
        attempts.append(None)
        raise DoesNotFitError(needed=2, available=1, largest_size=0)

    await occupied(one, make_request(iterations=2))
    monkeypatch.setattr(other.scheduler._planner, "prepare_again", refuse)
    jobs = [
        await submit(one.scheduler, make_request(iterations=2), request_id=f"{n}", disconnect_policy=_KEEP)
        for n in range(3)
    ]
    await until(lambda: len(attempts) >= len(jobs))
    await rounds()
    assert [job.id for job in one.scheduler._table.waiting] == [job.id for job in jobs]
    assert len(attempts) == len(jobs), "a server tries such a job again after a while only"
    one.device.release()
    assert (await Watcher(other, jobs[-1].id).ended()).picture
    assert other.device.steps == 0


async def test_a_quota_counts_a_job_once_that_has_just_moved_to_another_server(
    one: Server, other: Server, make_request: MakeRequest, monkeypatch: pytest.MonkeyPatch
):
    await occupied(one, make_request(iterations=_ENDLESS))
    other.device.hold()
    owner = Owner(name="ann", quota=Quota(jobs=2))

    async def ask(request_id: str) -> None:
        read = read_request(make_request(iterations=2), request_id=request_id, disconnect_policy=_KEEP)
        await one.scheduler.submit(read, owner=owner, request_id=request_id)

    # This server does not learn that another one has taken the job.
    monkeypatch.setattr(one.scheduler, "_leave_to_others", lambda *_: None)
    await ask("first")
    await until(lambda: other.scheduler.views.running_jobs)
    await ask("second")
    with pytest.raises(QuotaExceededError):
        await ask("third")


async def test_each_job_counts_once_while_an_idle_server_takes_jobs_of_another_queue(
    one: Server, other: Server, make_request: MakeRequest
):
    other.device.hold()
    await occupied(one, make_request(iterations=2))
    for number in range(3):
        await submit(one.scheduler, make_request(iterations=2), request_id=f"{number}", disconnect_policy=_KEEP)
    views = [server.scheduler.views for server in (one, other)]
    await until(lambda: [(each.running_jobs, each.queued_jobs) for each in views] == [(1, 2), (1, 0)])
    await rounds()
    assert [(each.running_jobs, each.queued_jobs) for each in views] == [(1, 2), (1, 0)]


async def test_a_call_that_goes_from_server_to_server_gets_no_event_twice_and_sees_the_queue_move(
    one: Server, other: Server, make_request: MakeRequest
):
    for name, server in (("one", one), ("other", other)):
        await occupied(server, make_request(iterations=2), name)
    job = await submit(one.scheduler, make_request(iterations=2), request_id="waiting", disconnect_policy=_KEEP)
    first = Watcher(one, job.id)
    await until(lambda: len(first.events) > 5)
    await one.scheduler.drain(0.0)
    with pytest.raises(NotServingError):
        await first.ended()
    await until(lambda: other.scheduler._table.get(job.id))
    second = await Watcher(other, job.id, after=first.events[-1].sequence).begun()
    assert isinstance(second.events[0].event, Queued | SerializedEvent)
    other.device.release()
    assert (await second.ended()).picture
    sequences = [logged.sequence for watcher in (first, second) for logged in watcher.events]
    assert sequences == sorted(set(sequences))
