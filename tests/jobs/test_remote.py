"""Devices in other processes, with links that a test can break. The processes are threads of this one."""

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager
from dataclasses import replace
from typing import Any

import pytest
from nst_service.engine.network.vgg import Vgg19
from nst_service.engine.optim.transfer import Iterate, optimize
from nst_service.engine.options import Limits
from nst_service.engine.spec import TransferRequest
from nst_service.jobs import device_pool as device_pool_module
from nst_service.jobs import remote as remote_module
from nst_service.jobs import run as run_module
from nst_service.jobs.device import DeviceUnavailableError
from nst_service.jobs.errors import JobFailedError
from nst_service.jobs.events import Completed, Progress, Reduced, Started
from nst_service.jobs.job import Job
from nst_service.jobs.job_store import AsyncJobStore
from nst_service.jobs.log import LoggedEvent
from nst_service.jobs.observer import DeviceLost, DeviceReady, JobCheckpointed, JobRequeued
from nst_service.jobs.worker import DeviceWorker
from nst_service.lifecycle import StopReason

from tests.jobs.builders import submit
from tests.jobs.remote_devices import KIND, Cluster
from tests.jobs.serving import Serving, picture_in, serving_with

MakeRequest = Callable[..., TransferRequest]
ServingWith = Callable[..., AbstractAsyncContextManager[Serving]]


class Steps:
    """Counts the steps of all runs, and holds a run before one of them."""

    def __init__(self) -> None:
        self.done = 0
        self.iterations: list[int] = []
        """The iteration of each step."""
        self.hold_after = 10**9
        self.free = threading.Event()

    def transfer(self, *arguments: Any) -> Iterator[Iterate]:
        for iterate in optimize(*arguments):
            self.done += 1
            self.iterations.append(iterate.iteration)
            yield iterate
            if self.done == self.hold_after:
                self.free.wait()


@pytest.fixture(autouse=True)
def steps(monkeypatch: pytest.MonkeyPatch) -> Iterator[Steps]:
    steps = Steps()
    monkeypatch.setattr(run_module, "transfer", steps.transfer)
    monkeypatch.setattr(run_module, "PROGRESS_INTERVAL", 0.0)
    monkeypatch.setattr(DeviceWorker, "warm_up", lambda _: None)
    monkeypatch.setattr(device_pool_module, "_RESTART_SECONDS", (0.01, 0.01))
    yield steps
    steps.free.set()


@pytest.fixture
def serving(limits: Limits, open_job_store: Callable[[], AsyncJobStore]) -> ServingWith:
    """Return a context manager that runs a scheduler with some devices."""
    return lambda *devices, **durability: serving_with(devices, open_job_store(), limits, **durability)


@pytest.fixture
async def cluster(model: Vgg19) -> AsyncIterator[Cluster]:
    cluster = Cluster(model)
    yield cluster
    for link in cluster.links:
        link.close()


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(60):
        while not condition():
            await asyncio.sleep(0.001)


async def undisturbed(serving: ServingWith, model: Vgg19, request: TransferRequest) -> bytes:
    """Return the picture of a request on a device of this process."""
    worker = DeviceWorker(model)
    worker.memory = 2**30
    async with serving(worker) as server:
        job = await submit(server.scheduler, request)
        return picture_in(await server.events(job.id))


async def test_a_job_has_the_same_bytes_and_events_as_on_a_device_of_this_process(
    serving: ServingWith, cluster: Cluster, model: Vgg19, make_request: MakeRequest
):
    request = make_request(iterations=5, preview_every=2)
    expected = await undisturbed(serving, model, request)
    async with serving(cluster.device()) as server:
        job = await submit(server.scheduler, request)
        events = await server.events(job.id)
    assert picture_in(events) == expected
    (started,) = (logged.event for logged in events if isinstance(logged.event, Started))
    assert started.device == "ray-1"
    assert any(isinstance(logged.event, Progress) for logged in events)
    assert isinstance(events[-1].event, Completed)
    assert events[-1].event.iterations == 5
    assert isinstance(job, Job)
    assert job.run_state.work.iterations == 5


