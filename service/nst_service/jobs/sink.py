"""The sink of a run: it takes the events, the snapshots and the outcome that the run reports."""

import asyncio
import time
from dataclasses import dataclass
from typing import Protocol

from nst_service.engine.optim.snapshot import SerializedSnapshot, Snapshot
from nst_service.jobs.background import BackgroundTasks
from nst_service.jobs.errors import JobError
from nst_service.jobs.events import Event, JobResult, Reduced, Started
from nst_service.jobs.job import Job
from nst_service.jobs.job_store import AsyncJobStore
from nst_service.jobs.log import LoggedEvent
from nst_service.jobs.observer import JobCheckpointed, JobShrunk, JobStarted, Observer, store_failures_noted

_CHECKPOINT_SHARE = 0.01
"""The largest share of a job's time that storing its checkpoints may take."""


@dataclass(frozen=True, slots=True)
class Requeued:
    """The job has left its device, in order to go on elsewhere."""

    snapshot: Snapshot | SerializedSnapshot | None
    """The snapshot to go on from; None if there is nothing new since the run began or since the last checkpoint."""
    is_lost: bool = False
    """Whether the device has failed, perhaps because of the job."""


Outcome = JobResult | Requeued | JobError
"""The outcome of a run."""


class RunSink(Protocol):
    """Takes the reports of a run. The run calls it from the thread of its device."""

    def publish(self, event: Event) -> None:
        """Publish an event to the followers of the job."""

    def shrunk(self, reduced: Reduced | None) -> None:
        """Report that the job goes on with less memory.

        Args:
            reduced: the event with the smaller size; None if the size stays. The event is stored when this method
                returns, so that no later run contradicts what the followers have seen.
        """

    def save(self, snapshot: Snapshot | SerializedSnapshot) -> None:
        """Store a snapshot as the checkpoint of the job."""

    def leave(self, outcome: Outcome) -> None:
        """Report the outcome of the run. This is the last report."""


class LoopSink:
    """The sink of a run whose job belongs to an event loop. Every report is handed over to the loop."""

    def __init__(
        self, job: Job, store: AsyncJobStore, storing: BackgroundTasks, observer: Observer, checkpoint_seconds: float
    ):
        """Make the sink of a run. Call this on the event loop.

        Args:
            job: the job that runs.
            store: stores its events and checkpoints.
            storing: the tasks that write to the store.
            observer: notified of starts, checkpoints, reductions, and of what the store could not take.
            checkpoint_seconds: shortest time in seconds between two checkpoints.
        """
        self._loop = asyncio.get_running_loop()
        self._job = job
        self._store = store
        self._storing = storing
        self._observer = observer
        self._checkpoint_seconds = checkpoint_seconds
        self.outcome: asyncio.Future[Outcome] = self._loop.create_future()
        """The outcome of the run. Whoever cancels this future abandons the run."""
        job.control.next_checkpoint = time.monotonic() + checkpoint_seconds

    def publish(self, event: Event) -> None:
        """Publish an event to the followers of the job."""
        self._loop.call_soon_threadsafe(self._publish, event)

    def shrunk(self, reduced: Reduced | None) -> None:
        """Report that the job goes on with less memory, and wait until its smaller size is stored."""
        reporting = asyncio.run_coroutine_threadsafe(self._shrunk(reduced), self._loop)
        if reduced:
            reporting.result()

    def save(self, snapshot: Snapshot | SerializedSnapshot) -> None:
        """Store a snapshot as the checkpoint of the job."""
        self._loop.call_soon_threadsafe(lambda: self._storing.spawn(self._save(snapshot)))

    def leave(self, outcome: Outcome) -> None:
        """Report the outcome of the run."""
        self._loop.call_soon_threadsafe(self._resolve, outcome)

    # On the event loop. A step that a drain did not wait for still reports when it ends.

    def _publish(self, event: Event) -> None:
        if self._job.end:
            return
        logged = self._job.log.append(event)
        if isinstance(event, Started):
            self._observer.notify(JobStarted(self._job, event.device))
            self._storing.spawn(self._append(logged))

    async def _shrunk(self, reduced: Reduced | None) -> None:
        if reduced:
            # No other event comes in between, because the run waits.
            await self._append(LoggedEvent(self._job.log.next_sequence, reduced))
        if self._job.end:
            return
        if reduced:
            self._job.log.append(reduced)
        self._observer.notify(JobShrunk(self._job))

    async def _append(self, logged: LoggedEvent) -> None:
        with store_failures_noted(self._observer, "append", f"an event of job {self._job.id} was not stored"):
            await self._store.append(self._job, logged)

    async def _save(self, snapshot: Snapshot | SerializedSnapshot) -> None:
        started = time.monotonic()
        with store_failures_noted(self._observer, "save_checkpoint", f"job {self._job.id} has no new checkpoint"):
            await self._store.save_checkpoint(self._job, snapshot)
            self._job.probation = None
            self._observer.notify(JobCheckpointed(self._job, time.monotonic() - started))
        seconds = time.monotonic() - started
        interval = max(self._checkpoint_seconds, seconds / _CHECKPOINT_SHARE)
        self._job.control.next_checkpoint = time.monotonic() + interval

    def _resolve(self, outcome: Outcome) -> None:
        if not self.outcome.done():
            self.outcome.set_result(outcome)
