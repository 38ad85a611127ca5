"""What happens to jobs, from their requests to their ends: all decisions are here, and the facts are in values below.

Everything here belongs to one event loop.
"""

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncGenerator, Sequence

from nst_service.engine.options import Limits
from nst_service.jobs.admission import Admission, PreparedRequest
from nst_service.jobs.availability import Availability
from nst_service.jobs.device_pool import DevicePool
from nst_service.jobs.dispatcher import Dispatcher
from nst_service.jobs.errors import (
    JobCancelledError,
    MovedError,
)
from nst_service.jobs.events import Accepted
from nst_service.jobs.job import Drained, Ended, Job
from nst_service.jobs.job_store import AsyncJobStore
from nst_service.jobs.job_table import JobTable
from nst_service.jobs.log import LoggedEvent
from nst_service.jobs.observer import (
    JobAccepted,
    JobRefused,
    JobResumed,
    NullObserver,
    Observer,
    guarded,
    store_failures_noted,
)
from nst_service.jobs.planner import Planner
from nst_service.jobs.quotas import ANYONE, Owner, QueueLimits
from nst_service.jobs.recovery import Recovery
from nst_service.jobs.settlement import Settlement
from nst_service.jobs.stored_request import ReadRequest
from nst_service.jobs.views import Durability, JobViews
from nst_service.jobs.worker import DeviceWorker
from nst_service.lifecycle import JobState, StopReason
from nst_service.store.errors import StoreError
from nst_service.store.records import DisconnectPolicy, StoredJob

_LAST_STEP_SECONDS = 10.0
"""Seconds that running jobs get to end their step and encode their picture when a drain has no patience left."""
_POLL_SECONDS = 0.5
"""Seconds between two looks into the store for the events of a job that does not run here."""
_HOUSEKEEPING_SECONDS = 1.0
_CLEANING_SECONDS = 60.0
_log = logging.getLogger(__name__)


