"""The planner makes jobs from requests: it decodes them, fits them into memory and estimates their cost."""

import asyncio
import functools
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from nst_service.engine.estimate import estimate
from nst_service.engine.options import NO_LIMITS, Limits
from nst_service.engine.sizes import Size
from nst_service.engine.spec import TransferRequest, TransferSpec, prepare
from nst_service.jobs.device_pool import DevicePool
from nst_service.jobs.errors import NotServingError, Unavailability
from nst_service.jobs.events import Accepted, CostEstimate
from nst_service.jobs.forecast import Span
from nst_service.jobs.job import Job, JobPlan, RunState
from nst_service.jobs.job_store import first_event
from nst_service.jobs.log import EventLog, LoggedEvent
from nst_service.jobs.memory_fit import fitted
from nst_service.jobs.quotas import Owner, check_job
from nst_service.store.records import DisconnectPolicy, StoredJob

_THREADS = 2
"""The number of requests that are decoded at once."""

_Result = TypeVar("_Result")


class Planner:
    """Makes jobs that the devices can run. Decoding has its own threads. The rest belongs to the event loop."""

    def __init__(self, pool: DevicePool, limits: Limits):
        self._pool = pool
        self._limits = limits
        self._threads = ThreadPoolExecutor(_THREADS, "nst-prepare")
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
        """Accept no more calls. Calls that wait for a thread still run."""
        self._is_closed = True
        self._threads.shutdown(wait=False)

    def prepare(self, request: TransferRequest, owner: Owner) -> TransferSpec:
        """Decode a request and fit it into the memory of the devices. This method blocks.

        Raises:
            InvalidRequestError: the request is invalid; the error has every violation.
            QuotaExceededError: the job is larger than the quota of its owner allows.
            DoesNotFitError: not even the smallest size that the request allows fits.
        """
        spec = prepare(request, self._limits, self._pool.layers)
        check_job(owner, pixels=spec.content.width * spec.content.height, iterations=spec.options.iterations)
        return fitted(spec, self._pool.capacity)

    def prepare_again(self, request: TransferRequest, size: Size, *, must_fit: bool = True) -> TransferSpec:
        """Decode the request of a job that goes on here. This method blocks.

        The limits of the server do not apply, because they may have been higher when the job was accepted.

        Args:
            request: the stored request.
            size: the size of the result that was last published.
            must_fit: whether the job needs the memory of further steps. It does not if it only delivers the picture
                that it has.

        Raises:
            InvalidRequestError: the network of this server does not have a layer that the request names.
            DoesNotFitError: the job does not fit any more.
        """
        spec = prepare(request, NO_LIMITS, self._pool.layers)
        if size != spec.content.size:
            spec = spec.reduced(size)
        return fitted(spec, self._pool.capacity) if must_fit else spec

    def plan(
        self,
        spec: TransferSpec,
        *,
        owner: str = "",
        request_id: str | None = None,
        disconnect_policy: DisconnectPolicy = DisconnectPolicy.CANCEL,
        deadline: float | None = None,
    ) -> Job:
        """Return a new job that is not accepted yet. See `JobPlan` for the arguments."""
        state = self._initial_state(spec)
        plan = JobPlan(
            owner=owner,
            request_id=request_id,
            disconnect_policy=disconnect_policy,
            accepted_at=time.monotonic(),
            deadline=deadline,
            expected_seconds=state.remaining_seconds,
        )
        return Job(plan=plan, run_state=state)

    def resume(self, stored: StoredJob, spec: TransferSpec, events: Sequence[LoggedEvent]) -> Job:
        """Return a job of the store that goes on here.

        Args:
            stored: the stored job.
            spec: its specification.
            events: its stored events, without the first.
        """
        state, now = self._initial_state(spec), time.time()
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

    def _initial_state(self, spec: TransferSpec) -> RunState:
        cost = estimate(spec, self._pool.capacity)
        return RunState(spec=spec, cost=cost, remaining_seconds=self._pool.expected_seconds(cost))


def accepted(job: Job, span: Span, *, job_id: str) -> Accepted:
    """Return the event with which a job begins.

    Args:
        job: the planned job.
        span: its expected time on a device.
        job_id: its id; empty for an estimate.
    """
    spec, cost = job.run_state.spec, job.run_state.cost
    return Accepted(
        job_id=job_id,
        options=spec.options,
        output=spec.output,
        width=spec.content.width,
        height=spec.content.height,
        estimate=CostEstimate(
            seconds=job.plan.expected_seconds,
            queue_seconds=span.start,
            peak_memory_bytes=cost.peak_bytes,
            tile_size=cost.tile_size or 0,
            reduced_from=max(spec.reduced_from or (0,)),
        ),
    )
