"""The planner makes jobs of requests: decodes them, fits them into the memory there is, and estimates their cost."""

import asyncio
import functools
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from nst_service.engine.estimate import estimate
from nst_service.engine.options import Limits
from nst_service.engine.sizes import Size
from nst_service.engine.spec import TransferRequest, TransferSpec, prepare
from nst_service.jobs.device_pool import DevicePool
from nst_service.jobs.events import Accepted, CostEstimate
from nst_service.jobs.forecast import Span
from nst_service.jobs.job import Job, JobPlan, RunState
from nst_service.jobs.job_store import first_event
from nst_service.jobs.log import EventLog, LoggedEvent
from nst_service.jobs.memory_fit import fitted
from nst_service.jobs.quotas import Owner, check_job
from nst_service.store.records import StoredJob

_THREADS = 2
"""Requests that are decoded at once."""

_Result = TypeVar("_Result")


class Planner:
    """Makes jobs that are known to be possible. Decoding has threads of its own; all else belongs to the event loop."""

    def __init__(self, pool: DevicePool, limits: Limits):
        self._pool = pool
        self._limits = limits
        self._threads = ThreadPoolExecutor(_THREADS, "nst-prepare")

    async def in_thread(self, call: Callable[..., _Result], *args: Any) -> _Result:
        """Return what a call returns that takes long, out of a thread."""
        return await asyncio.get_running_loop().run_in_executor(self._threads, functools.partial(call, *args))

    def close(self) -> None:
        """Take no more work. What waits for a thread still gets its turn."""
        self._threads.shutdown(wait=False)

    def prepare(self, request: TransferRequest, owner: Owner) -> TransferSpec:
        """Decode a request and fit it into the memory that a job can have. Blocks.

        Raises:
            InvalidRequestError: with everything that is wrong.
            QuotaExceededError: it is larger than its owner may ask for.
            DoesNotFitError: not even the smallest size that is allowed fits.
        """
        spec = self._decode(request)
        check_job(owner, pixels=spec.content.width * spec.content.height, iterations=spec.options.iterations)
        return fitted(spec, self._pool.capacity)

    def prepare_again(self, request: TransferRequest, size: Size) -> TransferSpec:
        """Decode the request of a job that goes on, whose result has the size that was told last. Blocks.

        Raises:
            InvalidRequestError: a limit is lower than when the job was accepted.
            DoesNotFitError: it does not fit any more.
        """
        spec = self._decode(request)
        return fitted(spec if size == spec.content.size else spec.reduced(size), self._pool.capacity)

    def _decode(self, request: TransferRequest) -> TransferSpec:
        return prepare(request, self._limits, self._pool.layers)

    def plan(self, spec: TransferSpec, **decided: Any) -> Job:
        """Return a job that nobody has taken on yet.

        Args:
            spec: what it does.
            decided: fields of its `JobPlan`; what depends on the specification follows from it.
        """
        cost = estimate(spec, self._pool.capacity)
        seconds = self._pool.expected_seconds(cost)
        return Job(
            plan=JobPlan(**{"accepted_at": time.monotonic(), **decided}, expected_seconds=seconds),
            run=RunState(spec=spec, cost=cost, remaining_seconds=seconds),
        )

    def resume(self, stored: StoredJob, spec: TransferSpec, events: Sequence[LoggedEvent]) -> Job:
        """Return a job of the store as it goes on here.

        Args:
            stored: as the store has it.
            spec: what it does.
            events: those that its earlier runs have left, but the first.
        """
        now = time.time()
        # The clocks of two processes have only the time of day in common, which may have been set.
        age = max(0.0, now - stored.created_at)
        deadline = None
        if stored.deadline is not None:
            # Never more than there was.
            deadline = time.monotonic() + min(stored.deadline - now, stored.deadline - stored.created_at)
        job = self.plan(
            spec,
            id=stored.id,
            owner=stored.owner,
            request_id=stored.request_id,
            disconnect_policy=stored.disconnect_policy,
            accepted_at=time.monotonic() - age,
            deadline=deadline,
            earlier_runs=stored.epoch,
        )
        job.log = EventLog([first_event(stored), *events])
        return job


def accepted(job: Job, span: Span, *, job_id: str) -> Accepted:
    """Return what a client is told of a job that is planned.

    Args:
        job: the job.
        span: when it will start and end.
        job_id: its id; empty for a job that is only estimated.
    """
    spec, cost = job.run.spec, job.run.cost
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
