import pytest
from nst_service.jobs.throughput import Throughput

FAST, SLOW = 1e-11, 2e-11
"""Seconds per operation."""


@pytest.fixture
def pace() -> Throughput:
    pace = Throughput()
    pace.observe(1e11, 1e11 * FAST)
    return pace


def test_steps_that_take_longer_are_believed_in_the_end(pace: Throughput):
    for _ in range(100):
        pace.observe(1e11, 1e11 * SLOW)
    assert pace.seconds(1e12) == pytest.approx(1e12 * SLOW, rel=0.01)


def test_a_long_job_on_a_tiny_picture_does_not_make_the_device_look_slow(pace: Throughput):
    for _ in range(5000):
        # One pixel, and the milliseconds that any step takes.
        pace.observe(7e4, 0.003)
    assert pace.seconds(1e12) < 4 * 1e12 * FAST
