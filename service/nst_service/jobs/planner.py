"""The planner makes jobs from requests: it checks them, fits them into memory and estimates their cost."""

import asyncio
import functools
import math
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from nst_service.engine.errors import InvalidRequestError, PictureError, PictureTooCostlyError, Violation
from nst_service.engine.estimate import estimate
from nst_service.engine.memory.footprint import picture_bytes
from nst_service.engine.options import NO_LIMITS, Limits
from nst_service.engine.outline import TransferOutline
from nst_service.engine.sizes import Size
from nst_service.engine.spec import (
    TransferRequest,
    TransferSpec,
    assemble,
    check_options,
    outline_of,
    pictures_of,
    working_pictures,
)
from nst_service.jobs.decoders import Decoders, DecodingBudget
from nst_service.jobs.device_pool import DevicePool
from nst_service.jobs.errors import DoesNotFitError, NotServingError, Unavailability
from nst_service.jobs.events import Accepted, CostEstimate
from nst_service.jobs.forecast import Span
from nst_service.jobs.job import Job, JobPlan, RunState
from nst_service.jobs.job_store import first_event
from nst_service.jobs.log import EventLog, LoggedEvent
from nst_service.jobs.memory_fit import fitted
from nst_service.jobs.quotas import Owner, check_job
from nst_service.store.records import DisconnectPolicy, StoredJob

PREPARING_THREADS = 2
"""The number of requests that are read or fitted into memory at once."""
_SPARE = 10.0
"""The CPU time that an accepted job may take to decode, as a multiple of what a request may take.

The request has been within the limit once. Another machine, or a lower limit, is no reason to lose the job.
"""

_Result = TypeVar("_Result")


