import grpc
import pytest
from grpc.aio import AioRpcError, Metadata
from nst_client import errors
from nst_client.errors import from_rpc_error

DETAILS_KEY = "grpc-status-details-bin"


def aio_error(code, message="because", trailing=()):
    return AioRpcError(code, Metadata(), Metadata(*trailing), details=message)


class SyncError(grpc.RpcError):
    """As a sync call raises it: error and call in one."""

    def __init__(self, code, message="because", trailing=()):
        self._code, self._message, self._trailing = code, message, trailing

    def code(self):
        return self._code

    def details(self):
        return self._message

    def trailing_metadata(self):
        return self._trailing


@pytest.fixture(params=[SyncError, aio_error], ids=["sync", "asyncio"])
def convert(request):
    """Return the exception for a Failure, as either kind of call raises it."""

    def convert(failure):
        trailing = [(DETAILS_KEY, failure.status.SerializeToString())]
        return from_rpc_error(request.param(failure.code, failure.message, trailing))

    return convert


@pytest.mark.parametrize("code", [code for code in grpc.StatusCode if code is not grpc.StatusCode.OK])
def test_every_status_becomes_an_nst_error_that_keeps_its_code(code):
    error = from_rpc_error(SyncError(code))
    assert isinstance(error, errors.NstError)
    assert error.code is code
    assert error.message


@pytest.mark.parametrize("make", [SyncError, aio_error])
def test_a_call_that_nobody_has_cancelled_is_a_broken_connection(make):
    assert type(from_rpc_error(make(grpc.StatusCode.CANCELLED, "RST_STREAM"))) is errors.UnavailableError


@pytest.mark.parametrize(
    ("code", "reason", "kind"),
    [
        ("CANCELLED", "CANCELLED", errors.JobCancelledError),
        ("DEADLINE_EXCEEDED", "DEADLINE_TOO_SHORT", errors.DeadlineExceededError),
        ("FAILED_PRECONDITION", "DOES_NOT_FIT", errors.DoesNotFitError),
        ("FAILED_PRECONDITION", "", errors.NstError),
        ("INTERNAL", "INTERNAL", errors.InternalError),
        ("INTERNAL", "LOSS_NOT_FINITE", errors.InternalError),
        ("INVALID_ARGUMENT", "", errors.InvalidRequestError),
        ("ALREADY_EXISTS", "", errors.RequestConflictError),
        ("NOT_FOUND", "", errors.JobNotFoundError),
        ("RESOURCE_EXHAUSTED", "QUEUE_FULL", errors.QueueFullError),
        ("RESOURCE_EXHAUSTED", "TOO_MANY_CALLS", errors.QueueFullError),
        ("RESOURCE_EXHAUSTED", "QUOTA_EXCEEDED", errors.QuotaExceededError),
        ("RESOURCE_EXHAUSTED", "REQUEST_TOO_LARGE", errors.RequestTooLargeError),
        ("RESOURCE_EXHAUSTED", "STORE_FULL", errors.StoreError),
        ("RESOURCE_EXHAUSTED", "", errors.NstError),
        ("UNAUTHENTICATED", "", errors.UnauthenticatedError),
        ("PERMISSION_DENIED", "", errors.PermissionDeniedError),
        ("UNAVAILABLE", "DRAINING", errors.UnavailableError),
        ("UNAVAILABLE", "REQUEST_INCOMPLETE", errors.UnavailableError),
        ("UNAVAILABLE", "STORE_READ_ONLY", errors.StoreError),
        ("UNAVAILABLE", "STORE_UNAVAILABLE", errors.StoreError),
        ("UNAVAILABLE", "WARMING_UP", errors.UnavailableError),
        ("UNAVAILABLE", "", errors.UnavailableError),
        ("UNIMPLEMENTED", "", errors.UnsupportedError),
        ("UNKNOWN", "", errors.InternalError),
    ],
)
def test_the_status_and_its_reason_choose_the_exception(convert, failure, code, reason, kind):
    error = convert(failure(grpc.StatusCode[code], "why", reason=reason))
    assert type(error) is kind
    assert error.reason == reason
    assert str(error) == "why"


def test_an_invalid_request_names_every_field(convert, failure):
    violations = {"options.iterations": "is 0, accepted are 1 to 100", "styles": "is empty"}
    error = convert(failure(grpc.StatusCode.INVALID_ARGUMENT, violations=violations))
    assert {violation.field: violation.description for violation in error.violations} == violations


