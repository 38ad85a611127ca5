"""The recovery of jobs that earlier processes or other servers have left in the queue of the store."""

import logging
import time
from collections.abc import AsyncIterator

from nst_service.jobs.errors import DoesNotFitError, JobError, JobFailedError, UnknownJobError
from nst_service.jobs.job import Job
from nst_service.jobs.job_store import AsyncJobStore
from nst_service.jobs.job_table import JobTable
from nst_service.jobs.observer import Observer, RecoveryFailed, StoreFailed, store_failures_noted
from nst_service.jobs.planner import Planner
from nst_service.jobs.views import Durability
from nst_service.lifecycle import StopReason
from nst_service.store.errors import CorruptBlobError, StoreError
from nst_service.store.records import DisconnectPolicy, StoredJob

_MAX_LOST_RUNS = 3
"""The number of servers in a row that may die while they run a job, without a checkpoint in between."""

_log = logging.getLogger(__name__)


class Recovery:
    """Reads jobs back from the store, and fails those that cannot go on."""

    def __init__(
        self, store: AsyncJobStore, table: JobTable, planner: Planner, *, durability: Durability, observer: Observer
    ):
        self._store = store
        self._table = table
        self._planner = planner
        self._durability = durability
        self._observer = observer

    async def resumable(self) -> AsyncIterator[Job]:
        """Yield the queued jobs of the store that this server does not know yet and that can go on.

        Raises:
            StoreError: the queue of the store cannot be read.
        """
        for stored in await self._store.queue():
            if stored.id not in self._table and (job := await self._resume(stored)):
                yield job

    async def _resume(self, stored: StoredJob) -> Job | None:
        try:
            job = await self._read_back(stored)
        except Exception as error:
            if isinstance(error, StoreError | MemoryError) and not isinstance(error, CorruptBlobError):
                _log.warning("job %s cannot go on yet: %s", stored.id, error)
                if isinstance(error, StoreError):
                    self._observer.notify(StoreFailed("read_back", error))
                return None
            if isinstance(error, DoesNotFitError):
                await self._fail(stored, error)
                return None
            # No job may keep the server from the others, whatever the error is.
            _log.error("job %s cannot go on", stored.id, exc_info=error)
            await self._fail(stored, JobFailedError("REQUEST_LOST", "the stored request of the job cannot be read"))
            return None
        if stored.lost_runs >= _MAX_LOST_RUNS:
            message = "the server has died repeatedly while it ran this job"
            await self._fail(stored, JobFailedError("KEEPS_CRASHING", message))
            return None
        is_ownerless = stored.disconnect_policy is DisconnectPolicy.CANCEL and stored.request_id is None
        if stored.cancel_requested or is_ownerless:
            job.control.stop_requested = StopReason.CANCELLED
        elif stored.disconnect_policy is DisconnectPolicy.CANCEL and self._durability.is_alone:
            # Otherwise its followers may be with another server.
            job.unfollowed_since = time.monotonic()
        return job

    async def _read_back(self, stored: StoredJob) -> Job:
        request = await self._store.request(stored)
        if request is None:
            raise UnknownJobError(stored.id)
        sizes = await self._store.sizes([stored])
        spec = await self._planner.in_thread(self._planner.prepare_again, request, sizes[stored.id])
        return self._planner.resume(stored, spec, await self._store.events(stored.id))

    async def _fail(self, stored: StoredJob, error: JobError) -> None:
        with store_failures_noted(self._observer, "fail_queued", f"job {stored.id} has failed, which is not stored"):
            await self._store.fail_queued(stored.id, error)
            self._observer.notify(RecoveryFailed(stored.id, error))
