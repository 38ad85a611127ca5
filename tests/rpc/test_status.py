import logging

import pytest
from google.protobuf.message import Message
from google.rpc import code_pb2, error_details_pb2
from nst.v1 import style_transfer_pb2 as pb
from nst_service.engine.errors import InvalidRequestError, Violation
from nst_service.jobs.errors import QueueFullError, StoredFailureError, UnknownJobError
from nst_service.rpc.status import abort_arguments, reason_of, status_of
from nst_service.store.errors import CorruptBlobError, LeaseLostError, RequestConflictError, StoreFullError


def detail(error: Exception, kind: type[Message]) -> Message:
    (found,) = [packed for packed in status_of(error).details if packed.Is(kind.DESCRIPTOR)]
    found.Unpack(message := kind())
    return message


def reason(error: Exception) -> str:
    return detail(error, error_details_pb2.ErrorInfo).reason


def test_an_unexpected_error_is_told_by_its_incident_only(caplog: pytest.LogCaptureFixture):
    status = status_of(RuntimeError("the password is 1234"))
    assert status.code == code_pb2.INTERNAL
    assert "1234" not in str(status)
    (packed,) = status.details
    packed.Unpack(info := error_details_pb2.ErrorInfo())
    assert info.metadata["incident"] in status.message
    assert info.metadata["incident"] in caplog.text


def test_an_error_has_the_status_of_the_nearest_type_in_the_table():
    assert reason(StoreFullError("full")) == "STORE_FULL"
    assert reason(LeaseLostError("job")) == "STORE_UNAVAILABLE"


def test_a_damaged_file_is_not_named():
    assert "00ff" not in str(status_of(CorruptBlobError("00ff")))


@pytest.mark.parametrize(
    ("error", "is_logged"), [(StoreFullError("full"), True), (RequestConflictError("a", "b"), False)]
)
def test_errors_of_the_store_are_logged_except_those_of_the_client(
    error: Exception, is_logged: bool, caplog: pytest.LogCaptureFixture
):
    with caplog.at_level(logging.ERROR):
        status_of(error)
    assert bool(caplog.records) == is_logged


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (StoreFullError("full"), "STORE_FULL"),
        (QueueFullError("3 jobs", 2.5), "QUEUE_FULL"),
        (InvalidRequestError([Violation("content", "is missing")]), "INVALID_ARGUMENT"),
        (RequestConflictError("a", "b"), "ALREADY_EXISTS"),
        (ZeroDivisionError(), "INTERNAL"),
    ],
)
def test_every_error_has_a_reason(error: Exception, expected: str, caplog: pytest.LogCaptureFixture):
    assert reason_of(error) == expected
    assert not caplog.records


def test_a_stored_failure_has_the_reason_that_was_stored():
    failed = pb.Job(failure=pb.JobFailure(code=code_pb2.DATA_LOSS, message="gone", reason="ANY"))
    assert reason_of(StoredFailureError(failed.SerializeToString())) == "ANY"


def test_a_stored_failure_has_the_status_that_was_stored():
    failed = pb.Job(failure=pb.JobFailure(code=code_pb2.DATA_LOSS, message="gone", reason="ANY"))
    status = status_of(StoredFailureError(failed.SerializeToString()))
    assert (status.code, status.message) == (code_pb2.DATA_LOSS, "gone")


def test_a_client_is_told_when_to_try_again():
    retry = detail(QueueFullError("3 jobs", 2.5), error_details_pb2.RetryInfo)
    assert retry.retry_delay.ToMilliseconds() == 2500


def test_a_name_that_the_client_has_sent_is_cut():
    assert len(detail(UnknownJobError("x" * 1000), error_details_pb2.ResourceInfo).resource_name) == 64


def test_a_status_with_many_violations_fits_into_the_headers():
    error = InvalidRequestError([Violation(f"styles[{index}]", "x" * 1000) for index in range(100)])
    status = status_of(error)
    assert len(status.message) == 600
    assert status.message.endswith("; and 97 more")
    named = detail(error, error_details_pb2.BadRequest).field_violations
    assert [violation.field for violation in named][:2] == ["styles[0]", "styles[1]"]
    _, _, ((key, value),) = abort_arguments(status)
    assert key == "grpc-status-details-bin"
    assert len(value) < 4096
