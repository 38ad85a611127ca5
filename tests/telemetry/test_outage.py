import pytest
from nst_service.jobs.observer import StoreCalled
from nst_service.store.errors import CorruptBlobError, LeaseLostError, StoreFullError, StoreUnavailableError
from nst_service.telemetry.outage import Outage, OutageBegan, OutageEnded

AWAY = StoreUnavailableError("the store does not answer")


def failed(operation: str) -> StoreCalled:
    return StoreCalled(operation, 0.1, AWAY)


def succeeded(operation: str) -> StoreCalled:
    return StoreCalled(operation, 0.1)


@pytest.fixture
def outage() -> Outage:
    return Outage()


def test_an_outage_has_one_begin_and_one_end_with_the_number_of_failures(outage: Outage):
    told = [outage.note(failed(operation), now) for now in range(60) for operation in ("heartbeat", "queue", "settle")]
    assert told[0] == OutageBegan("heartbeat", AWAY)
    assert not any(told[1:])
    assert outage.is_ongoing
    operations = ("heartbeat", "queue", "settle")
    told = [outage.note(succeeded(operation), now) for now in (60, 63) for operation in operations]
    assert [each for each in told if each] == [OutageEnded(59, 180)]
    assert not outage.is_ongoing


def test_an_outage_goes_on_while_an_operation_that_failed_has_not_succeeded(outage: Outage):
    outage.note(failed("save_checkpoint"), 0)
    assert all(outage.note(succeeded("heartbeat"), now) is None for now in range(1, 10))
    assert outage.note(succeeded("save_checkpoint"), 10) == OutageEnded(0, 1)


def test_an_outage_ends_if_what_failed_is_never_tried_again(outage: Outage):
    outage.note(failed("append"), 0)
    told = [outage.note(succeeded("heartbeat"), now) for now in range(1, 40)]
    assert [each for each in told if each] == [OutageEnded(0, 1)]


def test_a_store_that_fails_every_other_time_has_one_outage(outage: Outage):
    told = []
    for now in range(60):
        told += [outage.note(failed("heartbeat"), now), outage.note(succeeded("heartbeat"), now + 0.5)]
    assert [each for each in told if each] == [OutageBegan("heartbeat", AWAY)]


def test_a_second_outage_is_counted_anew(outage: Outage):
    for now in (0, 100):
        outage.note(failed("heartbeat"), now)
        assert outage.note(succeeded("heartbeat"), now + 5) == OutageEnded(0, 1)


@pytest.mark.parametrize("error", [CorruptBlobError("00ff"), LeaseLostError("job")])
def test_what_concerns_one_job_is_no_outage(outage: Outage, error: Exception):
    assert outage.note(StoreCalled("lease", 0.1, error), 0) is None
    assert not outage.is_ongoing


def test_a_full_store_is_an_outage(outage: Outage):
    assert outage.note(StoreCalled("submit", 0.1, StoreFullError("the store is full")), 0) is not None