class Planner:
    """Makes jobs that the devices can run. It belongs to the event loop."""

    def __init__(self, pool: DevicePool, limits: Limits, decoders: Decoders, *, max_picture_bytes: int = sys.maxsize):
        """Make a planner.

        Args:
            pool: the devices.
            limits: the limits of a request.
            decoders: decode the pictures.
            max_picture_bytes: the bytes of the decoded pictures of a job (see `QueueLimits`).
        """
        self._max_picture_bytes = max_picture_bytes
        self._pool = pool
        self._limits = limits
        self._decoders = decoders
        self._threads = ThreadPoolExecutor(PREPARING_THREADS, "nst-prepare")
        self._is_closed = False

    async def in_thread(self, call: Callable[..., _Result], *args: Any) -> _Result:
        """Run a call that takes long in a thread, and return its result.

        Raises:
            NotServingError: the planner is closed.
        """
        if self._is_closed:
            raise NotServingError(Unavailability.DRAINING)
        return await asyncio.get_running_loop().run_in_executor(self._threads, functools.partial(call, *args))

    def close(self) -> None:
        """Accept no more calls, and end the decoders. Calls that wait for a thread still run."""
        self._is_closed = True
        self._threads.shutdown(wait=False)
        self._decoders.close()

    async def outline(self, request: TransferRequest, owner: Owner) -> TransferOutline:
        """Fit a request into the memory of the devices, by the headers of its pictures alone.

        Raises:
            InvalidRequestError: the request is invalid, as far as the headers tell; the error has every violation.
            QuotaExceededError: the job is larger than the quota of its owner allows.
            DoesNotFitError: not even the smallest size that the request allows fits.
        """
        return await self._outline(request, owner, self._budget(owner))

    async def prepare(self, request: TransferRequest, owner: Owner) -> TransferOutline:
        """Fit a request into the memory of the devices, and check that its pictures can be decoded.

        Raises:
            InvalidRequestError: the request is invalid; the error has every violation.
            QuotaExceededError, DoesNotFitError: as in `outline`.
        """
        budget = self._budget(owner)
        outline = await self._outline(request, owner, budget)
        violations = []
        for working in working_pictures(request, outline):
            try:
                await self._decoders.check(working, budget)
            except PictureError as error:
                violations.append(Violation(working.picture.field, str(error)))
        if violations:
            raise InvalidRequestError(violations)
        return outline

    async def _outline(self, request: TransferRequest, owner: Owner, budget: DecodingBudget) -> TransferOutline:
        check_options(request, self._limits, self._pool.layers)
        headers = await self._decoders.sizes(pictures_of(request), budget)
        outline = outline_of(request, headers, self._limits)
        check_job(owner, pixels=math.prod(outline.size), iterations=outline.options.iterations)
        fitting = await self.in_thread(fitted, outline, self._pool.capacity)
        needed = picture_bytes(fitting.size, fitting.styles)
        if needed > self._max_picture_bytes:
            raise DoesNotFitError(needed, self._max_picture_bytes, 0, limit="memory_bytes")
        return fitting

    async def prepare_again(
        self, request: TransferRequest, owner: str, size: Size, *, must_fit: bool = True
    ) -> TransferOutline:
        """Fit the request of a job that goes on here into the memory of the devices.

        The limits of the server do not apply, because they may have been higher when the job was accepted.

        Args:
            request: the stored request.
            owner: name of the owner of the job.
            size: the size of the result that was last published.
            must_fit: whether the job needs the memory of further steps. It does not if it only delivers the picture
                that it has.

        Raises:
            InvalidRequestError: the network of this server does not have a layer that the request names.
            PictureTooCostlyError: the headers of the pictures take longer to read than the limits allow.
            DoesNotFitError: the job does not fit any more.
        """
        check_options(request, NO_LIMITS, self._pool.layers)
        headers = await self._decoders.sizes(pictures_of(request), self._spare_budget(owner))
        for header in headers.values():
            if isinstance(header, PictureTooCostlyError):
                raise header
        outline = outline_of(request, headers, NO_LIMITS)
        if size != outline.size:
            outline = outline.reduced(size)
        return await self.in_thread(fitted, outline, self._pool.capacity) if must_fit else outline

    async def render(self, request: TransferRequest, outline: TransferOutline, owner: str) -> TransferSpec:
        """Decode the pictures of an accepted job.

        Args:
            request: the stored request.
            outline: the outline of the job.
            owner: name of the owner of the job.

        Raises:
            PictureError: a picture cannot be decoded.
            PictureTooCostlyError: a picture cannot be decoded within the limits of this server.
        """
        budget = self._spare_budget(owner)
        rendered = {
            working.picture.field: await self._decoders.render(working, budget)
            for working in working_pictures(request, outline)
        }
        return assemble(request, outline, rendered)

    def _budget(self, owner: Owner) -> DecodingBudget:
        return self._decoders.budget(owner.name, max_pixels=self._limits.max_input_pixels)

    def _spare_budget(self, owner: str) -> DecodingBudget:
        return self._decoders.budget(owner, max_pixels=NO_LIMITS.max_input_pixels, factor=_SPARE)

    def plan(
        self,
        outline: TransferOutline,
        *,
        owner: str = "",
        request_id: str | None = None,
        disconnect_policy: DisconnectPolicy = DisconnectPolicy.CANCEL,
        deadline: float | None = None,
    ) -> Job:
        """Return a new job that is not accepted yet. See `JobPlan` for the arguments."""
        state = self._initial_state(outline)
        plan = JobPlan(
            owner=owner,
            request_id=request_id,
            disconnect_policy=disconnect_policy,
            accepted_at=time.monotonic(),
            deadline=deadline,
            expected_seconds=state.remaining_seconds,
        )
        return Job(plan=plan, run_state=state, awaits_follower=True)

    def resume(self, stored: StoredJob, outline: TransferOutline, events: Sequence[LoggedEvent]) -> Job:
        """Return a job of the store that goes on here.

        Args:
            stored: the stored job.
            outline: its outline.
            events: its stored events, without the first.
        """
        state, now = self._initial_state(outline), time.time()
        # The clocks of two processes have only the time of day in common, and somebody may have changed it.
        age = max(0.0, now - stored.created_at)
        deadline = None
        if stored.deadline is not None:
            # Never more than the job had in the beginning.
            deadline = time.monotonic() + min(stored.deadline - now, stored.deadline - stored.created_at)
        plan = JobPlan(
            id=stored.id,
            owner=stored.owner,
            request_id=stored.request_id,
            disconnect_policy=stored.disconnect_policy,
            accepted_at=time.monotonic() - age,
            deadline=deadline,
            expected_seconds=state.remaining_seconds,
            earlier_runs=stored.epoch,
        )
        return Job(plan=plan, run_state=state, log=EventLog([first_event(stored), *events]))

    def _initial_state(self, outline: TransferOutline) -> RunState:
        cost = estimate(outline, self._pool.capacity)
        return RunState(outline=outline, cost=cost, remaining_seconds=self._pool.expected_seconds(cost))


def accepted(job: Job, span: Span, *, job_id: str) -> Accepted:
    """Return the event with which a job begins.

    Args:
        job: the planned job.
        span: its expected time on a device.
        job_id: its id; empty for an estimate.
    """
    outline, cost = job.run_state.outline, job.run_state.cost
    return Accepted(
        job_id=job_id,
        options=outline.options,
        output=outline.output,
        width=outline.size.width,
        height=outline.size.height,
        estimate=CostEstimate(
            seconds=job.plan.expected_seconds,
            queue_seconds=span.start,
            peak_memory_bytes=cost.peak_bytes,
            tile_size=cost.tile_size or 0,
            reduced_from=max(outline.reduced_from or (0,)),
        ),
    )
