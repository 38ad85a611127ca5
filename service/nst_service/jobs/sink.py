"""What a run tells while it runs: one object for its events, its snapshots and its outcome."""

import asyncio
import logging
import time
from dataclasses import dataclass
from typing import Protocol

from nst_service.engine.optim.snapshot import Snapshot
from nst_service.jobs.background import BackgroundTasks
from nst_service.jobs.errors import JobError
from nst_service.jobs.events import Delivery, Event, Reduced, Started
from nst_service.jobs.job import Job
from nst_service.jobs.job_store import AsyncJobStore
from nst_service.jobs.log import LoggedEvent
from nst_service.jobs.observer import JobCheckpointed, JobShrunk, JobStarted, Observer, store_failures_noted

_CHECKPOINT_SHARE = 0.01
"""Largest share of a job's time that storing its checkpoints may take."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Requeued:
    """A job has left its device to go on elsewhere."""

    snapshot: Snapshot | None
    """Where it goes on; None where nothing is new since it began here or was stored last."""
    is_lost: bool = False
    """Whether its device has failed, perhaps because of the job."""


Outcome = Delivery | Requeued | JobError
"""What becomes of a job on its device."""


class RunSink(Protocol):
    """Takes what a run tells. The run calls it from the thread of its device."""

    def publish(self, event: Event) -> None:
        """Tell the followers of the job of an event."""

    def shrunk(self, reduced: Reduced | None) -> None:
        """Tell that the job goes on with less memory.

        Args:
            reduced: its smaller size, which is in the store when this returns, so that no later run contradicts what
                the followers were told; None where the size stays.
        """

    def save(self, snapshot: Snapshot) -> None:
        """Have a snapshot stored as the checkpoint of the job."""

    def leave(self, outcome: Outcome) -> None:
        """Tell what became of the job; nothing more comes from its run."""


class LoopSink:
    """The sink of a job that belongs to an event loop, where all is done that a run asks for."""

    def __init__(
        self, job: Job, store: AsyncJobStore, tasks: BackgroundTasks, observer: Observer, checkpoint_seconds: float
    ):
        """Make the sink of one run, on its event loop.

        Args:
            job: the job that runs.
            store: where its events and checkpoints are stored.
            tasks: collects what is being stored.
            observer: told of checkpoints, and of what the store could not take.
            checkpoint_seconds: least seconds between two checkpoints.
        """
        self._loop = asyncio.get_running_loop()
        self._job = job
        self._store = store
        self._tasks = tasks
        self._observer = observer
        self._checkpoint_seconds = checkpoint_seconds
        self.outcome: asyncio.Future[Outcome] = self._loop.create_future()
        """Resolved when the run has left."""
        job.control.next_checkpoint = time.monotonic() + checkpoint_seconds

    def publish(self, event: Event) -> None:
        """Tell the followers of the job of an event."""
        self._loop.call_soon_threadsafe(self._publish, event)

    def shrunk(self, reduced: Reduced | None) -> None:
        """Tell that the job goes on with less memory, and store its smaller size if it has one."""
        if reduced:
            asyncio.run_coroutine_threadsafe(self._publish_stored(reduced), self._loop).result()
        self._loop.call_soon_threadsafe(self._observer.notify, JobShrunk(self._job))

    def save(self, snapshot: Snapshot) -> None:
        """Have a snapshot stored as the checkpoint of the job."""
        self._loop.call_soon_threadsafe(lambda: self._tasks.spawn(self._save(snapshot)))

    def leave(self, outcome: Outcome) -> None:
        """Tell what became of the job."""
        self._loop.call_soon_threadsafe(self._resolve, outcome)

    def _resolve(self, outcome: Outcome) -> None:
        # A step that a drain did not wait for still reports when it ends.
        if not self.outcome.done():
            self.outcome.set_result(outcome)

    def _publish(self, event: Event) -> None:
        if self._job.end:
            return
        logged = self._job.log.append(event)
        if isinstance(event, Started):
            self._observer.notify(JobStarted(self._job, event.device))
            self._tasks.spawn(self._append(logged))

    async def _publish_stored(self, event: Event) -> None:
        await self._append(LoggedEvent(self._job.log.next_sequence, event))
        if not self._job.end:
            self._job.log.append(event)

    async def _append(self, logged: LoggedEvent) -> None:
        with store_failures_noted(self._observer, "append", f"an event of job {self._job.id} was not stored"):
            await self._store.append(self._job, logged)

    async def _save(self, snapshot: Snapshot) -> None:
        started = time.monotonic()
        with store_failures_noted(self._observer, "save_checkpoint", f"job {self._job.id} has no new checkpoint"):
            await self._store.save_checkpoint(self._job, snapshot)
            self._observer.notify(JobCheckpointed(self._job, time.monotonic() - started))
        seconds = time.monotonic() - started
        interval = max(self._checkpoint_seconds, seconds / _CHECKPOINT_SHARE)
        self._job.control.next_checkpoint = time.monotonic() + interval