@pytest.mark.parametrize(
    ("resource", "kind"), [("nst.v1.Job", errors.JobNotFoundError), ("nst.v1.Picture", errors.PictureNotFoundError)]
)
def test_what_is_not_found_chooses_the_exception(convert, failure, resource, kind):
    error = convert(failure(grpc.StatusCode.NOT_FOUND, resource=(resource, "x")))
    assert (type(error), error.resource_type) == (kind, resource)


def test_a_full_queue_says_when_to_come_back(convert, failure):
    error = convert(failure(grpc.StatusCode.RESOURCE_EXHAUSTED, reason="QUEUE_FULL", retry_after=2.5))
    assert error.retry_after == 2.5


def test_a_status_without_retry_info_suggests_nothing(convert, failure):
    assert convert(failure(grpc.StatusCode.UNAVAILABLE, reason="DRAINING")).retry_after is None


def test_a_request_that_is_too_large_tells_size_and_limit(convert, failure):
    metadata = {"limit_bytes": "100", "size_bytes": "250"}
    error = convert(failure(grpc.StatusCode.RESOURCE_EXHAUSTED, reason="REQUEST_TOO_LARGE", metadata=metadata))
    assert (error.size, error.limit) == (250, 100)


@pytest.mark.parametrize(
    ("message", "size", "limit"),
    [
        ("Received message larger than max (250 vs. 100)", 250, 100),
        ("SERVER: Received message larger than max (250 vs. 100)", 250, 100),
        ("Sent message larger than max", None, None),
    ],
)
def test_a_message_that_grpc_itself_finds_too_large_is_a_request_that_is_too_large(message, size, limit):
    error = from_rpc_error(SyncError(grpc.StatusCode.RESOURCE_EXHAUSTED, message))
    assert type(error) is errors.RequestTooLargeError
    assert (error.size, error.limit) == (size, limit)


def test_a_job_that_does_not_fit_tells_what_would(convert, failure):
    metadata = {"needed_bytes": "300", "available_bytes": "200", "largest_image_size": "0"}
    error = convert(failure(grpc.StatusCode.FAILED_PRECONDITION, reason="DOES_NOT_FIT", metadata=metadata))
    assert (error.needed, error.available, error.largest_image_size) == (300, 200, 0)
    assert error.metadata == metadata


def test_a_deadline_that_is_too_short_tells_the_estimate(convert, failure):
    metadata = {"estimated_seconds": "12.500", "remaining_seconds": "3.000"}
    error = convert(failure(grpc.StatusCode.DEADLINE_EXCEEDED, reason="DEADLINE_TOO_SHORT", metadata=metadata))
    assert (error.estimated, error.remaining) == (12.5, 3.0)


def test_numbers_that_the_server_did_not_give_are_none(convert, failure):
    error = convert(failure(grpc.StatusCode.FAILED_PRECONDITION, reason="DOES_NOT_FIT", metadata={"needed_bytes": "?"}))
    assert (error.needed, error.available) == (None, None)


def test_reasons_of_another_domain_are_not_ours(convert, failure):
    error = convert(failure(grpc.StatusCode.RESOURCE_EXHAUSTED, reason="QUEUE_FULL", domain="proxy.example"))
    assert type(error) is errors.NstError
    assert (error.reason, error.metadata) == ("", {})


@pytest.mark.parametrize("garbage", [b"\xff\xff\xff", b""])
def test_details_that_cannot_be_read_leave_the_plain_status(garbage):
    error = from_rpc_error(SyncError(grpc.StatusCode.INTERNAL, "broken", [(DETAILS_KEY, garbage)]))
    assert type(error) is errors.InternalError
    assert (error.message, error.status) == ("broken", None)


def test_statuses_that_grpc_makes_itself_get_a_message_for_people():
    assert "timeout passed" in str(from_rpc_error(SyncError(grpc.StatusCode.DEADLINE_EXCEEDED, "Deadline Exceeded")))
    assert str(from_rpc_error(SyncError(grpc.StatusCode.UNKNOWN, ""))) == "unknown"


def test_an_invalid_request_that_the_client_finds_looks_like_one_that_the_server_finds():
    error = errors.InvalidRequestError.of("content", "is no picture")
    assert error.violations == (errors.Violation(field="content", description="is no picture"),)
    assert error.code is grpc.StatusCode.INVALID_ARGUMENT
    assert str(error) == "content: is no picture"
