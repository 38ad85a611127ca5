"""Admission of jobs, the queue, and the devices that empty it. Everything here belongs to one event loop."""

import asyncio
import contextlib
import dataclasses
import functools
import logging
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Collection, Coroutine, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, TypeVar

from nst_service.engine.estimate import estimate
from nst_service.engine.memory.fit import Memory
from nst_service.engine.network.vgg import Vgg19
from nst_service.engine.optim.snapshot import Snapshot
from nst_service.engine.options import Limits
from nst_service.engine.sizes import Size
from nst_service.engine.spec import TransferRequest, TransferSpec, prepare
from nst_service.jobs.errors import (
    DeadlineTooShortError,
    DoesNotFitError,
    JobCancelledError,
    JobError,
    JobFailedError,
    MovedError,
    NotServingError,
    QueueFullError,
    UnknownJobError,
)
from nst_service.jobs.events import Accepted, CostEstimate, Delivery, Event, Progress, Queued, Reduced, Started
from nst_service.jobs.fitting import fitted
from nst_service.jobs.forecast import Span, forecast
from nst_service.jobs.job import Job
from nst_service.jobs.job_store import AsyncJobStore, first_event
from nst_service.jobs.log import EventLog, LoggedEvent
from nst_service.jobs.quotas import ANYONE, Owner, check_job, check_jobs
from nst_service.jobs.sharing import Claim, Room, joining
from nst_service.jobs.stored_request import ReadRequest, StoredRequest
from nst_service.jobs.worker import DeviceWorker, Outcome, Requeued
from nst_service.lifecycle import JobState, StopReason
from nst_service.store.errors import CorruptBlobError, LeaseLostError, StoreError
from nst_service.store.records import DisconnectPolicy, StoredJob

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
_RETRY_SECONDS = (1.0, 60.0)
"""The least and the most that a client is asked to wait."""
_POLL_SECONDS = 0.5
"""Between two looks into the store for the events of a job that does not run here."""
_HOUSEKEEPING_SECONDS = 1.0
_CLEANING_SECONDS = 60.0
_CHECKPOINT_SHARE = 0.01
"""The most of the time of a job that keeping its checkpoints may take."""
_Result = TypeVar("_Result")

_MAX_LOST_RUNS = 3
"""Servers in a row that may have died with a job, without getting it further, before it counts as their killer."""


@dataclass(frozen=True, kw_only=True)
class Durability:
    """How jobs outlive calls and servers."""

    checkpoint_seconds: float
    """Between two checkpoints of a job, at least."""
    reattach_seconds: float
    """For which a job that can be reattached goes on without a follower."""
    retention_seconds: float
    """For which a job is kept after its end."""
    is_alone: bool
    """Whether no other server shares the store."""


