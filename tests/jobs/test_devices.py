"""A scheduler whose devices fail, come and leave while real jobs run on them."""

import asyncio
from collections.abc import Callable, Iterator
from contextlib import AbstractAsyncContextManager
from typing import Any

import pytest
import torch
from nst_service.engine.network.vgg import Vgg19
from nst_service.engine.optim.transfer import Iterate, optimize
from nst_service.engine.options import Limits
from nst_service.engine.spec import TransferRequest
from nst_service.jobs import run as run_module
from nst_service.jobs.autoscaling import Autoscaler, Demand
from nst_service.jobs.events import Completed, Progress, Started
from nst_service.jobs.job_store import AsyncJobStore
from nst_service.jobs.observer import DeviceFailed, DeviceRemoved, JobRequeued
from nst_service.jobs.worker import DeviceWorker

from tests.jobs.builders import submit
from tests.jobs.serving import Serving, picture_in, serving_with

MakeRequest = Callable[..., TransferRequest]


class NamedWorker(DeviceWorker):
    """A worker with a name of its own, on the CPU like the others."""

    def __init__(self, model: Vgg19, name: str):
        super().__init__(model)
        self._name = name
        self.memory = 2**30
        self.joined = 0

    @property
    def name(self) -> str:
        return self._name

    def warm_up(self) -> None:
        pass

    def join(self, *arguments: Any) -> None:
        self.joined += 1
        super().join(*arguments)


@pytest.fixture
def serving(model: Vgg19, limits: Limits, open_job_store: Callable[[], AsyncJobStore]):
    """Return a context manager that runs a scheduler with some devices of this process."""

    def serving(devices: int) -> AbstractAsyncContextManager[Serving]:
        workers = [NamedWorker(model, f"cpu:{number}") for number in range(devices)]
        return serving_with(workers, open_job_store(), limits)

    return serving


async def test_a_job_whose_device_fails_goes_on_on_another_one_and_its_followers_see_one_job(
    serving, make_request: MakeRequest, monkeypatch: pytest.MonkeyPatch
):
    request, runs = make_request(iterations=6), 0

    def transfer(*arguments: Any) -> Iterator[Iterate]:
        nonlocal runs
        runs += 1
        fails = runs == 1
        for iterate in optimize(*arguments):
            yield iterate
            if fails and iterate.iteration == 3:
                raise torch.AcceleratorError("an illegal memory access was encountered")

    async with serving(1) as undisturbed:
        job = await submit(undisturbed.scheduler, request)
        expected = picture_in(await undisturbed.events(job.id))
    monkeypatch.setattr(run_module, "transfer", transfer)
    async with serving(2) as server:
        # Without a request id nobody could find the job again.
        job = await submit(server.scheduler, request)
        events = await server.events(job.id)
        assert [logged.sequence for logged in events] == sorted(logged.sequence for logged in events)
        assert sum(isinstance(logged.event, Started) for logged in events) == 2
        assert isinstance(events[-1].event, Completed)
        assert events[-1].event.iterations == 6
        assert picture_in(events) == expected
        assert [fact for fact in server.facts if isinstance(fact, DeviceFailed)] == [DeviceFailed("cpu:0")]
        assert not server.scheduler.device_failed.is_set()


async def test_a_device_is_added_and_another_removed_while_a_job_runs_and_its_bytes_stay_the_same(
    serving, make_request: MakeRequest, model: Vgg19
):
    request = make_request(iterations=60)
    async with serving(1) as undisturbed:
        job = await submit(undisturbed.scheduler, request)
        expected = picture_in(await undisturbed.events(job.id))
    async with serving(1) as server:
        job = await submit(server.scheduler, request)
        following = asyncio.create_task(server.events(job.id))
        while not job.log.latest(Progress):
            await asyncio.sleep(0.001)
        server.scheduler.add_device(NamedWorker(model, "cpu:1"))
        await server.scheduler.remove_device("cpu:0")
        events = await following
        assert DeviceRemoved("cpu:0") in server.facts
        assert any(isinstance(fact, JobRequeued) for fact in server.facts)
        assert isinstance(events[-1].event, Completed)
        assert events[-1].event.iterations == 60
        assert picture_in(events) == expected
        assert server.scheduler.views.devices == ["cpu:1"]


async def test_devices_follow_the_queue(
    model: Vgg19, limits: Limits, open_job_store: Callable[[], AsyncJobStore], make_request: MakeRequest
):
    class Scripted(Autoscaler):
        """Adds a device when a job waits, and removes one when none does."""

        def decide(self, demand: Demand, now: float) -> int:
            del now
            if demand.queue_seconds > 0:
                return 1 if demand.devices < 2 else 0
            return -1 if demand.devices > 1 and demand.idle else 0

    workers = [NamedWorker(model, "cpu:0")]
    workers[0].throughput.observe(1e9, 1.0)

    def make_device() -> NamedWorker:
        workers.append(NamedWorker(model, f"cpu:{len(workers)}"))
        return workers[-1]

    server = Serving(workers[:1], open_job_store(), limits)
    server.scheduler.autoscale(Scripted(1, 2), make_device)
    await server.scheduler.start()
    async with asyncio.timeout(120):
        jobs = [await submit(server.scheduler, make_request(iterations=60, seed=seed)) for seed in range(3)]
        pictures = [picture_in(await server.events(job.id)) for job in jobs]
        assert all(pictures)
        assert [worker.joined > 0 for worker in workers] == [True, True]
        while len(server.scheduler.views.devices) > 1:
            await asyncio.sleep(0.01)
    await server.scheduler.drain(0.0)
    await server.scheduler.close()
    assert len(workers) == 2
