"""Admission of jobs, the queue, and the workers that empty it. Everything here belongs to one event loop."""

import asyncio
import contextlib
import logging
import time
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from types import MappingProxyType

from nst_service.engine.estimate import Cost, estimate, largest_size_within
from nst_service.engine.options import Limits
from nst_service.engine.spec import TransferRequest, TransferSpec, prepare
from nst_service.engine.vgg import Vgg19
from nst_service.jobs.errors import (
    DeadlineTooShortError,
    DoesNotFitError,
    JobCancelledError,
    JobError,
    JobFailedError,
    NotServingError,
    QueueFullError,
    UnknownJobError,
)
from nst_service.jobs.events import Accepted, CostEstimate, Event, Queued
from nst_service.jobs.job import Job
from nst_service.jobs.states import JobState, StopReason
from nst_service.jobs.worker import DeviceWorker

_log = logging.getLogger(__name__)

_WARMING_UP, _DRAINING = "WARMING_UP", "DRAINING"
_REFUSALS: Mapping[str, str] = MappingProxyType(
    {_WARMING_UP: "the server is warming up", _DRAINING: "the server is shutting down"}
)
"""Why no job is taken, with the message for the client."""
_REFUSED_RETRY_SECONDS = 5.0
"""After which a refused client may try again."""

_LAST_STEP_SECONDS = 10.0
"""For running jobs to end their step and encode their picture when a drain has no patience left."""

_PREPARING_THREADS = 2
_REMEMBERED_JOBS = 1024
"""Ended jobs whose state is still known."""
_RETRY_SECONDS = (1.0, 60.0)
"""The least and the most that a client is asked to wait."""