@pytest.mark.parametrize("hangs", [False, True])
async def test_a_job_whose_process_dies_or_hangs_goes_on_from_its_checkpoint_with_the_same_bytes(  # noqa: PLR0917
    serving: ServingWith,
    cluster: Cluster,
    model: Vgg19,
    make_request: MakeRequest,
    steps: Steps,
    monkeypatch: pytest.MonkeyPatch,
    hangs: bool,
):
    request = make_request(iterations=12)
    expected = await undisturbed(serving, model, request)
    monkeypatch.setattr(remote_module, "_POLL_SECONDS", 0.05)
    steps.hold_after = steps.done + 6
    cluster.timeout_seconds = 5.0
    async with serving(cluster.device("ray-1"), cluster.device("ray-2"), checkpoint_seconds=0.0) as server:
        await until(lambda: len(server.scheduler._pool._open) == 2)
        # Nobody could find a job without a request id again.
        job = await submit(server.scheduler, request)
        following = asyncio.create_task(server.events(job.id))
        await until(lambda: steps.done == steps.hold_after)
        await until(lambda: any(isinstance(fact, JobCheckpointed) for fact in server.facts))
        (link,) = (each for each in cluster.links if each.calls("run"))
        if hangs:
            link.is_hung = True
        else:
            link.kill()
        events = await following
        assert sum(isinstance(logged.event, Started) for logged in events) == 2
        assert picture_in(events) == expected
        assert any(isinstance(fact, JobRequeued) for fact in server.facts)
        lost = next(fact for fact in server.facts if isinstance(fact, DeviceLost))
        await until(lambda: server.facts.count(DeviceReady(lost.device)) == 2)
        (other,) = (each for each in cluster.links if each is not link and each.calls("run"))
        # It brings a checkpoint, beside the pictures that the first one brought, too.
        assert other.calls("run")[0] > link.calls("run")[0] > 0


async def test_a_cancelled_job_ends_after_its_present_step(
    serving: ServingWith, cluster: Cluster, make_request: MakeRequest, steps: Steps
):
    steps.hold_after = 3
    async with serving(cluster.device()) as server:
        job = await submit(server.scheduler, make_request(iterations=10**5))
        following = asyncio.create_task(server.events(job.id))
        await until(lambda: steps.done == 3)
        await server.scheduler.cancel(job.id)
        await until(lambda: len(cluster.link().calls("control")) == 2)
        await asyncio.sleep(0.05)
        steps.free.set()
        events = await following
    completed = events[-1].event
    assert isinstance(completed, Completed)
    assert completed.stop_reason is StopReason.CANCELLED
    # The run is held in its fourth step, if the request does not arrive before it.
    assert completed.iterations in (3, 4)
    assert picture_in(events)


async def test_a_job_is_finished_by_its_deadline(serving: ServingWith, cluster: Cluster, make_request: MakeRequest):
    loop = asyncio.get_running_loop()
    async with serving(cluster.device()) as server:
        job = await submit(server.scheduler, make_request(iterations=10**5), deadline=loop.time() + 3.0)
        events = await server.events(job.id)
    assert isinstance(events[-1].event, Completed)
    assert events[-1].event.stop_reason is StopReason.DEADLINE


