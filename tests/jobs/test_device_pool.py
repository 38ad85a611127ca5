"""Jobs that have a place on a device, and devices that fail, without a thread that computes anything."""

import asyncio
import dataclasses

import pytest
from nst_service.engine.estimate import Cost
from nst_service.jobs.device_pool import DevicePool
from nst_service.jobs.job import Job
from nst_service.jobs.observer import DeviceFailed, Fact

from tests.jobs.builders import FakeWorker, make_job


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


@pytest.mark.parametrize("raises", [False, True])
async def test_a_device_has_failed_if_its_worker_says_so_or_dies(raises: bool):
    class Failing(FakeWorker):
        def serve(self) -> bool:
            if raises:
                raise ZeroDivisionError
            return False

    facts = Facts()
    pool = pool_of(Failing(), FakeWorker("cuda:1"), observer=facts)
    await pool.start()
    async with asyncio.timeout(60):
        await pool.failed.wait()
    assert facts == [DeviceFailed("cpu")]
    pool.close()


async def test_a_worker_that_is_closed_has_not_failed():
    pool = pool_of()
    await pool.start()
    pool.close()
    await asyncio.sleep(0.01)
    assert not pool.failed.is_set()
