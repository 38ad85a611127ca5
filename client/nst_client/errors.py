"""Everything that the client raises, and the table from gRPC statuses to it."""

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
"""Of every ErrorInfo whose reasons and metadata the contract defines."""

_TOO_LARGE = re.compile(r"message larger than max(?: \((?P<size>\d+) vs\.? (?P<limit>\d+)\))?")
"""How gRPC itself refuses a message, without any details."""


class NstError(Exception):
    """Root of everything that the client raises on purpose."""

    default_code = grpc.StatusCode.UNKNOWN

    def __init__(self, message: str, *, code: grpc.StatusCode | None = None, status: status_pb2.Status | None = None):
        super().__init__(message)
        self.message = message
        """What was wrong, for people."""
        self.code = code or self.default_code
        """The gRPC status code; for an error that the client found itself, the one that fits best."""
        self.status = status
        """The google.rpc.Status with its details; None where there were none."""

    def _detail(self, kind: type[Any]) -> Any:
        """Return the detail of this kind, empty where the status has none."""
        detail = kind()
        for packed in self.status.details if self.status is not None else ():
            if packed.Unpack(detail):
                break
        return detail

    @property
    def reason(self) -> str:
        """The server's machine-readable reason, such as "QUEUE_FULL"; empty where it gave none."""
        info = self._detail(error_details_pb2.ErrorInfo)
        return str(info.reason) if info.domain == _DOMAIN else ""

    @property
    def metadata(self) -> dict[str, str]:
        """What the server added to its reason; empty where it added nothing."""
        info = self._detail(error_details_pb2.ErrorInfo)
        return dict(info.metadata) if info.domain == _DOMAIN else {}

    @property
    def resource_type(self) -> str:
        """What kind of thing the error is about, such as "nst.v1.Job"; empty where the server did not say."""
        return str(self._detail(error_details_pb2.ResourceInfo).resource_type)

    @property
    def retry_after(self) -> float | None:
        """Seconds after which the server suggests to try again; None where it suggests nothing."""
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
    """One field of a request that is not as it must be."""

    field: str
    """Path of the field in the request: "options.iterations", "styles[0].picture" ..."""
    description: str
    """What is wrong, and what is accepted."""


class InvalidRequestError(NstError):
    """A field of the request is not as it must be; found by the client or by the server."""

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
        """What is wrong, field by field."""
        return tuple(
            Violation(field=violation.field, description=violation.description)
            for violation in self._detail(error_details_pb2.BadRequest).field_violations
        )


class ConnectionOptionsError(NstError):
    """The client was told to connect in a way that cannot be, or that would give a token away."""

    default_code = grpc.StatusCode.INVALID_ARGUMENT


class RequestTooLargeError(NstError):
    """The request has more bytes than the server accepts."""

    default_code = grpc.StatusCode.RESOURCE_EXHAUSTED

    @property
    def size(self) -> int | None:
        """Bytes of the request; None where the server did not say."""
        return self._integer("size_bytes") or self._from_message("size")

    @property
    def limit(self) -> int | None:
        """Bytes that the server accepts; None where it did not say."""
        return self._integer("limit_bytes") or self._from_message("limit")

    def _from_message(self, group: str) -> int | None:
        found = _TOO_LARGE.search(self.message)
        return int(found[group]) if found and found[group] else None


class QueueFullError(NstError):
    """As many jobs wait as may wait."""

    default_code = grpc.StatusCode.RESOURCE_EXHAUSTED


@dataclass(frozen=True, kw_only=True)
class Excess:
    """One quota of the caller that a request exceeds."""

    subject: str
    """Which quota it is, and whose."""
    description: str
    """What was asked for, and what is accepted."""


class QuotaExceededError(NstError):
    """The caller's token does not allow that much. There is a `retry_after` only where the same may succeed later."""

    default_code = grpc.StatusCode.RESOURCE_EXHAUSTED

    @property
    def quota(self) -> str:
        """Name of the first quota exceeded: "jobs", "pixels" or "iterations"."""
        return self.metadata.get("quota", "")

    @property
    def asked(self) -> int | None:
        """How much of it was asked for; None where the server did not say."""
        return self._integer("asked")

    @property
    def accepted(self) -> int | None:
        """How much of it is accepted; None where the server did not say."""
        return self._integer("accepted")

    @property
    def excesses(self) -> tuple[Excess, ...]:
        """Every quota exceeded."""
        return tuple(
            Excess(subject=violation.subject, description=violation.description)
            for violation in self._detail(error_details_pb2.QuotaFailure).violations
        )


