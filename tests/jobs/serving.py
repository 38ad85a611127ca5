"""A scheduler with its facts, for tests of devices that come and go."""

import asyncio
import contextlib
import dataclasses
from collections.abc import AsyncIterator, Sequence
from typing import Any

from nst_service.engine.options import Limits
from nst_service.jobs.device import Device
from nst_service.jobs.events import ResultChunk
from nst_service.jobs.job_store import AsyncJobStore
from nst_service.jobs.log import LoggedEvent
from nst_service.jobs.observer import Fact
from nst_service.jobs.queue_limits import QueueLimits
from nst_service.jobs.scheduler import Scheduler

from tests.jobs.builders import DURABILITY
from tests.limits import DECODER_LIMITS

_HANG_SECONDS = 120


class Serving:
    """A scheduler with the facts that it has reported."""

    def __init__(self, devices: Sequence[Device], store: AsyncJobStore, limits: Limits, **durability: Any):
        self.facts: list[Fact] = []
        self.scheduler = Scheduler(
            devices,
            store,
            limits=limits,
            queue_limits=QueueLimits(max_queued=8, max_pending_bytes=2**30, max_running=1),
            decoder_limits=DECODER_LIMITS,
            durability=dataclasses.replace(DURABILITY, **durability),
            observer=self,
        )

    def notify(self, fact: Fact) -> None:
        self.facts.append(fact)

    async def events(self, job_id: str) -> list[LoggedEvent]:
        async with contextlib.aclosing(self.scheduler.follow(job_id)) as events:
            return [logged async for logged in events]


@contextlib.asynccontextmanager
async def serving_with(
    devices: Sequence[Device], store: AsyncJobStore, limits: Limits, **durability: Any
) -> AsyncIterator[Serving]:
    """Run a scheduler with some devices."""
    serving = Serving(devices, store, limits, **durability)
    await serving.scheduler.start()
    try:
        async with asyncio.timeout(_HANG_SECONDS):
            yield serving
    finally:
        await serving.scheduler.drain(0.0)
        await serving.scheduler.close()


def picture_in(events: list[LoggedEvent]) -> bytes:
    return b"".join(logged.event.data for logged in events if isinstance(logged.event, ResultChunk))
