"""The scheduler decides what happens to jobs, from their requests to their ends.

The facts are in values below it, which call nothing above them. Everything here belongs to one event loop.
"""

import asyncio
import contextlib
import functools
import logging
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Collection, Sequence

from nst_service.engine.options import Limits
from nst_service.jobs.admission import Admission, PreparedRequest
from nst_service.jobs.autoscaling import Autoscaler
from nst_service.jobs.availability import Availability
from nst_service.jobs.background import BackgroundTasks
from nst_service.jobs.decoders import DecoderLimits, Decoders
from nst_service.jobs.device import Device
from nst_service.jobs.device_pool import DevicePool
from nst_service.jobs.dispatcher import Dispatcher
from nst_service.jobs.errors import JobCancelledError, MovedError, NotServingError, Unavailability
from nst_service.jobs.events import Accepted
from nst_service.jobs.followers import Followers, may_be_abandoned
from nst_service.jobs.gauges import Gauges
from nst_service.jobs.job import Drained, Ended, Job, Moved
from nst_service.jobs.job_store import AsyncJobStore
from nst_service.jobs.job_table import JobTable
from nst_service.jobs.live import LivePublisher
from nst_service.jobs.log import LoggedEvent
from nst_service.jobs.observer import (
    DrainBegan,
    DrainEnded,
    JobAccepted,
    JobRefused,
    JobResumed,
    NullObserver,
    Observer,
    StoreMeasured,
    guarded,
    store_failures_noted,
)
from nst_service.jobs.planner import Planner
from nst_service.jobs.queue_limits import PendingBytes, QueueLimits
from nst_service.jobs.quotas import ANYONE, Owner
from nst_service.jobs.recovery import Recovery
from nst_service.jobs.settlement import Settlement
from nst_service.jobs.stored_request import ReadRequest
from nst_service.jobs.views import Durability, JobViews
from nst_service.lifecycle import JobState, StopReason
from nst_service.store.errors import StoreError
from nst_service.store.records import DisconnectPolicy, StoredJob, first_sequence

_LAST_STEP_SECONDS = 8.0
"""Seconds that running jobs get after the grace period of a drain, to end their step and encode their picture."""
_STORE_SECONDS = 1.0
"""Seconds that a store then gets at least to keep what has ended. It also gets those that the last steps leave."""
_LIVE_SECONDS = 0.4
"""Seconds between two looks for live events that calls on other servers may want."""
_POLL_SECONDS = 0.4
"""Seconds between two reads of the events of a job that does not run here."""
_HOUSEKEEPING_SECONDS = 1.0
"""Seconds between two rounds of housekeeping."""
_CLEANING_SECONDS = 60.0
"""Seconds between two cleanings of the store."""

_log = logging.getLogger(__name__)


