"""The sizes of results, which are in the events for jobs of 0.1.0, and leases whose snapshots cannot be read."""

import asyncio
import pickle
import threading
from collections.abc import AsyncIterator
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest
from nst_service.engine.sizes import Size
from nst_service.jobs.events import Event, Reduced, ResultChunk, SerializedEvent, Started
from nst_service.jobs.job import Job
from nst_service.jobs.job_store import AsyncJobStore
from nst_service.jobs.log import LoggedEvent
from nst_service.lifecycle import JobState
from nst_service.store.errors import StoreUnavailableError
from nst_service.store.records import Lease, Removed
from nst_service.store.store import Store

from tests.jobs.builders import PlainCodec, make_result
from tests.store.builders import Place, new_job
from tests.store.release_0_1_0 import Release010

_SIZE, _SMALLER = Size(96, 64), Size(48, 32)


class _CountingCodec(PlainCodec):
    """Counts the events that are parsed to find a size."""

    parsed = 0

    def result_size(self, event: bytes) -> Size | None:
        self.parsed += 1
        return super().result_size(event)


@pytest.fixture
def codec() -> _CountingCodec:
    return _CountingCodec()


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Place(tmp_path, None).open()


@pytest.fixture
async def job_store(store: Store, codec: _CountingCodec) -> AsyncIterator[AsyncJobStore]:
    job_store = AsyncJobStore(store, codec)
    yield job_store
    await job_store.close()


@pytest.fixture
def older(store: Store) -> Release010:
    """A server of 0.1.0 on the database of the store."""
    return Release010(store._database)


def _submit(store: Store) -> str:
    return store.submit(new_job(accepted_event=pickle.dumps(_SIZE), size=_SIZE)).job.id


async def _append(job_store: AsyncJobStore, lease: Lease | None, *events: Event) -> None:
    assert lease is not None
    job = cast(Job, SimpleNamespace(lease=lease))
    for sequence, event in enumerate(events, lease.first_sequence):
        await job_store.append(job, LoggedEvent(sequence, event))


async def _sizes(job_store: AsyncJobStore, *job_ids: str) -> list[Size]:
    jobs = [await job_store.job(job_id) for job_id in job_ids]
    sizes = await job_store.sizes([job for job in jobs if job])
    return [sizes[job_id] for job_id in job_ids]


_STARTED = Started(device="cpu", queued_seconds=0.0)
_REDUCED = Reduced(width=_SMALLER[0], height=_SMALLER[1])


async def test_the_size_of_a_job_is_its_last_one_and_no_event_is_parsed_for_it(
    job_store: AsyncJobStore, store: Store, codec: _CountingCodec
) -> None:
    whole, reduced = _submit(store), _submit(store)
    await _append(job_store, store.lease(whole), _STARTED)
    await _append(job_store, store.lease(reduced), _STARTED, _REDUCED)
    assert await _sizes(job_store, whole, reduced) == [_SIZE, _SMALLER]
    assert codec.parsed == 0


async def test_the_events_tell_the_size_of_a_job_that_0_1_0_has_accepted(
    job_store: AsyncJobStore, store: Store, older: Release010
) -> None:
    for job_id in ("waiting", "reduced", "taken over"):
        older.submit(job_id, pickle.dumps(_SIZE))
    older.append(older.lease("reduced"), pickle.dumps(_SMALLER))
    await _append(job_store, store.lease("taken over"), _STARTED)
    assert await _sizes(job_store, "waiting", "reduced", "taken over") == [_SIZE, _SMALLER, _SIZE]
    await _append(job_store, store.lease("waiting"), _REDUCED)
    assert await _sizes(job_store, "waiting") == [_SMALLER]


async def test_a_size_that_0_1_0_has_changed_is_right_wherever_the_job_goes_on(
    job_store: AsyncJobStore, store: Store, older: Release010
) -> None:
    ended, taken_back = _submit(store), _submit(store)
    for job_id in (ended, taken_back):
        row = older.lease(job_id)
        assert await _sizes(job_store, job_id) == [_SIZE]
        older.append(row, pickle.dumps(_SMALLER))
        assert await _sizes(job_store, job_id) == [_SMALLER]
        older.finish(row) if job_id == ended else older.release(row)
    await _append(job_store, store.lease(taken_back), _STARTED)
    assert await _sizes(job_store, ended, taken_back) == [_SMALLER, _SMALLER]


@pytest.mark.parametrize(
    "error", [StoreUnavailableError("the store does not answer"), MemoryError(), ZeroDivisionError()]
)
async def test_a_job_whose_checkpoint_cannot_be_read_now_is_not_leased(
    job_store: AsyncJobStore, store: Store, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def fail(_: str) -> bytes:
        raise error

    job_id = _submit(store)
    lease = store.lease(job_id)
    assert lease
    store.release(lease)
    monkeypatch.setattr(store, "checkpoint", fail)
    with pytest.raises(type(error)):
        await job_store.lease(job_id)
    job = await job_store.job(job_id)
    assert job
    assert job.state is JobState.QUEUED


@pytest.mark.parametrize("name", ["submit", "clean"])
async def test_heartbeats_do_not_wait_for_what_else_the_store_does(
    job_store: AsyncJobStore, store: Store, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    is_called, released = threading.Event(), threading.Event()

    def hold(*_: object) -> Removed:
        is_called.set()
        released.wait(60)
        return Removed(jobs=0, blobs=0, unknown=0)

    monkeypatch.setattr(store, name, hold)
    slow = asyncio.create_task(job_store._write(store.submit) if name == "submit" else job_store.clean())
    await asyncio.to_thread(is_called.wait)
    async with asyncio.timeout(60):
        await job_store.heartbeat()
    assert not slow.done()
    released.set()
    await slow


async def test_the_events_of_a_job_that_ends_while_they_are_read_have_its_whole_picture(
    job_store: AsyncJobStore, store: Store
) -> None:
    job_id, result = _submit(store), make_result()
    lease = store.lease(job_id)
    assert lease is not None
    running = await job_store.job(job_id)
    assert running is not None
    job = cast(Job, SimpleNamespace(lease=lease))
    await job_store.save_result(job, JobState.SUCCEEDED, result, lease.first_sequence)
    replayed = [logged.event async for logged in job_store.replay(running, after=1)]
    assert [type(event) for event in replayed] == [SerializedEvent, ResultChunk, SerializedEvent]
