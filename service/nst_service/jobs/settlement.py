"""How jobs leave a server: what became of them is stored, then told to their followers."""

import contextlib
import functools
import logging
from collections.abc import Awaitable, Callable

from nst_service.jobs.errors import JobCancelledError
from nst_service.jobs.events import Delivery
from nst_service.jobs.job import Drained, End, Ended, Job, Moved
from nst_service.jobs.job_store import AsyncJobStore
from nst_service.jobs.job_table import JobTable
from nst_service.jobs.observer import JobEnded, Observer, StoreFailed
from nst_service.jobs.sink import Outcome, Requeued
from nst_service.lifecycle import JobState, StopReason
from nst_service.store.errors import LeaseLostError, StoreError

_log = logging.getLogger(__name__)


class Settlement:
    """Stores how jobs ended, tells their followers, and tries again what the store could not take."""

    def __init__(self, store: AsyncJobStore, table: JobTable, observer: Observer):
        self._store = store
        self._table = table
        self._observer = observer
        self._unsaved: dict[Job, Callable[[], Awaitable[object]]] = {}
        """Jobs whose end the store could not take yet, and what stores it."""

    async def settle(self, job: Job, outcome: Outcome) -> None:
        """Store what became of a job, then tell its followers: what they have seen is not lost any more."""
        # Later calls are to keep the sequences that followers have seen by then.
        save = functools.partial(self._save, job, outcome, job.log.next_sequence)
        try:
            await save()
        except LeaseLostError:
            self.retire(job, Moved())
            return
        except StoreError as error:
            _log.error("job %s has ended, which cannot be stored yet: %s", job.id, error)
            self._observer.notify(StoreFailed("settle", error))
            if not isinstance(outcome, Requeued):
                self._unsaved[job] = save
        if isinstance(outcome, Delivery):
            for event in outcome.events():
                job.log.append(event)
        self.retire(job, _end(outcome))

    async def store_cancelled(self, job: Job) -> None:
        """Store that a job is cancelled that has never run; it is known here until then, so as not to be adopted."""
        save = functools.partial(self._store.cancel, job.id)
        try:
            await save()
        except StoreError as error:
            _log.warning("job %s is cancelled, which cannot be stored yet: %s", job.id, error)
            self._observer.notify(StoreFailed("cancel", error))
            self._unsaved[job] = save
        else:
            self._table.remove(job)

    async def retry(self) -> None:
        """Try again to store the ends that the store could not take.

        Raises:
            StoreError: it still cannot.
        """
        failure: StoreError | None = None
        for job, save in list(self._unsaved.items()):
            try:
                with contextlib.suppress(LeaseLostError):
                    await save()
            except StoreError as error:
                # The others may have room: a state is smaller than a picture.
                failure = error
                continue
            del self._unsaved[job]
            self._table.remove(job)
        if failure:
            raise failure

    def end(self, job: Job, end: End) -> None:
        """End a job on this server, and tell its followers."""
        job.end = end
        job.log.close(end.error)
        self._observer.notify(JobEnded(job, end))

    def retire(self, job: Job, end: End) -> None:
        """End a job on this server, and forget it unless its end is still to be stored."""
        self.end(job, end)
        if job not in self._unsaved:
            self._table.remove(job)

    async def _save(self, job: Job, outcome: Outcome, sequence: int) -> None:
        match outcome:
            case Requeued():
                if outcome.snapshot:
                    await self._store.save_checkpoint(job, outcome.snapshot)
                await self._store.release(job, is_lost=outcome.is_lost)
            case Delivery():
                await self._store.save_result(job, _state(outcome), outcome, sequence)
            case _:
                await self._store.save_failure(job, _state(outcome), outcome)


def _end(outcome: Outcome) -> End:
    match outcome:
        case Requeued():
            return Drained()
        case Delivery():
            return Ended(_state(outcome), stop_reason=outcome.completed.stop_reason)
        case _:
            return Ended(_state(outcome), outcome)


def _state(outcome: Outcome) -> JobState:
    """Return the terminal state that an outcome is stored as."""
    match outcome:
        case Delivery():
            is_cancelled = outcome.completed.stop_reason is StopReason.CANCELLED
            return JobState.CANCELLED if is_cancelled else JobState.SUCCEEDED
        case JobCancelledError():
            return JobState.CANCELLED
        case _:
            return JobState.FAILED
