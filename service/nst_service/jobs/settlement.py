"""The settlement of jobs that leave the server: their outcome is stored first, and published to followers then."""

import asyncio
import functools
import logging
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

from nst_service.jobs.background import BackgroundTasks
from nst_service.jobs.errors import JobCancelledError
from nst_service.jobs.events import JobResult, ResultChunk
from nst_service.jobs.job import Drained, End, Ended, Job, Moved
from nst_service.jobs.job_store import AsyncJobStore
from nst_service.jobs.job_table import JobTable
from nst_service.jobs.observer import JobEnded, Observer, StoreFailed, log_store_failure
from nst_service.jobs.sink import Outcome, Requeued
from nst_service.lifecycle import JobState, StopReason
from nst_service.store.errors import LeaseLostError, StoreError

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _Unsaved:
    """An end of a job that the store could not take yet."""

    save: Callable[[], Awaitable[object]]
    """Stores the end."""
    tell: Callable[[object], None] | None
    """Tells the followers of the job its end, with the answer of `save`; None if they have been told."""


class Settlement:
    """Stores the outcomes of jobs, publishes them, and retries what the store could not take."""

    def __init__(
        self,
        store: AsyncJobStore,
        table: JobTable,
        storing: BackgroundTasks,
        observer: Observer,
        *,
        is_alone: bool = True,
    ):
        """Make the settlement of a server.

        Args:
            store: stores the outcomes.
            table: forgets the jobs that are settled.
            storing: the tasks that write to the store.
            observer: notified of every end, and of what the store could not take.
            is_alone: whether no other server shares the store. If the store cannot take the end of a job, another
                server may run the job again. So nobody is told such an end before it is stored.
        """
        self._store = store
        self._table = table
        self._storing = storing
        self._observer = observer
        self._is_alone = is_alone
        self._unsaved: dict[Job, _Unsaved] = {}
        """The jobs whose end the store could not take yet."""
        self._all_saved = asyncio.Event()
        self._all_saved.set()

    def settle(self, job: Job, outcome: Outcome) -> None:
        """Store the outcome of a run in the background, then end its job.

        The followers of the job get the outcome after the store has it, so that nothing that they have seen can be
        lost.
        """
        # The events keep these sequences even if they are stored later.
        save = functools.partial(self._save, job, outcome, job.log.next_sequence)
        self._storing.spawn(self._settle(job, outcome, save))

    def cancel(self, job: Job, end: End) -> None:
        """End a job that has never run, and store in the background that it is cancelled.

        The table has the job until then. Otherwise the server would find it in the store and run it. On a server that
        is alone the job ends at once. Otherwise another server may run it already, and then it goes on there until that
        server learns that it is to be cancelled.
        """
        if self._is_alone:
            self._end(job, end)
        self._storing.spawn(self._store_cancelled(job, end))

    def retire(self, job: Job, end: End) -> None:
        """End a job and remove it from the table, unless its end is still to be stored."""
        self._end(job, end)
        if job not in self._unsaved:
            self._table.remove(job)

    async def all_saved(self) -> None:
        """Wait until the store has the end of every job that has ended. Somebody must call `retry` meanwhile."""
        await self._all_saved.wait()

    async def retry(self) -> None:
        """Try again to store the ends that the store could not take.

        Raises:
            Exception: one of them still cannot be stored. The error is that of the last one.
        """
        failure: Exception | None = None
        for job, unsaved in list(self._unsaved.items()):
            try:
                result = await unsaved.save()
            except LeaseLostError:
                self._forget(job)
                if unsaved.tell:
                    self._end(job, Moved())
            except Exception as error:
                # There may be room for others, because a state is smaller than a picture.
                failure = error
            else:
                self._forget(job)
                if unsaved.tell:
                    unsaved.tell(result)
        if failure:
            raise failure

    def close(self) -> None:
        """Send away the followers of the jobs whose end could not be stored and was not told. The jobs run again."""
        for job, unsaved in list(self._unsaved.items()):
            if unsaved.tell:
                self._forget(job)
                self._end(job, Drained())

    async def _settle(
        self, job: Job, outcome: Outcome, save: Callable[[], Awaitable[Sequence[ResultChunk] | None]]
    ) -> None:
        chunks = None
        try:
            chunks = await save()
        except LeaseLostError:
            self.retire(job, Moved())
            return
        except Exception as error:
            self._note("settle", f"job {job.id} has ended, which cannot be stored yet", error)
            if not isinstance(outcome, Requeued):
                tell = None if self._is_alone else lambda chunks: self._tell(job, outcome, chunks)
                self._remember(job, _Unsaved(save, tell))
                if tell:
                    return
        self._tell(job, outcome, chunks)
        if job not in self._unsaved:
            self._table.remove(job)

    def _tell(self, job: Job, outcome: Outcome, chunks: Sequence[ResultChunk] | None) -> None:
        """Publish the outcome of a run to the followers of its job. They read a stored picture from the store."""
        if isinstance(outcome, JobResult):
            for event in outcome.events(chunks):
                job.log.append(event)
        self._end(job, _end(outcome))

    async def _store_cancelled(self, job: Job, end: End) -> None:
        def tell(state: object) -> None:
            self._end(job, end if state in (JobState.CANCELLED, None) else Moved())

        unsaved = _Unsaved(functools.partial(self._store.cancel, job.id), None if self._is_alone else tell)
        try:
            state = await unsaved.save()
        except Exception as error:
            self._note("cancel", f"job {job.id} is cancelled, which cannot be stored yet", error)
            self._remember(job, unsaved)
        else:
            self._table.remove(job)
            if unsaved.tell:
                unsaved.tell(state)

    async def _save(self, job: Job, outcome: Outcome, sequence: int) -> Sequence[ResultChunk] | None:
        """Store the outcome of a run, and return the chunks of the stored picture if it has one."""
        match outcome:
            case Requeued():
                if outcome.snapshot:
                    await self._store.save_checkpoint(job, outcome.snapshot)
                await self._store.release(job, is_lost=outcome.is_lost)
            case JobResult():
                return await self._store.save_result(job, _state(outcome), outcome, sequence)
            case _:
                await self._store.save_failure(job, _state(outcome), outcome)
        return None

    def _remember(self, job: Job, unsaved: _Unsaved) -> None:
        self._unsaved[job] = unsaved
        self._all_saved.clear()

    def _forget(self, job: Job) -> None:
        del self._unsaved[job]
        self._table.remove(job)
        if not self._unsaved:
            self._all_saved.set()

    def _note(self, operation: str, message: str, error: Exception) -> None:
        if isinstance(error, StoreError):
            log_store_failure(_log, logging.ERROR, message, error)
            self._observer.notify(StoreFailed(operation, error))
        else:
            _log.error("%s", message, exc_info=error)

    def _end(self, job: Job, end: End) -> None:
        job.end = end
        job.log.close(end.error)
        self._observer.notify(JobEnded(job, end))


def _end(outcome: Outcome) -> End:
    match outcome:
        case Requeued():
            return Drained()
        case JobResult():
            return Ended(_state(outcome), stop_reason=outcome.completed.stop_reason)
        case _:
            return Ended(_state(outcome), outcome)


def _state(outcome: Outcome) -> JobState:
    """Return the terminal state that is stored for an outcome."""
    match outcome:
        case JobResult():
            is_cancelled = outcome.completed.stop_reason is StopReason.CANCELLED
            return JobState.CANCELLED if is_cancelled else JobState.SUCCEEDED
        case JobCancelledError():
            return JobState.CANCELLED
        case _:
            return JobState.FAILED