class Scheduler:
    """Takes jobs on, lets them wait in order, and has each run on a device that has room for it (see `placement`)."""

    def __init__(
        self,
        workers: Sequence[DeviceWorker],
        store: AsyncJobStore,
        *,
        limits: Limits,
        queue_limits: QueueLimits,
        durability: Durability,
        observer: Observer | None = None,
    ):
        """Make a scheduler.

        Args:
            workers: one for each device, all with the same weights.
            store: keeps the jobs.
            limits: what a request may ask for.
            queue_limits: how much may wait and run at once.
            durability: how jobs outlive calls and servers.
            observer: told of every fact of a job's life; None for nobody.
        """
        self.limits = limits
        self.durability = durability
        self.queue_limits = queue_limits
        self._store = store
        self._observer = guarded(NullObserver() if observer is None else observer)
        self._pool = DevicePool(workers, queue_limits.max_running, self._observer)
        self._planner = Planner(self._pool, limits)
        self._table = JobTable()
        self._availability = Availability()
        self._admission = Admission(
            store, self._table, self._pool, self._planner, self._availability, limits=queue_limits
        )
        self._recovery = Recovery(store, self._table, self._planner, durability)
        self._settlement = Settlement(store, self._table, self._observer)
        self.views = JobViews(store, self._table, self._pool)
        """Tells where jobs stand."""
        self.dispatcher = Dispatcher(
            store,
            self._table,
            self._pool,
            self._settlement,
            self._availability,
            observer=self._observer,
            checkpoint_seconds=durability.checkpoint_seconds,
        )
        self._housekeeping: asyncio.Task[None] | None = None

    @property
    def broken(self) -> asyncio.Event:
        """Set when a device has failed, and nothing can be computed on it until the process is another."""
        return self._pool.failed

    async def start(self) -> None:
        """Warm every device up, then take jobs."""
        await self._pool.start()
        await self._keep_in_order()
        await self._adopt()
        self._housekeeping = asyncio.create_task(self._keep_house())
        self._availability.serve()

    # Admission

    async def submit(
        self,
        read: ReadRequest,
        deadline: float | None = None,
        owner: Owner = ANYONE,
        request_id: str | None = None,
        *,
        size: int = 0,
    ) -> Job | StoredJob:
        """Take a job on, or find the one that the same request has led to before.

        Args:
            read: reads what to do; run in a thread.
            deadline: when its result must be delivered, on the clock of `time.monotonic`.
            owner: whose it is.
            request_id: the id in what is read.
            size: bytes of what is read.

        Raises:
            NotServingError: warming up or draining.
            NotPermittedError, QuotaExceededError: see `quotas`.
            QueueFullError: as many jobs wait as may wait, or as many bytes to be read.
            UnknownPictureError: a picture that is named is not there.
            InvalidRequestError: with everything that is wrong.
            RequestConflictError: the request id belongs to another request.
            DoesNotFitError: not every device has enough memory.
            DeadlineTooShortError: it cannot finish by its deadline.
            StoreError: it cannot be kept.
        """
        try:
            async with self._admission.prepared(read, owner, request_id, size) as prepared:
                if isinstance(prepared, StoredJob):
                    return prepared
                # A call that ends now leaves a job behind that nobody follows, not one that is half taken on.
                taking = asyncio.ensure_future(self._take_on(prepared, deadline))
                try:
                    return await asyncio.shield(taking)
                except asyncio.CancelledError:
                    taking.add_done_callback(self._leave_unfollowed)
                    raise
        except Exception as error:
            self._observer.notify(JobRefused(owner.name, error))
            raise

    async def estimate(self, read: ReadRequest, owner: Owner = ANYONE, *, size: int = 0) -> Accepted:
        """Return what a job would begin with, without taking it on; its id is empty.

        Raises:
            NotServingError, QueueFullError, UnknownPictureError, InvalidRequestError, QuotaExceededError,
                DoesNotFitError: as `submit` does.
        """
        return await self._admission.estimate(read, owner, size)

    async def _take_on(self, prepared: PreparedRequest, deadline: float | None) -> Job | StoredJob:
        job = await self._admission.take_on(prepared, deadline)
        if isinstance(job, StoredJob):
            return job
        self._table.waiting.append(job)
        self._observer.notify(JobAccepted(job))
        if self._availability.is_draining:
            # The drain has begun while the job was stored.
            self._evict(job)
        elif job.control.stop_requested:
            # As has been asked for by its request id meanwhile.
            self._stop(job, job.control.stop_requested)
        else:
            self.dispatcher.dispatch()
        return job

    def _leave_unfollowed(self, taking: "asyncio.Task[Job | StoredJob]") -> None:
        if not taking.cancelled() and taking.exception() is None and isinstance(job := taking.result(), Job):
            self._note_unfollowed(job)

    # Following

    async def follow(self, job_id: str, owner: Owner = ANYONE, after: int = 0) -> AsyncGenerator[LoggedEvent, None]:
        """Yield the events of a job with a larger sequence than `after`, those to come included, until it has ended.

        Raises:
            UnknownJobError: no job of this owner has this id.
            NotServingError: the server leaves before the job has ended; it goes on when the server is back.
            JobError: the job has ended so.
        """
        while True:
            if job := self._table.owned(job_id, owner.name):
                job.followers += 1
                job.unfollowed_since = None
                try:
                    async with contextlib.aclosing(job.log.follow(after)) as events:
                        async for logged in events:
                            yield logged
                            after = logged.sequence
                    return
                except MovedError:
                    pass
                finally:
                    job.followers -= 1
                    self._note_unfollowed(job)
            stored = await self.views.stored(job_id, owner)
            async with contextlib.aclosing(self._store.replay(stored, after)) as events:
                async for logged in events:
                    yield logged
                    after = logged.sequence
            if stored.state.is_terminal:
                return
            if self._availability.is_draining:
                self._availability.check()
            if job_id not in self._table:
                await asyncio.sleep(_POLL_SECONDS)

    def _note_unfollowed(self, job: Job) -> None:
        """See what becomes of a job that nobody follows, if that is so."""
        if job.followers or job.end or job.plan.disconnect_policy is DisconnectPolicy.KEEP_RUNNING:
            return
        if job.plan.request_id is None:
            self._stop(job, StopReason.CANCELLED)
        else:
            job.unfollowed_since = time.monotonic()

    # Stopping

    async def cancel(self, job_id: str, owner: Owner = ANYONE) -> JobState:
        """Cancel a job by its id, so that its picture so far is still delivered, and return its state until now.

        Raises:
            UnknownJobError: no job of this owner has this id.
        """
        if job := self._table.owned(job_id, owner.name):
            state = job.state
            self._stop(job, StopReason.CANCELLED)
        else:
            state = (await self.views.stored(job_id, owner)).state
        # So that it stays cancelled should this server die before it ends. Comes after all that is being stored of it.
        await self._store.cancel(job_id)
        return state

    def _stop(self, job: Job, reason: StopReason) -> None:
        job.control.stop_requested = job.control.stop_requested or reason
        # One that ran before goes on to have the picture again that it had.
        if job in self._table.waiting and not job.plan.earlier_runs:
            self._table.waiting.remove(job)
            self._settlement.end(job, Ended(JobState.CANCELLED, JobCancelledError()))
            self.dispatcher.storing.spawn(self._settlement.store_cancelled(job))
            self.dispatcher.dispatch()

    def finish_early(self) -> None:
        """Have the running jobs end after their step.

        Those that can be reattached leave, to go on later; the others end with their best picture so far.
        """
        for job in self._pool.running:
            if job.plan.request_id is None:
                self._stop(job, StopReason.SHUTDOWN)
            else:
                job.control.must_leave = True

    async def drain(self, grace: float) -> bool:
        """Take no more jobs, and give the running ones some seconds to finish.

        A job that can be reattached stays in the store, to go on from its checkpoint when a server is back. Of the
        others, those that wait are sent away, and those that do not finish by then end with their best picture so far,
        or with nothing where even their step does not end: nothing can interrupt a step, and one of a large picture on
        a slow device takes minutes.

        Returns:
            Whether every device is at rest; one that is not is still in its step.
        """
        self._availability.drain()
        for job in list(self._table.waiting):
            self._evict(job)
        at_rest = await self.dispatcher.idle_within(grace)
        if not at_rest:
            self.finish_early()
            at_rest = await self.dispatcher.idle_within(_LAST_STEP_SECONDS)
        self._planner.close()
        if self._housekeeping:
            self._housekeeping.cancel()
        await self.dispatcher.close()
        return at_rest

    async def close(self) -> None:
        """Hand back the jobs that a drain has abandoned. Calls must have ended: the store answers none any more."""
        try:
            await self._store.close()
        except StoreError as error:
            _log.warning("the jobs that still run could not be handed back: %s", error)

    def _evict(self, job: Job) -> None:
        """Let go of a job that waits, for a drain."""
        self._table.waiting.remove(job)
        if job.plan.request_id is None:
            self._settlement.end(job, Drained())
            self.dispatcher.storing.spawn(self._settlement.store_cancelled(job))
        else:
            self._settlement.retire(job, Drained())

    # Recovery and housekeeping

    async def _adopt(self) -> None:
        """Take on the jobs that wait in the store and are not known here."""
        async for job in self._recovery.resumable():
            self._table.add(job)
            self._table.waiting.append(job)
            _log.info("job %s goes on", job.id)
            self._observer.notify(JobResumed(job))
        self.dispatcher.dispatch()

    async def _keep_house(self) -> None:
        cleaned_at = time.monotonic()
        while True:
            await asyncio.sleep(_HOUSEKEEPING_SECONDS)
            await self._keep_in_order()
            if self._availability.is_serving:
                if not self._table.waiting and self._pool.idle_devices:
                    with store_failures_noted(self._observer, "queue"):
                        await self._adopt()
                self.dispatcher.dispatch()
            if time.monotonic() - cleaned_at > _CLEANING_SECONDS:
                with store_failures_noted(self._observer, "clean"):
                    await self._store.clean()
                cleaned_at = time.monotonic()

    async def _keep_in_order(self) -> None:
        for job in self._table.unfollowed(time.monotonic() - self.durability.reattach_seconds):
            self._stop(job, StopReason.CANCELLED)
        with store_failures_noted(self._observer, "heartbeat"):
            pulse = await self._store.heartbeat()
            for job in filter(None, map(self._table.get, pulse.cancelled)):
                self._stop(job, StopReason.CANCELLED)
        with store_failures_noted(self._observer, "settle"):
            await self._settlement.retry()
