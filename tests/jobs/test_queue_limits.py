import pytest
from nst_service.jobs.errors import QueueFullError
from nst_service.jobs.queue_limits import PendingBytes


def test_requests_are_held_up_to_the_limit():
    pending = PendingBytes(10)
    with pending.hold(6), pending.hold(4), pytest.raises(QueueFullError, match="requests of 10 bytes"), pending.hold(1):
        pass


def test_a_single_request_may_be_larger_than_the_limit():
    with PendingBytes(10).hold(11):
        pass


def test_the_bytes_of_a_request_that_fails_are_free_again():
    pending = PendingBytes(10)
    with pytest.raises(ZeroDivisionError), pending.hold(10):
        raise ZeroDivisionError
    with pending.hold(10):
        pass


def test_a_refused_request_holds_nothing():
    pending = PendingBytes(10)
    with pending.hold(6):
        with pytest.raises(QueueFullError), pending.hold(5):
            pass
        with pending.hold(4):
            pass