class Scheduler:
    """Accepts jobs, queues them in the order of their arrival, and runs each on a device with room for it."""

    def __init__(
        self,
        devices: Sequence[Device],
        store: AsyncJobStore,
        *,
        limits: Limits,
        queue_limits: QueueLimits,
        decoder_limits: DecoderLimits,
        durability: Durability,
        observer: Observer | None = None,
    ):
        """Make a scheduler.

        Args:
            devices: the devices, all with the same weights.
            store: stores the jobs.
            limits: the limits of a request.
            queue_limits: the limits of what waits and runs at once.
            decoder_limits: the limits of decoding.
            durability: how jobs outlive calls and servers.
            observer: notified of every fact of a job's life; None for no observer.
        """
        self.limits = limits
        self.durability = durability
        self.queue_limits = queue_limits
        self._store = store
        self._observer = guarded(NullObserver() if observer is None else observer)
        self._pool = DevicePool(devices, queue_limits.max_running, self._observer)
        decoders = Decoders(decoder_limits)
        self._planner = Planner(self._pool, limits, decoders, max_picture_bytes=queue_limits.max_picture_bytes)
        self._decoders = decoders
        self._table = JobTable()
        self._live = LivePublisher(store, self._table)
        self._availability = Availability()
        self._admission = Admission(
            store,
            self._table,
            self._pool,
            self._planner,
            self._availability,
            limits=queue_limits,
            is_alone=durability.is_alone,
        )
        self._storing = storing = BackgroundTasks()
        self._followers = Followers(
            store,
            storing,
            self._observer,
            reattach_seconds=durability.reattach_seconds,
            is_alone=durability.is_alone,
        )
        self._recovery = Recovery(store, self._table, self._planner, followers=self._followers, observer=self._observer)
        self._settlement = Settlement(store, self._table, storing, self._observer, is_alone=durability.is_alone)
        self.dispatcher = Dispatcher(
            store,
            self._table,
            self._pool,
            self._settlement,
            self._availability,
            planner=self._planner,
            storing=storing,
            observer=self._observer,
            checkpoint_seconds=durability.checkpoint_seconds,
            max_picture_bytes=queue_limits.max_picture_bytes,
            pending=self._admission.pending,
        )
        self.views = JobViews(store, self._table, self._pool)
        """Finds jobs and tells their progress."""
        self.gauges = Gauges(self._table, self._pool, self._availability, self._followers)
        """Reads the present state of the server."""
        self._autoscaling: Callable[[], Awaitable[None]] | None = None
        self._starting = BackgroundTasks()
        self._housekeeping = BackgroundTasks()

    @property
    def device_failed(self) -> asyncio.Event:
        """Set when every device has failed. Only a new process can compute on them again."""
        return self._pool.failed

    @property
    def devices_ready(self) -> asyncio.Event:
        """Set while at least one device can run jobs."""
        return self._pool.ready

    @property
    def devices_lost(self) -> asyncio.Event:
        """Set while no device can run jobs, once one could. The jobs wait meanwhile."""
        return self._pool.lost

    def add_device(self, device: Device) -> None:
        """Add a device with the same weights. It runs jobs as soon as it is warm."""
        self._pool.add(device)

    async def remove_device(self, name: str) -> None:
        """Remove a device. Its jobs leave it after their present steps, and go on elsewhere from there.

        Raises:
            ValueError: no device has this name.
        """
        await self._pool.remove(name)

    async def start(self) -> None:
        """Warm up every device and a decoder, go on with the jobs of the store, then accept new jobs.

        A drain that begins meanwhile ends the start. The jobs that were not read back stay in the store.
        """
        self._decoders.start()
        await self._pool.start()
        if self._availability.is_draining:
            return
        self._starting.spawn(self._resume_jobs())
        try:
            await self._starting.wait()
        finally:
            self._starting.cancel()
        if self._availability.is_draining:
            return
        self._start_housekeeping()
        self._availability.serve()

    @property
    def pending(self) -> PendingBytes:
        """The bytes of the requests with pictures that are not jobs yet, including those that are being read."""
        return self._admission.pending

    # Admission

    async def submit(
        self,
        read: ReadRequest,
        deadline: float | None = None,
        owner: Owner = ANYONE,
        request_id: str | None = None,
        *,
        size: int = 0,
        named: Collection[str] = (),
    ) -> Job | StoredJob:
        """Accept a new job, or find the job that the same request has led to before.

        Args:
            read: reads the request; called in a thread.
            deadline: time by which the result must be delivered, on the clock of `time.monotonic`; None for none.
            owner: the owner of the job.
            request_id: the id of the request that `read` reads.
            size: size of the request in bytes.
            named: the SHA-256 of the pictures that the request names instead of having them.

        Raises:
            NotServingError: the server is warming up or draining.
            NotPermittedError, QuotaExceededError: the quota of the owner does not allow the job (see `quotas`).
            QueueFullError: the largest number of jobs wait, or the largest number of bytes.
            UnknownPictureError: the owner has no picture with a SHA-256 that the request names.
            InvalidRequestError: the request is invalid; the error has every violation.
            RequestConflictError: the request id belongs to a different request.
            DoesNotFitError: a device has too little memory.
            DeadlineTooShortError: the job cannot finish by its deadline.
            StoreError: the job cannot be stored.
        """
        try:
            async with self._admission.prepared(read, owner, request_id, size, named) as prepared:
                if isinstance(prepared, StoredJob):
                    return prepared
                # If the call ends now, it must not leave half of a job behind, but a job without a follower.
                accepting = asyncio.ensure_future(self._accept(prepared, deadline))
                try:
                    return await asyncio.shield(accepting)
                except asyncio.CancelledError:
                    accepting.add_done_callback(functools.partial(self._leave_unfollowed, owner))
                    raise
        except Exception as error:
            self._observer.notify(JobRefused(owner.name, error))
            raise

    async def estimate(
        self, read: ReadRequest, owner: Owner = ANYONE, *, size: int = 0, named: Collection[str] = ()
    ) -> Accepted:
        """Return the first event of the job that a request would lead to, without a job; its id is empty.

        Raises:
            NotServingError, QueueFullError, UnknownPictureError, InvalidRequestError, QuotaExceededError,
                DoesNotFitError: as in `submit`.
        """
        return await self._admission.estimate(read, owner, size, named)

    async def _accept(self, prepared: PreparedRequest, deadline: float | None) -> Job | StoredJob:
        job = await self._admission.accept(prepared, deadline)
        if isinstance(job, StoredJob):
            return job
        self._table.waiting.append(job)
        self._observer.notify(JobAccepted(job))
        if self._availability.is_draining:
            # The drain has begun while the job was being stored.
            self._evict(job)
        elif job.control.stop_requested:
            # The same client has cancelled the job by its request id while it was being stored.
            self._stop(job, job.control.stop_requested)
        else:
            self.dispatcher.dispatch()
        return job

    def _leave_unfollowed(self, owner: Owner, accepting: "asyncio.Task[Job | StoredJob]") -> None:
        if accepting.cancelled():
            return
        if isinstance(error := accepting.exception(), Exception):
            self._observer.notify(JobRefused(owner.name, error))
        elif isinstance(job := accepting.result(), Job):
            job.awaits_follower = False
            self._check_followers(job.id)

    # Following

    async def follow(self, job_id: str, owner: Owner = ANYONE, after: int = 0) -> AsyncGenerator[LoggedEvent, None]:
        """Yield the events of a job with a larger sequence than `after`, including later ones, until the job has ended.

        Raises:
            UnknownJobError: no job of this owner has this id.
            NotServingError: the server leaves before the job has ended. The job goes on when a server is back.
            JobError: the job has ended with this error.
        """
        job = self._table.owned(job_id, owner.name)
        if job is None:
            await self.views.stored(job_id, owner)
        is_new = job is not None and job.awaits_follower
        if job:
            job.awaits_follower, job.unfollowed_since = False, None
        has_ended = False
        try:
            async with (
                self._followers.following(job_id, is_recorded=is_new),
                contextlib.aclosing(self._events(job_id, owner, after)) as events,
            ):
                async for logged in events:
                    yield logged
                has_ended = True
        finally:
            if not has_ended:
                self._check_followers(job_id)

    async def _events(self, job_id: str, owner: Owner, after: int) -> AsyncGenerator[LoggedEvent, None]:
        """Yield the events of a job, which may move between servers meanwhile. See `follow`."""
        while True:
            if job := self._table.owned(job_id, owner.name):
                if not job.is_running and after < first_sequence(job.plan.earlier_runs + 1):
                    # The call has seen events of the server in whose queue the job was before.
                    job.log.skip_to(after + 1)
                try:
                    async with contextlib.aclosing(job.log.follow(after)) as events:
                        async for logged in events:
                            yield logged
                            after = logged.sequence
                    return
                except MovedError:
                    pass
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
                # All calls look at the same moments, so that those that follow the same job share one read.
                await asyncio.sleep(_POLL_SECONDS - time.monotonic() % _POLL_SECONDS)

    def _check_followers(self, job_id: str) -> None:
        """Apply the disconnect policy to a job, if the last call that follows it here has left before its end."""
        if job_id in self._followers:
            return
        job = self._table.get(job_id)
        if job and may_be_abandoned(job):
            job.unfollowed_since = time.monotonic()
            if job.plan.request_id is None and self.durability.is_alone:
                self._stop(job, StopReason.CANCELLED)
        if not (self.durability.is_alone or self._availability.is_draining):
            self._storing.spawn(self._cancel_if_nobody_can_follow(job_id))

    async def _cancel_if_nobody_can_follow(self, job_id: str) -> None:
        """Cancel a job without a request id that no call on any server follows. Housekeeping cancels the others."""
        # If the store does not answer now, the server that has the job cancels it later.
        with store_failures_noted(self._observer, "followers"):
            stored = await self._store.job(job_id)
            if stored is None or stored.request_id is not None or stored.state.is_terminal:
                return
            is_to_end = stored.disconnect_policy is DisconnectPolicy.CANCEL
            if is_to_end and not await self._followers.is_followed(job_id):
                await self.cancel(job_id, Owner(name=stored.owner))

    # Stopping

    async def cancel(self, job_id: str, owner: Owner = ANYONE) -> JobState:
        """Cancel a job and return its state before. Its best picture so far is still delivered.

        Raises:
            UnknownJobError: no job of this owner has this id.
        """
        if job := self._table.owned(job_id, owner.name):
            state = job.state
            self._stop(job, StopReason.CANCELLED)
        else:
            state = (await self.views.stored(job_id, owner)).state
        # The job stays cancelled if this server dies. This is written after everything that is being stored of the job.
        await self._store.cancel(job_id)
        return state

    def _stop(self, job: Job, reason: StopReason) -> None:
        job.control.stop_requested = job.control.stop_requested or reason
        # The dispatcher ends it.
        if job.rendering and not job.plan.earlier_runs:
            job.rendering.cancel()
        # A job that ran before runs once more, to deliver the picture that it had.
        if job in self._table.waiting and not job.plan.earlier_runs:
            self._table.waiting.remove(job)
            self._settlement.cancel(job, Ended(JobState.CANCELLED, JobCancelledError()))
            self.dispatcher.dispatch()

    async def drain(self, grace: float) -> bool:
        """Accept no more jobs, and give the running ones some time to finish.

        A job with a request id stays in the store and goes on from its checkpoint when a server is back. Jobs without
        one are ended: those that wait at once, and those that do not finish in time with their best picture so far. A
        job gets no picture if even its present step does not end. Nothing can interrupt a step, and a step of a large
        picture on a slow device takes minutes.

        Args:
            grace: seconds that the running jobs get.

        Returns:
            Whether every device is idle. Otherwise one of them still computes a step.
        """
        self._availability.drain()
        self._observer.notify(DrainBegan(len(self._pool.running), len(self._table.waiting), grace))
        self._starting.cancel()
        await self._starting.wait()
        for job in list(self._table.waiting):
            self._evict(job)
        deadline = time.monotonic() + grace + _LAST_STEP_SECONDS + _STORE_SECONDS
        is_idle = await self.dispatcher.idle_within(grace)
        if not is_idle:
            self.dispatcher.finish_early()
            is_idle = await self.dispatcher.idle_within(_LAST_STEP_SECONDS)
        self._planner.close()
        self._followers.close()
        self._housekeeping.cancel()
        await self._housekeeping.wait()
        if not await self.dispatcher.close(max(_STORE_SECONDS, deadline - time.monotonic())):
            _log.error("the store has not kept the end of every job in time; these jobs run again")
        self._observer.notify(DrainEnded(is_idle))
        return is_idle

    async def close(self) -> None:
        """Release the jobs that the drain has abandoned, and close the store. No call may use the scheduler then."""
        try:
            await self._store.close()
        except StoreError as error:
            _log.warning("the jobs that still run could not be released: %s", error.described())

    def _evict(self, job: Job) -> None:
        """Remove a waiting job because of a drain."""
        self._table.waiting.remove(job)
        if job.plan.request_id is None:
            # A job without a request id cannot be reattached, so it does not go on.
            self._settlement.cancel(job, Ended(JobState.CANCELLED, NotServingError(Unavailability.DRAINING)))
        else:
            self._settlement.retire(job, Drained())
            self._storing.spawn(self._disclaim(job.id))

    async def _disclaim(self, job_id: str) -> None:
        """Leave a waiting job to the other servers. If the store does not answer now, they get it with the next try."""
        if not self.durability.is_alone:
            with store_failures_noted(self._observer, "disclaim"):
                await self._store.disclaim(job_id)

    # Recovery and housekeeping

    async def _resume_jobs(self) -> None:
        """Queue the jobs that the server before this one has left. What cannot be read now is read later."""
        await self._send_heartbeat()
        with store_failures_noted(self._observer, "queue"):
            await self._recover()

    async def _recover(self, *, only_deferred: bool = False) -> None:
        """Queue the jobs of the store that are in no queue, and jobs of other queues while a device is idle."""
        async for job in self._recovery.resumable(only_deferred=only_deferred):
            if self._availability.is_draining:
                # The job stays in the store, for another server or for the next start.
                await self._disclaim(job.id)
                return
            self._queue(job)
        self.dispatcher.dispatch()
        if not self.durability.is_alone and self._is_idle:
            await self._take_from_others()

    async def _take_from_others(self) -> None:
        """Queue jobs that wait in the queues of other servers, while a device is idle here."""
        async with contextlib.aclosing(self._recovery.taken_from_others()) as taken:
            async for job in taken:
                if self._availability.is_draining:
                    await self._disclaim(job.id)
                    return
                self._queue(job)
                self.dispatcher.dispatch()
                if not self._is_idle:
                    return

    @property
    def _is_idle(self) -> bool:
        """Whether a device is idle for which no job waits."""
        return not self._table.waiting and self._pool.idle_devices > 0

    def _queue(self, job: Job) -> None:
        if job.id in self._followers:
            job.unfollowed_since = None
        self._table.add(job)
        self._table.waiting.append(job)
        _log.info("job %s goes on", job.id)
        self._observer.notify(JobResumed(job))

    def _start_housekeeping(self) -> None:
        """Start the tasks that repeat. Each is one of its own, so that a slow store holds up none of the others."""
        for work in (self._send_heartbeat, self._retry_settlement, self._adopt_jobs):
            self._housekeeping.repeat(work, _HOUSEKEEPING_SECONDS)
        if self.durability.is_alone:
            self._housekeeping.repeat(self._stop_unfollowed, _HOUSEKEEPING_SECONDS)
        else:
            self._housekeeping.repeat(self._publish_live, _LIVE_SECONDS)
        self._housekeeping.repeat(self._clean, _CLEANING_SECONDS)
        self._housekeeping.spawn(self._measure_store())
        self._housekeeping.repeat(self._use_changed_devices, 0)
        if self._autoscaling:
            self._housekeeping.repeat(self._autoscaling, _HOUSEKEEPING_SECONDS)

    def autoscale(self, autoscaler: Autoscaler, make_device: Callable[[], Device]) -> None:
        """Let the number of devices follow the queue, from the start of the server on.

        Args:
            autoscaler: decides on the number.
            make_device: returns a new device with the same weights, which is not warm.
        """
        self._autoscaling = functools.partial(self._scale, autoscaler, make_device)

    async def _scale(self, autoscaler: Autoscaler, make_device: Callable[[], Device]) -> None:
        decision = autoscaler.decide(self._pool.demand(self._table.waiting), time.monotonic())
        if decision > 0:
            self.add_device(make_device())
        elif decision < 0 and (name := self._pool.idle_device):
            await self.remove_device(name)

    async def _use_changed_devices(self) -> None:
        """Start jobs on a device that is ready now."""
        await self._pool.changed.wait()
        self._pool.changed.clear()
        self.dispatcher.dispatch()

    async def _send_heartbeat(self) -> None:
        """Send a heartbeat, and act on what other servers have told the store of the jobs of this one."""
        waiting = list(self._table.waiting)
        running = [job for job in self._pool.running if job.lease]
        followed_elsewhere = None
        with store_failures_noted(self._observer, "heartbeat"):
            reply = await self._store.heartbeat(self._followed())
            followed_elsewhere = reply.followed_elsewhere
            for job in filter(None, map(self._table.get, reply.cancelled)):
                self._stop(job, StopReason.CANCELLED)
            if not self.durability.is_alone:
                self._leave_to_others(waiting, running, reply.held)
            if self._availability.is_draining:
                # Such a job was claimed, or could not be disclaimed, while the drain began.
                for job_id in reply.held:
                    if job_id not in self._table:
                        await self._disclaim(job_id)
        if not self.durability.is_alone:
            self._stop_abandoned(followed_elsewhere)

    def _followed(self) -> set[str]:
        """Return the ids of the jobs that calls of this server follow or are about to follow."""
        return {*self._followers.job_ids, *(job.id for job in self._table if job.awaits_follower)}

    def _leave_to_others(self, waiting: Collection[Job], running: Collection[Job], held: Collection[str]) -> None:
        """Give up the jobs that other servers have taken, or that have ended in the store.

        Args:
            waiting: the jobs that waited here before the store was asked.
            running: the jobs that ran here then.
            held: the ids of the jobs that the store knows as jobs of this server.
        """
        for job in waiting:
            if job.id not in held and job in self._table.waiting:
                self._table.waiting.remove(job)
                self._settlement.retire(job, Moved())
        for job in running:
            if job.id not in held:
                job.control.must_leave = True

    async def _publish_live(self) -> None:
        """Publish the latest events of the jobs of this server to the calls of other servers."""
        with store_failures_noted(self._observer, "publish_live"):
            await self._live.publish()

    async def _stop_unfollowed(self) -> None:
        """Cancel the jobs that nobody has followed for too long."""
        self._stop_abandoned(())

    def _stop_abandoned(self, followed_elsewhere: Collection[str] | None) -> None:
        for job in self._followers.abandoned(self._table, followed_elsewhere):
            self._stop(job, StopReason.CANCELLED)

    async def _retry_settlement(self) -> None:
        """Store the ends of jobs that could not be stored before."""
        with store_failures_noted(self._observer, "settle"):
            await self._settlement.retry()

    async def _adopt_jobs(self) -> None:
        """Queue the jobs that other servers have left, and start the jobs that have room now."""
        if not self._availability.is_serving:
            return
        # Jobs that another server has left wait for the first server that finds them, even if it is busy.
        takes_all = self._is_idle or not self.durability.is_alone
        if takes_all or self._recovery.has_due_jobs:
            with store_failures_noted(self._observer, "queue"):
                await self._recover(only_deferred=not takes_all)
        self.dispatcher.dispatch()

    async def _clean(self) -> None:
        """Remove what exceeds the retention of the store."""
        with store_failures_noted(self._observer, "clean"):
            await self._store.clean()
        await self._measure_store()

    async def _measure_store(self) -> None:
        with store_failures_noted(self._observer, "usage"):
            usage = await self._store.usage()
            self._observer.notify(StoreMeasured(usage))
