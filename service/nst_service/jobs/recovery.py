"""The recovery of jobs that earlier processes or other servers have left in the queue of the store."""

import logging
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass

from nst_service.jobs.errors import (
    JobCancelledError,
    JobError,
    JobFailedError,
    NotServingError,
    UnknownJobError,
    UnknownPictureError,
)
from nst_service.jobs.job import Job
from nst_service.jobs.job_store import AsyncJobStore
from nst_service.jobs.job_table import JobTable
from nst_service.jobs.lost_runs import KEEPS_CRASHING, Verdict, judge, new_probation
from nst_service.jobs.observer import Observer, RecoveryFailed, StoreFailed, store_failures_noted
from nst_service.jobs.planner import Planner
from nst_service.jobs.views import Durability
from nst_service.lifecycle import StopReason
from nst_service.store.errors import CorruptBlobError, StoreError, StoreOutageError, failures_log
from nst_service.store.records import DisconnectPolicy, StoredJob

_RETRY_SECONDS = (1.0, 60.0)
"""The shortest and the longest time in seconds after which reading a job back is tried again."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _Deferral:
    """A job that could not be read back. Only a later attempt can tell whether it ever can."""

    until: float
    """Time of the next attempt, on the clock of `time.monotonic`."""
    pause: float
    """Seconds between the last attempt and the next one."""
    reason: str


class Recovery:
    """Reads jobs back from the store, and fails those whose request is lost or that keep killing servers.

    A job that cannot be read back for any other reason stays in the queue, because the reason may pass: the store does
    not answer, the memory of the device is smaller than it was, the weights are others, or a later release has written
    the request.
    """

    def __init__(
        self, store: AsyncJobStore, table: JobTable, planner: Planner, *, durability: Durability, observer: Observer
    ):
        self._store = store
        self._table = table
        self._planner = planner
        self._durability = durability
        self._observer = observer
        self._deferred: dict[str, _Deferral] = {}
        """The deferred jobs by their ids."""

    @property
    def has_due_jobs(self) -> bool:
        """Whether it is time to try again to read a deferred job back."""
        now = time.monotonic()
        return any(deferral.until <= now for deferral in self._deferred.values())

    async def resumable(self, *, only_deferred: bool = False) -> AsyncIterator[Job]:
        """Yield the queued jobs of the store that this server does not know yet and that can go on.

        Args:
            only_deferred: whether to try only the jobs that could not be read back before.

        Raises:
            StoreError: the queue of the store cannot be read.
        """
        queue = await self._store.queue()
        queued = {stored.id for stored in queue}
        self._deferred = {job_id: each for job_id, each in self._deferred.items() if job_id in queued}
        for stored in queue:
            if stored.id in self._table or not self._is_due(stored, only_deferred):
                continue
            if job := await self._resume(stored):
                yield job

    def _is_due(self, stored: StoredJob, only_deferred: bool) -> bool:
        deferral = self._deferred.get(stored.id)
        if deferral is None:
            return not only_deferred
        return stored.cancel_requested or deferral.until <= time.monotonic()

    async def _resume(self, stored: StoredJob) -> Job | None:
        try:
            job = await self._read_back(stored)
        except NotServingError:
            # A drain has begun.
            return None
        except (CorruptBlobError, UnknownJobError, UnknownPictureError) as error:
            _log.error("job %s cannot go on: %s", stored.id, error)
            await self._fail(stored, JobFailedError("REQUEST_LOST", "the stored request of the job cannot be read"))
        except Exception as error:
            if _must_stop(stored) and not isinstance(error, StoreError | MemoryError):
                # Nobody waits for the reason to pass.
                await self._fail(stored, JobCancelledError())
            else:
                self._defer(stored, error)
        else:
            self._deferred.pop(stored.id, None)
            return job
        return None

    async def _read_back(self, stored: StoredJob) -> Job | None:
        """Return a stored job; None if it has killed too many servers and has no picture.

        Raises:
            Exception: the job cannot be read back.
        """
        verdict = judge(stored, has_checkpoint=await self._store.has_checkpoint(stored) if stored.lost_runs else False)
        if verdict is Verdict.FAIL:
            await self._fail(stored, JobFailedError("KEEPS_CRASHING", KEEPS_CRASHING))
            return None
        is_given_up = verdict is Verdict.FINISH
        job = await self._planned(stored, must_fit=not (is_given_up or _must_stop(stored)))
        if is_given_up:
            _log.error("job %s ends with its best picture: its servers keep dying", stored.id)
            job.control.stop_requested = StopReason.SHUTDOWN
        if verdict in (Verdict.PROBATION, Verdict.FINISH):
            job.probation = new_probation(time.monotonic())
        if _must_stop(stored):
            job.control.stop_requested = StopReason.CANCELLED
        elif stored.disconnect_policy is DisconnectPolicy.CANCEL and self._durability.is_alone:
            # Otherwise its followers may be with another server.
            job.unfollowed_since = time.monotonic()
        return job

    async def _planned(self, stored: StoredJob, *, must_fit: bool) -> Job:
        request = await self._store.request(stored)
        if request is None:
            raise UnknownJobError(stored.id)
        size = (await self._store.sizes([stored]))[stored.id]
        outline = await self._planner.prepare_again(request, stored.owner, size, must_fit=must_fit)
        return self._planner.resume(stored, outline, await self._store.events(stored.id))

    def _defer(self, stored: StoredJob, error: Exception) -> None:
        """Note that a job stays in the queue, and when to try again to read it back."""
        before = self._deferred.get(stored.id)
        shortest, longest = _RETRY_SECONDS
        pause = min(2 * before.pause, longest) if before else shortest
        reason = error.described() if isinstance(error, StoreError) else str(error)
        self._deferred[stored.id] = _Deferral(time.monotonic() + pause, pause, reason)
        if isinstance(error, StoreError):
            self._observer.notify(StoreFailed("read_back", error))
        if before is None or before.reason != reason:
            is_expected = isinstance(error, StoreError | MemoryError | JobError)
            log = failures_log if isinstance(error, StoreOutageError) else _log
            log.warning("job %s waits: %s", stored.id, reason or repr(error), exc_info=None if is_expected else error)

    async def _fail(self, stored: StoredJob, error: JobError) -> None:
        with store_failures_noted(self._observer, "fail_queued", f"job {stored.id} has failed, which is not stored"):
            await self._store.fail_queued(stored.id, error)
            self._observer.notify(RecoveryFailed(stored.id, error))


def _must_stop(stored: StoredJob) -> bool:
    """Return whether nobody waits for a job."""
    is_ownerless = stored.disconnect_policy is DisconnectPolicy.CANCEL and stored.request_id is None
    return stored.cancel_requested or is_ownerless
