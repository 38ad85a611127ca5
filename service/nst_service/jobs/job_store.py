"""The jobs in the store, for an event loop: every call to the store runs in a thread of its own."""

import asyncio
import functools
import logging
import time
from collections.abc import AsyncGenerator, Callable, Collection, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, TypeVar

from nst_service.engine.errors import SnapshotError
from nst_service.engine.optim.snapshot import Snapshot
from nst_service.engine.sizes import Size
from nst_service.engine.spec import TransferRequest
from nst_service.jobs.codec import Codec
from nst_service.jobs.errors import JobCancelledError, JobError, RecordedFailureError
from nst_service.jobs.events import Accepted, Delivery, Event, Recorded, Reduced, result_chunks
from nst_service.jobs.job import Job
from nst_service.jobs.log import ACCEPTED_SEQUENCE, LoggedEvent
from nst_service.jobs.stored_request import StoredRequest
from nst_service.lifecycle import JobState
from nst_service.store.errors import CorruptBlobError, StoreError
from nst_service.store.records import Blob, BlobKind, Lease, NewJob, Pulse, StoredEvent, StoredJob, Submission
from nst_service.store.store import Store

_log = logging.getLogger(__name__)

_READERS = 2
"""Threads that read; one writes, so that what is written comes in the order in which it was asked for."""

_Result = TypeVar("_Result")


@dataclass(frozen=True, slots=True)
class LeasedJob:
    """What a job begins a run with."""

    lease: Lease
    snapshot: Snapshot | None
    """Where it goes on; None where it begins anew."""


