"""Admission of jobs, the queue, and the devices that empty it. Everything here belongs to one event loop."""

import asyncio
import contextlib
import dataclasses
import time
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
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
    NotServingError,
    QueueFullError,
    UnknownJobError,
)
from nst_service.jobs.events import Accepted, CostEstimate, Event, Queued
from nst_service.jobs.forecast import Span, forecast
from nst_service.jobs.job import Job
from nst_service.jobs.quotas import ANYONE, Owner, check_job, check_jobs
from nst_service.jobs.sharing import Claim, Room, joining
from nst_service.jobs.states import JobState, StopReason
from nst_service.jobs.worker import DeviceWorker

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


@dataclass(eq=False)
class _Device:
    """A device and what runs on it."""

    worker: DeviceWorker
    thread: ThreadPoolExecutor = field(init=False)
    jobs: list[Job] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.thread = ThreadPoolExecutor(1, f"nst-{self.worker.device}")


class Scheduler:
    """Takes jobs on, lets them wait in order, and has each run on a device that has room for it (see `sharing`)."""

    def __init__(
        self,
        models: Sequence[Vgg19],
        *,
        limits: Limits,
        max_queued: int,
        max_running: int,
        max_job_bytes: int = 0,
        style_cache_bytes: int = 0,
    ):
        """Make a scheduler with one worker for each model.

        Args:
            models: one for each device, all with the same weights.
            limits: of what a request may ask for.
            max_queued: jobs that may wait.
            max_running: jobs that may share a device.
            max_job_bytes: memory of a job on its device; 0 for all that the device has.
            style_cache_bytes: memory on each device for the statistics of styles that may come again.
        """
        self.limits = limits
        self.max_queued = max_queued
        self._max_running = max_running
        self.layers = models[0].layers
        self._devices = [_Device(DeviceWorker(model, max_job_bytes, style_cache_bytes)) for model in models]
        self._preparing = ThreadPoolExecutor(_PREPARING_THREADS, "nst-prepare")
        self._admitting: list[str] = []
        """The owners of what is being decoded."""
        self._waiting: list[Job] = []
        self._ended: OrderedDict[str, tuple[str, JobState]] = OrderedDict()
        """Owner and state of each."""
        self._left = asyncio.Event()
        self._refusal: str | None = _WARMING_UP

    @property
    def devices(self) -> list[str]:
        """Names of the devices."""
        return [str(device.worker.device) for device in self._devices]

    @property
    def queued_jobs(self) -> int:
        """Jobs that wait."""
        return len(self._waiting)

    @property
    def running_jobs(self) -> int:
        """Jobs that run."""
        return len(self._running)

    @property
    def _running(self) -> list[Job]:
        return [job for device in self._devices for job in device.jobs]

    async def start(self) -> None:
        """Warm every device up, then take jobs."""
        loop = asyncio.get_running_loop()
        await asyncio.gather(*(loop.run_in_executor(device.thread, device.worker.warm_up) for device in self._devices))
        for device in self._devices:
            device.thread.submit(device.worker.serve)
        if self._refusal == _WARMING_UP:
            self._refusal = None

    async def submit(self, request: TransferRequest, deadline: float | None = None, owner: Owner = ANYONE) -> Job:
        """Take a job on.

        Args:
            request: what to do.
            deadline: when its result must be delivered, on the clock of `time.monotonic`.
            owner: whose it is.

        Raises:
            NotServingError: warming up or draining.
            NotPermittedError, QuotaExceededError: see `quotas`.
            QueueFullError: as many jobs wait as may wait.
            InvalidRequestError: with everything that is wrong.
            DoesNotFitError: no device has enough memory.
            DeadlineTooShortError: it cannot finish by its deadline.
        """
        self._check_accepting()
        check_jobs(owner, self._held(owner))
        idle = sum(not device.jobs for device in self._devices)
        waiting = len(self._waiting) + len(self._admitting)
        if waiting >= self.max_queued + idle:
            raise QueueFullError(waiting, self._retry_after())
        self._admitting.append(owner.name)
        try:
            spec = await asyncio.get_running_loop().run_in_executor(self._preparing, self._prepare, request, owner)
        finally:
            self._admitting.remove(owner.name)
        self._check_accepting()
        return self._admit(spec, deadline, owner)

    def _held(self, owner: Owner) -> int:
        """Return how many jobs an owner has that wait or run, or are about to."""
        jobs = (*self._waiting, *self._running)
        return self._admitting.count(owner.name) + sum(job.owner == owner.name for job in jobs)

    def _prepare(self, request: TransferRequest, owner: Owner) -> TransferSpec:
        """Decode a request, in a thread."""
        # A drain may have begun while the request waited for the thread.
        self._check_accepting()
        spec = prepare(request, self.limits, self.layers)
        check_job(owner, pixels=spec.content.width * spec.content.height, iterations=spec.options.iterations)
        return spec

    async def estimate(self, request: TransferRequest, owner: Owner = ANYONE) -> Accepted:
        """Return what a job would begin with, without taking it on; its id is empty.

        Raises:
            NotServingError, InvalidRequestError, QuotaExceededError, DoesNotFitError: as `submit` does.
        """
        self._check_accepting()
        spec = await asyncio.get_running_loop().run_in_executor(self._preparing, self._prepare, request, owner)
        job = self._plan(spec, owner)
        return dataclasses.replace(self._accepted(job, self._forecast(job)[-1]), job_id="")

    def _cost(self, spec: TransferSpec) -> Cost:
        capacity = min(device.worker.capacity for device in self._devices)
        cost = estimate(spec, capacity)
        if cost.peak_bytes > capacity:
            largest = largest_size_within(capacity, spec.options, spec.content.size)
            raise DoesNotFitError(cost.peak_bytes, capacity, largest)
        return cost

    def _accepted(self, job: Job, span: Span) -> Accepted:
        return Accepted(
            job_id=job.id,
            options=job.spec.options,
            output=job.spec.output,
            width=job.spec.content.width,
            height=job.spec.content.height,
            estimate=CostEstimate(
                seconds=job.expected_seconds,
                queue_seconds=span.start,
                peak_memory_bytes=job.cost.peak_bytes,
                tile_size=job.cost.tile or 0,
            ),
        )

    def _plan(self, spec: TransferSpec, owner: Owner, deadline: float | None = None) -> Job:
        """Return a job that has not been taken on yet."""
        cost = self._cost(spec)
        # On the slowest device.
        seconds = max(device.worker.pace.expected(cost) for device in self._devices)
        return Job(
            spec=spec,
            cost=cost,
            accepted_at=time.monotonic(),
            deadline=deadline,
            expected_seconds=seconds,
            owner=owner.name,
        )

    def _admit(self, spec: TransferSpec, deadline: float | None, owner: Owner) -> Job:
        job = self._plan(spec, owner, deadline)
        span = self._forecast(job)[-1]
        seconds = span.end + self._seconds_to_next_turn()
        if deadline is not None and job.accepted_at + seconds > deadline:
            raise DeadlineTooShortError(seconds, max(0.0, deadline - job.accepted_at))
        job.log.append(self._accepted(job, span))
        self._waiting.append(job)
        self._start_those_that_may()
        return job

    def cancel(self, job_id: str, owner: Owner = ANYONE) -> JobState:
        """Cancel a job by its id, so that its picture so far is still delivered, and return its state until now.

        Raises:
            UnknownJobError: no job of this owner has this id, or it ended long ago.
        """
        for job in (*self._waiting, *self._running):
            if job.id == job_id and job.owner == owner.name:
                state = job.state
                self._stop(job, StopReason.CANCELLED)
                return state
        ended = self._ended.get(job_id)
        # To others as if there were none: they shall not learn which ids there are.
        if ended is None or ended[0] != owner.name:
            raise UnknownJobError(job_id)
        return ended[1]

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
        for device in self._devices:
            for job in list(device.jobs):
                # The drain gives the job up; its step may still be running.
                job.abandoned = True
                self._leave(device, job, _not_serving(_DRAINING))
            device.worker.close()
            # What waits for a thread still gets its turn: to be told that the server is draining.
            device.thread.shutdown(wait=False)
        self._preparing.shutdown(wait=False)
        return at_rest

    def _start_those_that_may(self) -> None:
        """Have the waiting jobs that may run join a device, and tell the others where they are in the queue."""
        for job, number in [(self._waiting[place], number) for place, number in joining(*self._claims())]:
            self._start(self._devices[number], job)
        self._publish_positions()

    def _start(self, device: _Device, job: Job) -> None:
        loop = asyncio.get_running_loop()
        job.state = JobState.RUNNING
        self._waiting.remove(job)
        device.jobs.append(job)

        def publish(event: Event) -> None:
            loop.call_soon_threadsafe(self._publish, job, event)

        def leave(outcome: StopReason | JobError) -> None:
            loop.call_soon_threadsafe(self._leave, device, job, outcome)

        device.worker.join(job, publish, leave)

    def _leave(self, device: _Device, job: Job, outcome: StopReason | JobError) -> None:
        # A step that a drain did not wait for still reports when it ends.
        if job.state.is_terminal:
            return
        device.jobs.remove(job)
        if isinstance(outcome, JobCancelledError) or outcome is StopReason.CANCELLED:
            state = JobState.CANCELLED
        else:
            state = JobState.FAILED if isinstance(outcome, JobError) else JobState.SUCCEEDED
        self._end(job, state, outcome if isinstance(outcome, JobError) else None)
        self._left.set()
        self._start_those_that_may()

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
            self._start_those_that_may()

    def _end(self, job: Job, state: JobState, error: Exception | None = None) -> None:
        job.state = state
        job.log.close(error)
        self._ended[job.id] = job.owner, state
        if len(self._ended) > _REMEMBERED_JOBS:
            self._ended.popitem(last=False)

    def _check_accepting(self) -> None:
        if self._refusal is not None:
            raise _not_serving(self._refusal)

    def _publish_positions(self) -> None:
        for position, (job, span) in enumerate(zip(self._waiting, self._forecast(), strict=True)):
            job.log.append(Queued(position=position, eta_seconds=span.start))

    def _forecast(self, *arriving: Job) -> list[Span]:
        """Return when the waiting jobs will start and end, and one that arrives now."""
        return forecast(*self._claims(*arriving))

    def _claims(self, *arriving: Job) -> tuple[list[list[Claim]], list[Claim], list[Room]]:
        """Return what the running jobs and the waiting ones claim, and what the devices offer."""
        now = time.monotonic()
        return (
            [[job.claim(now) for job in device.jobs] for device in self._devices],
            [job.claim(now) for job in (*self._waiting, *arriving)],
            [Room(jobs=self._max_running, memory=device.worker.memory) for device in self._devices],
        )

    def _seconds_to_next_turn(self) -> float:
        """Return for how long, at worst, a job that may start now waits for the steps that are being taken."""
        return min(max((job.next_seconds for job in device.jobs), default=0.0) for device in self._devices)

    def _retry_after(self) -> float:
        """Return after how many seconds a place in the queue will be free; a device, where none may wait."""
        idle = min(sum(job.remaining_seconds for job in device.jobs) for device in self._devices)
        least, most = _RETRY_SECONDS
        return min(max(min((span.start for span in self._forecast()), default=idle), least), most)


def _not_serving(reason: str) -> NotServingError:
    return NotServingError(reason, _REFUSALS[reason], _REFUSED_RETRY_SECONDS)
