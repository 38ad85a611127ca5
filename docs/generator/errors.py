"""The page of the errors. An example of each error is answered as the server does and read as the client does."""

import contextlib
import io
import logging
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import grpc
from google.protobuf.message import Message
from google.rpc import error_details_pb2, status_pb2
from nst_client.cli.exits import reported
from nst_client.errors import NstError, from_rpc_error
from nst_service.engine.errors import InvalidRequestError, Violation
from nst_service.jobs.errors import (
    DeadlineTooShortError,
    DoesNotFitError,
    JobCancelledError,
    JobFailedError,
    NotPermittedError,
    NotServingError,
    QueueFullError,
    QuotaExceededError,
    QuotaViolation,
    Unavailability,
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
from nst_service.rpc.status import abort_arguments, status_of
from nst_service.store.errors import (
    CorruptBlobError,
    RequestConflictError,
    StoreFullError,
    StoreReadOnlyError,
    StoreUnavailableError,
)

from docs.generator.markdown import code, table

_INTRODUCTION = """A call that fails ends with a gRPC status with `google.rpc` details. The Python client raises a
subclass of `NstError` for it. `nst-client` prints its message and ends with an exit code.

`ErrorInfo` has a machine-readable `reason`, the domain `nst` and metadata. `RetryInfo` has the time after which the
same request may succeed. `BadRequest` has one violation for each invalid field. `QuotaFailure` has one violation for
each exceeded quota. `ResourceInfo` names the job or the picture.
"""

_BY_CODE = """A proxy or gRPC itself may end a call with a status without these details. The status code then decides.
"""

_DETAILS = (
    error_details_pb2.BadRequest,
    error_details_pb2.ErrorInfo,
    error_details_pb2.QuotaFailure,
    error_details_pb2.ResourceInfo,
    error_details_pb2.RetryInfo,
)


@dataclass(frozen=True, kw_only=True)
class Condition:
    """A condition that ends a call, with an example of its error."""

    text: str
    error: Exception


def conditions() -> tuple[Condition, ...]:
    """Return every condition under which the server ends a call of the contract with an error."""
    violation = [QuotaViolation("jobs", 3, 2)]
    return (
        Condition(
            text="A field of the request is invalid, or a picture cannot be used.",
            error=InvalidRequestError([Violation("options.iterations", "is 0")]),
        ),
        Condition(text="The bytes of the request are no message of the contract.", error=MalformedRequestError()),
        Condition(text="The request exceeds `max_request_bytes`.", error=RequestTooLargeError(2, 1)),
        Condition(text="The request was not complete within `message_seconds`.", error=IncompleteRequestError("")),
        Condition(text="`max_calls` calls are open already.", error=TooManyCallsError(1)),
        Condition(text="The call has no token, or the server does not accept it.", error=UnauthenticatedError("")),
        Condition(text="The quota of the token allows no jobs.", error=NotPermittedError()),
        Condition(
            text="The request exceeds a quota of the token. It will never be accepted.",
            error=QuotaExceededError("owner", violation, is_lasting=True),
        ),
        Condition(
            text="The request exceeds a quota of the token. It may be accepted after another job of the owner.",
            error=QuotaExceededError("owner", violation, is_lasting=False),
        ),
        Condition(
            text="`max_queued` jobs or `max_pending_bytes` of requests wait already.", error=QueueFullError("", 1)
        ),
        Condition(text="The server is warming up.", error=NotServingError(Unavailability.WARMING_UP)),
        Condition(text="The server is draining.", error=NotServingError(Unavailability.DRAINING)),
        Condition(text="The job does not fit the memory of the device.", error=DoesNotFitError(2, 1, 1)),
        Condition(text="The job cannot finish by the deadline of its call.", error=DeadlineTooShortError(2, 1)),
        Condition(text="No job of the caller has the id.", error=UnknownJobError("id")),
        Condition(text="The caller has no picture with the SHA-256.", error=UnknownPictureError("sha256")),
        Condition(
            text="The caller has used the `request_id` for a different request.",
            error=RequestConflictError("id", "job"),
        ),
        Condition(text="The job was cancelled before it had a picture.", error=JobCancelledError()),
        Condition(
            text="The loss stayed infinite or undefined after every recovery.",
            error=JobFailedError("LOSS_NOT_FINITE", ""),
        ),
        Condition(
            text="The server has died repeatedly while it ran the job.", error=JobFailedError("KEEPS_CRASHING", "")
        ),
        Condition(text="The stored request of the job cannot be read.", error=JobFailedError("REQUEST_LOST", "")),
        Condition(
            text="The job failed unexpectedly. The log of the server names the job.",
            error=JobFailedError("INTERNAL", ""),
        ),
        Condition(text="The store is full.", error=StoreFullError("")),
        Condition(text="The store is read-only.", error=StoreReadOnlyError("")),
        Condition(text="The store does not answer.", error=StoreUnavailableError("")),
        Condition(text="A stored result is damaged or missing.", error=CorruptBlobError("sha256")),
        Condition(
            text="Any other error. The `incident` identifies it in the log of the server.", error=RuntimeError("any")
        ),
    )


def body() -> str:
    """Return the page."""
    header = ("condition", "status", "reason", "details", "Python", "exit code")
    return "\n".join(
        [
            _INTRODUCTION,
            table(header, (_row(condition) for condition in conditions())),
            "## Statuses without details\n",
            _BY_CODE,
            table(("status", "Python", "exit code"), _bare_statuses()),
        ]
    )


def _row(condition: Condition) -> tuple[str, ...]:
    status = _status(condition.error)
    raised = from_rpc_error(_RpcError(*abort_arguments(status)))
    found = list(_details(status))
    return (
        condition.text,
        raised.code.name,
        code(raised.reason) if raised.reason else "",
        ", ".join(map(_shown, found)),
        _python(raised),
        str(_exit_code(raised)),
    )


def _status(error: Exception) -> status_pb2.Status:
    # The server logs some errors, which are examples here.
    logging.disable()
    try:
        return status_of(error)
    finally:
        logging.disable(logging.NOTSET)


def _details(status: status_pb2.Status) -> Iterator[Message]:
    for packed in status.details:
        for kind in _DETAILS:
            if packed.Is(kind.DESCRIPTOR):
                packed.Unpack(detail := kind())
                yield detail


def _shown(detail: Message) -> str:
    name = detail.DESCRIPTOR.name
    match detail:
        case error_details_pb2.ErrorInfo() if detail.metadata:
            return f"{name} ({', '.join(map(code, sorted(detail.metadata)))})"
        case error_details_pb2.ResourceInfo():
            return f"{name} ({code(detail.resource_type)})"
        case _:
            return name


def _bare_statuses() -> Iterator[tuple[str, ...]]:
    for status in grpc.StatusCode:
        if status is not grpc.StatusCode.OK:
            raised = from_rpc_error(_RpcError(status, "", ()))
            yield status.name, _python(raised), str(_exit_code(raised))


def _python(error: NstError) -> str:
    name = type(error).__name__
    return f"[{code(name)}](python.md#{name.lower()})"


def _exit_code(error: NstError) -> int | str | None:
    with contextlib.redirect_stderr(io.StringIO()):
        try:
            with reported("target"):
                raise error
        except SystemExit as ended:
            return ended.code


class _RpcError(grpc.RpcError):
    """The error of a call that ended with a status."""

    def __init__(self, code: grpc.StatusCode, message: str, metadata: tuple[tuple[str, bytes], ...]):
        super().__init__()
        self._code, self._message, self._metadata = code, message, metadata

    def code(self) -> grpc.StatusCode:
        return self._code

    def details(self) -> str:
        return self._message

    def trailing_metadata(self) -> Any:
        return self._metadata
