"""The dispatcher places waiting jobs on devices, and follows each run from its lease to its outcome."""

import asyncio
import bisect
import contextlib
import itertools
import logging
import sys
import time
from collections.abc import Iterable

from nst_service.engine.memory.footprint import picture_bytes
from nst_service.engine.spec import TransferSpec
from nst_service.jobs.availability import Availability
from nst_service.jobs.background import BackgroundTasks
from nst_service.jobs.device_pool import DevicePool, PooledDevice
from nst_service.jobs.errors import (
    JobCancelledError,
    JobError,
    JobFailedError,
    NotServingError,
    Unavailability,
    UnknownJobError,
    UnknownPictureError,
)
from nst_service.jobs.events import Queued
from nst_service.jobs.job import Drained, Ended, Job, Moved, RequeueCause
from nst_service.jobs.job_store import AsyncJobStore
from nst_service.jobs.job_table import JobTable
from nst_service.jobs.lost_runs import KEEPS_CRASHING, Verdict, judge, new_probation
from nst_service.jobs.observer import JobRequeued, Observer, StoreFailed, log_store_failure, store_failures_noted
from nst_service.jobs.planner import Planner
from nst_service.jobs.queue_limits import PendingBytes
from nst_service.jobs.settlement import Settlement
from nst_service.jobs.sink import LoopSink, Outcome, Requeued
from nst_service.lifecycle import JobState, StopReason
from nst_service.store.errors import CorruptBlobError, LeaseLostError, StoreError
from nst_service.store.records import StoredJob

_STORE_RETRY_SECONDS, _RETRY_SECONDS = 2.0, 30.0
"""Seconds after which a job is tried again whose request the store could not read, or that could not be decoded."""

_log = logging.getLogger(__name__)


