"""The gRPC status of each error, with the google.rpc details that the contract promises."""

import functools
import logging
import secrets
from collections.abc import Iterator, Mapping
from types import MappingProxyType

import grpc
from google.protobuf import any_pb2, duration_pb2
from google.protobuf.message import Message
from google.rpc import code_pb2, error_details_pb2, status_pb2
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
from nst_service.store.errors import (
    CorruptBlobError,
    RequestConflictError,
    StoreError,
    StoreFullError,
    StoreReadOnlyError,
)

_log = logging.getLogger(__name__)

DOMAIN = "nst"
"""Domain of every ErrorInfo."""

# A status travels in headers, twice and encoded, and what receives them refuses those above 8 KiB.
_MAX_MESSAGE = 600
"""Most characters of a message."""
_MAX_DESCRIPTION = 300
"""Most characters of one violation."""
_MAX_VIOLATIONS_BYTES = 2400
"""Most bytes of all violations; those beyond are counted, not named."""
_MAX_NAME = 64
"""Most characters of a name that the client itself has sent."""

_INCIDENT_BYTES = 8
_QUOTA_RETRY_SECONDS = 1.0
"""Seconds after which a client may see whether one of its jobs has ended."""

_STORE_RETRY_SECONDS = 5.0
"""Seconds after which a client may see whether the store takes jobs again."""

_STATUS_DETAILS_KEY = "grpc-status-details-bin"
_CODES = {code.value[0]: code for code in grpc.StatusCode}


class RequestTooLargeError(Exception):
    """The request is larger than the server accepts."""

    def __init__(self, size: int, limit: int):
        super().__init__(f"the request has {size} bytes, this server accepts at most {limit}")
        self.size = size
        """Bytes."""
        self.limit = limit
        """Bytes."""


class MalformedRequestError(Exception):
    """The request is no message of the contract."""

    def __init__(self) -> None:
        super().__init__("the request cannot be decoded as the message that this method takes")


class UnauthenticatedError(Exception):
    """The server does not know who calls. The message is for the client."""


_PLAIN: Mapping[type[Exception], tuple[int, str]] = MappingProxyType(
    {
        MalformedRequestError: (code_pb2.INVALID_ARGUMENT, "MALFORMED_REQUEST"),
        UnauthenticatedError: (code_pb2.UNAUTHENTICATED, "UNAUTHENTICATED"),
        NotPermittedError: (code_pb2.PERMISSION_DENIED, "NOT_PERMITTED"),
        JobCancelledError: (code_pb2.CANCELLED, "CANCELLED"),
    }
)
"""Code and reason of the errors that have nothing more to tell than their message."""


@functools.singledispatch
def status_of(error: Exception) -> status_pb2.Status:
    """Return the status that tells a client about an error; an unexpected one is told by its id in the log."""
    if type(error) in _PLAIN:
        code, reason = _PLAIN[type(error)]
        return _status(code, str(error), _info(reason))
    incident = secrets.token_hex(_INCIDENT_BYTES)
    _log.error("incident %s: unexpected error", incident, exc_info=error)
    return _status(
        code_pb2.INTERNAL,
        f"internal error; the server's log has it as incident {incident}",
        _info("INTERNAL", incident=incident),
    )


@status_of.register
def _(error: RequestTooLargeError) -> status_pb2.Status:
    info = _info("REQUEST_TOO_LARGE", size_bytes=error.size, limit_bytes=error.limit)
    return _status(code_pb2.RESOURCE_EXHAUSTED, str(error), info)


@status_of.register
def _(error: QueueFullError) -> status_pb2.Status:
    return _status(code_pb2.RESOURCE_EXHAUSTED, str(error), _info("QUEUE_FULL"), _retry_in(error.retry_after))


@status_of.register
def _(error: NotServingError) -> status_pb2.Status:
    return _status(code_pb2.UNAVAILABLE, str(error), _info(error.reason), _retry_in(error.retry_after))


@status_of.register
def _(error: DoesNotFitError) -> status_pb2.Status:
    info = _info(
        "DOES_NOT_FIT",
        needed_bytes=error.needed,
        available_bytes=error.available,
        largest_image_size=error.largest_size,
    )
    return _status(code_pb2.FAILED_PRECONDITION, str(error), info)


