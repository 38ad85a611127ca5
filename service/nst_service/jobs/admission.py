"""The admission of requests: a request is read, checked, planned and stored before it becomes a job."""

import contextlib
import functools
from collections.abc import AsyncIterator, Callable, Collection
from dataclasses import dataclass
from typing import Any, TypeVar

from nst_service.engine.outline import TransferOutline
from nst_service.jobs.availability import Availability
from nst_service.jobs.device_pool import DevicePool
from nst_service.jobs.errors import DeadlineTooShortError, QueueFullError
from nst_service.jobs.events import Accepted
from nst_service.jobs.job import Job
from nst_service.jobs.job_store import AsyncJobStore
from nst_service.jobs.job_table import JobTable
from nst_service.jobs.planner import Planner, accepted
from nst_service.jobs.queue_limits import PendingBytes, QueueLimits
from nst_service.jobs.quotas import Owner, check_jobs, too_many_jobs
from nst_service.jobs.stored_request import ReadRequest, StoredRequest
from nst_service.store.errors import UnfinishedJobsError
from nst_service.store.records import StoredJob

_Result = TypeVar("_Result")


@dataclass(frozen=True, slots=True)
class PreparedRequest:
    """A request that is valid and fits the devices."""

    request: StoredRequest
    outline: TransferOutline
    owner: Owner


class Admission:
    """Makes jobs from requests, or refuses them. It reads the queue and the devices, and changes neither."""

    def __init__(
        self,
        store: AsyncJobStore,
        table: JobTable,
        pool: DevicePool,
        planner: Planner,
        availability: Availability,
        *,
        limits: QueueLimits,
        is_alone: bool,
    ):
        """Make the admission of a server.

        Args:
            store: stores the jobs.
            table: the jobs and the queue of the server.
            pool: the devices.
            planner: makes jobs from requests.
            availability: tells whether the server accepts jobs.
            limits: the limits of the queue.
            is_alone: whether no other server shares the store.
        """
        self._store = store
        self._table = table
        self._pool = pool
        self._planner = planner
        self._availability = availability
        self._is_alone = is_alone
        self._max_queued = limits.max_queued
        self.pending = PendingBytes(limits.max_pending_bytes)
        """The bytes of the requests that are not jobs yet."""

    @contextlib.asynccontextmanager
    async def prepared(
        self, read: ReadRequest, owner: Owner, request_id: str | None, size: int, named: Collection[str] = ()
    ) -> AsyncIterator[PreparedRequest | StoredJob]:
        """Read and check a request, or find the job that the same request has led to before.

        Until the context ends, the request counts as a waiting job. See `Scheduler.submit` for the arguments and the
        errors.
        """
        self._availability.check()
        async with self._held(size, named, owner):
            request: StoredRequest | None = None
            if named:
                # Nothing is read from the store for a job that has no room.
                await self._check_room_for(request_id, owner)
            if request_id is not None:
                # A repeated request needs no room, because its job exists already.
                request = await self._read(read, owner)
                if request.request_id != request_id:
                    raise ValueError(f"the request has the id {request.request_id!r}, and not {request_id!r}")
                if found := await self._store.find(owner.name, request):
                    yield found
                    return
            await self._check_room(owner)
            with self._table.admitting(owner.name):
                request = request or await self._read(read, owner)
                outline = await self._planner.prepare(request.request, owner)
                self._availability.check()
                yield PreparedRequest(request, outline, owner)

    async def estimate(self, read: ReadRequest, owner: Owner, size: int, named: Collection[str] = ()) -> Accepted:
        """Return the first event of the job that a request would lead to; its id is empty."""
        async with self._held(size, named, owner):
            request = await self._read(read, owner)
            self._availability.check()
            outline = await self._planner.outline(request.request, owner)
        job = self._planner.plan(outline)
        return accepted(job, self._pool.forecast([*self._table.waiting, job])[-1], job_id="")

    async def accept(self, prepared: PreparedRequest, deadline: float | None) -> Job | StoredJob:
        """Store a request as a new job with its first event, or find the job of the same request.

        Raises:
            QuotaExceededError: the owner has started too many jobs on other servers meanwhile.
            DeadlineTooShortError: the job cannot finish by its deadline.
            StoreError: the job cannot be stored.
        """
        request = prepared.request
        job = self._planner.plan(
            prepared.outline,
            owner=prepared.owner.name,
            request_id=request.request_id,
            disconnect_policy=request.disconnect_policy,
            deadline=deadline,
        )
        span = self._pool.forecast([*self._table.waiting, job])[-1]
        seconds = span.end + self._pool.seconds_to_next_turn()
        if deadline is not None and job.plan.accepted_at + seconds > deadline:
            raise DeadlineTooShortError(seconds, max(0.0, deadline - job.plan.accepted_at))
        event = accepted(job, span, job_id=job.id)
        self._table.add(job)
        try:
            submission = await self._store.submit(
                job, request, event, None if self._is_alone else prepared.owner.quota.jobs
            )
        except UnfinishedJobsError as error:
            self._table.remove(job)
            raise too_many_jobs(prepared.owner, error.held, error.accepted) from error
        except BaseException:
            self._table.remove(job)
            raise
        if not submission.created:
            self._table.remove(job)
            return submission.job
        job.log.append(event)
        return job

    @contextlib.asynccontextmanager
    async def _held(self, size: int, named: Collection[str], owner: Owner) -> AsyncIterator[None]:
        """Count the bytes of a request and of the pictures that it names until the context ends.

        Raises:
            QueueFullError: there is no room for them.
            UnknownPictureError: the owner has no picture with one of the SHA-256.
        """
        if not named:
            with self.pending.hold(size):
                yield
            return
        with self.pending.shared.hold(size):
            total = size + await self._store.picture_bytes(owner.name, named)
        async with self.pending.turn(total, owner.name):
            yield

    async def _check_room_for(self, request_id: str | None, owner: Owner) -> None:
        """Check that there is room for a job, unless the request may have led to one before."""
        if request_id is None or not (
            self._table.of_request(owner.name, request_id) or await self._store.job_of_request(owner.name, request_id)
        ):
            await self._check_room(owner)

    async def _check_room(self, owner: Owner) -> None:
        # Nothing is decoded for an owner who has too many jobs already. `accept` counts once more, with all servers.
        elsewhere = 0
        if not self._is_alone and owner.quota.jobs:
            # A job that another server has just taken may still be in the table, too.
            elsewhere = sum(job_id not in self._table for job_id in await self._store.unfinished(owner.name))
        check_jobs(owner, elsewhere + self._table.held(owner.name, self._pool.running))
        waiting = self._table.queue_length
        if waiting >= self._max_queued + self._pool.idle_devices:
            raise QueueFullError(f"{waiting} jobs", self._pool.retry_after(self._table.waiting))

    async def _read(self, read: ReadRequest, owner: Owner) -> StoredRequest:
        return await self._in_thread(read, functools.partial(self._store.picture, owner.name))

    async def _in_thread(self, call: Callable[..., _Result], *args: Any) -> _Result:
        """Run a part of the admission in a thread, unless a drain begins before the thread is free."""

        def work() -> _Result:
            self._availability.check()
            return call(*args)

        self._availability.check()
        return await self._planner.in_thread(work)