class Dispatcher:
    """Runs waiting jobs on the devices that have room for them (see `placement`)."""

    def __init__(
        self,
        store: AsyncJobStore,
        table: JobTable,
        pool: DevicePool,
        settlement: Settlement,
        availability: Availability,
        *,
        planner: Planner,
        storing: BackgroundTasks,
        observer: Observer,
        checkpoint_seconds: float,
        max_picture_bytes: int = sys.maxsize,
        pending: PendingBytes | None = None,
    ):
        """Make the dispatcher of a server.

        Args:
            store: leases the jobs.
            table: the jobs and the queue of the server.
            pool: the devices.
            settlement: stores the outcomes of the runs.
            availability: tells whether the server accepts jobs; no job starts during a drain.
            planner: decodes the pictures of the jobs.
            storing: the tasks that write to the store.
            observer: notified of what happens to the jobs.
            checkpoint_seconds: shortest time in seconds between two checkpoints of a job.
            max_picture_bytes: the bytes of the pictures of all jobs that run (see `QueueLimits`).
            pending: the bytes of the requests that are in memory; None for no limit.
        """
        self._max_picture_bytes = max_picture_bytes
        self._pending = pending or PendingBytes(sys.maxsize)
        self._store = store
        self._table = table
        self._pool = pool
        self._planner = planner
        self._settlement = settlement
        self._availability = availability
        self._storing = storing
        self._observer = observer
        self.checkpoint_seconds = checkpoint_seconds
        self._runs = BackgroundTasks()

    def dispatch(self) -> None:
        """Start the waiting jobs for which a device has room, and publish the positions of the others."""
        waiting = self._table.waiting
        if self._pool.failed.is_set():
            # Nothing would run them.
            return
        for job, device in self._pool.place(self._startable()):
            waiting.remove(job)
            job.is_running = True
            self._runs.spawn(self._run(device, job))
        for position, (job, span) in enumerate(zip(waiting, self._pool.forecast(waiting), strict=True)):
            job.log.append(Queued(position=position, eta_seconds=span.start))

    def _startable(self) -> list[Job]:
        """Return the waiting jobs that may start now, in the order of their arrival.

        A job on probation runs alone. If it can harm other devices than its own, it waits until nothing runs, and what
        has arrived after it waits for it.
        """
        running, now = self._pool.running, time.monotonic()
        ready = [
            job
            for job in self._table.waiting
            if job.not_before <= now and (job.probation is None or job.probation.begins_at <= now)
        ]
        if self._pool.are_isolated:
            # Such a job has a device of its own (see `Job.claim`), and harms no other.
            return ready
        if any(job.probation for job in running):
            return []
        if ready and ready[0].probation:
            return [] if running else ready[:1]
        return self._within_memory(itertools.takewhile(lambda job: job.probation is None, ready))

    def _within_memory(self, ready: Iterable[Job]) -> list[Job]:
        """Return the first jobs whose pictures fit into memory beside those of the running jobs."""
        running, startable = self._pool.running, list[Job]()
        held = sum(map(_picture_bytes, running))
        for job in ready:
            held += _picture_bytes(job)
            if held > self._max_picture_bytes and (running or startable):
                break
            startable.append(job)
        return startable

    async def idle_within(self, seconds: float) -> bool:
        """Wait at most this number of seconds until no job runs and all ends are stored; return whether no job runs."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._runs.wait()
                await self._storing.wait()
                await self._settlement.all_saved()
        return not self._pool.running

    def finish_early(self) -> None:
        """Make the running jobs end after their present step.

        Jobs with a request id are stored and go on later. The others end with their best picture so far.
        """
        for job in self._pool.running:
            if job.plan.request_id is None:
                job.control.stop_requested = job.control.stop_requested or StopReason.SHUTDOWN
            else:
                job.control.must_leave = True
            if job.rendering and (job.control.must_leave or not job.plan.earlier_runs):
                job.rendering.cancel()

    async def close(self, seconds: float) -> bool:
        """Abandon the jobs that still run, and wait until everything else is stored.

        Args:
            seconds: seconds that the store gets.

        Returns:
            Whether everything is stored. Otherwise the store has the last checkpoints of these jobs, which run again.
        """
        self._runs.cancel()
        await self._runs.wait()
        for job in self._pool.close():
            self._settlement.retire(job, Drained())
        is_stored = True
        try:
            await asyncio.wait_for(self._storing.wait(), seconds)
        except TimeoutError:
            is_stored = False
        self._settlement.close()
        return is_stored

    async def _run(self, device: PooledDevice, job: Job) -> None:
        """Run a job that has a place on a device, unless another server has taken it."""
        spec = await self._rendered(device, job)
        if spec is None:
            return
        try:
            sink = await self._begin(device, job, spec)
        except Exception as error:
            self._put_back(device, job, error)
            return
        if sink is None:
            self._vacate(device, job)
            self._settlement.retire(job, Moved())
            return
        # The pictures belong to the run.
        del spec
        outcome = await _outcome(sink)
        if isinstance(outcome, Requeued) and outcome.is_lost:
            self._pool.note_failure(device)
        is_ending = self._availability.is_draining or self._pool.failed.is_set()
        if isinstance(outcome, Requeued) and not is_ending:
            self._vacate(device, job)
            await self._requeue(device, job, outcome)
        else:
            self._settlement.settle(job, outcome)
            self._vacate(device, job)

    async def _requeue(self, device: PooledDevice, job: Job, outcome: Requeued) -> None:
        """Return a job that has left its device to the queue. Its followers notice only that it waits."""
        if outcome.snapshot:
            message = f"job {job.id} goes on from its checkpoint before"
            with store_failures_noted(self._observer, "save_checkpoint", message):
                await self._store.save_checkpoint(job, outcome.snapshot)
        while not await self._is_released(job, is_lost=outcome.is_lost):
            if self._availability.is_draining:
                self._settlement.retire(job, Drained())
                return
            await asyncio.sleep(_STORE_RETRY_SECONDS)
        if job.end:
            return
        stored, is_ours = None, True
        with store_failures_noted(self._observer, "claim"):
            is_ours = await self._store.claim(job.id)
            stored = await self._store.job(job.id)
        if not is_ours:
            # Another server has had room for it at once.
            self._settlement.retire(job, Moved())
            return
        job.requeue()
        if stored and outcome.is_lost and not await self._may_go_on(job, stored):
            return
        if self._availability.is_draining:
            self._settlement.retire(job, Drained())
            return
        # Before the jobs that were accepted after it.
        bisect.insort(self._table.waiting, job, key=lambda waiting: waiting.plan.accepted_at)
        cause = RequeueCause.DEVICE_REMOVED if device.is_leaving else RequeueCause.DEVICE_LOST
        _log.info("job %s waits for another device: %s", job.id, cause)
        self._observer.notify(JobRequeued(job, cause))
        self.dispatch()

    async def _is_released(self, job: Job, *, is_lost: bool) -> bool:
        """Release a job, and return whether its run is over in the store."""
        try:
            await self._store.release(job, is_lost=is_lost, stays=not self._availability.is_draining)
        except LeaseLostError:
            self._settlement.retire(job, Moved())
        except Exception as error:
            self._note_store_error("release", f"job {job.id} cannot be released yet", error)
            return False
        return True

    async def _may_go_on(self, job: Job, stored: StoredJob) -> bool:
        """Return whether a job that has lost its device may go on. Fail it otherwise."""
        verdict = None
        with store_failures_noted(self._observer, "has_checkpoint"):
            verdict = judge(stored, has_checkpoint=await self._store.has_checkpoint(stored))
        match verdict:
            case Verdict.FAIL:
                error = JobFailedError("KEEPS_CRASHING", KEEPS_CRASHING)
                with store_failures_noted(self._observer, "fail_queued", f"job {job.id} fails, which is not stored"):
                    await self._store.fail_queued(job.id, error)
                self._settlement.retire(job, Ended(JobState.FAILED, error))
                return False
            case Verdict.FINISH:
                job.control.stop_requested = job.control.stop_requested or StopReason.SHUTDOWN
                job.probation = new_probation(time.monotonic())
            case Verdict.PROBATION:
                job.probation = new_probation(time.monotonic())
        return True

    async def _begin(self, device: PooledDevice, job: Job, spec: TransferSpec | JobError) -> LoopSink | None:
        """Lease a job and let it join the device; return None if another server has the job.

        Args:
            device: the device.
            job: the job.
            spec: its specification, or the error with which it ends at once.
        """
        leased = await self._store.lease(job.id)
        if leased is None:
            return None
        job.lease = leased.lease
        job.log.skip_to(leased.lease.first_sequence)
        sink = LoopSink(job, self._store, self._storing, self._observer, self.checkpoint_seconds)
        if isinstance(spec, JobError):
            sink.outcome.set_result(spec)
            return sink
        try:
            device.worker.join(job, spec, leased.snapshot, sink)
        except Exception:
            await self._store.release(job, is_lost=False, stays=not self._availability.is_draining)
            raise
        return sink

    async def _rendered(self, device: PooledDevice, job: Job) -> TransferSpec | JobError | None:
        """Decode the pictures of a job. A job that waits holds none.

        Returns:
            The specification of the job; the error with which the job must end; None if it was stopped or put back.
        """
        job.rendering, started = asyncio.create_task(self._render(job)), time.monotonic()
        try:
            spec = await job.rendering
            job.decoding_seconds = time.monotonic() - started
            return spec
        except asyncio.CancelledError:
            if not job.rendering.cancelled() or _is_cancelled():
                raise
            self._stop_rendering(device, job)
        except (CorruptBlobError, UnknownJobError, UnknownPictureError) as error:
            _log.error("job %s cannot run: %s", job.id, error)
            return JobFailedError("REQUEST_LOST", "the stored request of the job cannot be read")
        except Exception as error:
            seconds = _STORE_RETRY_SECONDS if isinstance(error, StoreError) else _RETRY_SECONDS
            job.not_before = time.monotonic() + seconds
            self._put_back(device, job, error)
        finally:
            job.rendering = None
        return None

    async def _render(self, job: Job) -> TransferSpec:
        stored = await self._store.job(job.id)
        if stored is None:
            raise UnknownJobError(job.id)
        # Its encoded pictures take the same memory as when the request was received.
        async with self._pending.turn(await self._store.request_bytes(job.id), job.owner):
            request = await self._store.request(stored)
            if request is None:
                raise UnknownJobError(job.id)
            return await self._planner.render(request, job.run_state.outline, job.owner)

    def _stop_rendering(self, device: PooledDevice, job: Job) -> None:
        """End a job that was stopped before its run."""
        if job.control.must_leave:
            self._settlement.retire(job, Drained())
        elif job.control.stop_requested is StopReason.SHUTDOWN:
            self._settlement.cancel(job, Ended(JobState.CANCELLED, NotServingError(Unavailability.DRAINING)))
        else:
            self._settlement.cancel(job, Ended(JobState.CANCELLED, JobCancelledError()))
        self._vacate(device, job)

    def _put_back(self, device: PooledDevice, job: Job, error: Exception) -> None:
        """Return a job to the queue that cannot start now, such as for want of memory for its snapshot."""
        self._note_store_error("lease", f"job {job.id} cannot start yet", error)
        device.vacate(job)
        job.is_running = False
        if self._availability.is_draining:
            self._settlement.retire(job, Drained())
        else:
            # Behind the others, which may be luckier. Housekeeping dispatches it again.
            self._table.waiting.append(job)

    def _note_store_error(self, operation: str, message: str, error: Exception) -> None:
        if isinstance(error, StoreError):
            log_store_failure(_log, logging.WARNING, message, error)
            self._observer.notify(StoreFailed(operation, error))
        else:
            _log.warning("%s", message, exc_info=error)

    def _vacate(self, device: PooledDevice, job: Job) -> None:
        device.vacate(job)
        if self._availability.is_serving:
            self.dispatch()


def _picture_bytes(job: Job) -> int:
    outline = job.run_state.outline
    return picture_bytes(outline.size, outline.styles)


def _is_cancelled() -> bool:
    """Return whether somebody has cancelled the present task."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


async def _outcome(sink: LoopSink) -> Outcome:
    """Return the outcome of a run.

    Raises:
        asyncio.CancelledError: the run was abandoned before it had an outcome.
    """
    try:
        return await sink.outcome
    except asyncio.CancelledError:
        if sink.outcome.cancelled():
            raise
        # The outcome came at the same time. It must not be lost.
        return sink.outcome.result()
