"""The exceptions of the client, and the table from gRPC statuses to them."""

import contextlib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from http import HTTPStatus
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


_HTTP_STATUS = re.compile(r"Received http2 header with status: (?P<status>\d{3})\b")
"""The message of gRPC for a call that was answered with a page instead of a gRPC status."""
_KNOWN_PAGES = frozenset(HTTPStatus)
_TRANSIENT_PAGES = frozenset({HTTPStatus.REQUEST_TIMEOUT, HTTPStatus.TOO_EARLY, HTTPStatus.TOO_MANY_REQUESTS})
"""The HTTP statuses below 500 that the same request need not get again."""
_EXPLANATIONS = MappingProxyType(
    {
        re.compile(pattern, re.DOTALL): explanation
        for pattern, explanation in (
            ("WRONG_VERSION_NUMBER", "the server does not use TLS, but this client does: leave TLS out"),
            (
                "Hostname Verification Check failed|not in peer certificate",
                "the server's certificate is for another name than that of the target; "
                "server_name (--server-name) accepts another name",
            ),
            ("certificate has expired", "the server's certificate has expired"),
            (
                "CERTIFICATE_VERIFY_FAILED",
                "the server's certificate comes from no accepted authority; ca (--ca) names the authority",
            ),
            (
                "Failed parsing HTTP/2|Trying to connect an http1",
                "the server at the target does not speak gRPC, or requires TLS",
            ),
            (
                "failed to connect.*(Socket closed|Connection reset|connection closed)",
                "the server closes the connection: it may require TLS (--tls) or a client certificate (--certificate)",
            ),
        )
    }
)
"""What to do about messages with which gRPC says that there is no connection."""
_CLOSED = re.compile("channel closed", re.IGNORECASE)
"""The message of gRPC for a call whose channel this process has closed."""


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
    """The request has more bytes than the server, or a proxy in front of it, accepts."""

    default_code = grpc.StatusCode.RESOURCE_EXHAUSTED

    @property
    def size(self) -> int | None:
        """The size of the request in bytes; None if the server did not say."""
        return self._integer("size_bytes") or self._from_message("size")

    @property
    def limit(self) -> int | None:
        """The largest size that the server accepts, in bytes; None if it did not say."""
        return self._integer("limit_bytes") or self._from_message("limit")

    @property
    def http_status(self) -> int | None:
        """The HTTP status of the proxy that refused the request; None if the server itself refused it."""
        return self._integer("http_status")

    def _from_message(self, group: str) -> int | None:
        found = _TOO_LARGE.search(self.message)
        return int(found[group]) if found and found[group] else None


class QueueFullError(NstError):
    """The queue of the server is full, or the server has too many open calls."""

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
        "TOO_MANY_CALLS": QueueFullError,
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


def from_rpc_error(error: grpc.RpcError, *, size: int | None = None) -> NstError:
    """Return the exception for a failed call of `grpc` or `grpc.aio`.

    Args:
        error: the error of the call.
        size: the size of its request in bytes; None if it is unknown.
    """
    code = error.code()
    status = _rich_status(error)
    page = None if status else _HTTP_STATUS.search(error.details() or "")
    if page is not None:
        return _from_page(int(page["status"]), code, size)
    plain = None if status else _PLAIN_MESSAGES.get(code)
    if plain is not None and _CLOSED.search(error.details() or ""):
        plain = "the client was closed"
    message = plain or error.details() or code.value[1]
    if code is grpc.StatusCode.UNAVAILABLE and status is None:
        message = _explained(message)
    plain_error = NstError(message, code=code, status=status)
    kind = _BY_REASON.get(plain_error.reason) or _BY_RESOURCE.get(plain_error.resource_type) or _BY_CODE[code]
    if kind is JobCancelledError and not (status and status.details):
        # gRPC sends it when a server stops at the moment at which the call reaches it. Nobody has cancelled a job.
        kind = UnavailableError
    if kind is NstError and code is grpc.StatusCode.RESOURCE_EXHAUSTED and _TOO_LARGE.search(message):
        kind = RequestTooLargeError
    return kind(message, code=code, status=status)


def _explained(message: str) -> str:
    """Return why there is no connection in words, with the message of gRPC, if that names a known cause."""
    for pattern, explanation in _EXPLANATIONS.items():
        if pattern.search(message):
            return f"{explanation} ({message})"
    return message


def _from_page(http: int, code: grpc.StatusCode, size: int | None) -> NstError:
    """Return the exception for a call that a proxy or another web server has answered with a page of its own."""
    phrase = f" ({HTTPStatus(http).phrase})" if http in _KNOWN_PAGES else ""
    answer = f"the HTTP status {http}{phrase}"
    if http == HTTPStatus.REQUEST_ENTITY_TOO_LARGE:
        metadata = {"http_status": str(http)} | ({} if size is None else {"size_bytes": str(size)})
        detail = AnyMessage()
        detail.Pack(error_details_pb2.ErrorInfo(reason="REQUEST_TOO_LARGE", domain=_DOMAIN, metadata=metadata))
        request = "the request" if size is None else f"the request of {size} bytes"
        message = f"{request} is too large for a proxy in front of the server, which answers with {answer}"
        status = status_pb2.Status(code=code_pb2.RESOURCE_EXHAUSTED, message=message, details=[detail])
        return RequestTooLargeError(message, status=status)
    message = f"a proxy in front of the server, or another web server, answers with {answer}"
    is_final = http < HTTPStatus.INTERNAL_SERVER_ERROR and http not in _TRANSIENT_PAGES
    if is_final and _BY_CODE[code] is InternalError:
        # The same request gets the same page again.
        return UnsupportedError(message)
    return _BY_CODE[code](message, code=code)


def _rich_status(error: Any) -> status_pb2.Status | None:
    try:
        return rpc_status.from_call(error)
    except (ValueError, DecodeError):
        # Details that contradict their own status are useless; the status itself still counts.
        return None


@contextlib.contextmanager
def rpc_errors(*, size: int | None = None) -> Iterator[None]:
    """Raise the `NstError` for a call that fails in the body.

    Args:
        size: the size of its request in bytes; None if it is unknown.
    """
    try:
        yield
    except grpc.RpcError as error:
        raise from_rpc_error(error, size=size) from error