@status_of.register
def _(error: DeadlineTooShortError) -> status_pb2.Status:
    info = _info(
        "DEADLINE_TOO_SHORT",
        estimated_seconds=f"{error.estimated:.3f}",
        remaining_seconds=f"{error.remaining:.3f}",
    )
    return _status(code_pb2.DEADLINE_EXCEEDED, str(error), info)


@status_of.register
def _(error: UnknownJobError) -> status_pb2.Status:
    return _status(code_pb2.NOT_FOUND, str(error), _resource(pb.Job, error.job_id, error))


@status_of.register
def _(error: UnknownPictureError) -> status_pb2.Status:
    return _status(code_pb2.NOT_FOUND, str(error), _resource(pb.Picture, error.sha256, error))


@status_of.register
def _(error: JobFailedError) -> status_pb2.Status:
    return _status(code_pb2.INTERNAL, str(error), _info(error.reason))


@status_of.register
def _(error: StoredFailureError) -> status_pb2.Status:
    failure = pb.Job.FromString(error.outcome).failure
    return status_pb2.Status(code=failure.code, message=failure.message, details=failure.details)


@status_of.register
def _(error: RequestConflictError) -> status_pb2.Status:
    return _status(code_pb2.ALREADY_EXISTS, str(error), _resource(pb.Job, error.job_id, error))


@status_of.register
def _(error: StoreError) -> status_pb2.Status:
    _log.error("a call fails: %s", error, exc_info=error)
    match error:
        case CorruptBlobError():
            return _status(code_pb2.DATA_LOSS, "what was stored is damaged or missing", _info("DATA_LOSS"))
        case StoreFullError():
            code, reason = code_pb2.RESOURCE_EXHAUSTED, "STORE_FULL"
        case StoreReadOnlyError():
            code, reason = code_pb2.UNAVAILABLE, "STORE_READ_ONLY"
        case _:
            code, reason = code_pb2.UNAVAILABLE, "STORE_UNAVAILABLE"
    return _status(code, str(error), _info(reason), _retry_in(_STORE_RETRY_SECONDS))


def abort_arguments(status: status_pb2.Status) -> tuple[grpc.StatusCode, str, tuple[tuple[str, bytes], ...]]:
    """Return the arguments of `context.abort` that carry a status to the client."""
    return _CODES[status.code], status.message, ((_STATUS_DETAILS_KEY, status.SerializeToString()),)


@status_of.register
def _(error: InvalidRequestError) -> status_pb2.Status:
    message = "; ".join(f"{violation.field}: {violation.description}" for violation in error.violations[:3])
    more = f"; and {len(error.violations) - 3} more" if len(error.violations) > 3 else ""
    return _status(
        code_pb2.INVALID_ARGUMENT,
        _cut(message, _MAX_MESSAGE - len(more)) + more,
        error_details_pb2.BadRequest(field_violations=_field_violations(error)),
    )


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


@status_of.register
def _(error: QuotaExceededError) -> status_pb2.Status:
    first = error.violations[0]
    details: list[Message] = [
        _info("QUOTA_EXCEEDED", quota=first.quota, asked=first.asked, accepted=first.accepted),
        error_details_pb2.QuotaFailure(
            violations=[
                error_details_pb2.QuotaFailure.Violation(
                    subject=f"{violation.quota} of {error.owner}", description=str(violation)
                )
                for violation in error.violations
            ]
        ),
    ]
    if not error.is_lasting:
        details.append(_retry_in(_QUOTA_RETRY_SECONDS))
    return _status(code_pb2.RESOURCE_EXHAUSTED, str(error), *details)


def _status(code: int, message: str, *details: Message) -> status_pb2.Status:
    packed = []
    for detail in details:
        packed.append(any_pb2.Any())
        packed[-1].Pack(detail)
    return status_pb2.Status(code=code, message=message, details=packed)


def _resource(kind: type[Message], name: str, error: Exception) -> error_details_pb2.ResourceInfo:
    return error_details_pb2.ResourceInfo(
        resource_type=kind.DESCRIPTOR.full_name, resource_name=name[:_MAX_NAME], description=str(error)
    )


def _info(reason: str, **metadata: object) -> error_details_pb2.ErrorInfo:
    return error_details_pb2.ErrorInfo(
        reason=reason, domain=DOMAIN, metadata={key: str(value) for key, value in metadata.items()}
    )


def _retry_in(seconds: float) -> error_details_pb2.RetryInfo:
    delay = duration_pb2.Duration()
    delay.FromMilliseconds(round(seconds * 1000))
    return error_details_pb2.RetryInfo(retry_delay=delay)
