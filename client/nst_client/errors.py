"""The exceptions of the client, and the table from gRPC statuses to them."""

import contextlib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Self

import grpc
from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.message import DecodeError
from google.rpc import code_pb2, error_details_pb2, status_pb2
from grpc_status import rpc_status

_DOMAIN = "nst"
"""The domain of every ErrorInfo whose reasons and metadata the contract defines."""

_TOO_LARGE = re.compile(r"message larger than max(?: \((?P<size>\d+) vs\.? (?P<limit>\d+)\))?")
"""The message with which gRPC itself refuses a request. Its status has no details."""


class NstError(Exception):
    """The root of every exception that the client raises on purpose."""

    default_code = grpc.StatusCode.UNKNOWN

    def __init__(self, message: str, *, code: grpc.StatusCode | None = None, status: status_pb2.Status | None = None):
        super().__init__(message)
        self.message = message
        """A description of the problem for people."""
        self.code = code or self.default_code
        """The gRPC status code. An error that the client found itself has the code that fits best."""
        self.status = status
        """The google.rpc.Status with its details; None if the server sent none."""

    def _detail(self, kind: type[Any]) -> Any:
        """Return the detail of this kind; an empty one if the status has none."""
        detail = kind()
        for packed in self.status.details if self.status is not None else ():
            if packed.Unpack(detail):
                break
        return detail

    @property
    def reason(self) -> str:
        """The server's machine-readable reason, such as "QUEUE_FULL"; empty if it gave none."""
        info = self._detail(error_details_pb2.ErrorInfo)
        return str(info.reason) if info.domain == _DOMAIN else ""

    @property
    def metadata(self) -> dict[str, str]:
        """The metadata of the reason; empty if the server gave none."""
        info = self._detail(error_details_pb2.ErrorInfo)
        return dict(info.metadata) if info.domain == _DOMAIN else {}

    @property
    def resource_type(self) -> str:
        """The type of the resource that the error is about, such as "nst.v1.Job"; empty if the server did not say."""
        return str(self._detail(error_details_pb2.ResourceInfo).resource_type)

    @property
    def retry_after(self) -> float | None:
        """The seconds after which the server suggests to try again; None if it suggests nothing."""
        info = self._detail(error_details_pb2.RetryInfo)
        return float(info.retry_delay.ToTimedelta().total_seconds()) if info.HasField("retry_delay") else None

    def _number(self, key: str) -> float | None:
        try:
            return float(self.metadata[key])
        except (KeyError, ValueError):
            return None

    def _integer(self, key: str) -> int | None:
        number = self._number(key)
        return None if number is None else int(number)


@dataclass(frozen=True, kw_only=True)
class Violation:
    """One invalid field of a request."""

    field: str
    """The path of the field in the request: "options.iterations", "styles[0].picture" ..."""
    description: str
    """What is wrong with the field, and what is accepted."""


class InvalidRequestError(NstError):
    """A field of the request is invalid. The client or the server found it."""

    default_code = grpc.StatusCode.INVALID_ARGUMENT

    @classmethod
    def of(cls, field: str, description: str) -> Self:
        """Return the error about one field."""
        violation = error_details_pb2.BadRequest.FieldViolation(field=field, description=description)
        packed = AnyMessage()
        packed.Pack(error_details_pb2.BadRequest(field_violations=[violation]))
        message = f"{field}: {description}"
        status = status_pb2.Status(code=code_pb2.INVALID_ARGUMENT, message=message, details=[packed])
        return cls(message, status=status)

    @property
    def violations(self) -> tuple[Violation, ...]:
        """The invalid fields of the request."""
        return tuple(
            Violation(field=violation.field, description=violation.description)
            for violation in self._detail(error_details_pb2.BadRequest).field_violations
        )


class ConnectionOptionsError(NstError):
    """The options of the connection contradict each other, cannot be read, or would expose the token."""

    default_code = grpc.StatusCode.INVALID_ARGUMENT


