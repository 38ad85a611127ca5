"""The gRPC status of each error, with the `google.rpc` details that the contract promises."""

import logging
import secrets
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, TypeVar

import grpc
from google.protobuf import any_pb2, duration_pb2
from google.protobuf.message import Message
from google.rpc import error_details_pb2, status_pb2
from google.rpc.code_pb2 import (
    ALREADY_EXISTS,
    CANCELLED,
    DATA_LOSS,
    DEADLINE_EXCEEDED,
    FAILED_PRECONDITION,
    INTERNAL,
    INVALID_ARGUMENT,
    NOT_FOUND,
    PERMISSION_DENIED,
    RESOURCE_EXHAUSTED,
    UNAUTHENTICATED,
    UNAVAILABLE,
)
from nst.v1 import style_transfer_pb2 as pb

from nst_service.engine.errors import InvalidRequestError
from nst_service.jobs.errors import (
    DeadlineTooShortError,
    DoesNotFitError,
    JobCancelledError,
    JobFailedError,
    NotPermittedError,
    NotServingError,
    QueueFullError,
    QuotaExceededError,
    StoredFailureError,
    UnknownJobError,
    UnknownPictureError,
)
from nst_service.rpc.errors import (
    IncompleteRequestError,
    MalformedRequestError,
    RequestTooLargeError,
    TooManyCallsError,
    UnauthenticatedError,
)
from nst_service.store.errors import (
    CorruptBlobError,
    RequestConflictError,
    StoreError,
    StoreFullError,
    StoreOutageError,
    StoreReadOnlyError,
    failures_log,
)

DOMAIN = "nst"
"""The domain in every ErrorInfo."""

# A status travels in headers, twice and encoded, and clients refuse headers above 8 KiB.
_MAX_MESSAGE = 600
"""The largest number of characters of a message."""
_MAX_DESCRIPTION = 300
"""The largest number of characters of the description of a violation."""
_MAX_VIOLATIONS_BYTES = 2400
"""The largest size of all violations in bytes. Further violations are counted and not named."""
_MAX_NAME = 64
"""The largest number of characters of a name that the client has sent."""

_INCIDENT_BYTES = 8
"""The number of random bytes in the id of an incident."""
_QUOTA_RETRY_SECONDS = 1.0
"""Seconds after which one of the owner's jobs may have ended."""
_CALLS_RETRY_SECONDS = 1.0
"""Seconds after which there may be room for another call, or for a request that was not read in time."""
_STORE_RETRY_SECONDS = 5.0
"""Seconds after which the store may accept jobs again."""

_STATUS_DETAILS_KEY = "grpc-status-details-bin"
_CODES = {code.value[0]: code for code in grpc.StatusCode}

_log = logging.getLogger(__name__)

_Error = TypeVar("_Error", bound=Exception)


@dataclass(frozen=True, slots=True)
class _Row:
    """The status of one type of error."""

    code: int
    details: Callable[[Any], Sequence[Message]]
    """Returns the details for an error."""
    message: Callable[[Any], str]
    """Returns the message for an error."""


def _row(
    kind: type[_Error],
    code: int,
    details: Callable[[_Error], Sequence[Message]],
    message: Callable[[_Error], str] = str,
) -> tuple[type[Exception], _Row]:
    return kind, _Row(code, details, message)


def status_of(error: Exception) -> status_pb2.Status:
    """Return the status that describes an error to a client.

    The details of an unexpected error are in the log of the server only. The client gets the id of the log entry.
    """
    if isinstance(error, StoredFailureError):
        failure = pb.Job.FromString(error.outcome).failure
        return status_pb2.Status(code=failure.code, message=failure.message, details=failure.details)
    row = next((STATUSES[kind] for kind in type(error).__mro__ if kind in STATUSES), None)
    if row is None:
        incident = secrets.token_hex(_INCIDENT_BYTES)
        _log.error("incident %s: unexpected error", incident, exc_info=error)
        message = f"internal error; the log of the server has it as incident {incident}"
        return _status(INTERNAL, message, [_info("INTERNAL", incident=incident)])
    if isinstance(error, StoreError) and not isinstance(error, RequestConflictError):
        log = failures_log if isinstance(error, StoreOutageError) else _log
        log.error("a call fails: %s", error.described(), exc_info=error)
    return _status(row.code, row.message(error), row.details(error))


