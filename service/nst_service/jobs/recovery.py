"""The recovery of jobs that earlier processes or other servers have left in the queue of the store."""

import logging
import time
from collections.abc import AsyncGenerator, AsyncIterator
from dataclasses import dataclass

from nst_service.jobs.errors import (
    JobCancelledError,
    JobError,
    JobFailedError,
    NotServingError,
    UnknownJobError,
    UnknownPictureError,
)
from nst_service.jobs.followers import Followers
from nst_service.jobs.job import Job
from nst_service.jobs.job_store import AsyncJobStore
from nst_service.jobs.job_table import JobTable
from nst_service.jobs.lost_runs import KEEPS_CRASHING, Verdict, judge, new_probation
from nst_service.jobs.observer import Observer, RecoveryFailed, StoreFailed, store_failures_noted
from nst_service.jobs.planner import Planner
from nst_service.lifecycle import JobState, StopReason
from nst_service.store.errors import (
    CorruptBlobError,
    StoreError,
    StoreOutageError,
    StoreUnavailableError,
    failures_log,
)
from nst_service.store.records import DisconnectPolicy, StoredJob

_RETRY_SECONDS = (1.0, 60.0)
"""The shortest and the longest time in seconds after which reading a job back is tried again."""

_DECLINED_SECONDS = 60.0
"""Seconds for which a server leaves a job in the queue of another server alone that cannot go on here."""

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
        self, store: AsyncJobStore, table: JobTable, planner: Planner, *, followers: Followers, observer: Observer
    ):
        self._store = store
        self._table = table
        self._planner = planner
        self._followers = followers
        self._observer = observer
        self._deferred: dict[str, _Deferral] = {}
        """The deferred jobs by their ids."""
        self._waited_elsewhere: frozenset[str] = frozenset()
        """The ids of the jobs that waited in the queues of other servers at the last look."""
        self._declined: dict[str, float] = {}
        """The jobs in the queues of other servers that cannot go on here, each with the time of the next attempt."""

    @property
    def has_due_jobs(self) -> bool:
        """Whether it is time to try again to read a deferred job back."""
        now = time.monotonic()
        return any(deferral.until <= now for deferral in self._deferred.values())

    async def resumable(self, *, only_deferred: bool = False) -> AsyncIterator[Job]:
        """Claim the jobs of the store that no server has in its queue, and yield those that can go on.

        Args:
            only_deferred: whether to try only the jobs that could not be read back before.

        Raises:
            StoreError: the queue of the store cannot be read or claimed.
        """
        queue = await self._store.unclaimed()
        queued = {stored.id for stored in queue}
        self._deferred = {job_id: each for job_id, each in self._deferred.items() if job_id in queued}
        for stored in queue:
            if stored.id in self._table or not self._is_due(stored, only_deferred):
                continue
            if await self._store.claim(stored.id) and (job := await self._resume(stored)):
                yield job

    async def taken_from_others(self) -> AsyncGenerator[Job, None]:
        """Claim jobs in the queues of other servers that can go on here, and yield them in the order of acceptance.

        A job is left alone until it has waited at two looks in a row: one that is new may have a place on a device
        already, and only its pictures are still to be decoded. A job that cannot go on here keeps its place in the
        queue of the other server, which decides what becomes of it.

        Raises:
            StoreError: the queues cannot be read or changed.
        """
        waiting = await self._store.waiting_elsewhere()
        before, self._waited_elsewhere = self._waited_elsewhere, frozenset(waiting)
        now, declined = time.monotonic(), self._declined
        self._declined = {job_id: declined[job_id] for job_id in waiting if declined.get(job_id, now) > now}
        for job_id in waiting:
            is_free = job_id in before and job_id not in self._table and job_id not in self._declined
            if is_free and (job := await self._taken(job_id)):
                yield job

    async def _taken(self, job_id: str) -> Job | None:
        stored = await self._store.job(job_id)
        if stored is None or stored.state is not JobState.QUEUED:
            return None
        # Only one server tries a suspect at a time.
        is_suspect = judge(stored, has_checkpoint=True) is not Verdict.GO_ON
        try:
            job = None if is_suspect else await self._read_back(stored)
        except NotServingError:
            # A drain has begun.
            return None
        except StoreUnavailableError:
            raise
        except Exception as error:
            _log.info("job %s is left to the server in whose queue it waits: %s", job_id, error)
            job = None
        if job is None:
            self._declined[job_id] = time.monotonic() + _DECLINED_SECONDS
            return None
        claimed = await self._store.claim_from_others(job_id)
        if claimed and claimed.epoch != stored.epoch:
            # The job has run on another server meanwhile.
            return await self._resume(claimed)
        return job if claimed else None

    def _is_due(self, stored: StoredJob, only_deferred: bool) -> bool:
        deferral = self._deferred.get(stored.id)
        if deferral is None:
            return not only_deferred
        return stored.cancel_requested or deferral.until <= time.monotonic()

    async def _resume(self, stored: StoredJob) -> Job | None:
        try:
            job = await self._read_back(stored)
        except NotServingError:
            # A drain has begun. Another server can run the job.
            await self._disclaim(stored)
            return None
        except (CorruptBlobError, UnknownJobError, UnknownPictureError) as error:
            _log.error("job %s cannot go on: %s", stored.id, error)
            await self._fail(stored, JobFailedError("REQUEST_LOST", "the stored request of the job cannot be read"))
        except Exception as error:
            if self._must_stop(stored) and not isinstance(error, StoreError | MemoryError):
                # Nobody waits for the reason to pass.
                await self._fail(stored, JobCancelledError())
            else:
                await self._defer(stored, error)
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
        job = await self._planned(stored, must_fit=not (is_given_up or self._must_stop(stored)))
        if is_given_up:
            _log.error("job %s ends with its best picture: its servers keep dying", stored.id)
            job.control.stop_requested = StopReason.SHUTDOWN
        if verdict in (Verdict.PROBATION, Verdict.FINISH):
            job.probation = new_probation(time.monotonic())
        if self._must_stop(stored):
            job.control.stop_requested = StopReason.CANCELLED
        elif stored.disconnect_policy is DisconnectPolicy.CANCEL:
            # From now on this server looks whether anybody follows the job, here or elsewhere.
            job.unfollowed_since = time.monotonic()
        return job

    async def _planned(self, stored: StoredJob, *, must_fit: bool) -> Job:
        request = await self._store.request(stored)
        if request is None:
            raise UnknownJobError(stored.id)
        size = (await self._store.sizes([stored]))[stored.id]
        outline = await self._planner.prepare_again(request, stored.owner, size, must_fit=must_fit)
        job = self._planner.resume(stored, outline, await self._store.events(stored.id))
        # Calls on other servers have seen these events, and get later ones only.
        job.log.skip_to(await self._store.live_sequence(stored.id) + 1)
        return job

    def _must_stop(self, stored: StoredJob) -> bool:
        """Return whether nobody waits for a job."""
        # The calls of a server that is alone have ended with the server before it. Others may still have theirs.
        is_ownerless = stored.disconnect_policy is DisconnectPolicy.CANCEL and stored.request_id is None
        return stored.cancel_requested or (is_ownerless and self._followers.is_alone)

    async def _defer(self, stored: StoredJob, error: Exception) -> None:
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
        # Another server may be able to run the job.
        await self._disclaim(stored)

    async def _disclaim(self, stored: StoredJob) -> None:
        if not self._followers.is_alone:
            with store_failures_noted(self._observer, "disclaim"):
                await self._store.disclaim(stored.id)

    async def _fail(self, stored: StoredJob, error: JobError) -> None:
        with store_failures_noted(self._observer, "fail_queued", f"job {stored.id} has failed, which is not stored"):
            await self._store.fail_queued(stored.id, error)
            self._observer.notify(RecoveryFailed(stored.id, error))