class RequestTooLargeError(NstError):
    """The request has more bytes than the server accepts."""

    default_code = grpc.StatusCode.RESOURCE_EXHAUSTED

    @property
    def size(self) -> int | None:
        """The size of the request in bytes; None if the server did not say."""
        return self._integer("size_bytes") or self._from_message("size")

    @property
    def limit(self) -> int | None:
        """The largest size that the server accepts, in bytes; None if it did not say."""
        return self._integer("limit_bytes") or self._from_message("limit")

    def _from_message(self, group: str) -> int | None:
        found = _TOO_LARGE.search(self.message)
        return int(found[group]) if found and found[group] else None


class QueueFullError(NstError):
    """The queue of the server is full."""

    default_code = grpc.StatusCode.RESOURCE_EXHAUSTED


@dataclass(frozen=True, kw_only=True)
class Excess:
    """One quota of the caller that a request exceeds."""

    subject: str
    """The quota and its owner."""
    description: str
    """The amount that was asked for, and the amount that is accepted."""


class QuotaExceededError(NstError):
    """The request exceeds a quota of the caller's token.

    `retry_after` is set only if the same request may succeed later.
    """

    default_code = grpc.StatusCode.RESOURCE_EXHAUSTED

    @property
    def quota(self) -> str:
        """The name of the first exceeded quota: "jobs", "pixels" or "iterations"."""
        return self.metadata.get("quota", "")

    @property
    def asked(self) -> int | None:
        """The amount that was asked for; None if the server did not say."""
        return self._integer("asked")

    @property
    def accepted(self) -> int | None:
        """The amount that is accepted; None if the server did not say."""
        return self._integer("accepted")

    @property
    def excesses(self) -> tuple[Excess, ...]:
        """Every exceeded quota."""
        return tuple(
            Excess(subject=violation.subject, description=violation.description)
            for violation in self._detail(error_details_pb2.QuotaFailure).violations
        )


class UnavailableError(NstError):
    """No server answers at the target, the connection broke, or the server is warming up or draining."""

    default_code = grpc.StatusCode.UNAVAILABLE


class StoreError(NstError):
    """The server cannot store a job or find one: its store is full, read-only or unavailable.

    `reason` is "STORE_FULL", "STORE_READ_ONLY" or "STORE_UNAVAILABLE".
    """

    default_code = grpc.StatusCode.UNAVAILABLE


class DoesNotFitError(NstError):
    """The job needs more memory than its device has."""

    default_code = grpc.StatusCode.FAILED_PRECONDITION

    @property
    def needed(self) -> int | None:
        """The memory that the job needs, in bytes; None if the server did not say."""
        return self._integer("needed_bytes")

    @property
    def available(self) -> int | None:
        """The memory that the device has, in bytes; None if the server did not say."""
        return self._integer("available_bytes")

    @property
    def largest_image_size(self) -> int | None:
        """The largest `image_size` that fits, in pixels; 0 if none fits, None if the server did not say."""
        return self._integer("largest_image_size")


class DeadlineExceededError(NstError):
    """The timeout passed before there was a picture, or the server refused it as too short for the job."""

    default_code = grpc.StatusCode.DEADLINE_EXCEEDED

    @property
    def estimated(self) -> float | None:
        """The seconds that the job would take, including its wait; None if the server did not say."""
        return self._number("estimated_seconds")

    @property
    def remaining(self) -> float | None:
        """The seconds that remained of the timeout; None if the server did not say."""
        return self._number("remaining_seconds")


class JobNotFoundError(NstError):
    """No job has this id."""

    default_code = grpc.StatusCode.NOT_FOUND


class PictureNotFoundError(NstError):
    """The server does not have a picture that the request names by its SHA-256. The client then sends the bytes."""

    default_code = grpc.StatusCode.NOT_FOUND


class RequestConflictError(NstError):
    """The caller has already used this `request_id` for another request."""

    default_code = grpc.StatusCode.ALREADY_EXISTS


class JobCancelledError(NstError):
    """The job was cancelled before there was a picture."""

    default_code = grpc.StatusCode.CANCELLED


class UnauthenticatedError(NstError):
    """The server, or a proxy in front of it, requires other credentials."""

    default_code = grpc.StatusCode.UNAUTHENTICATED


class PermissionDeniedError(NstError):
    """The server knows the caller, who is not allowed to make this call."""

    default_code = grpc.StatusCode.PERMISSION_DENIED


class UnsupportedError(NstError):
    """The target does not implement this call: it is another service or another version."""

    default_code = grpc.StatusCode.UNIMPLEMENTED