async def test_a_job_fails_as_it_does_on_a_device_of_this_process(
    serving: ServingWith, cluster: Cluster, make_request: MakeRequest, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(run_module, "transfer", lambda *_: iter([1 / 0]))
    async with serving(cluster.device()) as server:
        job = await submit(server.scheduler, make_request())
        with pytest.raises(JobFailedError, match="internal error") as caught:
            await server.events(job.id)
        assert caught.value.reason == "INTERNAL"


async def test_pictures_are_sent_once_to_each_process(
    serving: ServingWith, cluster: Cluster, make_request: MakeRequest
):
    async with serving(cluster.device()) as server:
        for seed in range(2):
            job = await submit(server.scheduler, make_request(iterations=2, seed=seed))
            await server.events(job.id)
    first, second = cluster.link().calls("run")
    assert first > 0
    assert second == 0


async def test_a_job_leaves_a_removed_device_and_goes_on_on_another_one(
    serving: ServingWith, cluster: Cluster, model: Vgg19, make_request: MakeRequest, steps: Steps
):
    request = make_request(iterations=12)
    expected = await undisturbed(serving, model, request)
    steps.hold_after = steps.done + 4
    async with serving(cluster.device("ray-1")) as server:
        job = await submit(server.scheduler, request)
        following = asyncio.create_task(server.events(job.id))
        await until(lambda: steps.done == steps.hold_after)
        server.scheduler.add_device(cluster.device("ray-2"))
        removing = asyncio.create_task(server.scheduler.remove_device("ray-1"))
        await until(lambda: len(cluster.links[0].calls("control")) == 2)
        await asyncio.sleep(0.05)
        steps.free.set()
        await removing
        assert picture_in(await following) == expected
        assert server.scheduler.views.devices == ["ray-2"]
        assert cluster.links[0].is_closed
    # It leaves after its fourth or its fifth step. A run that goes on begins with the picture that it had.
    assert steps.iterations[-13:] in [[*range(1, last + 1), *range(last, 13)] for last in (4, 5)]


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        (
            {"process_release": "0.9"},
            "it runs release 0.9 of nst, and this server runs 1.0; install the same on both",
        ),
        (
            {"kind": replace(KIND, weights_sha256="others")},
            "its weights have the SHA-256 others, and those of this server weights",
        ),
        (
            {"kind": replace(KIND, threads=2, processor="GPU")},
            "it would give other results than the first device: its processor is 'GPU' instead of 'AVX', "
            "its threads is 2 instead of 1",
        ),
    ],
)
async def test_a_device_is_refused_that_would_give_other_results(
    cluster: Cluster, changes: dict[str, Any], sentence: str
):
    first, second = cluster.device("ray-1"), cluster.device("ray-2")
    await asyncio.to_thread(first.warm_up)
    cluster.changes = changes
    with pytest.raises(DeviceUnavailableError) as caught:
        await asyncio.to_thread(second.warm_up)
    assert str(caught.value) == sentence
    assert cluster.link().is_closed
    cluster.changes = {}
    await asyncio.to_thread(second.warm_up)


async def test_a_device_that_dies_while_it_warms_up_is_not_used(cluster: Cluster, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(DeviceWorker, "warm_up", lambda _: threading.Event().wait())
    device = cluster.device()
    warming = asyncio.ensure_future(asyncio.to_thread(device.warm_up))
    await until(lambda: cluster.links and len(cluster.link().open) == 2)
    cluster.link().kill()
    with pytest.raises(DeviceUnavailableError, match="the process has died"):
        await warming


async def test_a_device_that_is_closed_while_it_warms_up_does_not_wait(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(DeviceWorker, "warm_up", lambda _: threading.Event().wait())
    device = cluster.device()
    warming = asyncio.ensure_future(asyncio.to_thread(device.warm_up))
    await until(lambda: cluster.links and len(cluster.link().open) == 2)
    device.close()
    with pytest.raises(DeviceUnavailableError):
        await warming
    with pytest.raises(DeviceUnavailableError, match="closed"):
        device.warm_up()


async def test_a_smaller_size_is_stored_before_the_run_goes_on(
    serving: ServingWith, cluster: Cluster, make_request: MakeRequest, monkeypatch: pytest.MonkeyPatch
):
    iterations_when_stored: list[int] = []
    seen: list[int] = []
    steps_of_larger = 0

    def transfer(*arguments: Any) -> Iterator[Iterate]:
        nonlocal steps_of_larger
        is_large = max(arguments[0].content.size) > 200
        for iterate in optimize(*arguments):
            seen.append(iterate.iteration)
            steps_of_larger += is_large
            yield iterate
            if is_large:
                raise MemoryError

    append = AsyncJobStore.append

    async def slowly(store: AsyncJobStore, job: Job, logged: LoggedEvent) -> None:
        await append(store, job, logged)
        if isinstance(logged.event, Reduced):
            await asyncio.sleep(0.1)
            iterations_when_stored.append(len(seen))

    monkeypatch.setattr(run_module, "transfer", transfer)
    monkeypatch.setattr(AsyncJobStore, "append", slowly)
    async with serving(cluster.device()) as server:
        job = await submit(server.scheduler, make_request(iterations=4, image_size=256, min_image_size=100))
        events = await server.events(job.id)
        view = await server.scheduler.views.view(job.id)
    *_, reduced = (logged.event for logged in events if isinstance(logged.event, Reduced))
    assert view.size == (reduced.width, reduced.height)
    assert max(view.size) < 200
    assert isinstance(events[-1].event, Completed)
    # No step of the smaller picture was taken before.
    assert iterations_when_stored[-1] == steps_of_larger
    assert seen[-1] == 4
