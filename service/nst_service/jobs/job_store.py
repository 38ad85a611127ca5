"""An asynchronous interface to the store. Its calls run in threads, and it converts between records and jobs."""

import asyncio
import functools
import logging
import time
from collections.abc import AsyncGenerator, Callable, Collection, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, TypeVar

from nst_service.engine.errors import SnapshotError
from nst_service.engine.optim.snapshot import SerializedSnapshot, Snapshot
from nst_service.engine.sizes import Size
from nst_service.engine.spec import TransferRequest
from nst_service.jobs.codec import Codec
from nst_service.jobs.errors import (
    JobCancelledError,
    JobError,
    StoredFailureError,
    UnknownJobError,
    UnknownPictureError,
)
from nst_service.jobs.events import (
    Accepted,
    Event,
    JobResult,
    Progress,
    Reduced,
    ResultChunk,
    SerializedEvent,
    stored_chunks,
)
from nst_service.jobs.job import Job
from nst_service.jobs.log import ACCEPTED_SEQUENCE, LoggedEvent
from nst_service.jobs.observer import NullObserver, Observer, StoreCalled, guarded
from nst_service.jobs.stored_request import StoredRequest
from nst_service.lifecycle import JobState
from nst_service.store.errors import CorruptBlobError, StoreError
from nst_service.store.records import (
    Blob,
    BlobKind,
    HeartbeatReply,
    Lease,
    LiveEvent,
    NewJob,
    StoredBlob,
    StoredEvent,
    StoredJob,
    Submission,
    Usage,
)
from nst_service.store.store import Store

_log = logging.getLogger(__name__)

_READERS = 2
"""The number of threads that read. A single thread writes what becomes of jobs, in the order of the calls."""

_Result = TypeVar("_Result")


@dataclass(frozen=True, slots=True)
class LeasedJob:
    """A job at the beginning of a run."""

    lease: Lease
    """The lease of the run."""
    snapshot: Snapshot | None
    """The snapshot of the last checkpoint; None if the job starts from the beginning."""


@dataclass(frozen=True, slots=True)
class Live:
    """The latest event of its kind of a job."""

    job: Job
    logged: LoggedEvent


_History = tuple[StoredJob, list[LoggedEvent]]
"""A job with its events."""