def reason_of(error: Exception) -> str:
    """Return the reason in the ErrorInfo of the status of an error, or the name of its code if it has none."""
    if isinstance(error, StoredFailureError):
        return pb.Job.FromString(error.outcome).failure.reason
    row = next((STATUSES[kind] for kind in type(error).__mro__ if kind in STATUSES), None)
    if row is None:
        return "INTERNAL"
    infos = [detail for detail in row.details(error) if isinstance(detail, error_details_pb2.ErrorInfo)]
    return infos[0].reason if infos else _CODES[row.code].name


def abort_arguments(status: status_pb2.Status) -> tuple[grpc.StatusCode, str, tuple[tuple[str, bytes], ...]]:
    """Return the arguments of `context.abort` that send a status to the client."""
    return _CODES[status.code], status.message, ((_STATUS_DETAILS_KEY, status.SerializeToString()),)


def _status(code: int, message: str, details: Sequence[Message]) -> status_pb2.Status:
    packed = []
    for detail in details:
        packed.append(any_pb2.Any())
        packed[-1].Pack(detail)
    return status_pb2.Status(code=code, message=message, details=packed)


def _info(reason: str, **metadata: object) -> error_details_pb2.ErrorInfo:
    return error_details_pb2.ErrorInfo(
        reason=reason, domain=DOMAIN, metadata={key: str(value) for key, value in metadata.items()}
    )


def _retry_in(seconds: float) -> error_details_pb2.RetryInfo:
    delay = duration_pb2.Duration()
    delay.FromMilliseconds(round(seconds * 1000))
    return error_details_pb2.RetryInfo(retry_delay=delay)


def _resource(kind: type[Message], name: str, error: Exception) -> error_details_pb2.ResourceInfo:
    return error_details_pb2.ResourceInfo(
        resource_type=kind.DESCRIPTOR.full_name, resource_name=name[:_MAX_NAME], description=str(error)
    )


def _violations_message(error: InvalidRequestError) -> str:
    message = "; ".join(f"{violation.field}: {violation.description}" for violation in error.violations[:3])
    more = f"; and {len(error.violations) - 3} more" if len(error.violations) > 3 else ""
    return _cut(message, _MAX_MESSAGE - len(more)) + more


def _bad_request(error: InvalidRequestError) -> error_details_pb2.BadRequest:
    return error_details_pb2.BadRequest(field_violations=_field_violations(error))


def _field_violations(error: InvalidRequestError) -> Iterator[error_details_pb2.BadRequest.FieldViolation]:
    left = _MAX_VIOLATIONS_BYTES
    for violation in error.violations:
        named = error_details_pb2.BadRequest.FieldViolation(
            field=violation.field, description=_cut(violation.description, _MAX_DESCRIPTION)
        )
        left -= named.ByteSize()
        if left < 0:
            break
        yield named


def _cut(text: str, longest: int) -> str:
    return text if len(text) <= longest else text[: longest - 3] + "..."


def _quota_details(error: QuotaExceededError) -> list[Message]:
    first = error.violations[0]
    failure = error_details_pb2.QuotaFailure(
        violations=[
            error_details_pb2.QuotaFailure.Violation(
                subject=f"{violation.quota} of {error.owner}", description=str(violation)
            )
            for violation in error.violations
        ]
    )
    info = _info("QUOTA_EXCEEDED", quota=first.quota, asked=first.asked, accepted=first.accepted)
    return [info, failure] if error.is_lasting else [info, failure, _retry_in(_QUOTA_RETRY_SECONDS)]


def _seconds(seconds: float) -> str:
    return f"{seconds:.3f}"