class AsyncJobStore:
    """Keeps jobs in a store. Every method may raise what the method of the store does that it stands for."""

    def __init__(self, store: Store, codec: Codec):
        self._store = store
        self._codec = codec
        self._writer = ThreadPoolExecutor(1, "nst-store")
        self._readers = ThreadPoolExecutor(_READERS, "nst-read")

    def picture(self, owner: str, sha256: str) -> bytes | None:
        """Return a picture that an owner has sent or received. Blocks."""
        return self._store.picture(owner, sha256)

    async def find(self, owner: str, stored_request: StoredRequest) -> StoredJob | None:
        """Return the job that the same request has led to before."""
        assert stored_request.request_id is not None
        return await self._read(self._store.find, owner, stored_request.request_id, stored_request.digest)

    async def submit(self, job: Job, stored_request: StoredRequest, accepted: Accepted) -> Submission:
        """Keep a job, or find the one that the same request has led to before."""
        return await self._write(self._submit, job, stored_request, accepted)

    async def lease(self, job_id: str) -> LeasedJob | None:
        """Begin to run a job; None where it does not wait."""
        return await self._write(self._begin_run, job_id)

    async def append(self, job: Job, logged: LoggedEvent) -> None:
        """Keep an event of a job that runs."""
        await self._write(self._append, job, logged)

    async def save_checkpoint(self, job: Job, snapshot: Snapshot) -> None:
        """Keep where a job stands."""
        await self._write(self._save_checkpoint, job, snapshot)

    async def release(self, job: Job, *, is_lost: bool) -> None:
        """Put a job back into the queue."""
        await self._write(self._store.release, _lease(job), is_lost=is_lost)

    async def save_result(self, job: Job, state: JobState, delivery: Delivery, sequence: int) -> None:
        """Keep the picture of a job and how it ended; its last events have sequences from `sequence` on."""
        await self._write(self._save_result, job, state, delivery, sequence)

    async def save_failure(self, job: Job, state: JobState, error: JobError) -> None:
        """Keep how a job without a picture ended."""
        await self._write(self._store.finish, _lease(job), state, outcome=self._codec.failure(error))

    async def fail_queued(self, job_id: str, error: JobError) -> None:
        """End a job that waits and cannot be run."""
        await self._write(self._fail_queued, job_id, error)

    async def cancel(self, job_id: str) -> JobState | None:
        """Cancel a job that has never run, or note that it is to be cancelled."""
        return await self._write(self._store.cancel, job_id)

    async def heartbeat(self) -> Pulse:
        """Show that this server lives, and hear what is to be cancelled."""
        return await self._write(self._store.heartbeat)

    async def clean(self) -> None:
        """Remove what is kept no longer."""
        await self._write(self._store.clean)

    async def queue(self) -> list[StoredJob]:
        """Return the jobs that wait."""
        return await self._read(self._store.queue)

    async def job(self, job_id: str) -> StoredJob | None:
        """Return a job."""
        return await self._read(self._store.job, job_id)

    async def job_of_request(self, owner: str, request_id: str) -> StoredJob | None:
        """Return the job that an owner's request with this id has led to."""
        return await self._read(self._store.job_of_request, owner, request_id)

    async def jobs(self, owner: str, states: Collection[JobState], before: int | None, limit: int) -> list[StoredJob]:
        """Return a page of an owner's jobs."""
        return await self._read(self._store.jobs, owner, states=states, before=before, limit=limit)

    async def request(self, job: StoredJob) -> TransferRequest | None:
        """Return what was asked for; None where it is not there."""
        return await self._read(self._request, job)

    async def events(self, job_id: str) -> list[LoggedEvent]:
        """Return the events of a job but the first."""
        stored = await self._read(self._store.events, job_id)
        return [LoggedEvent(event.sequence, Recorded(event.data)) for event in stored]

    async def sizes(self, jobs: Sequence[StoredJob]) -> dict[str, Size]:
        """Return the sizes of the results of jobs that their kept events tell last, by the ids of the jobs."""
        return await self._read(self._sizes, jobs)

    async def replay(self, job: StoredJob, after: int) -> AsyncGenerator[LoggedEvent, None]:
        """Yield what is kept of a job's events with a larger sequence than `after`, its picture included.

        Raises:
            JobError: it ended so, without a picture.
        """
        events = [first_event(job), *await self.events(job.id)]
        data = await self._read(self._store.result, job.id) if job.state.is_terminal else None
        for logged in _with_chunks(events, data) if data is not None else events:
            if logged.sequence > after:
                yield logged
        if job.state.is_terminal and data is None:
            # One that was cancelled in the queue says nothing more.
            raise RecordedFailureError(job.outcome) if job.outcome else JobCancelledError

    async def close(self) -> None:
        """Hand back every job that still runs."""
        try:
            await self._write(self._store.close)
        finally:
            self._writer.shutdown(wait=False)
            self._readers.shutdown(wait=False)

    async def _write(self, call: Callable[..., _Result], *args: Any, **kwargs: Any) -> _Result:
        return await asyncio.get_running_loop().run_in_executor(self._writer, functools.partial(call, *args, **kwargs))

    async def _read(self, call: Callable[..., _Result], *args: Any, **kwargs: Any) -> _Result:
        return await asyncio.get_running_loop().run_in_executor(self._readers, functools.partial(call, *args, **kwargs))

    # In a thread

    def _submit(self, job: Job, stored_request: StoredRequest, accepted: Accepted) -> Submission:
        digest = stored_request.digest
        pictures = [
            Blob(kind=BlobKind.PICTURE, sha256=sha256, parts=[data]) for sha256, data in stored_request.pictures.items()
        ]
        deadline = None if job.deadline is None else time.time() + job.deadline - time.monotonic()
        return self._store.submit(
            NewJob(
                id=job.id,
                owner=job.owner,
                request_id=stored_request.request_id,
                request_digest=digest,
                disconnect_policy=stored_request.disconnect_policy,
                deadline=deadline,
                accepted_event=self._codec.event(LoggedEvent(ACCEPTED_SEQUENCE, accepted)),
                size=(accepted.width, accepted.height),
                blobs=[Blob(kind=BlobKind.REQUEST, sha256=digest, parts=[stored_request.document]), *pictures],
            )
        )

    def _begin_run(self, job_id: str) -> LeasedJob | None:
        lease = self._store.lease(job_id)
        if lease is None:
            return None
        try:
            return LeasedJob(lease, self._snapshot(job_id) if lease.epoch > 1 else None)
        except StoreError:
            # A lease that nobody uses would keep everybody from the job for as long as this server lives.
            self._store.release(lease)
            raise

    def _snapshot(self, job_id: str) -> Snapshot | None:
        try:
            data = self._store.checkpoint(job_id)
            return None if data is None else Snapshot.from_bytes(data)
        except (CorruptBlobError, SnapshotError) as error:
            _log.warning("job %s begins anew: its checkpoint cannot be used: %s", job_id, error)
            return None

    def _fail_queued(self, job_id: str, error: JobError) -> None:
        if lease := self._store.lease(job_id):
            self._store.finish(lease, JobState.FAILED, outcome=self._codec.failure(error))

    def _append(self, job: Job, logged: LoggedEvent) -> None:
        event = logged.event
        size = (event.width, event.height) if isinstance(event, Reduced) else None
        # All that comes after a smaller size is of that size.
        self._store.append(_lease(job), [self._stored(logged)], size=size, durable=size is not None)

    def _save_checkpoint(self, job: Job, snapshot: Snapshot) -> None:
        self._store.save_checkpoint(_lease(job), *snapshot.to_buffers())

    def _save_result(self, job: Job, state: JobState, delivery: Delivery, sequence: int) -> None:
        last = sequence + 1 + delivery.chunk_count
        self._store.finish(
            _lease(job),
            state,
            outcome=self._codec.success(delivery.header, delivery.completed),
            events=[
                self._stored(LoggedEvent(sequence, delivery.header)),
                self._stored(LoggedEvent(last, delivery.completed)),
            ],
            result=delivery.data,
        )

    def _stored(self, logged: LoggedEvent) -> StoredEvent:
        return StoredEvent(sequence=logged.sequence, data=self._codec.event(logged))

    def _sizes(self, jobs: Sequence[StoredJob]) -> dict[str, Size]:
        sizes = {job.id: Size(*job.size) for job in jobs if job.size}
        unknown = [job for job in jobs if not job.size]
        events = self._store.all_events(unknown) if unknown else {}
        return sizes | {job.id: self._told_size(job, events[job.id]) for job in unknown}

    def _told_size(self, job: StoredJob, events: Sequence[StoredEvent]) -> Size:
        """Return the size that the events of a job tell last."""
        told = [self._codec.size(data) for data in (job.accepted_event, *(event.data for event in events))]
        return [size for size in told if size][-1]

    def _request(self, job: StoredJob) -> TransferRequest | None:
        document = self._store.request(job.id)
        if document is None:
            return None
        return self._codec.request(document, functools.partial(self.picture, job.owner))


def first_event(job: StoredJob) -> LoggedEvent:
    """Return the Accepted of a job."""
    return LoggedEvent(ACCEPTED_SEQUENCE, Recorded(job.accepted_event))


def _with_chunks(events: list[LoggedEvent], data: bytes) -> list[LoggedEvent]:
    """Put the picture between its header and Completed, as it came when it was finished."""
    *earlier, header, completed = events
    chunks: list[Event] = list(result_chunks(data))
    return [
        *earlier,
        header,
        *(LoggedEvent(header.sequence + number, chunk) for number, chunk in enumerate(chunks, 1)),
        completed,
    ]


def _lease(job: Job) -> Lease:
    assert job.lease is not None
    return job.lease