class InternalError(NstError):
    """The server failed, through no fault of the request."""

    default_code = grpc.StatusCode.INTERNAL


class ProtocolError(NstError):
    """The server sent something that violates the contract."""

    default_code = grpc.StatusCode.INTERNAL


class CorruptResultError(ProtocolError):
    """The picture that arrived is not the one that the server announced."""

    default_code = grpc.StatusCode.DATA_LOSS


class ResultNotReadyError(NstError):
    """The result was asked for before the events were exhausted."""

    default_code = grpc.StatusCode.FAILED_PRECONDITION


_BY_REASON = MappingProxyType(
    {
        "REQUEST_TOO_LARGE": RequestTooLargeError,
        "QUEUE_FULL": QueueFullError,
        "QUOTA_EXCEEDED": QuotaExceededError,
        "DOES_NOT_FIT": DoesNotFitError,
        "STORE_FULL": StoreError,
        "STORE_READ_ONLY": StoreError,
        "STORE_UNAVAILABLE": StoreError,
    }
)
"""The exception for each reason of the server that is more specific than its status code."""

_BY_RESOURCE = MappingProxyType({"nst.v1.Picture": PictureNotFoundError})
"""The exception for each type of resource that was not found, except for jobs."""

_BY_CODE = MappingProxyType(
    {
        grpc.StatusCode.CANCELLED: JobCancelledError,
        grpc.StatusCode.UNKNOWN: InternalError,
        grpc.StatusCode.INVALID_ARGUMENT: InvalidRequestError,
        grpc.StatusCode.DEADLINE_EXCEEDED: DeadlineExceededError,
        grpc.StatusCode.NOT_FOUND: JobNotFoundError,
        grpc.StatusCode.ALREADY_EXISTS: RequestConflictError,
        grpc.StatusCode.PERMISSION_DENIED: PermissionDeniedError,
        grpc.StatusCode.RESOURCE_EXHAUSTED: NstError,
        grpc.StatusCode.FAILED_PRECONDITION: NstError,
        grpc.StatusCode.ABORTED: NstError,
        grpc.StatusCode.OUT_OF_RANGE: NstError,
        grpc.StatusCode.UNIMPLEMENTED: UnsupportedError,
        grpc.StatusCode.INTERNAL: InternalError,
        grpc.StatusCode.UNAVAILABLE: UnavailableError,
        grpc.StatusCode.DATA_LOSS: InternalError,
        grpc.StatusCode.UNAUTHENTICATED: UnauthenticatedError,
    }
)

_PLAIN_MESSAGES = MappingProxyType(
    {
        grpc.StatusCode.CANCELLED: "the connection broke",
        grpc.StatusCode.DEADLINE_EXCEEDED: "the timeout passed before the call was done",
    }
)
"""The messages for statuses that gRPC itself creates."""


def from_rpc_error(error: grpc.RpcError) -> NstError:
    """Return the exception for a failed call of `grpc` or `grpc.aio`."""
    code = error.code()
    status = _rich_status(error)
    plain = None if status else _PLAIN_MESSAGES.get(code)
    message = plain or error.details() or code.value[1]
    plain_error = NstError(message, code=code, status=status)
    kind = _BY_REASON.get(plain_error.reason) or _BY_RESOURCE.get(plain_error.resource_type) or _BY_CODE[code]
    if kind is JobCancelledError and not (status and status.details):
        # gRPC sends it when a server stops at the moment at which the call reaches it. Nobody has cancelled a job.
        kind = UnavailableError
    if kind is NstError and code is grpc.StatusCode.RESOURCE_EXHAUSTED and _TOO_LARGE.search(message):
        kind = RequestTooLargeError
    return kind(message, code=code, status=status)


def _rich_status(error: Any) -> status_pb2.Status | None:
    try:
        return rpc_status.from_call(error)
    except (ValueError, DecodeError):
        # Details that contradict their own status are useless; the status itself still counts.
        return None


@contextlib.contextmanager
def rpc_errors() -> Iterator[None]:
    """Raise the `NstError` for a call that fails in the body."""
    try:
        yield
    except grpc.RpcError as error:
        raise from_rpc_error(error) from error
