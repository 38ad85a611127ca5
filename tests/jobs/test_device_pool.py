"""Jobs that have a place on a device, and devices that fail, without a thread that computes anything."""

import asyncio
import dataclasses
from collections.abc import Callable

import pytest
from nst_service.engine.estimate import Cost
from nst_service.jobs import device_pool as device_pool_module
from nst_service.jobs.device import DeviceUnavailableError
from nst_service.jobs.device_pool import DevicePool
from nst_service.jobs.job import Job
from nst_service.jobs.observer import DeviceFailed, DeviceLost, DeviceReady, DeviceRemoved, Fact

from tests.jobs.builders import FakeRemoteDevice, FakeWorker, make_job


class Facts(list[Fact]):
    def notify(self, fact: Fact) -> None:
        self.append(fact)


def pool_of(*workers: FakeWorker, max_running: int = 2, observer: Facts | None = None) -> DevicePool:
    return DevicePool(workers or [FakeWorker()], max_running, Facts() if observer is None else observer)


def next_step(job: Job, seconds: float) -> Job:
    job.run_state = dataclasses.replace(job.run_state, next_seconds=seconds)
    return job


def test_a_job_can_have_the_memory_of_the_smallest_device():
    assert pool_of(FakeWorker(memory=100), FakeWorker(memory=70)).capacity.available == 70


def test_a_job_is_expected_to_take_as_long_as_on_the_slowest_device():
    pool = pool_of(FakeWorker(seconds_per_operation=1.0), FakeWorker(seconds_per_operation=3.0))
    assert pool.expected_seconds(Cost(2.0, 1, None)) == 6.0


def test_jobs_are_placed_on_idle_devices_first_and_the_others_are_forecast():
    pool = pool_of(FakeWorker("cuda:0"), FakeWorker("cuda:1"))
    jobs = [make_job(seconds=10.0) for _ in range(3)]
    placed = pool.place(jobs)
    assert [job for job, _ in placed] == jobs[:2]
    assert pool.running == jobs[:2]
    assert pool.idle_devices == 0
    (span,) = pool.forecast(jobs[2:])
    assert (span.start, span.end) == pytest.approx((10.0, 20.0))


def test_a_job_that_starts_now_waits_for_the_longest_step_of_the_best_device():
    pool = pool_of(FakeWorker("cuda:0"), FakeWorker("cuda:1"))
    assert pool.seconds_to_next_turn() == 0.0
    pool.place([next_step(make_job(), 3.0), next_step(make_job(), 2.0)])
    assert pool.seconds_to_next_turn() == 2.0


@pytest.mark.parametrize(("seconds", "expected"), [(0.1, 1.0), (30.0, 30.0), (1000.0, 60.0)])
def test_a_refused_client_waits_until_a_device_is_idle_within_bounds(seconds: float, expected: float):
    pool = pool_of()
    pool.place([make_job(seconds=seconds)])
    assert pool.retry_after([]) == expected


def test_a_refused_client_waits_for_the_first_place_in_the_queue():
    pool = pool_of()
    pool.place([make_job(seconds=30.0)])
    assert pool.retry_after([make_job(seconds=40.0), make_job(seconds=40.0)]) == pytest.approx(30.0)


def test_a_closed_pool_has_abandoned_its_jobs():
    worker = FakeWorker()
    pool = pool_of(worker)
    job = make_job()
    pool.place([job])
    assert pool.close() == [job]
    assert job.control.is_abandoned
    assert worker.is_closed
    assert pool.running == []
    assert pool.close() == []


def test_each_device_that_fails_is_reported_once():
    facts = Facts()
    pool = pool_of(FakeWorker("cuda:0"), FakeWorker("cuda:1"), observer=facts)
    (_, first), (_, second) = pool.place([make_job(), make_job()])
    for device in (first, second, first):
        pool.note_failure(device)
    assert facts == [DeviceFailed("cuda:0"), DeviceFailed("cuda:1")]
    assert pool.failed.is_set()


def failing(raises: bool) -> FakeWorker:
    class Failing(FakeWorker):
        def serve(self) -> bool:
            if raises:
                raise ZeroDivisionError
            return False

    return Failing()


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(60):
        while not condition():
            await asyncio.sleep(0.001)


@pytest.mark.parametrize("raises", [False, True])
async def test_a_device_has_failed_if_its_worker_says_so_or_dies(raises: bool):
    facts = Facts()
    pool = pool_of(failing(raises), observer=facts)
    await pool.start()
    async with asyncio.timeout(60):
        await pool.failed.wait()
    assert facts == [DeviceFailed("cpu")]
    pool.close()


@pytest.mark.parametrize("raises", [False, True])
async def test_a_failed_device_takes_no_jobs_and_ends_nothing_if_another_is_left(raises: bool):
    facts = Facts()
    pool = pool_of(failing(raises), FakeWorker("cuda:1", memory=70), observer=facts)
    await pool.start()
    await until(lambda: DeviceFailed("cpu") in facts)
    assert not pool.failed.is_set()
    assert pool.ready.is_set()
    assert pool.capacity.available == 70
    assert pool.idle_devices == 1
    jobs = [make_job(), make_job()]
    assert [(job, device.worker.name) for job, device in pool.place(jobs)] == [(jobs[0], "cuda:1")]
    pool.close()