class UnavailableError(NstError):
    """There is no server at the target, the connection broke, or the server is warming up or draining."""

    default_code = grpc.StatusCode.UNAVAILABLE


class StoreError(NstError):
    """The server cannot keep a job or look for one: its store is full, may not be written to, or does not answer.

    `reason` is "STORE_FULL", "STORE_READ_ONLY" or "STORE_UNAVAILABLE".
    """

    default_code = grpc.StatusCode.UNAVAILABLE


class DoesNotFitError(NstError):
    """The job needs more memory than its device has."""

    default_code = grpc.StatusCode.FAILED_PRECONDITION

    @property
    def needed(self) -> int | None:
        """Bytes that the job needs; None where the server did not say."""
        return self._integer("needed_bytes")

    @property
    def available(self) -> int | None:
        """Bytes that the device has; None where the server did not say."""
        return self._integer("available_bytes")

    @property
    def largest_image_size(self) -> int | None:
        """The largest `image_size` that fits, in pixels; 0 where none does, None where the server did not say."""
        return self._integer("largest_image_size")


class DeadlineExceededError(NstError):
    """The timeout passed before there was a picture, or the server saw at once that it was too short."""

    default_code = grpc.StatusCode.DEADLINE_EXCEEDED

    @property
    def estimated(self) -> float | None:
        """Seconds that the job would take, its wait included; None where the server did not say."""
        return self._number("estimated_seconds")

    @property
    def remaining(self) -> float | None:
        """Seconds that the timeout left; None where the server did not say."""
        return self._number("remaining_seconds")


class JobNotFoundError(NstError):
    """No job has this id."""

    default_code = grpc.StatusCode.NOT_FOUND


class PictureNotFoundError(NstError):
    """A request names a picture by a SHA-256 that the server does not have; the client then sends its bytes."""

    default_code = grpc.StatusCode.NOT_FOUND


class RequestConflictError(NstError):
    """The same caller has used this `request_id` for another request."""

    default_code = grpc.StatusCode.ALREADY_EXISTS


class JobCancelledError(NstError):
    """The job was cancelled before there was a picture."""

    default_code = grpc.StatusCode.CANCELLED


class UnauthenticatedError(NstError):
    """The server, or something in front of it, wants other credentials."""

    default_code = grpc.StatusCode.UNAUTHENTICATED


class PermissionDeniedError(NstError):
    """The server knows who calls, and does not allow that to them."""

    default_code = grpc.StatusCode.PERMISSION_DENIED


class UnsupportedError(NstError):
    """The target does not serve this call: another service, or another version of it."""

    default_code = grpc.StatusCode.UNIMPLEMENTED


class InternalError(NstError):
    """The server failed, through no fault of the request."""

    default_code = grpc.StatusCode.INTERNAL


class ProtocolError(NstError):
    """The server sent something that the contract rules out."""

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
"""Where the code alone does not tell."""

_BY_RESOURCE = MappingProxyType({"nst.v1.Picture": PictureNotFoundError})
"""By the type of the resource that is not found, where it is no job."""

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
"""For statuses that gRPC itself makes."""


def from_rpc_error(error: grpc.RpcError) -> NstError:
    """Return the exception for a failed call, sync or asyncio."""
    code = error.code()
    status = _rich_status(error)
    plain = None if status else _PLAIN_MESSAGES.get(code)
    message = plain or error.details() or code.value[1]
    plain_error = NstError(message, code=code, status=status)
    kind = _BY_REASON.get(plain_error.reason) or _BY_RESOURCE.get(plain_error.resource_type) or _BY_CODE[code]
    if kind is JobCancelledError and not (status and status.details):
        # gRPC says so where a server stops at the moment at which the call reaches it: nobody has cancelled a job.
        kind = UnavailableError
    if kind is NstError and code is grpc.StatusCode.RESOURCE_EXHAUSTED and _TOO_LARGE.search(message):
        kind = RequestTooLargeError
    return kind(message, code=code, status=status)


def _rich_status(error: Any) -> status_pb2.Status | None:
    try:
        return rpc_status.from_call(error)
    except (ValueError, DecodeError):
        # Details that contradict their own status tell nothing; the status itself still counts.
        return None


@contextlib.contextmanager
def rpc_errors() -> Iterator[None]:
    """Raise the `NstError` for a call that fails inside."""
    try:
        yield
    except grpc.RpcError as error:
        raise from_rpc_error(error) from error