_ROWS = (
    _row(InvalidRequestError, INVALID_ARGUMENT, lambda error: [_bad_request(error)], _violations_message),
    _row(MalformedRequestError, INVALID_ARGUMENT, lambda _: [_info("MALFORMED_REQUEST")]),
    _row(
        RequestTooLargeError,
        RESOURCE_EXHAUSTED,
        lambda error: [_info("REQUEST_TOO_LARGE", size_bytes=error.size, limit_bytes=error.limit)],
    ),
    _row(
        IncompleteRequestError,
        UNAVAILABLE,
        lambda _: [_info("REQUEST_INCOMPLETE"), _retry_in(_CALLS_RETRY_SECONDS)],
    ),
    _row(
        TooManyCallsError,
        RESOURCE_EXHAUSTED,
        lambda _: [_info("TOO_MANY_CALLS"), _retry_in(_CALLS_RETRY_SECONDS)],
    ),
    _row(UnauthenticatedError, UNAUTHENTICATED, lambda _: [_info("UNAUTHENTICATED")]),
    _row(NotPermittedError, PERMISSION_DENIED, lambda _: [_info("NOT_PERMITTED")]),
    _row(QuotaExceededError, RESOURCE_EXHAUSTED, _quota_details),
    _row(QueueFullError, RESOURCE_EXHAUSTED, lambda error: [_info("QUEUE_FULL"), _retry_in(error.retry_after)]),
    _row(NotServingError, UNAVAILABLE, lambda error: [_info(error.reason), _retry_in(error.retry_after)]),
    _row(
        DoesNotFitError,
        FAILED_PRECONDITION,
        lambda error: [
            _info(
                "DOES_NOT_FIT",
                needed_bytes=error.needed,
                available_bytes=error.available,
                largest_image_size=error.largest_size,
            )
        ],
    ),
    _row(
        DeadlineTooShortError,
        DEADLINE_EXCEEDED,
        lambda error: [
            _info(
                "DEADLINE_TOO_SHORT",
                estimated_seconds=_seconds(error.estimated),
                remaining_seconds=_seconds(error.remaining),
            )
        ],
    ),
    _row(UnknownJobError, NOT_FOUND, lambda error: [_resource(pb.Job, error.job_id, error)]),
    _row(UnknownPictureError, NOT_FOUND, lambda error: [_resource(pb.Picture, error.sha256, error)]),
    _row(RequestConflictError, ALREADY_EXISTS, lambda error: [_resource(pb.Job, error.job_id, error)]),
    _row(JobCancelledError, CANCELLED, lambda _: [_info("CANCELLED")]),
    _row(JobFailedError, INTERNAL, lambda error: [_info(error.reason)]),
    _row(StoreFullError, RESOURCE_EXHAUSTED, lambda _: [_info("STORE_FULL"), _retry_in(_STORE_RETRY_SECONDS)]),
    _row(StoreReadOnlyError, UNAVAILABLE, lambda _: [_info("STORE_READ_ONLY"), _retry_in(_STORE_RETRY_SECONDS)]),
    _row(CorruptBlobError, DATA_LOSS, lambda _: [_info("DATA_LOSS")], lambda _: "stored data is damaged or missing"),
    _row(StoreError, UNAVAILABLE, lambda _: [_info("STORE_UNAVAILABLE"), _retry_in(_STORE_RETRY_SECONDS)]),
)

REFUSALS_OF_CALLS = frozenset(
    {"MALFORMED_REQUEST", "QUEUE_FULL", "REQUEST_INCOMPLETE", "REQUEST_TOO_LARGE", "TOO_MANY_CALLS", "UNAUTHENTICATED"}
)
"""The reasons with which calls are refused before their request reaches the scheduler.

They are those of `rpc.errors`, and that there is no room to read the request.
"""

STATUSES: Mapping[type[Exception], _Row] = MappingProxyType(dict(_ROWS))
"""The status of each type of error and its subtypes. No other error reaches a client with its message."""
