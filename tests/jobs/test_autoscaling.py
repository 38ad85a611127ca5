"""When a server takes another device of a cluster, and when it gives one back."""

import pytest
from nst_service.jobs.autoscaling import Autoscaler, Demand


def demand(devices: int = 2, *, ready: int | None = None, idle: int = 0, queue_seconds: float = 0.0) -> Demand:
    ready = devices if ready is None else ready
    return Demand(devices=devices, ready=ready, idle=idle, queue_seconds=queue_seconds)


def test_a_device_is_added_when_jobs_wait_long():
    autoscaler = Autoscaler(1, 3)
    assert autoscaler.decide(demand(queue_seconds=5.0), 0.0) == 0
    assert autoscaler.decide(demand(queue_seconds=11.0), 1.0) == 1


def test_no_more_devices_are_added_than_allowed():
    assert Autoscaler(1, 2).decide(demand(2, queue_seconds=1000.0), 0.0) == 0


def test_a_device_that_is_to_come_is_waited_for():
    assert Autoscaler(1, 8).decide(demand(3, ready=2, idle=1, queue_seconds=1000.0), 0.0) == 0


def test_missing_devices_are_added_without_a_queue():
    assert Autoscaler(2, 8).decide(demand(1, idle=1), 0.0) == 1


def test_one_device_after_the_other_is_removed_when_it_has_been_idle_for_long():
    autoscaler = Autoscaler(1, 3)
    decisions = [autoscaler.decide(demand(3, idle=2), float(now)) for now in range(0, 300, 30)]
    assert decisions == [0, 0, 0, 0, -1, 0, 0, 0, -1, 0]


@pytest.mark.parametrize("busy", [demand(3, idle=0), demand(3, idle=1, queue_seconds=1.0)])
def test_a_device_that_was_needed_meanwhile_stays(busy: Demand):
    autoscaler = Autoscaler(1, 3)
    assert autoscaler.decide(demand(3, idle=1), 0.0) == 0
    assert autoscaler.decide(busy, 100.0) == 0
    assert autoscaler.decide(demand(3, idle=1), 130.0) == 0
    assert autoscaler.decide(demand(3, idle=1), 250.0) == -1


def test_the_last_devices_stay():
    autoscaler = Autoscaler(2, 3)
    assert [autoscaler.decide(demand(2, idle=2), now) for now in (0.0, 1000.0)] == [0, 0]
