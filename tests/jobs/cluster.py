"""Several servers in one process that share a PostgreSQL database, each with a device that a test can hold."""

import asyncio
import contextlib
import dataclasses
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from nst_service.engine.network.vgg import Vgg19
from nst_service.engine.network.weights import Weights
from nst_service.engine.optim.transfer import Iterate, optimize
from nst_service.engine.options import Limits
from nst_service.jobs import run as run_module
from nst_service.jobs import scheduler as scheduler_module
from nst_service.jobs.events import ResultChunk
from nst_service.jobs.job_store import AsyncJobStore
from nst_service.jobs.log import LoggedEvent
from nst_service.jobs.queue_limits import QueueLimits
from nst_service.jobs.quotas import ANYONE, Owner
from nst_service.jobs.scheduler import Scheduler
from nst_service.jobs.worker import DeviceWorker
from nst_service.store import failure_detector
from nst_service.store.records import Retention
from nst_service.store.store import Store

from tests.jobs.builders import DURABILITY, PlainCodec
from tests.limits import DECODER_LIMITS

_HANG_SECONDS = 600
"""Seconds after which a test counts as hung. No test measures time."""
HOUSEKEEPING_SECONDS = 0.05


class HeldDevice:
    """The steps that one server takes, which a test can hold."""

    def __init__(self) -> None:
        self.steps = 0
        self._go = threading.Event()
        self._go.set()

    def hold(self) -> None:
        """Hold every job before its next step."""
        self._go.clear()

    def release(self) -> None:
        self._go.set()

    def transfer(self, *arguments: Any) -> Iterator[Iterate]:
        for iterate in optimize(*arguments):
            self._go.wait()
            self.steps += 1
            yield iterate


@dataclasses.dataclass
class Server:
    scheduler: Scheduler
    store: AsyncJobStore
    device: HeldDevice


class Cluster:
    """Makes servers that share a database and a folder of blobs."""

    def __init__(self, database_url: str, folder: Path, weights: Weights, limits: Limits):
        self.database_url = database_url
        self._folder = folder
        self._weights = weights
        self._limits = limits
        self._devices: dict[int, HeldDevice] = {}

    def open_store(self, lease_seconds: float) -> AsyncJobStore:
        retention = Retention(max_age_seconds=3600, max_bytes=2**30, min_free_bytes=0)
        store = Store.open(
            self._folder,
            database_url=self.database_url,
            blobs_url=str(self._folder / "blobs"),
            retention=retention,
            lease_seconds=lease_seconds,
        )
        return AsyncJobStore(store, PlainCodec())

    @contextlib.asynccontextmanager
    async def serving(
        self, *, lease_seconds: float = 60, max_running: int = 1, **durability: Any
    ) -> AsyncIterator[Server]:
        model, device, store = Vgg19(self._weights, "cpu"), HeldDevice(), self.open_store(lease_seconds)
        self._devices[id(model)] = device
        scheduler = Scheduler(
            [DeviceWorker(model)],
            store,
            limits=self._limits,
            queue_limits=QueueLimits(max_queued=8, max_pending_bytes=2**30, max_running=max_running),
            decoder_limits=DECODER_LIMITS,
            durability=dataclasses.replace(DURABILITY, **{"is_alone": False} | durability),
        )
        await scheduler.start()
        try:
            async with asyncio.timeout(_HANG_SECONDS):
                yield Server(scheduler, store, device)
        finally:
            device.release()
            await scheduler.drain(0.0)
            await scheduler.close()

    def transfer(self, spec: Any, model: Vgg19, *rest: Any) -> Iterator[Iterate]:
        return self._devices[id(model)].transfer(spec, model, *rest)


@pytest.fixture
def cluster(
    postgres: Any, tmp_path: Path, weights: Weights, limits: Limits, monkeypatch: pytest.MonkeyPatch
) -> Cluster:
    cluster = Cluster(postgres.new_database(), tmp_path / "shared", weights, limits)
    monkeypatch.setattr(DeviceWorker, "warm_up", lambda worker: setattr(worker, "memory", 2**30))
    monkeypatch.setattr(run_module, "transfer", cluster.transfer)
    monkeypatch.setattr(scheduler_module, "_HOUSEKEEPING_SECONDS", HOUSEKEEPING_SECONDS)
    # A machine that is slow looks late, which must not make a test hang.
    monkeypatch.setattr(failure_detector, "_LONGEST_PAUSE", 1000.0)
    # A device that a test holds does not end its step.
    monkeypatch.setattr(scheduler_module, "_LAST_STEP_SECONDS", 0.5)
    monkeypatch.setattr(scheduler_module, "_LIVE_SECONDS", HOUSEKEEPING_SECONDS)
    monkeypatch.setattr(scheduler_module, "_POLL_SECONDS", HOUSEKEEPING_SECONDS)
    return cluster


class Watcher:
    """A call that follows a job on a server."""

    def __init__(self, server: Server, job_id: str, owner: Owner = ANYONE, after: int = 0):
        self.events: list[LoggedEvent] = []
        self._following = asyncio.create_task(self._follow(server.scheduler.follow(job_id, owner, after)))

    @property
    def picture(self) -> bytes:
        return b"".join(logged.event.data for logged in self.events if isinstance(logged.event, ResultChunk))

    async def begun(self) -> "Watcher":
        """Wait for the first event."""
        await until(lambda: self.events or self._following.done())
        return self

    async def ended(self) -> "Watcher":
        """Wait for the end of the call; raises its error."""
        await self._following
        return self

    async def leave(self) -> None:
        """End the call."""
        self._following.cancel()
        await asyncio.wait([self._following])

    async def _follow(self, events: Any) -> None:
        async with contextlib.aclosing(events):
            async for logged in events:
                self.events.append(logged)


async def until(condition: Callable[[], Any]) -> None:
    while not condition():
        await asyncio.sleep(0.01)


async def rounds(number: int = 20) -> None:
    """Wait for a number of rounds of housekeeping, for what must not happen."""
    await asyncio.sleep(number * HOUSEKEEPING_SECONDS)