class AsyncJobStore:
    """Stores jobs and reads them back. Every method raises what the method of `Store` that it calls raises."""

    def __init__(self, store: Store, codec: Codec, observer: Observer | None = None):
        """Make the interface to a store.

        Args:
            store: the store.
            codec: converts requests, events and outcomes.
            observer: notified of every operation; None for no observer.
        """
        self._store = store
        self._observer = guarded(NullObserver() if observer is None else observer)
        self._codec = codec
        self._writer = ThreadPoolExecutor(1, "nst-store")
        self._readers = ThreadPoolExecutor(_READERS, "nst-read")
        # Neither a slow folder nor a long cleaning may keep the heartbeats of this server from the others.
        self._heart = ThreadPoolExecutor(1, "nst-heartbeat")
        self._cleaner = ThreadPoolExecutor(1, "nst-clean")
        self._reading: dict[str, asyncio.Future[_History | None]] = {}
        """The reads of the events of jobs that are under way, by the ids of the jobs."""
        self._unknown_files = 0

    def picture(self, owner: str, sha256: str) -> bytes | None:
        """Return a picture that an owner has sent or received, or None. This method blocks."""
        return self._store.picture(owner, sha256)

    async def request_bytes(self, job_id: str) -> int:
        """Return the size in bytes of the pictures of the request of a job."""
        return await self._read(self._store.pictures_size, job_id)

    async def picture_bytes(self, owner: str, pictures: Collection[str]) -> int:
        """Return the size in bytes of pictures that an owner has sent or received, given their SHA-256.

        Raises:
            UnknownPictureError: the owner has no such picture.
        """
        return await self._read(self._picture_bytes, owner, pictures)

    async def find(self, owner: str, stored_request: StoredRequest) -> StoredJob | None:
        """Return the job that the same request has led to before, or None."""
        assert stored_request.request_id is not None
        return await self._read(self._store.find, owner, stored_request.request_id, stored_request.digest)

    async def submit(
        self, job: Job, stored_request: StoredRequest, accepted: Accepted, max_unfinished: int | None = None
    ) -> Submission:
        """Store a new job, or find the job of the same request (see `Store.submit`)."""
        return await self._write(self._submit, job, stored_request, accepted, max_unfinished)

    async def unfinished(self, owner: str) -> frozenset[str]:
        """Return the ids of the jobs of an owner that wait or run on any server."""
        return await self._read(self._store.unfinished, owner)

    async def unclaimed(self) -> list[StoredJob]:
        """Return the jobs that this server may claim, in the order of their acceptance."""
        return await self._read(self._store.unclaimed)

    async def claim(self, job_id: str) -> bool:
        """Put an unclaimed job into the queue of this server; return whether it still could be."""
        return await self._write(self._store.claim, job_id)

    async def waiting_elsewhere(self) -> list[str]:
        """Return the ids of the jobs that wait in the queues of other servers, in the order of their acceptance."""
        return await self._read(self._store.waiting_elsewhere)

    async def claim_from_others(self, job_id: str) -> StoredJob | None:
        """Move a job from the queue of another server into the queue of this server (see `Store.claim_from_others`)."""
        return await self._write(self._store.claim_from_others, job_id)

    async def disclaim(self, job_id: str) -> None:
        """Remove a waiting job from the queue of this server, so that another server can claim it."""
        await self._write(self._store.disclaim, job_id)

    async def follow(self, job_id: str) -> None:
        """Record that a call of this server follows a job."""
        await self._write(self._store.follow, job_id)

    async def unfollow(self, job_id: str) -> None:
        """Record that no call of this server follows a job."""
        await self._write(self._store.unfollow, job_id)

    async def followed_elsewhere(self) -> frozenset[str]:
        """Return the ids of those of the jobs of this server that calls of other servers follow."""
        return await self._read(self._store.followed_elsewhere)

    async def publish_live(self, events: Sequence[Live]) -> None:
        """Publish live events to the calls of other servers."""
        await self._write(self._publish_live, events)

    async def live_sequence(self, job_id: str) -> int:
        """Return the largest sequence among the live events of a job; 0 if it has none."""
        live = await self._read(self._store.live_events, [job_id])
        return live[-1].event.sequence if live else 0

    async def progress(self, job_ids: Collection[str]) -> dict[str, SerializedEvent]:
        """Return the latest published Progress of jobs by their ids."""
        live = await self._read(self._store.live_events, job_ids, Progress.__name__)
        return {each.job_id: SerializedEvent(each.event.data) for each in live}

    async def is_followed_elsewhere(self, job_id: str) -> bool:
        """Return whether a call of another server follows a job."""
        return await self._read(self._store.is_followed_elsewhere, job_id)

    async def lease(self, job_id: str) -> LeasedJob | None:
        """Take the lease of a queued job; return None if the job is not queued."""
        return await self._write(self._lease_job, job_id)

    async def append(self, job: Job, logged: LoggedEvent) -> None:
        """Store the next event of a running job."""
        await self._write(self._append, job, logged)

    async def save_checkpoint(self, job: Job, snapshot: Snapshot | SerializedSnapshot) -> None:
        """Store the snapshot of a running job as its checkpoint."""
        await self._write(self._save_checkpoint, job, snapshot)

    async def release(self, job: Job, *, is_lost: bool, stays: bool = False) -> None:
        """End the lease of a job and put the job back into the queue."""
        await self._write(self._store.release, _lease(job), is_lost=is_lost, stays=stays)

    async def save_result(self, job: Job, state: JobState, result: JobResult, sequence: int) -> Sequence[ResultChunk]:
        """End a job that has a picture, and return the chunks of the stored picture.

        Args:
            job: the job.
            state: its terminal state.
            result: its picture.
            sequence: the sequence of the first of its last events.
        """
        await self._write(self._save_result, job, state, result, sequence)
        return self._chunks(_lease(job).job.id, StoredBlob(result.header.sha256, len(result.data)))

    async def save_failure(self, job: Job, state: JobState, error: JobError) -> None:
        """End a job that has no picture."""
        await self._write(self._store.finish, _lease(job), state, outcome=self._codec.failure(error))

    async def fail_queued(self, job_id: str, error: JobError) -> None:
        """End a queued job that cannot be run: as cancelled with a JobCancelledError, else as failed."""
        await self._write(self._fail_queued, job_id, error)

    async def cancel(self, job_id: str) -> JobState | None:
        """Cancel a job as `Store.cancel` does."""
        return await self._write(self._store.cancel, job_id)

    async def heartbeat(self, followed: Collection[str] = ()) -> HeartbeatReply:
        """Send a heartbeat and learn what other servers did with the jobs of this one (see `Store.heartbeat`)."""
        return await self._in(self._heart, self._store.heartbeat, frozenset(followed))

    async def clean(self) -> None:
        """Remove the jobs that exceed the retention, and warn of files that belong to no job."""
        removed = await self._in(self._cleaner, self._store.clean)
        if removed.unknown > self._unknown_files:
            _log.warning("%d files in the folder of the blobs are left alone: no job knows them", removed.unknown)
        self._unknown_files = removed.unknown

    async def usage(self) -> Usage:
        """Return the size of the store."""
        return await self._in(self._cleaner, self._store.usage)

    async def job(self, job_id: str) -> StoredJob | None:
        """Return a job; None for an unknown id."""
        return await self._read(self._store.job, job_id)

    async def job_of_request(self, owner: str, request_id: str) -> StoredJob | None:
        """Return the job of an owner's request id; None for an unknown id."""
        return await self._read(self._store.job_of_request, owner, request_id)

    async def jobs(self, owner: str, states: Collection[JobState], before: int | None, limit: int) -> list[StoredJob]:
        """Return a page of an owner's jobs, newest first."""
        return await self._read(self._store.jobs, owner, states=states, before=before, limit=limit)

    async def request(self, job: StoredJob) -> TransferRequest | None:
        """Return the request of a job; None if the job has been removed."""
        return await self._read(self._request, job)

    async def has_checkpoint(self, job: StoredJob) -> bool:
        """Return whether a job has a checkpoint, even if it is damaged."""
        return await self._read(self._store.has_checkpoint, job.id)

    async def events(self, job_id: str) -> list[LoggedEvent]:
        """Return the stored events of a job except the first, Accepted."""
        return list(map(_logged, await self._read(self._store.events, job_id)))

    async def sizes(self, jobs: Sequence[StoredJob]) -> dict[str, Size]:
        """Return the sizes of the results of jobs by the ids of the jobs."""
        return await self._read(self._sizes, jobs)

    async def replay(self, job: StoredJob, after: int) -> AsyncGenerator[LoggedEvent, None]:
        """Yield the stored events of a job with a larger sequence than `after`, with the chunks of its picture.

        For a job that has not ended they include its live events.

        Raises:
            JobError: the job has ended with this error and without a picture.
        """
        found = await self._shared_history(job.id)
        if found is None:
            return
        # The job may have ended since. Its last events without its picture would make a gap.
        job, events = found
        blob = await self._read(self._store.result_blob, job.id) if job.state.is_terminal else None
        for logged in events if blob is None else _with_chunks(events, self._chunks(job.id, blob)):
            if logged.sequence > after:
                yield logged
        if job.state.is_terminal and blob is None:
            # A job that was cancelled in the queue has no outcome.
            raise StoredFailureError(job.outcome) if job.outcome else JobCancelledError

    async def _shared_history(self, job_id: str) -> _History | None:
        """Read the events of a job once for all calls that ask for them at the same time."""
        reading = self._reading.get(job_id)
        if reading is None:
            reading = self._reading[job_id] = asyncio.ensure_future(self._read(self._history, job_id))
            reading.add_done_callback(functools.partial(self._end_reading, job_id))
        return await asyncio.shield(reading)

    def _end_reading(self, job_id: str, reading: "asyncio.Future[_History | None]") -> None:
        del self._reading[job_id]
        if not reading.cancelled():
            # Every call that has asked may have left meanwhile. Then nobody else looks at the error.
            reading.exception()

    async def close(self) -> None:
        """Release every job that this server still runs, and close the store."""
        try:
            await self._write(self._close)
        finally:
            self._writer.shutdown(wait=False)
            self._readers.shutdown(wait=False)

    async def _write(self, call: Callable[..., _Result], *args: Any, **kwargs: Any) -> _Result:
        return await self._in(self._writer, call, *args, **kwargs)

    async def _read(self, call: Callable[..., _Result], *args: Any, **kwargs: Any) -> _Result:
        return await self._in(self._readers, call, *args, **kwargs)

    async def _in(
        self, threads: ThreadPoolExecutor, call: Callable[..., _Result], *args: Any, **kwargs: Any
    ) -> _Result:
        operation, started = call.__name__.removeprefix("_"), time.monotonic()
        try:
            result = await asyncio.get_running_loop().run_in_executor(threads, functools.partial(call, *args, **kwargs))
        except StoreError as error:
            self._observer.notify(StoreCalled(operation, time.monotonic() - started, error))
            raise
        self._observer.notify(StoreCalled(operation, time.monotonic() - started))
        return result

    # In the threads

    def _history(self, job_id: str) -> _History | None:
        """Return a job with its stored events and, if it has not ended, its live events; None for an unknown job."""
        # Live events are read first, so that every event that is kept and comes before one of them is there, too.
        live = self._store.live_events([job_id])
        found = self._store.history(job_id)
        if found is None:
            return None
        job, stored = found
        events = [] if job.state.is_terminal else [each.event for each in live]
        events = sorted([*events, *stored], key=lambda event: event.sequence)
        return job, [first_event(job), *map(_logged, events)]

    def _close(self) -> None:
        for threads in (self._heart, self._cleaner):
            threads.shutdown(cancel_futures=True)
        self._store.close()

    def _picture_bytes(self, owner: str, pictures: Collection[str]) -> int:
        sizes = {sha256: self._store.picture_size(owner, sha256) for sha256 in pictures}
        for sha256, size in sizes.items():
            if size is None:
                raise UnknownPictureError(sha256)
        return sum(filter(None, sizes.values()))

    def _submit(
        self, job: Job, stored_request: StoredRequest, accepted: Accepted, max_unfinished: int | None
    ) -> Submission:
        digest = stored_request.digest
        pictures = [
            Blob(kind=BlobKind.PICTURE, sha256=sha256, parts=[data]) for sha256, data in stored_request.pictures.items()
        ]
        deadline = None if job.plan.deadline is None else time.time() + job.plan.deadline - time.monotonic()
        return self._store.submit(
            NewJob(
                id=job.id,
                owner=job.owner,
                request_id=stored_request.request_id,
                request_digest=digest,
                disconnect_policy=stored_request.disconnect_policy,
                deadline=deadline,
                accepted_event=self._codec.event(LoggedEvent(ACCEPTED_SEQUENCE, accepted)),
                size=Size(accepted.width, accepted.height),
                blobs=[Blob(kind=BlobKind.REQUEST, sha256=digest, parts=[stored_request.document]), *pictures],
            ),
            max_unfinished=max_unfinished,
        )

    def _lease_job(self, job_id: str) -> LeasedJob | None:
        lease = self._store.lease(job_id)
        if lease is None:
            return None
        try:
            return LeasedJob(lease, self._snapshot(job_id) if lease.epoch > 1 else None)
        except Exception:
            # An unused lease would keep every server from the job as long as this one lives.
            self._store.release(lease, stays=True)
            raise

    def _snapshot(self, job_id: str) -> Snapshot | None:
        try:
            data = self._store.checkpoint(job_id)
            return None if data is None else Snapshot.from_bytes(data)
        except (CorruptBlobError, SnapshotError) as error:
            _log.warning("job %s starts from the beginning: its checkpoint cannot be used: %s", job_id, error)
            return None

    def _fail_queued(self, job_id: str, error: JobError) -> None:
        if lease := self._store.lease(job_id):
            state = JobState.CANCELLED if isinstance(error, JobCancelledError) else JobState.FAILED
            self._store.finish(lease, state, outcome=self._codec.failure(error))

    def _append(self, job: Job, logged: LoggedEvent) -> None:
        event = logged.event
        size = Size(event.width, event.height) if isinstance(event, Reduced) else None
        # Everything that the job stores afterwards has the smaller size.
        self._store.append(_lease(job), [self._stored(logged)], size=size, durable=size is not None)

    def _save_checkpoint(self, job: Job, snapshot: Snapshot | SerializedSnapshot) -> None:
        self._store.save_checkpoint(_lease(job), *snapshot.to_buffers())

    def _save_result(self, job: Job, state: JobState, result: JobResult, sequence: int) -> None:
        last = sequence + 1 + result.chunk_count
        self._store.finish(
            _lease(job),
            state,
            outcome=self._codec.success(result.header, result.completed),
            events=[
                self._stored(LoggedEvent(sequence, result.header)),
                self._stored(LoggedEvent(last, result.completed)),
            ],
            result=result.data,
        )

    def _publish_live(self, events: Sequence[Live]) -> None:
        self._store.publish_live(
            [
                LiveEvent(job_id=live.job.id, kind=type(live.logged.event).__name__, event=self._stored(live.logged))
                for live in events
            ]
        )

    def _stored(self, logged: LoggedEvent) -> StoredEvent:
        return StoredEvent(sequence=logged.sequence, data=self._codec.event(logged))

    def _sizes(self, jobs: Sequence[StoredJob]) -> dict[str, Size]:
        sizes = {job.id: Size(*job.size) for job in jobs if job.size}
        # Release 0.1.0 has accepted or run these jobs. It has no column for the size.
        unknown = [job for job in jobs if not job.size]
        events = self._store.all_events(unknown) if unknown else {}
        return sizes | {job.id: self._last_size(job, events[job.id]) for job in unknown}

    def _last_size(self, job: StoredJob, events: Sequence[StoredEvent]) -> Size:
        """Return the size in the last event of a job that has one."""
        told = [self._codec.result_size(data) for data in (job.accepted_event, *(event.data for event in events))]
        return [size for size in told if size][-1]

    def _chunks(self, job_id: str, blob: StoredBlob) -> list[ResultChunk]:
        """Return the chunks of the picture of a job. No picture is held as a whole while clients read it."""

        def read(offset: int, size: int) -> bytes:
            try:
                return self._store.blob_part(blob, offset, size)
            except CorruptBlobError:
                if self._store.job(job_id) is None:
                    raise UnknownJobError(job_id) from None
                raise

        return list(stored_chunks(blob.size, read))

    def _request(self, job: StoredJob) -> TransferRequest | None:
        document = self._store.request(job.id)
        if document is None:
            return None
        return self._codec.request(document, job.accepted_event, functools.partial(self.picture, job.owner))


def first_event(job: StoredJob) -> LoggedEvent:
    """Return the first event of a job, Accepted."""
    return LoggedEvent(ACCEPTED_SEQUENCE, SerializedEvent(job.accepted_event))


def _logged(event: StoredEvent) -> LoggedEvent:
    return LoggedEvent(event.sequence, SerializedEvent(event.data))


def _with_chunks(events: list[LoggedEvent], chunks: Sequence[Event]) -> list[LoggedEvent]:
    """Insert the chunks of the picture between its header and Completed, with the sequences that they had."""
    *earlier, header, completed = events
    return [
        *earlier,
        header,
        *(LoggedEvent(header.sequence + number, chunk) for number, chunk in enumerate(chunks, 1)),
        completed,
    ]


def _lease(job: Job) -> Lease:
    assert job.lease is not None
    return job.lease