class Scheduler:
    """Takes jobs on, lets them wait in order, and runs each on the first device that is free."""

    def __init__(self, models: Sequence[Vgg19], *, limits: Limits, max_queued: int, max_job_bytes: int = 0):
        """Make a scheduler with one worker for each model.

        Args:
            models: one for each device, all with the same weights.
            limits: of what a request may ask for.
            max_queued: jobs that may wait.
            max_job_bytes: memory of a job on its device; 0 for all that the device has.
        """
        self.limits = limits
        self.max_queued = max_queued
        self._max_job_bytes = max_job_bytes
        self.layers = models[0].layers
        self._workers = [DeviceWorker(model) for model in models]
        self._threads = [ThreadPoolExecutor(1, f"nst-{worker.device}") for worker in self._workers]
        self._preparing = ThreadPoolExecutor(_PREPARING_THREADS, "nst-prepare")
        self._admitting = 0
        self._waiting: list[Job] = []
        self._running: set[Job] = set()
        self._ended: OrderedDict[str, JobState] = OrderedDict()
        self._arrived = asyncio.Event()
        self._left = asyncio.Event()
        self._loops: list[asyncio.Task[None]] = []
        self._refusal: str | None = _WARMING_UP

    @property
    def devices(self) -> list[str]:
        """Names of the devices."""
        return [str(worker.device) for worker in self._workers]

    @property
    def queued_jobs(self) -> int:
        """Jobs that wait."""
        return len(self._waiting)

    @property
    def running_jobs(self) -> int:
        """Jobs that run."""
        return len(self._running)

    async def start(self) -> None:
        """Warm every device up, then take jobs."""
        loop = asyncio.get_running_loop()
        await asyncio.gather(
            *(
                loop.run_in_executor(thread, worker.warm_up)
                for worker, thread in zip(self._workers, self._threads, strict=True)
            )
        )
        self._loops = [
            asyncio.create_task(self._work(worker, thread), name=f"nst-{worker.device}")
            for worker, thread in zip(self._workers, self._threads, strict=True)
        ]
        if self._refusal == _WARMING_UP:
            self._refusal = None

    async def submit(self, request: TransferRequest, deadline: float | None = None) -> Job:
        """Take a job on.

        Args:
            request: what to do.
            deadline: when its result must be delivered, on the clock of `time.monotonic`.

        Raises:
            NotServingError: warming up or draining.
            QueueFullError: as many jobs wait as may wait.
            InvalidRequestError: with everything that is wrong.
            DoesNotFitError: no device has enough memory.
            DeadlineTooShortError: it cannot finish by its deadline.
        """
        self._check_accepting()
        free = len(self._workers) - len(self._running)
        waiting = len(self._waiting) + self._admitting
        if waiting >= self.max_queued + free:
            raise QueueFullError(waiting, self._retry_after(self._seconds_until_free()))
        self._admitting += 1
        try:
            spec = await asyncio.get_running_loop().run_in_executor(self._preparing, self._prepare, request)
        finally:
            self._admitting -= 1
        self._check_accepting()
        return self._admit(spec, deadline)

    def _prepare(self, request: TransferRequest) -> TransferSpec:
        """Decode a request, in a thread."""
        # A drain may have begun while the request waited for the thread.
        self._check_accepting()
        return prepare(request, self.limits, self.layers)

    async def estimate(self, request: TransferRequest) -> Accepted:
        """Return what a job would begin with, without taking it on; its id is empty.

        Raises:
            NotServingError, InvalidRequestError, DoesNotFitError: as `submit` does.
        """
        self._check_accepting()
        spec = await asyncio.get_running_loop().run_in_executor(self._preparing, self._prepare, request)
        return self._accepted("", spec, self._cost(spec))

    def _cost(self, spec: TransferSpec) -> Cost:
        capacity = min(worker.capacity for worker in self._workers)
        if self._max_job_bytes:
            capacity = min(capacity, self._max_job_bytes)
        cost = estimate(spec, capacity)
        if cost.peak_bytes > capacity:
            largest = largest_size_within(capacity, spec.options, spec.content.size)
            raise DoesNotFitError(cost.peak_bytes, capacity, largest)
        return cost

    def _accepted(self, job_id: str, spec: TransferSpec, cost: Cost) -> Accepted:
        return Accepted(
            job_id=job_id,
            options=spec.options,
            output=spec.output,
            width=spec.content.width,
            height=spec.content.height,
            estimate=CostEstimate(
                seconds=self._seconds(cost),
                queue_seconds=self._queue_seconds(len(self._waiting)),
                peak_memory_bytes=cost.peak_bytes,
                tile_size=cost.tile or 0,
            ),
        )

    def _admit(self, spec: TransferSpec, deadline: float | None) -> Job:
        now = time.monotonic()
        job = Job(spec=spec, cost=self._cost(spec), accepted_at=now, deadline=deadline)
        accepted = self._accepted(job.id, spec, job.cost)
        seconds = accepted.estimate.seconds + accepted.estimate.queue_seconds
        if deadline is not None and now + seconds > deadline:
            raise DeadlineTooShortError(seconds, max(0.0, deadline - now))
        job.log.append(accepted)
        self._waiting.append(job)
        if len(self._running) == len(self._workers):
            self._publish_positions()
        self._arrived.set()
        return job

    def cancel(self, job_id: str) -> JobState:
        """Cancel a job by its id, so that its picture so far is still delivered, and return its state until now.

        Raises:
            UnknownJobError: no job has this id, or it ended long ago.
        """
        for job in (*self._waiting, *self._running):
            if job.id == job_id:
                state = job.state
                self._stop(job, StopReason.CANCELLED)
                return state
        try:
            return self._ended[job_id]
        except KeyError:
            raise UnknownJobError(job_id) from None

    def abandon(self, job: Job) -> None:
        """Cancel a job whose picture nobody will receive. Does nothing where it has ended."""
        job.abandoned = True
        if not job.state.is_terminal:
            self._stop(job, StopReason.CANCELLED)

    def finish_early(self) -> None:
        """Have the running jobs end after their step, with their best picture so far."""
        for job in self._running:
            self._stop(job, StopReason.SHUTDOWN)

    async def drain(self, grace: float) -> bool:
        """Take no more jobs, send the waiting ones away, and give the running ones some seconds to finish.

        Those that do not finish by then end with their best picture so far, or with nothing where even their step does
        not end: nothing can interrupt a step, and one of a large picture on a slow device takes minutes.

        Returns:
            Whether every device is at rest; one that is not is still in its step.
        """
        self._refusal = _DRAINING
        for job in list(self._waiting):
            self._waiting.remove(job)
            self._end(job, JobState.FAILED, _not_serving(_DRAINING))
        at_rest = await self._idle_within(grace)
        if not at_rest:
            self.finish_early()
            at_rest = await self._idle_within(_LAST_STEP_SECONDS)
        for task in self._loops:
            task.cancel()
        await asyncio.gather(*self._loops, return_exceptions=True)
        for thread in (*self._threads, self._preparing):
            # What waits for a thread still gets its turn: to be told that the server is draining.
            thread.shutdown(wait=False)
        return at_rest

    async def _work(self, worker: DeviceWorker, thread: ThreadPoolExecutor) -> None:
        """Run the waiting jobs on one device, forever."""
        loop = asyncio.get_running_loop()
        while True:
            while not self._waiting:
                self._arrived.clear()
                await self._arrived.wait()
            job = self._waiting.pop(0)
            job.state = JobState.RUNNING
            job.expected_end = time.monotonic() + worker.pace.seconds(job.cost.flops)
            self._running.add(job)
            self._publish_positions()

            def publish(event: Event, job: Job = job) -> None:
                loop.call_soon_threadsafe(self._publish, job, event)

            try:
                stop_reason = await loop.run_in_executor(thread, worker.run, job, publish)
            except asyncio.CancelledError:
                # A drain has given the job up; its step may still be running.
                job.abandoned = True
                self._end(job, JobState.FAILED, _not_serving(_DRAINING))
                raise
            except JobCancelledError as error:
                self._end(job, JobState.CANCELLED, error)
            except JobError as error:
                self._end(job, JobState.FAILED, error)
            except Exception:
                _log.exception("job %s failed", job.id)
                self._end(job, JobState.FAILED, JobFailedError("INTERNAL", "internal error"))
            else:
                cancelled = stop_reason is StopReason.CANCELLED
                self._end(job, JobState.CANCELLED if cancelled else JobState.SUCCEEDED)
            finally:
                self._running.discard(job)
                self._left.set()

    def _publish(self, job: Job, event: Event) -> None:
        # A step that a drain did not wait for still reports when it ends.
        if not job.state.is_terminal:
            job.log.append(event)

    async def _idle_within(self, seconds: float) -> bool:
        """Wait until no job runs, for so many seconds at most, and return whether that is so."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                while self._running:
                    self._left.clear()
                    await self._left.wait()
        return not self._running

    def _stop(self, job: Job, reason: StopReason) -> None:
        job.stop_requested = job.stop_requested or reason
        if job in self._waiting:
            self._waiting.remove(job)
            self._end(job, JobState.CANCELLED, JobCancelledError())
            self._publish_positions()

    def _end(self, job: Job, state: JobState, error: Exception | None = None) -> None:
        job.state = state
        job.log.close(error)
        self._ended[job.id] = state
        if len(self._ended) > _REMEMBERED_JOBS:
            self._ended.popitem(last=False)

    def _check_accepting(self) -> None:
        if self._refusal is not None:
            raise _not_serving(self._refusal)

    def _publish_positions(self) -> None:
        for position, job in enumerate(self._waiting):
            job.log.append(Queued(position=position, eta_seconds=self._queue_seconds(position)))

    def _seconds(self, cost: Cost) -> float:
        """Return the expected duration of a job on the slowest device."""
        seconds = max(worker.pace.seconds(cost.flops) for worker in self._workers)
        return min(seconds, cost.time_budget_seconds) if cost.time_budget_seconds else seconds

    def _seconds_until_free(self) -> float:
        """Return the expected seconds until the first device is free."""
        if len(self._running) < len(self._workers):
            return 0.0
        now = time.monotonic()
        return max(0.0, min((job.expected_end or now) - now for job in self._running))

    def _queue_seconds(self, ahead: int) -> float:
        """Return the expected wait of a job with so many others ahead of it in the queue."""
        waiting = sum(self._seconds(job.cost) for job in self._waiting[:ahead])
        return self._seconds_until_free() + waiting / len(self._workers)

    def _retry_after(self, seconds: float) -> float:
        least, most = _RETRY_SECONDS
        return min(max(seconds, least), most)


def _not_serving(reason: str) -> NotServingError:
    return NotServingError(reason, _REFUSALS[reason], _REFUSED_RETRY_SECONDS)