async def test_a_device_that_cannot_be_warmed_up_ends_the_start():
    class Broken(FakeWorker):
        def warm_up(self) -> None:
            raise ZeroDivisionError

    pool = pool_of(Broken(), FakeWorker("cuda:1"))
    with pytest.raises(ZeroDivisionError):
        await pool.start()
    pool.close()


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device_pool_module, "_RESTART_SECONDS", (0.001, 0.001))


async def test_a_pool_starts_with_the_first_device_of_a_cluster_and_takes_the_others_later():
    first, second = FakeRemoteDevice("ray-1", memory=100), FakeRemoteDevice("ray-2", memory=70)
    second.allowed.clear()
    facts = Facts()
    pool = pool_of(first, second, observer=facts)
    await pool.start()
    assert facts == [DeviceReady("ray-1")]
    assert (pool.idle_devices, pool.capacity.available) == (1, 100)
    second.allowed.set()
    await until(lambda: pool.idle_devices == 2)
    assert pool.capacity.available == 70
    pool.close()


async def test_a_pool_without_a_device_that_is_ready_has_not_started():
    device = FakeRemoteDevice()
    device.allowed.clear()
    pool = pool_of(device)
    starting = asyncio.create_task(pool.start())
    await asyncio.sleep(0.01)
    assert not starting.done()
    device.allowed.set()
    await starting
    pool.close()


@pytest.mark.usefixtures("impatient")
async def test_a_device_that_is_lost_is_warmed_up_until_it_is_back():
    device, facts = FakeRemoteDevice(), Facts()
    pool = pool_of(device, observer=facts)
    await pool.start()
    device.refusals = [DeviceUnavailableError("the release is another one"), ZeroDivisionError()]
    pool.changed.clear()
    device.lose()
    async with asyncio.timeout(60):
        await pool.changed.wait()
    assert facts == [DeviceReady("ray-1"), DeviceLost("ray-1", 0), DeviceReady("ray-1")]
    assert pool.idle_devices == 1
    assert not pool.failed.is_set()
    pool.close()


async def test_a_pool_that_has_lost_its_last_device_places_nothing_and_still_forecasts():
    first, second = FakeRemoteDevice("ray-1"), FakeRemoteDevice("ray-2")
    facts = Facts()
    pool = pool_of(first, second, observer=facts)
    await pool.start()
    await until(lambda: pool.idle_devices == 2)
    for device in (first, second):
        device.allowed.clear()
    first.lose()
    await until(lambda: pool.idle_devices == 1)
    assert pool.ready.is_set()
    second.lose()
    async with asyncio.timeout(60):
        await pool.lost.wait()
    assert not pool.ready.is_set()
    assert facts[2:] == [DeviceLost("ray-1", 1), DeviceLost("ray-2", 0)]
    jobs = [make_job(seconds=10.0) for _ in range(3)]
    assert pool.place(jobs) == []
    assert [span.start for span in pool.forecast(jobs)] == pytest.approx([0.0, 0.0, 10.0])
    assert pool.capacity.available == 100
    assert (pool.seconds_to_next_turn(), pool.retry_after(jobs)) == (0.0, 1.0)
    pool.close()


async def test_an_added_device_takes_jobs_when_it_is_warm():
    pool = pool_of(FakeRemoteDevice("ray-1"))
    await pool.start()
    added = FakeRemoteDevice("ray-2")
    added.allowed.clear()
    pool.add(added)
    assert (pool.names, pool.idle_devices) == (["ray-1", "ray-2"], 1)
    pool.changed.clear()
    added.allowed.set()
    async with asyncio.timeout(60):
        await pool.changed.wait()
    assert pool.idle_devices == 2
    pool.close()


async def test_a_removed_device_lets_its_jobs_leave_before_it_is_closed():
    device, facts = FakeRemoteDevice("ray-1"), Facts()
    pool = pool_of(device, FakeRemoteDevice("ray-2"), observer=facts)
    await pool.start()
    await until(lambda: pool.idle_devices == 2)
    (job, place), *_ = pool.place([make_job(), make_job()])
    assert place.worker is device
    removing = asyncio.create_task(pool.remove("ray-1"))
    await until(lambda: job.control.must_leave)
    assert not device.is_closed
    place.vacate(job)
    await removing
    assert device.is_closed
    assert pool.names == ["ray-2"]
    assert facts[-1] == DeviceRemoved("ray-1")
    pool.close()


async def test_a_pool_whose_last_device_was_removed_remembers_what_a_job_can_have():
    pool = pool_of(FakeRemoteDevice(memory=70, seconds_per_operation=2.0))
    await pool.start()
    await pool.remove("ray-1")
    assert pool.names == []
    assert pool.capacity.available == 70
    assert pool.expected_seconds(Cost(2.0, 1, None)) == 4.0
    assert pool.place([make_job()]) == []
    assert len(pool.forecast([make_job()])) == 1
    assert pool.lost.is_set()


async def test_only_a_device_of_the_pool_can_be_removed():
    pool = pool_of(FakeWorker("cuda:0"), FakeWorker("cuda:1"))
    with pytest.raises(ValueError, match="no device is named 'cuda:2'; the devices are cuda:0, cuda:1"):
        await pool.remove("cuda:2")


async def test_a_worker_that_is_closed_has_not_failed():
    pool = pool_of()
    await pool.start()
    pool.close()
    await asyncio.sleep(0.01)
    assert not pool.failed.is_set()
