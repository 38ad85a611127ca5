"""Which of the waiting jobs run now, and each of their runs from its lease to its end."""

import asyncio
import contextlib
import logging

from nst_service.jobs.availability import Availability
from nst_service.jobs.background import BackgroundTasks
from nst_service.jobs.device_pool import DevicePool, PooledDevice
from nst_service.jobs.events import Queued
from nst_service.jobs.job import Drained, Job, Moved
from nst_service.jobs.job_store import AsyncJobStore
from nst_service.jobs.job_table import JobTable
from nst_service.jobs.observer import Observer, StoreFailed
from nst_service.jobs.settlement import Settlement
from nst_service.jobs.sink import LoopSink, Requeued
from nst_service.store.errors import StoreError

_log = logging.getLogger(__name__)


class Dispatcher:
    """Has waiting jobs join devices that have room for them (see `placement`), and runs them."""

    def __init__(
        self,
        store: AsyncJobStore,
        table: JobTable,
        pool: DevicePool,
        settlement: Settlement,
        availability: Availability,
        *,
        observer: Observer,
        checkpoint_seconds: float,
    ):
        """Make the dispatcher of a server.

        Args:
            store: leases the jobs.
            table: the jobs that the server knows, and the queue.
            pool: its devices.
            settlement: stores how the jobs end.
            availability: nothing begins after a drain has.
            observer: told what happens to the jobs.
            checkpoint_seconds: least seconds between two checkpoints of a job.
        """
        self._store = store
        self._table = table
        self._pool = pool
        self._settlement = settlement
        self._availability = availability
        self._observer = observer
        self.checkpoint_seconds = checkpoint_seconds
        self._runs = BackgroundTasks()
        self.storing = BackgroundTasks()
        """What is being stored of jobs."""

    def dispatch(self) -> None:
        """Have the waiting jobs that may run join a device, and tell the others where they are in the queue."""
        waiting = self._table.waiting
        if self._pool.failed.is_set():
            # Nobody would serve them.
            return
        for job, device in self._pool.place(waiting):
            waiting.remove(job)
            job.is_running = True
            self._runs.spawn(self._run(device, job))
        for position, (job, span) in enumerate(zip(waiting, self._pool.forecast(waiting), strict=True)):
            job.log.append(Queued(position=position, eta_seconds=span.start))

    async def idle_within(self, seconds: float) -> bool:
        """Wait until no job runs, for so many seconds at most, and return whether that is so."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._runs.done()
                await self.storing.done()
        return not self._pool.running

    async def close(self) -> None:
        """Abandon the jobs that still run, and wait until all is stored that can be."""
        for job in self._pool.close():
            self._settlement.retire(job, Drained())
        self._runs.cancel()
        await self.storing.done()

    async def _run(self, device: PooledDevice, job: Job) -> None:
        """Run a job that has its place on a device, unless another server has taken it meanwhile."""
        try:
            leased = await self._store.lease(job.id)
        except StoreError as error:
            self._put_back(device, job, error)
            return
        if leased is None:
            self._vacate(device, job)
            self._settlement.retire(job, Moved())
            return
        job.lease = leased.lease
        job.log.skip_to(leased.lease.first_sequence)
        sink = LoopSink(job, self._store, self.storing, self._observer, self.checkpoint_seconds)
        device.worker.join(job, leased.snapshot, sink)
        # It holds the snapshot, which may be as large as all that a step needs.
        del leased
        outcome = await sink.outcome
        if isinstance(outcome, Requeued) and outcome.is_lost:
            self._pool.note_failure(device)
        self.storing.spawn(self._settlement.settle(job, outcome))
        self._vacate(device, job)

    def _put_back(self, device: PooledDevice, job: Job, error: StoreError) -> None:
        """Have a job wait again that the store cannot lease now."""
        _log.warning("job %s cannot begin: %s", job.id, error)
        self._observer.notify(StoreFailed("lease", error))
        device.jobs.remove(job)
        job.is_running = False
        if self._availability.is_draining:
            self._settlement.retire(job, Drained())
        else:
            # Housekeeping tries again, after those that may be able to.
            self._table.waiting.append(job)

    def _vacate(self, device: PooledDevice, job: Job) -> None:
        device.jobs.remove(job)
        if self._availability.is_serving:
            self.dispatch()