@dataclass(frozen=True, slots=True)
class JobView:
    """Where a job stands."""

    stored: StoredJob
    size: Size
    """Of its result, in pixels."""
    progress: Progress | None
    """Its last one, where it runs here."""


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
        job_store: AsyncJobStore,
        *,
        limits: Limits,
        max_queued: int,
        max_pending_bytes: int,
        max_running: int,
        max_job_bytes: int = 0,
        style_cache_bytes: int = 0,
        durability: Durability,
    ):
        """Make a scheduler with one worker for each model.

        Args:
            models: one for each device, all with the same weights.
            job_store: keeps the jobs.
            limits: of what a request may ask for.
            max_queued: jobs that may wait.
            max_pending_bytes: of requests that may wait to be read. One is always read.
            max_running: jobs that may share a device.
            max_job_bytes: memory of a job on its device; 0 for all that the device has.
            style_cache_bytes: memory on each device for the statistics of styles that may come again.
            durability: how jobs outlive calls and servers.
        """
        self.limits = limits
        self.durability = durability
        self._job_store = job_store
        self.max_queued = max_queued
        self._max_pending_bytes = max_pending_bytes
        self._pending_bytes = 0
        self._max_running = max_running
        self.layers = models[0].layers
        self._devices = [_Device(DeviceWorker(model, max_job_bytes, style_cache_bytes)) for model in models]
        self._preparing = ThreadPoolExecutor(_PREPARING_THREADS, "nst-prepare")
        self._admitting: list[str] = []
        """The owners of what is being decoded."""
        self._jobs: dict[str, Job] = {}
        """All that have not ended here, by their ids."""
        self._waiting: list[Job] = []
        self._unsaved: dict[Job, Callable[[], Awaitable[object]]] = {}
        """Jobs that have ended, which the store could not take, and what has it take that."""
        self._tasks: set[asyncio.Task[None]] = set()
        self._housekeeping: asyncio.Task[None] | None = None
        self._left = asyncio.Event()
        self.broken = asyncio.Event()
        """Set when a device has failed, and nothing can be computed on it until the process is another."""
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
            serving = loop.run_in_executor(device.thread, device.worker.serve)
            serving.add_done_callback(self._note_failed_device)
        await self._keep_house_once()
        await self._adopt()
        self._housekeeping = asyncio.create_task(self._keep_house())
        if self._refusal == _WARMING_UP:
            self._refusal = None

    async def submit(
        self,
        read: ReadRequest,
        deadline: float | None = None,
        owner: Owner = ANYONE,
        request_id: str | None = None,
        *,
        size: int = 0,
    ) -> Job | StoredJob:
        """Take a job on, or find the one that the same request has led to before.

        Args:
            read: reads what to do; run in a thread.
            deadline: when its result must be delivered, on the clock of `time.monotonic`.
            owner: whose it is.
            request_id: that of what is read.
            size: of what is read, in bytes.

        Raises:
            NotServingError: warming up or draining.
            NotPermittedError, QuotaExceededError: see `quotas`.
            QueueFullError: as many jobs wait as may wait, or as many bytes to be read.
            UnknownPictureError: a picture that is named is not there.
            InvalidRequestError: with everything that is wrong.
            RequestConflictError: the request id belongs to another request.
            DoesNotFitError: not every device has enough memory.
            DeadlineTooShortError: it cannot finish by its deadline.
            StoreError: it cannot be kept.
        """
        self._check_accepting()
        with self._pending(size):
            return await self._submit(read, deadline, owner, request_id)

    async def _submit(
        self, read: ReadRequest, deadline: float | None, owner: Owner, request_id: str | None
    ) -> Job | StoredJob:
        if request_id is not None:
            # A request that is repeated is not one more.
            stored_request = await self._admit(self._read, read, owner)
            if found := await self._job_store.find(owner.name, stored_request):
                return found
            read = _already(stored_request)
        self._check_room(owner)
        self._admitting.append(owner.name)
        try:
            stored_request = await self._admit(self._read, read, owner)
            spec = await self._admit(self._prepare, stored_request.request, owner)
            self._check_accepting()
            # A call that ends now leaves a job behind that nobody follows, not one that is half taken on.
            taking = asyncio.ensure_future(self._take_on(stored_request, spec, deadline, owner))
            try:
                return await asyncio.shield(taking)
            except asyncio.CancelledError:
                taking.add_done_callback(self._leave_unfollowed)
                raise
        finally:
            self._admitting.remove(owner.name)

    @contextlib.contextmanager
    def _pending(self, size: int) -> Iterator[None]:
        """Count the bytes of a request while it is read: whatever it asks for, it is held until then."""
        if self._pending_bytes and self._pending_bytes + size > self._max_pending_bytes:
            raise QueueFullError(f"requests of {self._pending_bytes} bytes", _RETRY_SECONDS[0])
        self._pending_bytes += size
        try:
            yield
        finally:
            self._pending_bytes -= size

    def _note_failed_device(self, serving: "asyncio.Future[bool]") -> None:
        if serving.cancelled():
            return
        if error := serving.exception():
            _log.critical("nothing runs on a device any more", exc_info=error)
        if error or not serving.result():
            self.broken.set()

    def _check_room(self, owner: Owner) -> None:
        check_jobs(owner, self._held(owner))
        idle = sum(not device.jobs for device in self._devices)
        waiting = len(self._waiting) + len(self._admitting)
        if waiting >= self.max_queued + idle:
            raise QueueFullError(f"{waiting} jobs", self._retry_after())

    def _read(self, read: ReadRequest, owner: Owner) -> StoredRequest:
        # A drain may have begun while the request waited for the thread.
        self._check_accepting()
        return read(functools.partial(self._job_store.picture, owner.name))

    def _held(self, owner: Owner) -> int:
        """Return how many jobs an owner has that wait or run, or are about to."""
        jobs = (*self._waiting, *self._running)
        return self._admitting.count(owner.name) + sum(job.owner == owner.name for job in jobs)

    def _prepare(self, request: TransferRequest, owner: Owner) -> TransferSpec:
        """Decode a request and see that it fits, in a thread."""
        self._check_accepting()
        spec = prepare(request, self.limits, self.layers)
        check_job(owner, pixels=spec.content.width * spec.content.height, iterations=spec.options.iterations)
        return self._fitted(spec)

    def _prepare_again(self, request: TransferRequest, size: Size) -> TransferSpec:
        """Decode the request of a job that goes on, in a thread; its result is as large as was told last."""
        spec = prepare(request, self.limits, self.layers)
        return self._fitted(spec if size == spec.content.size else spec.reduced(size))

    def _fitted(self, spec: TransferSpec) -> TransferSpec:
        return fitted(spec, self._capacity)

    @property
    def _capacity(self) -> Memory:
        """What a job can have, whichever device it comes to."""
        return Memory.common(device.worker.capacity for device in self._devices)

    async def estimate(self, read: ReadRequest, owner: Owner = ANYONE, *, size: int = 0) -> Accepted:
        """Return what a job would begin with, without taking it on; its id is empty.

        Raises:
            NotServingError, QueueFullError, UnknownPictureError, InvalidRequestError, QuotaExceededError,
                DoesNotFitError: as `submit` does.
        """
        with self._pending(size):
            stored_request = await self._admit(self._read, read, owner)
            spec = await self._admit(self._prepare, stored_request.request, owner)
        job = self._plan(spec, owner.name)
        return dataclasses.replace(self._accepted(job, self._forecast(job)[-1]), job_id="")

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
                tile_size=job.cost.tile_size or 0,
                reduced_from=max(job.spec.reduced_from or (0,)),
            ),
        )

    def _plan(self, spec: TransferSpec, owner: str, deadline: float | None = None) -> Job:
        """Return a job that has not been taken on yet."""
        cost = estimate(spec, self._capacity)
        # On the slowest device.
        seconds = max(device.worker.pace.expected(cost) for device in self._devices)
        return Job(
            spec=spec,
            cost=cost,
            accepted_at=time.monotonic(),
            deadline=deadline,
            expected_seconds=seconds,
            owner=owner,
        )

    async def _take_on(
        self, stored_request: StoredRequest, spec: TransferSpec, deadline: float | None, owner: Owner
    ) -> Job | StoredJob:
        job = self._plan(spec, owner.name, deadline)
        job.request_id, job.disconnect_policy = stored_request.request_id, stored_request.disconnect_policy
        span = self._forecast(job)[-1]
        seconds = span.end + self._seconds_to_next_turn()
        if deadline is not None and job.accepted_at + seconds > deadline:
            raise DeadlineTooShortError(seconds, max(0.0, deadline - job.accepted_at))
        accepted = self._accepted(job, span)
        self._jobs[job.id] = job
        try:
            submission = await self._job_store.submit(job, stored_request, accepted)
        except BaseException:
            del self._jobs[job.id]
            raise
        if not submission.created:
            del self._jobs[job.id]
            return submission.job
        job.log.append(accepted)
        self._waiting.append(job)
        if self._refusal is not None:
            # A drain has begun while it was kept.
            self._send_away(job)
        elif job.stop_requested:
            # As has been asked for by its request id meanwhile.
            self._stop(job, job.stop_requested)
        else:
            self._start_those_that_may()
        return job

    def _leave_unfollowed(self, taking: "asyncio.Task[Job | StoredJob]") -> None:
        if not taking.cancelled() and taking.exception() is None and isinstance(job := taking.result(), Job):
            self._note_unfollowed(job)

    # Following

    async def follow(self, job_id: str, owner: Owner = ANYONE, after: int = 0) -> AsyncGenerator[LoggedEvent, None]:
        """Yield the events of a job with a larger sequence than `after`, those to come included, until it has ended.

        Raises:
            UnknownJobError: no job of this owner has this id.
            NotServingError: the server leaves before the job has ended; it goes on when the server is back.
            JobError: the job has ended so.
        """
        while True:
            if job := self._own(job_id, owner):
                job.followers += 1
                job.unfollowed_at = 0.0
                try:
                    async with contextlib.aclosing(job.log.follow(after)) as events:
                        async for logged in events:
                            yield logged
                            after = logged.sequence
                    return
                except MovedError:
                    pass
                finally:
                    job.followers -= 1
                    self._note_unfollowed(job)
            stored = await self._stored(job_id, owner)
            async with contextlib.aclosing(self._job_store.replay(stored, after)) as events:
                async for logged in events:
                    yield logged
                    after = logged.sequence
            if stored.state.is_terminal:
                return
            if self._refusal == _DRAINING:
                raise _not_serving(_DRAINING)
            if job_id not in self._jobs:
                await asyncio.sleep(_POLL_SECONDS)

    async def view(self, job_id: str, owner: Owner = ANYONE) -> JobView:
        """Return where a job stands.

        Raises:
            UnknownJobError: no job of this owner has this id.
        """
        (view,) = await self._views([await self._stored(job_id, owner)])
        return view

    async def job_id(self, request_id: str, owner: Owner = ANYONE) -> str:
        """Return the id of the job that a request has led to, one that is being taken on included.

        Raises:
            UnknownJobError: no request of this owner has this id.
        """
        stored = await self._job_store.job_of_request(owner.name, request_id)
        if stored is not None:
            return stored.id
        # Of several that are about to be kept, the first one will be.
        for job in self._jobs.values():
            if (job.owner, job.request_id) == (owner.name, request_id):
                return job.id
        raise UnknownJobError(request_id)

    async def views(
        self, owner: Owner, *, states: Collection[JobState], before: int | None, limit: int
    ) -> list[JobView]:
        """Return where the jobs of an owner stand, newest first (see `Store.jobs` for the arguments)."""
        return await self._views(await self._job_store.jobs(owner.name, states, before, limit))

    async def _views(self, jobs: Sequence[StoredJob]) -> list[JobView]:
        sizes = await self._job_store.sizes(jobs)
        return [self._view(stored, sizes[stored.id]) for stored in jobs]

    def _view(self, stored: StoredJob, size: Size) -> JobView:
        job = self._jobs.get(stored.id)
        return JobView(stored, size, job.log.latest(Progress) if job else None)

    async def _stored(self, job_id: str, owner: Owner) -> StoredJob:
        stored = await self._job_store.job(job_id)
        # To others as if there were none: they shall not learn which ids there are.
        if stored is None or stored.owner != owner.name:
            raise UnknownJobError(job_id)
        return stored

    def _own(self, job_id: str, owner: Owner) -> Job | None:
        job = self._jobs.get(job_id)
        return job if job and job.owner == owner.name else None

    def _note_unfollowed(self, job: Job) -> None:
        """See what becomes of a job that nobody follows, if that is so."""
        if job.followers or job.state.is_terminal or job.disconnect_policy is DisconnectPolicy.KEEP_RUNNING:
            return
        if job.request_id is None:
            self._stop(job, StopReason.CANCELLED)
        else:
            job.unfollowed_at = time.monotonic()

    def _stop_unfollowed(self) -> None:
        latest = time.monotonic() - self.durability.reattach_seconds
        for job in list(self._jobs.values()):
            if not job.followers and 0 < job.unfollowed_at <= latest:
                self._stop(job, StopReason.CANCELLED)

    # Ending

    async def cancel(self, job_id: str, owner: Owner = ANYONE) -> JobState:
        """Cancel a job by its id, so that its picture so far is still delivered, and return its state until now.

        Raises:
            UnknownJobError: no job of this owner has this id.
        """
        if job := self._own(job_id, owner):
            state = job.state
            self._stop(job, StopReason.CANCELLED)
        else:
            state = (await self._stored(job_id, owner)).state
        # So that it stays cancelled should this server die before it ends. Comes after all that is being kept of it.
        await self._job_store.cancel(job_id)
        return state

    def finish_early(self) -> None:
        """Have the running jobs end after their step.

        Those that can be reattached leave, to go on later; the others end with their best picture so far.
        """
        for job in self._running:
            if job.request_id is None:
                self._stop(job, StopReason.SHUTDOWN)
            else:
                job.must_leave = True

    async def drain(self, grace: float) -> bool:
        """Take no more jobs, and give the running ones some seconds to finish.

        A job that can be reattached stays in the store, to go on from its checkpoint when a server is back. Of the
        others, those that wait are sent away, and those that do not finish by then end with their best picture so far,
        or with nothing where even their step does not end: nothing can interrupt a step, and one of a large picture on
        a slow device takes minutes.

        Returns:
            Whether every device is at rest; one that is not is still in its step.
        """
        self._refusal = _DRAINING
        for job in list(self._waiting):
            self._send_away(job)
        at_rest = await self._idle_within(grace)
        if not at_rest:
            self.finish_early()
            at_rest = await self._idle_within(_LAST_STEP_SECONDS)
        for device in self._devices:
            for job in device.jobs:
                # The drain gives the job up; its step may still be running.
                job.given_up = True
                self._forget(job, JobState.FAILED, _not_serving(_DRAINING))
            device.jobs.clear()
            device.worker.close()
            # What waits for a thread still gets its turn: to be told that the server is draining.
            device.thread.shutdown(wait=False)
        self._preparing.shutdown(wait=False)
        if self._housekeeping:
            self._housekeeping.cancel()
        await self._settled()
        return at_rest

    async def close(self) -> None:
        """Hand back the jobs that a drain has given up. Calls must have ended: the store answers none any more."""
        try:
            await self._job_store.close()
        except StoreError as error:
            _log.warning("the jobs that still run could not be handed back: %s", error)

    def _send_away(self, job: Job) -> None:
        """Let go of a job that waits."""
        self._waiting.remove(job)
        self._end(job, JobState.FAILED, _not_serving(_DRAINING))
        if job.request_id is None:
            self._spawn(self._cancel_waiting(job))
        else:
            del self._jobs[job.id]

    # Running

    def _start_those_that_may(self) -> None:
        """Have the waiting jobs that may run join a device, and tell the others where they are in the queue."""
        if self.broken.is_set():
            # Nobody would serve them.
            return
        for job, number in [(self._waiting[place], number) for place, number in joining(*self._claims())]:
            self._start(self._devices[number], job)
        self._publish_positions()

    def _start(self, device: _Device, job: Job) -> None:
        job.state = JobState.RUNNING
        self._waiting.remove(job)
        device.jobs.append(job)
        self._spawn(self._begin(device, job))

    async def _begin(self, device: _Device, job: Job) -> None:
        """Have a job that has its place join its device, unless another server has taken it meanwhile."""
        loop = asyncio.get_running_loop()
        try:
            leased = await self._job_store.lease(job.id)
        except StoreError as error:
            _log.warning("job %s cannot begin: %s", job.id, error)
            device.jobs.remove(job)
            job.state = JobState.QUEUED
            if self._refusal == _DRAINING:
                self._forget(job, JobState.FAILED, _not_serving(_DRAINING))
            else:
                # Housekeeping tries again, after those that may be able to.
                self._waiting.append(job)
            self._left.set()
            return
        if job not in device.jobs:
            # A drain has given it up.
            return
        if leased is None:
            self._vacate(device, job)
            self._forget(job, JobState.FAILED, MovedError())
            return
        job.lease, job.snapshot = leased.lease, leased.snapshot
        job.log.skip_to(leased.lease.first_sequence)
        job.next_checkpoint = time.monotonic() + self.durability.checkpoint_seconds

        def publish(event: Event) -> None:
            if isinstance(event, Reduced):
                asyncio.run_coroutine_threadsafe(self._publish_kept(job, event), loop).result()
            else:
                loop.call_soon_threadsafe(self._publish, job, event)

        def keep(snapshot: Snapshot) -> None:
            loop.call_soon_threadsafe(lambda: self._spawn(self._keep_checkpoint(job, snapshot)))

        def leave(outcome: Outcome) -> None:
            loop.call_soon_threadsafe(self._leave, device, job, outcome)

        device.worker.join(job, publish, keep, leave)

    async def _keep_checkpoint(self, job: Job, snapshot: Snapshot) -> None:
        started = time.monotonic()
        try:
            await self._job_store.save_checkpoint(job, snapshot)
        except StoreError as error:
            _log.warning("job %s has no new checkpoint: %s", job.id, error)
        seconds = time.monotonic() - started
        job.next_checkpoint = time.monotonic() + max(self.durability.checkpoint_seconds, seconds / _CHECKPOINT_SHARE)

    def _leave(self, device: _Device, job: Job, outcome: Outcome) -> None:
        # A step that a drain did not wait for still reports when it ends.
        if job not in device.jobs:
            return
        if isinstance(outcome, Requeued) and outcome.is_lost:
            self.broken.set()
        # It counts until it is kept how it ended.
        self._spawn(self._settle(job, outcome))
        self._vacate(device, job)

    def _vacate(self, device: _Device, job: Job) -> None:
        device.jobs.remove(job)
        self._left.set()
        if self._refusal is None:
            self._start_those_that_may()

    async def _settle(self, job: Job, outcome: Outcome) -> None:
        """Keep how a job has ended, then tell its followers: what they have seen is not lost any more."""
        # Later calls are to keep the sequences that followers have seen by then.
        save = functools.partial(self._save, job, outcome, job.log.next_sequence)
        try:
            await save()
        except LeaseLostError:
            self._forget(job, JobState.FAILED, MovedError())
            return
        except StoreError as error:
            _log.error("job %s has ended, which cannot be kept yet: %s", job.id, error)
            if not isinstance(outcome, Requeued):
                self._unsaved[job] = save
        if isinstance(outcome, Delivery):
            for event in outcome.events():
                job.log.append(event)
        match outcome:
            case Requeued():
                error_: JobError | None = _not_serving(_DRAINING)
            case Delivery():
                error_ = None
            case _:
                error_ = outcome
        self._forget(job, _state_after(outcome), error_)

    async def _save(self, job: Job, outcome: Outcome, sequence: int) -> None:
        match outcome:
            case Requeued():
                if outcome.snapshot:
                    await self._job_store.save_checkpoint(job, outcome.snapshot)
                await self._job_store.release(job, is_lost=outcome.is_lost)
            case Delivery():
                await self._job_store.save_result(job, _state_after(outcome), outcome, sequence)
            case _:
                await self._job_store.save_failure(job, _state_after(outcome), outcome)

    def _forget(self, job: Job, state: JobState, error: Exception | None = None) -> None:
        self._end(job, state, error)
        if job not in self._unsaved:
            del self._jobs[job.id]

    def _end(self, job: Job, state: JobState, error: Exception | None = None) -> None:
        job.state = state
        job.log.close(error)
        self._left.set()

    def _publish(self, job: Job, event: Event) -> None:
        # A step that a drain did not wait for still reports when it ends.
        if job.state.is_terminal:
            return
        logged = job.log.append(event)
        if isinstance(event, Started):
            self._spawn(self._note(job, logged))

    async def _publish_kept(self, job: Job, event: Event) -> None:
        """Keep an event, then tell it, so that no later run contradicts it. No other may come meanwhile."""
        await self._note(job, LoggedEvent(job.log.next_sequence, event))
        if not job.state.is_terminal:
            job.log.append(event)

    async def _note(self, job: Job, logged: LoggedEvent) -> None:
        try:
            await self._job_store.append(job, logged)
        except StoreError as error:
            _log.warning("an event of job %s was not kept: %s", job.id, error)

    async def _cancel_waiting(self, job: Job) -> None:
        """Keep that a job is cancelled that has never run; it is known here until then, so as not to be adopted."""
        save = functools.partial(self._job_store.cancel, job.id)
        try:
            await save()
        except StoreError as error:
            _log.warning("job %s is cancelled, which cannot be kept yet: %s", job.id, error)
            self._unsaved[job] = save
        else:
            del self._jobs[job.id]

    def _spawn(self, work: Coroutine[None, None, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        task.add_done_callback(lambda _: self._left.set())

    async def _settled(self) -> None:
        """Wait until everything that was begun with the store is over."""
        while self._tasks:
            await asyncio.wait(self._tasks)

    async def _idle_within(self, seconds: float) -> bool:
        """Wait until no job runs, for so many seconds at most, and return whether that is so."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                while self._running or self._tasks:
                    self._left.clear()
                    await self._left.wait()
        return not self._running

    def _stop(self, job: Job, reason: StopReason) -> None:
        job.stop_requested = job.stop_requested or reason
        # One that ran before goes on to have the picture again that it had.
        if job in self._waiting and not job.runs:
            self._waiting.remove(job)
            self._end(job, JobState.CANCELLED, JobCancelledError())
            self._spawn(self._cancel_waiting(job))
            self._start_those_that_may()

    # What outlives a server

    async def _adopt(self) -> None:
        """Take on the jobs that wait in the store and are not known here."""
        for stored in await self._job_store.queue():
            if stored.id not in self._jobs:
                await self._take_over(stored)
        self._start_those_that_may()

    async def _take_over(self, stored: StoredJob) -> None:
        try:
            job = await self._resumed(stored)
        except Exception as error:
            if isinstance(error, StoreError | MemoryError) and not isinstance(error, CorruptBlobError):
                _log.warning("job %s cannot go on yet: %s", stored.id, error)
                return
            if isinstance(error, DoesNotFitError):
                await self._give_up(stored, error)
                return
            # Whatever it is: no job keeps the server from the others.
            _log.error("job %s cannot go on", stored.id, exc_info=error)
            await self._give_up(stored, JobFailedError("REQUEST_LOST", "the request could not be read back"))
            return
        if stored.lost_runs >= _MAX_LOST_RUNS:
            await self._give_up(
                stored, JobFailedError("KEEPS_CRASHING", "the server has died with this job repeatedly")
            )
            return
        is_ownerless = stored.disconnect_policy is DisconnectPolicy.CANCEL and stored.request_id is None
        if stored.cancel_requested or is_ownerless:
            job.stop_requested = StopReason.CANCELLED
        elif stored.disconnect_policy is DisconnectPolicy.CANCEL and self.durability.is_alone:
            # Elsewhere its followers may be with another server.
            job.unfollowed_at = time.monotonic()
        self._jobs[job.id] = job
        self._waiting.append(job)
        _log.info("job %s goes on", job.id)

    async def _resumed(self, stored: StoredJob) -> Job:
        request = await self._job_store.request(stored)
        if request is None:
            raise UnknownJobError(stored.id)
        sizes = await self._job_store.sizes([stored])
        spec = await self._in_thread(self._prepare_again, request, sizes[stored.id])
        # The clocks of two processes have only the time of day in common, which may have been set.
        age = max(0.0, time.time() - stored.created_at)
        deadline = None
        if stored.deadline is not None:
            # Never more than there was.
            left = min(stored.deadline - time.time(), stored.deadline - stored.created_at)
            deadline = time.monotonic() + left
        job = self._plan(spec, stored.owner, deadline)
        job.id, job.request_id, job.runs = stored.id, stored.request_id, stored.epoch
        job.disconnect_policy = stored.disconnect_policy
        job.accepted_at -= age
        job.log = EventLog([first_event(stored), *await self._job_store.events(stored.id)])
        return job

    async def _give_up(self, stored: StoredJob, error: JobError) -> None:
        with contextlib.suppress(StoreError):
            await self._job_store.fail_queued(stored.id, error)

    async def _keep_house(self) -> None:
        cleaned_at = time.monotonic()
        while True:
            await asyncio.sleep(_HOUSEKEEPING_SECONDS)
            await self._keep_house_once()
            if self._refusal is None:
                if not self._waiting and not all(device.jobs for device in self._devices):
                    await self._quietly(self._adopt())
                self._start_those_that_may()
            if time.monotonic() - cleaned_at > _CLEANING_SECONDS:
                await self._quietly(self._job_store.clean())
                cleaned_at = time.monotonic()

    async def _keep_house_once(self) -> None:
        self._stop_unfollowed()
        await self._quietly(self._beat())
        for job, save in list(self._unsaved.items()):
            await self._quietly(self._save_late(job, save))

    async def _beat(self) -> None:
        pulse = await self._job_store.heartbeat()
        for job_id in pulse.cancelled:
            if job := self._jobs.get(job_id):
                self._stop(job, StopReason.CANCELLED)

    async def _save_late(self, job: Job, save: Callable[[], Awaitable[object]]) -> None:
        with contextlib.suppress(LeaseLostError):
            await save()
        del self._unsaved[job]
        del self._jobs[job.id]

    async def _quietly(self, work: Coroutine[None, None, None]) -> None:
        try:
            await work
        except StoreError as error:
            _log.warning("the store: %s", error)

    async def _admit(self, call: Callable[..., _Result], *args: Any) -> _Result:
        """Do a part of an admission in a thread, unless a drain has closed the threads meanwhile."""
        self._check_accepting()
        return await self._in_thread(call, *args)

    async def _in_thread(self, call: Callable[..., _Result], *args: Any) -> _Result:
        return await asyncio.get_running_loop().run_in_executor(self._preparing, functools.partial(call, *args))

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


def _already(stored_request: StoredRequest) -> ReadRequest:
    return lambda _: stored_request


def _state_after(outcome: Outcome) -> JobState:
    match outcome:
        case Requeued():
            return JobState.QUEUED
        case Delivery():
            is_cancelled = outcome.completed.stop_reason is StopReason.CANCELLED
            return JobState.CANCELLED if is_cancelled else JobState.SUCCEEDED
        case JobCancelledError():
            return JobState.CANCELLED
        case _:
            return JobState.FAILED
